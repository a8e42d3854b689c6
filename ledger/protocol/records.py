"""The records of version 1 (SPEC section 4): payload arrays and their field limits.

Each class gives ``payload()`` (the exact bytes to be signed inside the envelope) and takes a
decoded array apart in ``parse``; ``decode(payload)`` chooses by the type number. Decoding checks
the shape and every field's range and nothing else: membership, slots, rounds and plausibility are
rules of the chain (ledger/regional) or of the judge (firmware/meter/judge).
"""

from ledger.protocol import cbor, quantities
from ledger.protocol.errors import MalformedRecord

try:
    from typing import Any
except ImportError:
    pass

VERSION = 1
CHAIN_BYTES = 8
DIGEST_BYTES = 32
NO_DIGEST = bytes(DIGEST_BYTES)

# numbers of the record types; 4 (burst) and 5 (command) are reserved
READING = 1
BALLOT = 2
HEAD = 3
REGISTRY_CHANGE = 6
SUMMARY = 7
CLOSE = 8
ENROLMENT = 9
NETWORK_CHANGE = 10  # of nodes, not of meters: ledger/network.py takes it apart

MAX_VALUES = 16
MAX_VERDICTS = 24
MAX_LATE_VERDICTS = 10
MAX_ROUND = 0xFFFFFFFF
MAX_TIME = (1 << 40) - 1
_MAX_ITEMS = 256  # a summary of 32 adjustments has 192, a full ballot 78

# flags of a reading
CLOCK_UNSYNCHRONISED = 1
REGISTER_RESET = 2
COVER_OPEN = 4
SIMULATED_INPUT = 8
_ALL_FLAGS = 15

# verdicts: 0 and 1, and the reasons of a reject
ABSTAIN = 0
ACCEPT = 1
REJECT_SEQUENCE = 16
REJECT_TIME = 17
REJECT_RANGE = 18
REJECT_REGISTER = 19
REJECT_FREQUENCY = 20
REJECT_VOLTAGE = 21
REJECT_FROZEN = 22
REJECT_DRIFT = 23
_FIRST_REJECT = 16
_LAST_REJECT = 63

VERDICT_NAMES = {
    ABSTAIN: "abstain",
    ACCEPT: "accept",
    REJECT_SEQUENCE: "reject: sequence",
    REJECT_TIME: "reject: time",
    REJECT_RANGE: "reject: range",
    REJECT_REGISTER: "reject: register",
    REJECT_FREQUENCY: "reject: frequency",
    REJECT_VOLTAGE: "reject: voltage",
    REJECT_FROZEN: "reject: frozen",
    REJECT_DRIFT: "reject: drift",
}

# actions of a registry change
JOIN = 1
LEAVE = 2


def encode(kind: int, chain: bytes, fields: "list[Any]") -> bytes:
    """Give the payload ``[type, version, chain, ...fields]`` that every record starts with."""
    return cbor.dumps([kind, VERSION, chain] + fields)


def is_reject(verdict: int) -> bool:
    """Tell whether a verdict rejects (SPEC 4.5)."""
    return verdict >= _FIRST_REJECT


def integer(value: "Any", low: int, high: int, name: str) -> int:
    """Give an integer field in [low, high]; raises MalformedRecord."""
    # bool is an int in Python, and True is not a number on the wire
    if not isinstance(value, int) or value is True or value is False or not low <= value <= high:
        raise MalformedRecord(name + " is not an integer in its range")
    return value


def octets(value: "Any", size: int, name: str) -> bytes:
    """Give a byte-string field of ``size`` bytes; raises MalformedRecord."""
    if not isinstance(value, bytes) or len(value) != size:
        raise MalformedRecord(name + " is not " + str(size) + " bytes")
    return value


def array(value: "Any", low: int, high: int, name: str) -> "list[Any]":
    """Give an array field of ``low`` to ``high`` items; raises MalformedRecord."""
    if not isinstance(value, list) or not low <= len(value) <= high:
        raise MalformedRecord(name + " is not an array of its length")
    return value


def text(value: "Any", longest: int, name: str) -> str:
    """Give a text field of at most ``longest`` characters; raises MalformedRecord."""
    if not isinstance(value, str) or len(value) > longest:
        raise MalformedRecord(name + " is not a text of its length")
    return value


