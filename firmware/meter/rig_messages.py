"""What rig and meter say to each other on the rig channel: CBOR arrays that start with a number.

Rig to meter: PROVISION, SAMPLE, STOP, IDENTIFY. Meter to rig: ENROL, LINK, VOTED, HEAD, UNRECEIPTED
and EVENT.
Shapes stand beside the functions that make them; ``decode`` checks the shape and nothing else.
"""

from ledger.protocol import cbor, records
from ledger.protocol.errors import MalformedRecord

try:
    from typing import Any
except ImportError:
    pass

# rig to meter
PROVISION = 1
SAMPLE = 2
STOP = 3
IDENTIFY = 4

# meter to rig
ENROL = 17
LINK = 18
VOTED = 19
HEAD = 20
UNRECEIPTED = 21
EVENT = 22

_INTEGERS = {SAMPLE: 4, VOTED: 4, HEAD: 2, UNRECEIPTED: 1}
_LENGTHS = {
    PROVISION: 2,
    SAMPLE: 6,
    STOP: 1,
    IDENTIFY: 1,
    ENROL: 2,
    LINK: 2,
    VOTED: 5,
    HEAD: 3,
    UNRECEIPTED: 2,
    EVENT: 2,
}


def provision(settings: bytes) -> bytes:
    """Give the meter its settings (ledger.protocol.settings), to be kept on its flash."""
    return cbor.dumps([PROVISION, settings])


def sample(
    time_s: int, interval_s: int, round_ms: int, flags: int, values: "list[tuple[int, int]]"
) -> bytes:
    """Give one measurement: Unix time of the trace, what came before it, wall time a round.

    ``values`` are (quantity code, thousandths of the unit) in rising order of code.
    """
    pairs = [[code, value] for code, value in values]
    return cbor.dumps([SAMPLE, time_s, interval_s, round_ms, flags, pairs])


def stop() -> bytes:
    """End the program."""
    return cbor.dumps([STOP])


def identify() -> bytes:
    """Ask for the enrolment request of a program that has started already."""
    return cbor.dumps([IDENTIFY])


def enrol(envelope: bytes) -> bytes:
    """Tell the meter's key: its signed enrolment request. Sent at start and when asked."""
    return cbor.dumps([ENROL, envelope])


def link(online: bool) -> bytes:
    """Tell that the link to the broker is up or down."""
    return cbor.dumps([LINK, online])


def voted(round_: int, accepts: int, rejects: int, abstains: int) -> bytes:
    """Tell that a ballot was published, and what it holds."""
    return cbor.dumps([VOTED, round_, accepts, rejects, abstains])


def head(height: int, round_: int) -> bytes:
    """Tell that a head was adopted."""
    return cbor.dumps([HEAD, height, round_])


def unreceipted(count: int) -> bytes:
    """Tell how many readings wait in the journal for a receipt."""
    return cbor.dumps([UNRECEIPTED, count])


def event(text: str) -> bytes:
    """Tell something that a person should see."""
    return cbor.dumps([EVENT, text])


def decode(data: bytes) -> "list[Any]":
    """Take a message apart: [number, fields...]; raises MalformedRecord for an unknown shape."""
    fields = records.array(cbor.loads(data), 1, 6, "rig message")
    number = records.integer(fields[0], 1, 255, "rig message number")
    if _LENGTHS.get(number) != len(fields):
        raise MalformedRecord("rig message has another length")
    for value in fields[1 : 1 + _INTEGERS.get(number, 0)]:
        records.integer(value, 0, (1 << 40) - 1, "rig message field")
    if number in (PROVISION, ENROL) and not isinstance(fields[1], bytes):
        raise MalformedRecord("rig message field is not bytes")
    if number == SAMPLE:
        for pair in records.array(fields[5], 0, records.MAX_VALUES, "values"):
            records.integer(records.array(pair, 2, 2, "value")[0], 1, 0xFFFF, "quantity")
            records.integer(pair[1], -(1 << 62), 1 << 62, "value")
    return fields
