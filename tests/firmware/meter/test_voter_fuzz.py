"""Hostile readings and damaged flash: a ballot of declared verdicts, or one declared error."""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.meter.voter import Voter
from ledger.protocol import quantities as q
from ledger.protocol import records
from ledger.protocol.errors import MalformedRecord

T = 60
FIRST = 1000
NEIGHBOURS = [bytes([97 + i]) * 16 for i in range(5)]
HUGE = st.integers(-(1 << 62), 1 << 62)
LIKELY = {
    q.VOLTAGE: st.integers(200_000, 260_000),
    q.CURRENT: st.integers(0, 2_000_000),
    q.ACTIVE_POWER: st.integers(-(10**9), 10**9),
    q.FREQUENCY: st.integers(49_900, 50_100),
    q.ENERGY_IMPORT: st.integers(0, 10**13),
}
VALUES = st.fixed_dictionaries(
    {}, optional={code: likely | HUGE for code, likely in LIKELY.items()}
).filter(bool)
READING = st.tuples(
    VALUES,
    st.integers(-20, 20) | st.just(0),  # rounds that the clock is off
    st.integers(1, 3) | st.just(1),  # boot
    st.integers(0, 15),  # flags
)
ROUND = st.lists(st.none() | READING, min_size=6, max_size=6)


def make(round_: int, seq: int, parts: tuple[dict[int, int], int, int, int]) -> records.Reading:
    values, shift, boot, flags = parts
    time = max(0, (round_ + shift) * T)
    pairs = sorted(values.items())
    return records.Reading(bytes(8), boot, seq, time, T, flags, 0, bytes(32), pairs)


@settings(max_examples=60)
@given(st.lists(ROUND, min_size=1, max_size=30))
def test_any_readings_give_ballots_that_decode(rounds: list[list]) -> None:
    voter = Voter(bytes(8), T, NEIGHBOURS)
    said: dict[bytes, int] = {}
    for number, row in enumerate(rounds):
        round_ = FIRST + number
        own, *others = row
        honest = ({q.VOLTAGE: 230_000, q.FREQUENCY: 50_000, q.ENERGY_IMPORT: number}, 0, 1, 0)
        voter.open_round(make(round_, number + 1, (own or honest)[:1] + honest[1:]))
        for address, parts in zip(NEIGHBOURS, others, strict=True):
            if parts is not None:
                reading = make(round_, number + 1, parts)
                digest = sha256(address + reading.payload()).digest()
                voter.take(address, reading, digest)
        ballot = records.decode(voter.vote(bytes(32)).payload())
        assert isinstance(ballot, records.Ballot)
        for digest, verdict in ballot.verdicts:
            assert verdict in records.VERDICT_NAMES
            before = said.setdefault(digest, verdict)
            if before != records.ABSTAIN and verdict != records.ABSTAIN:
                assert records.is_reject(before) == records.is_reject(verdict)
    again = Voter(bytes(8), T, NEIGHBOURS)
    again.restore(voter.export())
    assert again.export() == voter.export()


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_up_or_refused_by_the_one_error(data: bytes) -> None:
    voter = Voter(bytes(8), T, NEIGHBOURS)
    try:
        voter.restore(data)
    except MalformedRecord:
        pass
    voter.open_round(make(FIRST, 1, ({q.VOLTAGE: 230_000}, 0, 1, 0)))
    voter.vote(bytes(32))


@given(st.data())
def test_damaged_numbers_in_what_was_saved_never_stop_a_vote(data: st.DataObject) -> None:
    good = bytearray(Voter(bytes(8), T, NEIGHBOURS).export())
    for _ in range(data.draw(st.integers(1, 40))):
        good[data.draw(st.integers(90, len(good) - 1))] = data.draw(st.integers(0, 255))
    voter = Voter(bytes(8), T, NEIGHBOURS)
    try:
        voter.restore(bytes(good))
    except MalformedRecord:
        return
    for number in range(6):
        voter.open_round(make(FIRST + number, number + 1, ({q.VOLTAGE: 230_000 + number}, 0, 1, 0)))
        for i, address in enumerate(NEIGHBOURS):
            values = {q.VOLTAGE: 231_000 - i * number, q.CURRENT: 9_000 * i, q.ACTIVE_POWER: 10**6}
            reading = make(FIRST + number, number + 1, (values, 0, 1, 0))
            voter.take(address, reading, sha256(address + reading.payload()).digest())
        voter.vote(bytes(32))