class Reading:
    """Type 1: one signed measurement of one meter.

    ``time`` (Unix s) is the instant of measurement and names the round; ``interval_s`` is the time
    before it that interval quantities cover. ``values`` is [(quantity code, thousandths), ...] in
    rising order of code. ``previous`` is the digest of the meter's previous reading.
    """

    TYPE = READING

    def __init__(
        self,
        chain: bytes,
        boot: int,
        seq: int,
        time: int,
        interval_s: int,
        flags: int,
        lost: int,
        previous: bytes,
        values: "list[tuple[int, int]]",
    ) -> None:
        self.chain = chain
        self.boot = boot
        self.seq = seq
        self.time = time
        self.interval_s = interval_s
        self.flags = flags
        self.lost = lost
        self.previous = previous
        self.values = values

    def payload(self) -> bytes:
        """Give the CBOR payload."""
        values = [[code, value] for code, value in self.values]
        fields = [self.boot, self.seq, self.time, self.interval_s, self.flags, self.lost]
        return encode(READING, self.chain, fields + [self.previous, values])

    def value(self, code: int) -> "int | None":
        """Give the value of a quantity in thousandths of its unit, or None where it is absent."""
        for own, value in self.values:
            if own == code:
                return value
        return None

    @staticmethod
    def parse(chain: bytes, fields: "list[Any]") -> "Reading":
        """Take the fields after type, version and chain apart; raises MalformedRecord."""
        array(fields, 8, 8, "reading")
        values = []
        newest = 0
        for pair in array(fields[7], 1, MAX_VALUES, "values"):
            code, value = array(pair, 2, 2, "value")
            integer(code, newest + 1, 0xFFFF, "quantity (in rising order)")
            if code not in quantities.BY_CODE:
                raise MalformedRecord("quantity " + str(code) + " is not in the table")
            values.append((code, integer(value, -(1 << 62), 1 << 62, "value")))
            newest = code
        return Reading(
            chain,
            integer(fields[0], 1, 0xFFFFFFFF, "boot"),
            integer(fields[1], 1, 0xFFFFFFFF, "seq"),
            integer(fields[2], 0, MAX_TIME, "time"),
            integer(fields[3], 1, 86_400, "interval"),
            integer(fields[4], 0, _ALL_FLAGS, "flags"),
            integer(fields[5], 0, 0xFFFFFFFF, "lost"),
            octets(fields[6], DIGEST_BYTES, "previous"),
            values,
        )


class Ballot:
    """Type 2: a member's verdicts of one round, [(digest, verdict), ...], and the head it names."""

    TYPE = BALLOT

    def __init__(
        self, chain: bytes, round_: int, parent: bytes, verdicts: "list[tuple[bytes, int]]"
    ) -> None:
        self.chain = chain
        self.round = round_
        self.parent = parent
        self.verdicts = verdicts

    def payload(self) -> bytes:
        """Give the CBOR payload."""
        verdicts = [[digest, verdict] for digest, verdict in self.verdicts]
        return encode(BALLOT, self.chain, [self.round, self.parent, verdicts])

    @staticmethod
    def parse(chain: bytes, fields: "list[Any]") -> "Ballot":
        """Take the fields after type, version and chain apart; raises MalformedRecord."""
        array(fields, 3, 3, "ballot")
        verdicts = []
        seen = set()
        for pair in array(fields[2], 0, MAX_VERDICTS, "verdicts"):
            digest, verdict = array(pair, 2, 2, "verdict")
            octets(digest, DIGEST_BYTES, "digest")
            if digest in seen:
                raise MalformedRecord("a ballot names one reading twice")
            seen.add(digest)
            integer(verdict, ABSTAIN, _LAST_REJECT, "verdict")
            if ACCEPT < verdict < _FIRST_REJECT:
                raise MalformedRecord("verdict number is not assigned")
            verdicts.append((digest, verdict))
        return Ballot(
            chain,
            integer(fields[0], 0, MAX_ROUND, "round"),
            octets(fields[1], DIGEST_BYTES, "parent"),
            verdicts,
        )


class Head:
    """Type 3: the header of a closed round. All roots and digests are 32 bytes."""

    TYPE = HEAD

    def __init__(
        self,
        chain: bytes,
        height: int,
        round_: int,
        time: int,
        previous: bytes,
        records_root: bytes,
        record_count: int,
        results_root: bytes,
        state_root: bytes,
        history_root: bytes,
    ) -> None:
        self.chain = chain
        self.height = height
        self.round = round_
        self.time = time
        self.previous = previous
        self.records_root = records_root
        self.record_count = record_count
        self.results_root = results_root
        self.state_root = state_root
        self.history_root = history_root

    def payload(self) -> bytes:
        """Give the CBOR payload."""
        fields = [self.height, self.round, self.time, self.previous, self.records_root]
        fields += [self.record_count, self.results_root, self.state_root, self.history_root]
        return encode(HEAD, self.chain, fields)

    @staticmethod
    def parse(chain: bytes, fields: "list[Any]") -> "Head":
        """Take the fields after type, version and chain apart; raises MalformedRecord."""
        array(fields, 9, 9, "head")
        return Head(
            chain,
            integer(fields[0], 1, MAX_ROUND, "height"),
            integer(fields[1], 0, MAX_ROUND, "round"),
            integer(fields[2], 0, MAX_TIME, "time"),
            octets(fields[3], DIGEST_BYTES, "prev"),
            octets(fields[4], DIGEST_BYTES, "records root"),
            integer(fields[5], 0, 0xFFFFFFFF, "record count"),
            octets(fields[6], DIGEST_BYTES, "results root"),
            octets(fields[7], DIGEST_BYTES, "state root"),
            octets(fields[8], DIGEST_BYTES, "history root"),
        )


