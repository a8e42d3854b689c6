"""Which reading slots are free: one high mark and at most eight gaps (SPEC 11.4, 11.6)."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.regional.state import MAX_GAPS, Member

END = 0xFFFFFFFF


def member() -> Member:
    return Member(bytes(33), "c", 0, 0)


class SetModel:
    """Every slot one by one; the seqs after ``LAST``, which never come, are one."""

    BOOTS, LAST = 6, 12

    def __init__(self) -> None:
        self.used: set[tuple[int, int]] = set()
        self.free = {(b, s) for b in range(1, self.BOOTS + 1) for s in range(1, self.LAST + 2)}

    def fill(self, slot: tuple[int, int]) -> None:
        self.used.add(slot)
        self.free.discard(slot)
        for run in self.runs()[:-MAX_GAPS]:
            self.free -= run

    def runs(self) -> list[set[tuple[int, int]]]:
        """Give the runs of free slots below the highest used one, oldest first, boot by boot."""
        highest = max(self.used)
        runs: list[set[tuple[int, int]]] = []
        last = None
        for slot in sorted(self.free):
            if slot > highest and slot[0] >= highest[0]:
                break
            if last is None or slot != (last[0], last[1] + 1):
                runs.append(set())
            runs[-1].add(slot)
            last = slot
        return runs


SLOTS = st.tuples(st.integers(1, SetModel.BOOTS), st.integers(1, SetModel.LAST))


@given(st.lists(SLOTS, max_size=60))
def test_free_slots_are_those_never_filled_in_the_newest_eight_runs(slots):
    known, model = member(), SetModel()
    for slot in slots:
        assert known.may_fill(slot) == (slot in model.free), (slot, known.gaps)
        if known.may_fill(slot):
            known.fill(slot)
            model.fill(slot)
        assert len(known.gaps) <= MAX_GAPS
        assert list(known.gaps) == sorted(known.gaps)
    for boot in range(1, SetModel.BOOTS + 1):
        for seq in range(1, SetModel.LAST + 2):
            assert known.may_fill((boot, seq)) == ((boot, seq) in model.free)


@given(st.lists(SLOTS, max_size=40))
def test_member_leaf_survives_its_encoding(slots):
    known = member()
    for slot in slots:
        if known.may_fill(slot):
            known.fill(slot)
    assert Member.decode(known.encode()) == known


def test_readings_of_a_boot_that_was_passed_over_are_free():
    """Two restarts while offline, and the newest reading arrives before the journal."""
    known = member()
    known.fill((1, 10))
    known.fill((4, 2))
    for slot in [(4, 1), (3, 7), (2, 1), (1, 11), (1, 3), (1, END)]:
        assert known.may_fill(slot), slot
        known.fill(slot)
        assert not known.may_fill(slot)


def test_jump_over_all_boots_costs_eight_gaps():
    known = member()
    known.fill((1, 1))
    known.fill((END, END))
    assert len(known.gaps) == MAX_GAPS
    assert known.gaps[-1] == (END, 1, END - 1)
    assert not known.may_fill((1, 2))
    assert not known.may_fill((END, END))


def test_end_of_a_boot_leaves_no_gap_behind_it():
    known = member()
    known.fill((1, END))
    known.fill((2, 1))
    assert known.gaps == ((1, 1, END - 1),)


def test_filling_the_middle_of_a_gap_splits_it():
    known = member()
    known.fill((1, 10))
    known.fill((1, 5))
    assert known.gaps == ((1, 1, 4), (1, 6, 9))
    known.fill((1, 1))
    known.fill((1, 9))
    assert known.gaps == ((1, 2, 4), (1, 6, 8))
