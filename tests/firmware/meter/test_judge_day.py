"""The judge over the sample day: honest meters are left alone, liars are found.

Every voter of a cluster judges every neighbour, as on the boards but without signatures. Figures
over other recordings stand in docs/firmware.md.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.meter.history import History, Own
from firmware.meter.judge import Judge, Profile
from hil.clusters import split_clusters
from hil.enrich import Round, samples
from hil.traces import sample_day
from ledger.protocol import quantities as q
from ledger.protocol import records
from ledger.protocol.tally import ACCEPTED, REJECTED, count, outcome

CODES = {row.name: row.code for row in q.TABLE}
ROUNDS = 240
START = 120  # of an attack
Attack = Callable[[int, dict[int, int]], dict[int, int]]


@cache
def day() -> tuple[Round, ...]:
    """The busiest four hours of the sample day."""
    return tuple(part for part in samples(sample_day(), 7) if 1000 <= part.index < 1000 + ROUNDS)


@cache
def cluster() -> tuple[str, ...]:
    return split_clusters(sample_day().meters)[0].meters


class Cluster:
    """The meters of one cluster, each judging all others."""

    def __init__(self) -> None:
        self._names = cluster()
        self._judges = {name: Judge(60) for name in self._names}
        self._profiles = {
            (voter, name): Profile()
            for voter in self._names
            for name in self._names
            if voter != name
        }
        self._previous = dict.fromkeys(self._names, records.NO_DIGEST)

    def readings(
        self, part: Round, liar: str, lie: Attack
    ) -> Iterator[tuple[str, records.Reading]]:
        for name in self._names:
            values = {CODES[key]: value for key, value in part.measured[name].items()}
            if name == liar and part.index >= 1000 + START:
                values = lie(part.index, values)
            reading = records.Reading(
                bytes(8),
                1,
                part.index,
                part.time_s,
                60,
                0,
                0,
                self._previous[name],
                sorted(values.items()),
            )
            yield name, reading

    def play(self, part: Round, liar: str, lie: Attack) -> dict[str, dict[str, int]]:
        """Give the verdicts on each meter in one round, by voter."""
        found: dict[str, dict[str, int]] = {name: {} for name in self._names}
        readings = dict(self.readings(part, liar, lie))
        digests = {
            name: sha256(name.encode() + one.payload()).digest() for name, one in readings.items()
        }
        for voter in self._names:
            own = Own(part.time_s // 60, part.time_s, readings[voter].values)
            own.compare([one.value(q.FREQUENCY) or 0 for k, one in readings.items() if k != voter])
            for name in self._names:
                if name != voter:
                    profile = self._profiles[voter, name]
                    judge = self._judges[voter]
                    verdict = judge.judge(profile, readings[name], digests[name], own)
                    found[name][voter] = verdict
        self._previous = digests
        return found


def play(
    liar: str = "", lie: Attack = lambda _, values: values
) -> Iterator[dict[str, dict[str, int]]]:
    neighbours = Cluster()
    for part in day():
        yield neighbours.play(part, liar, lie)


def outcome_of(verdicts: dict[str, int]) -> int:
    accepts, rejects, _ = count(list(verdicts.values()))
    return outcome(len(verdicts), accepts, rejects)


def test_no_honest_reading_gets_anything_but_accept() -> None:
    counts: Counter[int] = Counter()
    for found in play():
        for verdicts in found.values():
            counts.update(verdicts.values())
    size = len(cluster())
    assert counts == {records.ACCEPT: ROUNDS * size * (size - 1)}


def scale(permille: int) -> Attack:
    return lambda _, values: values | {q.VOLTAGE: values[q.VOLTAGE] * permille // 1000}


def old(index: int, values: dict[int, int]) -> dict[int, int]:
    """The values of an hour before."""
    measured = day()[index - 1000 - 60].measured[cluster()[0]]
    return {CODES[key]: value for key, value in measured.items()}


def dead(_: int, values: dict[int, int]) -> dict[int, int]:
    return dict.fromkeys(values, 0)


def back(_: int, values: dict[int, int]) -> dict[int, int]:
    return values | {q.ENERGY_IMPORT: values[q.ENERGY_IMPORT] - 1_000_000}


@pytest.mark.parametrize(
    ("lie", "delay", "share"),
    [
        pytest.param(scale(900), 0, 100, id="voltage 10 % low"),
        pytest.param(scale(1100), 0, 100, id="voltage 10 % high"),
        pytest.param(scale(950), 6, 90, id="voltage 5 % low"),
        pytest.param(scale(1050), 0, 95, id="voltage 5 % high"),
        pytest.param(scale(970), 30, 50, id="voltage 3 % low"),
        pytest.param(scale(1030), 12, 60, id="voltage 3 % high"),
        pytest.param(old, 0, 99, id="old values newly signed"),
        pytest.param(dead, 0, 100, id="all values zero"),
        pytest.param(back, 0, 8, id="register runs back"),
    ],
)
def test_liar_is_rejected_and_the_honest_are_not(lie: Attack, delay: int, share: int) -> None:
    liar = cluster()[0]
    rejected = []
    for round_, found in enumerate(play(liar, lie)):
        for name, verdicts in found.items():
            if name != liar or round_ < START:
                assert outcome_of(verdicts) == ACCEPTED
                # the liar holds its own false values against others; nobody else objects
                objectors = {k for k, verdict in verdicts.items() if verdict != records.ACCEPT}
                assert objectors <= {liar}
            elif outcome_of(verdicts) == REJECTED:
                rejected.append(round_ - START)
    assert rejected[0] <= delay
    assert 100 * len(rejected) >= share * (ROUNDS - START)


VALUES = st.dictionaries(
    st.sampled_from(sorted(q.BY_CODE)), st.integers(-(1 << 62), 1 << 62) | st.integers(0, 300_000)
)
READINGS = st.builds(
    records.Reading,
    st.just(bytes(8)),
    st.integers(1, 3) | st.integers(1, 0xFFFFFFFF),
    st.integers(1, 6) | st.integers(1, 0xFFFFFFFF),
    st.integers(0, 1200) | st.integers(0, (1 << 40) - 1),
    st.integers(1, 86_400),
    st.integers(0, 15),
    st.integers(0, 0xFFFFFFFF),
    st.binary(min_size=32, max_size=32),
    VALUES.map(lambda values: sorted(values.items())),
)


@given(st.lists(st.tuples(READINGS, VALUES), max_size=30))
def test_any_readings_get_a_verdict_and_the_same_one_again(
    cases: list[tuple[records.Reading, dict[int, int]]],
) -> None:
    judge, profile, history = Judge(60), Profile(), History()
    for reading, own in cases:
        history.add(Own(reading.time // 60, reading.time, sorted(own.items())))
        digest = sha256(reading.payload()).digest()
        found = history.find(reading.time // 60)
        verdict = judge.judge(profile, reading, digest, found)
        assert verdict in records.VERDICT_NAMES
        assert judge.judge(profile, reading, digest, None) == verdict or (
            profile.memory.verdict(reading.boot, reading.seq, digest) is None
        )
