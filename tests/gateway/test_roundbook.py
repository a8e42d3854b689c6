"""Rounds open and close by what more than a minority says, whatever times a member signs."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.roundbook import (
    BACKLOG,
    DUPLICATE,
    EARLY,
    HELD,
    PATIENCE,
    SETTLE_S,
    ClockPace,
    Entry,
    Instant,
    RoundBook,
    TracePace,
)
from ledger.protocol.records import BALLOT, MAX_TIME, READING, REGISTRY_CHANGE

TIMEOUT_S = 10.0
FAR = 0xFFFFFFFF


class Bench:
    """A book with a counter of rows and a clock in one number."""

    def __init__(self, members: int, *, last: int = 99, per_member: int = 64, most: int = 10_000):
        self.members = [bytes([i]) * 16 for i in range(1, members + 1)]
        self.book = RoundBook(
            TracePace(TIMEOUT_S, 60), last, self.members, per_member=per_member, most=most
        )
        self.row = 0
        self.now = Instant(0.0, 0.0)

    def wait(self, seconds: float) -> None:
        self.now = Instant(self.now.wall + seconds, self.now.steady + seconds)

    def add(self, member: int, kind: int, round_: int | None, salt: int = 0) -> str:
        return self.put(self.entry(member, kind, round_, salt))[0]

    def entry(self, member: int, kind: int, round_: int | None, salt: int = 0) -> Entry:
        self.row += 1
        text = f"{member} {kind} {round_} {salt}".encode()
        digest = hashlib.sha256(text).digest()
        return Entry(self.row, kind, round_, self.members[member], digest, text)

    def put(self, entry: Entry) -> tuple[str, list[Entry]]:
        return self.book.add(entry, self.now)

    def due(self) -> int | None:
        return self.book.due(self.now)

    def close(self, round_: int) -> list[Entry]:
        """Take a round out and close it, as the engine in this process does at once."""
        taken = self.book.take(round_)
        for entry in taken:
            assert self.book.settle(entry.address, entry.digest) is entry
        self.book.closed(round_)
        return taken

    def ballots(self, members: range, round_: int) -> None:
        """Add whole ballots: the members' readings of the round, then their ballots."""
        for kind in (READING, BALLOT):
            for member in members:
                self.add(member, kind, round_)


def test_round_is_due_when_every_expected_ballot_is_in() -> None:
    bench = Bench(4)
    bench.add(3, READING, 100)
    bench.ballots(range(3), 100)
    assert bench.due() is None
    bench.add(3, BALLOT, 100)
    assert bench.due() == 100


def test_reading_that_a_broker_delivers_after_its_ballot_is_waited_for() -> None:
    bench = Bench(4)
    bench.add(3, BALLOT, 100)
    bench.ballots(range(3), 100)
    assert bench.due() is None
    assert bench.book.wait_s(bench.now) == SETTLE_S
    bench.add(3, READING, 100)
    assert bench.due() == 100


def test_reading_that_never_comes_costs_the_settling_time_only() -> None:
    bench = Bench(4)
    bench.add(3, BALLOT, 100)
    bench.ballots(range(3), 100)
    assert bench.due() is None
    bench.wait(SETTLE_S)
    assert bench.due() == 100


def test_timeout_counts_from_the_moment_a_third_is_in_the_round() -> None:
    bench = Bench(6)
    bench.add(0, READING, 100)
    bench.wait(1000)
    assert bench.due() is None
    assert bench.book.wait_s(bench.now) is None
    bench.add(1, READING, 100)
    assert bench.book.wait_s(bench.now) == TIMEOUT_S
    bench.wait(TIMEOUT_S - 0.1)
    assert bench.due() is None
    bench.wait(0.2)
    assert bench.due() == 100


def test_a_later_round_counts_as_reached_too() -> None:
    bench = Bench(6)
    bench.add(0, READING, 100)
    bench.add(1, READING, 105)
    bench.wait(TIMEOUT_S)
    assert bench.due() == 100
    bench.close(100)
    # 105 has one member only
    assert bench.due() is None


def test_rounds_without_records_are_left_out() -> None:
    bench = Bench(3)
    bench.add(0, READING, 5000)
    bench.wait(TIMEOUT_S)
    assert bench.due() == 5000