class RegistryChange:
    """Type 6: an operator's approval of one change of the members.

    ``number`` counts the changes of the region from 1. ``action`` is JOIN or LEAVE, ``public_key``
    the member's compressed key, ``cluster`` a text of 1 to 32 characters ("" for LEAVE).
    """

    TYPE = REGISTRY_CHANGE

    def __init__(
        self, chain: bytes, number: int, action: int, public_key: bytes, cluster: str
    ) -> None:
        self.chain = chain
        self.number = number
        self.action = action
        self.public_key = public_key
        self.cluster = cluster

    def payload(self) -> bytes:
        """Give the CBOR payload."""
        fields = [self.number, self.action, self.public_key, self.cluster]
        return encode(REGISTRY_CHANGE, self.chain, fields)

    @staticmethod
    def parse(chain: bytes, fields: "list[Any]") -> "RegistryChange":
        """Take the fields after type, version and chain apart; raises MalformedRecord."""
        array(fields, 4, 4, "registry change")
        action = integer(fields[1], JOIN, LEAVE, "action")
        cluster = text(fields[3], 32, "cluster")
        if (action == JOIN) != (cluster != ""):
            raise MalformedRecord("a cluster goes with joining and only with it")
        if cluster and not is_cluster_name(cluster):
            raise MalformedRecord("cluster name is not of letters, digits, '-' and '_'")
        return RegistryChange(
            chain,
            integer(fields[0], 1, 0xFFFFFFFF, "number"),
            action,
            octets(fields[2], 33, "public key"),
            cluster,
        )


class Close:
    """Type 8: a gateway's order to close a round."""

    TYPE = CLOSE

    def __init__(self, chain: bytes, round_: int) -> None:
        self.chain = chain
        self.round = round_

    def payload(self) -> bytes:
        """Give the CBOR payload."""
        return encode(CLOSE, self.chain, [self.round])

    @staticmethod
    def parse(chain: bytes, fields: "list[Any]") -> "Close":
        """Take the fields after type, version and chain apart; raises MalformedRecord."""
        array(fields, 1, 1, "close")
        return Close(chain, integer(fields[0], 0, MAX_ROUND, "round"))


class Enrolment:
    """Type 9: a new meter's request: its key (which signs the request) and a hardware name."""

    TYPE = ENROLMENT

    def __init__(self, chain: bytes, public_key: bytes, hardware: str) -> None:
        self.chain = chain
        self.public_key = public_key
        self.hardware = hardware

    def payload(self) -> bytes:
        """Give the CBOR payload; ``chain`` is eight zero bytes while the meter has no region."""
        return encode(ENROLMENT, self.chain, [self.public_key, self.hardware])

    @staticmethod
    def parse(chain: bytes, fields: "list[Any]") -> "Enrolment":
        """Take the fields after type, version and chain apart; raises MalformedRecord."""
        array(fields, 2, 2, "enrolment")
        return Enrolment(
            chain, octets(fields[0], 33, "public key"), text(fields[1], 64, "hardware")
        )


def is_cluster_name(name: str) -> bool:
    """Tell whether a name may stand in a topic: 1 to 32 of a-z, A-Z, 0-9, '-', '_' (SPEC 6.2)."""
    if not 1 <= len(name) <= 32:
        return False
    for c in name:
        if not ("a" <= c <= "z" or "A" <= c <= "Z" or "0" <= c <= "9" or c in "-_"):
            return False
    return True


# "Any" for the checkers: MicroPython has no type to say "class with a parse"
_CLASSES: "dict[int, Any]" = {
    READING: Reading,
    BALLOT: Ballot,
    HEAD: Head,
    REGISTRY_CHANGE: RegistryChange,
    CLOSE: Close,
    ENROLMENT: Enrolment,
}


def split(payload: bytes) -> "tuple[int, bytes, list[Any]]":
    """Give (type, chain, further fields) of any record of version 1; raises MalformedRecord."""
    fields = cbor.loads(payload, _MAX_ITEMS)
    if not isinstance(fields, list) or len(fields) < 3:
        raise MalformedRecord("a payload is an array that starts with type, version, chain")
    kind = integer(fields[0], 1, 0xFFFF, "type")
    integer(fields[1], VERSION, VERSION, "version")
    return kind, octets(fields[2], CHAIN_BYTES, "chain"), fields[3:]


def decode(payload: bytes) -> "Any":
    """Decode a payload into its record class; raises MalformedRecord."""
    kind, chain, fields = split(payload)
    if kind not in _CLASSES:
        raise MalformedRecord("record type " + str(kind) + " is not known here")
    return _CLASSES[kind].parse(chain, fields)
