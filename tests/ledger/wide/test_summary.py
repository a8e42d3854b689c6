"""The summary record (SPEC 13.2)."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import cbor, records
from ledger.protocol.cose import MAX_RECORD_BYTES, Envelope
from ledger.protocol.errors import MalformedRecord
from ledger.wide.summary import MAX_ADJUSTMENTS, MAX_ENERGY, Summary
from tests.ledger.keys_of import signer

PLAIN = Summary(
    chain=b"widechan",
    region=b"region..",
    from_height=10,
    to_height=25,
    from_round=150,
    to_round=164,
    energy_in=1_000_000,
    energy_out=0,
    power=(-5_000, 900_000),
    voltage=(229_000, 231_500),
    frequency=None,
    accepted=300,
    rejected=2,
    unconfirmed=1,
    members=20,
    alarms=0,
    witnessed_height=24,
    witnessed_digest=b"w" * 32,
    log_size=25,
    log_root=b"l" * 32,
    adjustments=((3, 1, 0, 0), (9, 0, 2, 5)),
)

COUNT = 0xFFFFFFFF
LONGEST = dataclasses.replace(
    PLAIN,
    from_height=COUNT - 1,
    to_height=COUNT,
    from_round=COUNT,
    to_round=COUNT + 0xFFFF,
    energy_in=MAX_ENERGY,
    energy_out=MAX_ENERGY,
    power=(-(1 << 62), 1 << 62),
    voltage=(-(1 << 62), 1 << 62),
    frequency=(-(1 << 62), 1 << 62),
    accepted=COUNT,
    rejected=COUNT,
    unconfirmed=COUNT,
    members=COUNT,
    alarms=COUNT,
    witnessed_height=COUNT,
    log_size=COUNT,
    adjustments=tuple((COUNT - MAX_ADJUSTMENTS + i, *[COUNT] * 3) for i in range(MAX_ADJUSTMENTS)),
)


@pytest.mark.parametrize("summary", [PLAIN, LONGEST], ids=["plain", "longest"])
def test_summary_comes_back_from_its_payload(summary: Summary) -> None:
    assert Summary.decode(summary.payload()) == summary


def test_payload_has_the_layout_of_the_specification() -> None:
    assert cbor.loads(PLAIN.payload()) == [
        *(7, 1, b"widechan", b"region..", 10, 25, 150, 164, 1_000_000, 0),
        *([-5_000, 900_000], [229_000, 231_500], None),
        *([300, 2, 1, 20], 0, [24, b"w" * 32], [25, b"l" * 32]),
        [[3, 1, 0, 0], [9, 0, 2, 5]],
    ]


def test_longest_summary_fits_into_a_record() -> None:
    envelope = signer("gateway").seal(LONGEST.payload())
    assert len(envelope.raw) <= MAX_RECORD_BYTES
    assert Envelope.parse(envelope.raw).payload == LONGEST.payload()


BROKEN = {
    "no heights": {"to_height": 10},
    "heights run back": {"from_height": 25, "to_height": 10},
    "rounds run back": {"to_round": 149},
    "log of another size": {"log_size": 26},
    "witnessed beyond its heights": {"witnessed_height": 26},
    "highest below lowest": {"power": (5, 4)},
    "negative energy": {"energy_in": -1},
    "energy beyond 63 bits": {"energy_out": MAX_ENERGY + 1},
    "negative count": {"rejected": -1},
    "a flag as a number": {"alarms": True},
    "short digest": {"log_root": b"l" * 31},
    "region's id of nine bytes": {"region": b"region..."},
    "adjustments out of order": {"adjustments": ((9, 0, 0, 1), (3, 1, 0, 0))},
    "one window adjusted twice": {"adjustments": ((3, 0, 0, 1), (3, 1, 0, 0))},
    "too many adjustments": {"adjustments": tuple((i, 0, 0, 0) for i in range(33))},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=list(BROKEN))
def test_broken_field_is_refused(change: dict[str, object]) -> None:
    broken = dataclasses.replace(PLAIN, **change)  # type: ignore[arg-type]
    with pytest.raises(MalformedRecord):
        Summary.decode(broken.payload())


def test_other_record_is_not_a_summary() -> None:
    with pytest.raises(MalformedRecord, match="type 8"):
        Summary.decode(records.Close(b"widechan", 7).payload())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(st.integers(0, 17), VALUES)
def test_any_value_in_any_field_is_read_back_or_refused(place: int, value: object) -> None:
    fields = cbor.loads(PLAIN.payload())
    fields[place] = value
    payload = cbor.dumps(fields)
    try:
        summary = Summary.decode(payload)
    except MalformedRecord:
        return
    assert summary.payload() == payload


@given(st.binary(max_size=300))
def test_any_bytes_give_a_summary_or_one_error(data: bytes) -> None:
    try:
        Summary.decode(data)
    except MalformedRecord:
        return


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_gives_a_summary_or_one_error(place: int, flip: int) -> None:
    payload = bytearray(LONGEST.payload())
    payload[place % len(payload)] ^= flip
    try:
        Summary.decode(bytes(payload))
    except MalformedRecord:
        return