def test_a_due_round_brings_the_lower_ones_first() -> None:
    bench = Bench(3)
    bench.add(0, READING, 101)
    bench.ballots(range(3), 103)
    assert bench.due() == 101
    assert [e.round for e in bench.close(101)] == [101]
    assert bench.due() == 103


def test_timeouts_of_rounds_run_side_by_side() -> None:
    bench = Bench(3)
    bench.add(0, READING, 100)
    bench.wait(4)
    bench.add(0, READING, 101)
    bench.wait(6)
    assert bench.due() == 100
    bench.close(100)
    assert bench.due() is None
    bench.wait(4)
    assert bench.due() == 101


def test_late_records_and_registry_changes_go_with_the_next_close() -> None:
    bench = Bench(3)
    bench.add(0, READING, 42)
    bench.add(0, REGISTRY_CHANGE, None)
    assert bench.due() is None
    bench.ballots(range(3), 100)
    assert bench.due() == 100
    rounds = [e.round for e in bench.close(100)]
    assert rounds == [42, None, *[100] * 6]
    assert len(bench.book) == 0


def test_member_silent_for_some_closes_is_not_waited_for() -> None:
    bench = Bench(4)
    for round_ in range(100, 101 + PATIENCE):
        bench.ballots(range(3), round_)
        assert bench.due() is None
        bench.wait(TIMEOUT_S)
        assert bench.due() == round_
        bench.close(round_)
    round_ = 101 + PATIENCE
    bench.ballots(range(3), round_)
    assert bench.due() == round_
    bench.close(round_)
    # it speaks again, and is waited for again
    bench.add(3, READING, round_ + 1)
    bench.ballots(range(3), round_ + 1)
    assert bench.due() is None


def test_the_same_record_twice_is_a_duplicate() -> None:
    bench = Bench(3)
    assert bench.add(0, READING, 100) == HELD
    assert bench.add(0, READING, 100) == DUPLICATE
    assert len(bench.book) == 1


def test_two_ballots_of_one_member_count_once() -> None:
    bench = Bench(3)
    for salt in range(5):
        bench.add(0, BALLOT, 100, salt)
    bench.add(1, BALLOT, 100)
    assert bench.due() is None


def test_flood_of_the_future_gives_way_to_the_members_own_present() -> None:
    bench = Bench(3, per_member=4)
    for i in range(10):
        bench.add(0, READING, FAR - i)
    entry = bench.entry(0, READING, 100)
    placed, out = bench.put(entry)
    assert placed == HELD
    assert [e.round for e in out] == [FAR - 6]
    assert bench.add(0, READING, FAR) == BACKLOG


def test_late_backlog_gives_way_to_the_present() -> None:
    bench = Bench(3, per_member=4)
    for i in range(6):
        bench.add(0, READING, 10 + i)
    placed, out = bench.put(bench.entry(0, BALLOT, 100))
    assert placed == HELD and len(out) == 1
    assert len(bench.book) == 4


def test_full_book_refuses_the_future_only() -> None:
    bench = Bench(3, most=2)
    bench.add(0, READING, 5000)
    bench.add(1, READING, 42)
    assert bench.add(2, READING, 6000) == BACKLOG
    assert bench.add(2, READING, 100) == HELD


def test_flood_of_registry_changes_by_one_operator_is_bounded() -> None:
    bench = Bench(3, per_member=4)
    operator = bytes(16)
    rows = [Entry(i, REGISTRY_CHANGE, None, operator, bytes([i]) * 32, b"") for i in range(10)]
    placed = [bench.put(row)[0] for row in rows]
    assert placed == [HELD] * 4 + [BACKLOG] * 6


def test_trace_pace_refuses_rounds_that_no_head_can_close() -> None:
    pace = TracePace(TIMEOUT_S, 60)
    assert not pace.refuses(FAR, Instant(0.0, 0.0))
    assert pace.refuses(FAR + 1, Instant(0.0, 0.0))
    day = TracePace(TIMEOUT_S, 86_400)
    assert not day.refuses(MAX_TIME // 86_400 - 1, Instant(0.0, 0.0))
    assert day.refuses(MAX_TIME // 86_400, Instant(0.0, 0.0))


def test_clock_pace_refuses_rounds_that_cannot_be_yet() -> None:
    book = RoundBook(ClockPace(60, 2.0), 9, [bytes(16)], per_member=9, most=9)
    now = Instant(630.0, 0.0)  # round 10
    for round_, placed in ((10, HELD), (11, HELD), (12, EARLY)):
        entry = Entry(round_, READING, round_, bytes(16), bytes([round_]) * 32, b"")
        assert book.add(entry, now)[0] == placed
    assert book.due(Instant(661.9, 0.0)) is None
    assert book.wait_s(Instant(661.5, 0.0)) == 0.5
    assert book.due(Instant(662.0, 0.0)) == 10
    book.take(10)
    book.closed(10)
    assert book.due(Instant(662.0, 0.0)) is None


def test_clock_that_jumps_back_closes_nothing_and_loses_nothing() -> None:
    book = RoundBook(ClockPace(60, 2.0), 9, [bytes(16)], per_member=9, most=9)
    book.add(Entry(1, READING, 10, bytes(16), bytes(32), b""), Instant(630.0, 0.0))
    assert book.due(Instant(0.0, 0.0)) is None
    assert len(book) == 1
    assert book.due(Instant(700.0, 0.0)) == 10


# several gateways


def test_submitted_record_is_a_duplicate_until_it_is_settled() -> None:
    bench = Bench(3)
    bench.ballots(range(3), 100)
    taken = bench.book.take(100)
    assert len(bench.book) == len(taken) == 6
    assert bench.put(taken[0])[0] == DUPLICATE
    assert bench.book.holds(taken[0].address, taken[0].digest)
    assert bench.book.settle(taken[0].address, taken[0].digest) == taken[0]
    assert bench.book.settle(taken[0].address, taken[0].digest) is None
    assert len(bench.book) == 5
    assert not bench.book.holds(taken[0].address, taken[0].digest)


def test_what_is_left_when_another_gateway_closes_a_round_is_late() -> None:
    bench = Bench(3)
    bench.add(0, READING, 100)
    bench.add(1, READING, 101)
    bench.add(2, READING, 102)
    bench.book.closed(101)
    assert bench.book.last == 101
    assert list(bench.book.open_rounds()) == [102]
    bench.ballots(range(3), 102)
    assert bench.due() == 102
    assert sorted(e.round or 0 for e in bench.book.take(102))[:2] == [100, 101]


def test_record_that_another_gateway_brought_in_is_let_go_wherever_it_waits() -> None:
    bench = Bench(3)
    held, late = bench.entry(0, READING, 100), bench.entry(1, READING, 42)
    for entry in (held, late):
        bench.put(entry)
        assert bench.book.settle(entry.address, entry.digest) == entry
    assert len(bench.book) == 0
    assert list(bench.book.open_rounds()) == []


def test_close_of_an_older_round_changes_nothing() -> None:
    bench = Bench(3)
    bench.ballots(range(3), 100)
    bench.book.take(100)
    bench.add(0, READING, 101)
    bench.book.closed(99)
    assert bench.book.last == 100
    assert list(bench.book.open_rounds()) == [101]


def test_member_that_another_gateway_heard_is_waited_for() -> None:
    bench = Bench(3)
    for round_ in range(100, 100 + PATIENCE + 3):
        bench.book.closed(round_, bench.members[:2])
    assert bench.book.expected() == set(bench.members[:2])


def test_submitted_records_fill_a_members_share_and_are_not_put_out() -> None:
    # the chain stands still: what was submitted may come in at any time
    bench = Bench(3, per_member=2)
    bench.ballots(range(3), 100)
    bench.book.take(100)
    assert bench.add(0, READING, 101) == BACKLOG
    assert len(bench.book) == 6


# properties

STEPS = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.sampled_from([READING, BALLOT, REGISTRY_CHANGE]),
        st.one_of(st.integers(90, 110), st.integers(0, FAR)),
        st.sampled_from([0.0, 0.1, 5.0, 100.0]),
    ),
    max_size=80,
)


def round_of(kind: int, round_: int) -> int | None:
    return None if kind == REGISTRY_CHANGE else round_


@given(STEPS)
def test_less_than_a_third_never_makes_a_round_due(
    steps: list[tuple[int, int, int, float]],
) -> None:
    bench = Bench(9)
    for salt, (member, kind, round_, pause) in enumerate(steps):
        bench.add(member % 2, kind, round_of(kind, round_), salt)
        bench.wait(pause)
        assert bench.due() is None


@given(STEPS, st.integers(2, 20))
def test_every_record_comes_out_once_or_is_named_as_put_out(
    steps: list[tuple[int, int, int, float]], per_member: int
) -> None:
    bench = Bench(9, per_member=per_member)
    inside: dict[int, Entry] = {}
    closed = [bench.book.last]
    for salt, (member, kind, round_, pause) in enumerate(steps):
        entry = bench.entry(member, kind, round_of(kind, round_), salt // 2)
        placed, out = bench.put(entry)
        if placed == HELD:
            inside[entry.row] = entry
        for old in out:
            del inside[old.row]
        bench.wait(pause)
        while (due := bench.due()) is not None:
            assert due > closed[-1]
            closed.append(due)
            for taken in bench.close(due):
                del inside[taken.row]
                assert taken.round is None or taken.round <= due
        assert len(bench.book) == len(inside)
        wait_s = bench.book.wait_s(bench.now)
        assert wait_s is None or wait_s > 0
    for member in bench.members:
        own = [e for e in inside.values() if e.address == member and e.round is not None]
        assert len(own) <= per_member


@given(
    STEPS,
    st.lists(st.tuples(st.sampled_from(["take", "close", "settle"]), st.integers(0, 110))),
)
def test_nothing_is_lost_whoever_closes_rounds(
    steps: list[tuple[int, int, int, float]], others: list[tuple[str, int]]
) -> None:
    bench = Bench(9, per_member=100)
    inside: dict[bytes, Entry] = {}
    for salt, (member, kind, round_, _) in enumerate(steps):
        entry = bench.entry(member, kind, round_of(kind, round_), salt)
        if bench.put(entry)[0] == HELD:
            inside[entry.digest] = entry
        if salt >= len(others):
            continue
        what, number = others[salt]
        if what == "take" and (due := bench.due()) is not None:
            assert {e.digest for e in bench.book.take(due)} <= set(inside)
        elif what == "close":
            bench.book.closed(number)
        elif what == "settle" and inside:
            gone = inside.pop(sorted(inside)[number % len(inside)])
            assert bench.book.settle(gone.address, gone.digest) == gone
        assert len(bench.book) == len(inside)
        assert all(r > bench.book.last for r in bench.book.open_rounds())
        assert all(bench.book.holds(e.address, e.digest) for e in inside.values())


@pytest.mark.parametrize("seed", range(40))
def test_honest_records_come_in_with_their_round_whatever_two_of_nine_do(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench(9, per_member=16)
    honest = range(2, 9)

    def attack() -> None:
        for _ in range(rng.randrange(6)):
            member = rng.randrange(2)
            round_ = rng.choice([bench.book.last + rng.randrange(-3, 9), rng.randrange(FAR)])
            bench.add(member, rng.choice([READING, BALLOT]), max(0, round_), rng.randrange(99))

    def close() -> dict[int, int]:
        counts: dict[int, int] = {}
        while (due := bench.due()) is not None:
            mine = {e.address for e in bench.close(due) if e.round == due}
            counts[due] = len(mine & {bench.members[i] for i in honest})
        return counts

    for round_ in range(100, 130):
        counts: dict[int, int] = {}
        for kind in (READING, BALLOT):
            for member in honest:
                attack()
                bench.wait(rng.uniform(0, 0.5))
                counts |= close()
                bench.add(member, kind, round_)
        # within the timeout of the first honest record, so the round is still open
        bench.wait(TIMEOUT_S)
        counts |= close()
        assert counts.get(round_) == len(honest), (round_, counts)
        bench.wait(rng.choice([0.0, 60.0]))
        counts = close()
        assert all(r <= round_ for r in counts)
