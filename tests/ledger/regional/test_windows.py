"""What windows add up: energy by register differences, never twice (SPEC 11.7)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.genesis import Parameters
from ledger.protocol import quantities, records, tally
from ledger.regional.aggregate import MAX_ENERGY, Aggregate
from ledger.regional.state import Member
from tests.ledger.regional.generate import ROUND_S
from tests.ledger.regional.lab import FIRST, WINDOW_ROUNDS, Lab

ACCEPT, REJECT = records.ACCEPT, records.REJECT_VOLTAGE
assert FIRST % WINDOW_ROUNDS == 0


@pytest.fixture
def lab():
    lab = Lab()
    yield lab
    lab.database.close()


def judged(lab: Lab, round_: int, *readings, verdict: int = ACCEPT) -> None:
    """Close a round with readings of meter 0 and the votes of all others on them."""
    lab.close(round_, *readings, *lab.ballots(round_, readings, verdict, voters=range(1, 5)))


def finish(lab: Lab) -> list[Aggregate]:
    """Close until the present window has ended; gives all windows."""
    width = lab.region.parameters.window_rounds
    last = lab.app.last_round
    if (last + 1) % width:
        lab.close(last - last % width + width - 1)
    return lab.windows()


def energy(lab: Lab) -> tuple[int, int]:
    windows = finish(lab)
    return sum(w.energy_in for w in windows), sum(w.energy_out for w in windows)


def test_energy_is_the_difference_of_registers_of_accepted_readings(lab):
    for i, register in enumerate([500, 700, 1000]):
        judged(lab, FIRST + i, lab.reading(0, FIRST + i, energy=register, export=10 * i))
    (window,) = finish(lab)
    assert (window.energy_in, window.energy_out) == (500, 20)
    assert (window.accepted, window.rejected, window.unconfirmed, window.members) == (3, 0, 0, 5)


def test_gap_is_bridged_by_the_next_accepted_reading(lab):
    judged(lab, FIRST, lab.reading(0, FIRST, energy=500))
    judged(lab, FIRST + 1, lab.reading(0, FIRST + 1, energy=9999), verdict=REJECT)
    judged(lab, FIRST + 4, lab.reading(0, FIRST + 4, energy=1000))
    (window,) = finish(lab)
    assert (window.energy_in, window.accepted, window.rejected) == (500, 2, 1)


def test_register_that_runs_back_is_not_negative_energy(lab):
    for i, register in enumerate([500, 100, 150]):
        judged(lab, FIRST + i, lab.reading(0, FIRST + i, energy=register))
    assert energy(lab) == (50, 0)


def test_second_reading_of_an_instant_counts_no_energy(lab):
    time = FIRST * ROUND_S
    for i, (when, register) in enumerate([(time, 500), (time, 100), (time + 1, 700)]):
        judged(lab, FIRST + i, lab.reading(0, FIRST + i, time=when, energy=register))
    assert energy(lab) == (200, 0)


def test_no_energy_is_counted_across_a_register_reset(lab):
    judged(lab, FIRST, lab.reading(0, FIRST, energy=500, export=100))
    reset = records.REGISTER_RESET
    judged(lab, FIRST + 1, lab.reading(0, FIRST + 1, energy=800, export=300, flags=reset))
    judged(lab, FIRST + 2, lab.reading(0, FIRST + 2, energy=850, export=310))
    assert energy(lab) == (50, 10)


def test_reset_that_is_settled_late_is_seen_before_newer_readings(lab):
    """Three readings settle in one block: the reset's register is the base of the newest one."""
    judged(lab, FIRST, lab.reading(0, FIRST, energy=500))
    reset = lab.reading(0, FIRST + 1, energy=3, flags=records.REGISTER_RESET)
    after = lab.reading(0, FIRST + 2, energy=13)
    lab.close(FIRST + 1, reset)
    lab.close(FIRST + 2, after)
    newest = lab.reading(0, FIRST + 3, energy=600)
    everyone = range(1, 5)
    lab.close(FIRST + 3, newest, *lab.ballots(FIRST + 3, [reset, after, newest], voters=everyone))
    assert energy(lab) == (597, 0)


def test_register_that_some_readings_leave_out_is_counted_once(lab):
    for i, export in enumerate([5000, None, 5100, None, None, 5150]):
        judged(lab, FIRST + i, lab.reading(0, FIRST + i, energy=0, export=export))
    assert energy(lab) == (0, 150)


def test_register_that_appears_later_starts_from_what_it_shows(lab):
    for i, export in enumerate([None, None, 70_000, 70_001]):
        judged(lab, FIRST + i, lab.reading(0, FIRST + i, energy=0, export=export))
    assert energy(lab) == (0, 1)


def test_meter_with_an_export_register_alone_is_counted(lab):
    for i, export in enumerate([100, 250]):
        values = [(quantities.ENERGY_EXPORT, export)]
        judged(lab, FIRST + i, lab.reading(0, FIRST + i, values=values))
    assert energy(lab) == (0, 150)


def test_implausible_values_are_not_added_up_whoever_accepted_them(lab):
    values = [
        (quantities.VOLTAGE, -1),
        (quantities.ACTIVE_POWER, 1 << 62),
        (quantities.FREQUENCY, 70_001),
        (quantities.ENERGY_IMPORT, 1 << 62),
        (quantities.ENERGY_EXPORT, -1),
    ]
    judged(lab, FIRST, lab.reading(0, FIRST, energy=100))
    judged(lab, FIRST + 1, lab.reading(0, FIRST + 1, values=values))
    judged(lab, FIRST + 2, lab.reading(0, FIRST + 2, energy=150))
    (window,) = finish(lab)
    assert (window.energy_in, window.energy_out, window.accepted) == (50, 0, 3)
    assert window.extremes == ((1000, 1000), None, None)


def test_energy_stops_at_what_a_summary_can_say():
    most = quantities.BY_CODE[quantities.ENERGY_IMPORT].high
    aggregate = Aggregate(0, 1, energy_in=MAX_ENERGY - 5)
    member = Member(bytes(33), "c", 0, 0, register=(0, 0, None))
    reading = records.Reading(
        bytes(8), 1, 1, 1, 60, 0, 0, bytes(32), [(quantities.ENERGY_IMPORT, most)]
    )
    aggregate.settle(tally.ACCEPTED, 0, reading, member)
    assert aggregate.energy_in == MAX_ENERGY
    assert Aggregate.decode(aggregate.encode()) == aggregate


def test_late_acceptance_is_an_adjustment_that_names_its_window(lab):
    late = lab.reading(0, FIRST, energy=100)
    lab.close(FIRST, late)
    judged(lab, FIRST + 4, lab.reading(0, FIRST + 4, energy=200))
    judged(lab, FIRST + 6, lab.reading(0, FIRST + 6, energy=300))
    lab.close(FIRST + 7, *lab.ballots(FIRST + 7, [late], voters=range(1, 5)))
    first, second = finish(lab)
    assert (first.accepted, first.adjustments) == (1, {})
    assert (second.accepted, second.adjustments) == (1, {FIRST // WINDOW_ROUNDS: [1, 0, 0]})
    # its register came too late to tell more than the later ones have
    assert (first.energy_in, second.energy_in) == (0, 100)


def test_rejections_and_expiries_of_an_earlier_window_are_adjustments(lab):
    one, two = lab.reading(0, FIRST), lab.reading(1, FIRST)
    lab.close(FIRST, one, two)
    voters = range(2, 5)
    lab.close(FIRST + 6, *lab.ballots(FIRST + 6, [one], REJECT, voters=voters))
    lab.close(FIRST + 8)
    first, second = finish(lab)
    assert first.adjustments == {}
    assert second.adjustments == {FIRST // WINDOW_ROUNDS: [0, 1, 1]}
    assert (second.accepted, second.rejected, second.unconfirmed) == (0, 0, 0)


def test_skipped_rounds_and_windows_leave_contiguous_heights(lab):
    for round_ in (FIRST, FIRST + 3, FIRST + 22, FIRST + 24, FIRST + 60):
        judged(lab, round_, lab.reading(0, round_))
    windows = finish(lab)
    rows = lab.app.blocks.windows_after(0)
    assert [w.window - FIRST // WINDOW_ROUNDS for w in windows] == [0, 4, 12]
    heights = [(w.from_height, to) for w, (to, _) in zip(windows, rows, strict=True)]
    assert heights == [(1, 2), (3, 4), (5, 6)]
    assert sum(w.energy_in for w in windows) == 60_000


def test_window_of_one_round_ends_with_every_close():
    lab = Lab(parameters=Parameters(ROUND_S, 11, 8, 1))
    for i in range(4):
        judged(lab, FIRST + i, lab.reading(0, FIRST + i))
    assert [w.energy_in for w in lab.windows()] == [0, 1000, 1000, 1000]
    lab.database.close()


def test_extremes_are_of_accepted_readings(lab):
    def values(power):
        return [(1, 230_000 + power), (3, power), (5, 50_000 - power)]

    judged(lab, FIRST, lab.reading(0, FIRST, values=values(5)))
    judged(lab, FIRST + 1, lab.reading(0, FIRST + 1, values=values(900)), verdict=REJECT)
    judged(lab, FIRST + 2, lab.reading(0, FIRST + 2, values=values(-7)))
    (window,) = finish(lab)
    assert window.extremes == ((-7, 5), (229_993, 230_005), (49_995, 50_007))


def test_equivocations_and_suspensions_are_alarms(lab):
    lab.close(FIRST, lab.reading(0, FIRST), lab.reading(0, FIRST, power=1))
    (window,) = finish(lab)
    assert window.alarms == 3  # two readings and their signer
    assert (window.accepted, window.rejected, window.unconfirmed) == (0, 0, 0)
    assert window.members == 4


def test_window_carries_the_witnessed_height_of_its_end(lab):
    for i in range(10):
        lab.honest_round(FIRST + i)
    assert [w.witnessed for w in lab.windows()] == [4, 9]


STEP = st.tuples(
    st.sampled_from(["accept", "reject", "none", "late", "open", "skip", "silent"]),
    st.integers(0, 400),
    st.integers(1, 4),
)


@settings(max_examples=40)
@given(st.lists(STEP, min_size=1, max_size=14), st.integers(1, 6))
def test_windows_sum_up_to_the_last_register_less_the_first(steps, width):
    """Whatever is rejected, withheld, settled or delivered late, and wherever windows are cut."""
    lab = Lab(4, parameters=Parameters(ROUND_S, 11, 6, width))
    register, withheld, unsettled = 0, [], []
    counted: list[tuple[int, int]] = []  # (time, register) as they were accepted
    round_ = FIRST
    times = {}

    def accept(readings):
        for reading in readings:
            if not counted or times[reading.digest] > counted[-1]:
                counted.append(times[reading.digest])

    for i, (kind, rise, delay) in enumerate(steps):
        round_ += 3 * delay if kind == "skip" else 1
        register += rise
        reading = lab.reading(0, round_, seq=i + 1, energy=register)
        times[reading.digest] = (round_, register)
        due = [e for when, e in withheld if when <= round_]
        withheld = [pair for pair in withheld if pair[0] > round_]
        settling = [e for when, e in unsettled if when <= round_]
        unsettled = [pair for pair in unsettled if pair[0] > round_]
        fresh = [] if kind in ("silent", "late") else [reading]
        if kind == "late":
            withheld.append((round_ + delay, reading))
        if kind == "open":
            unsettled.append((round_ + delay, reading))
        verdicts = [(e, ACCEPT) for e in (*due, *settling)]
        if kind in ("accept", "skip"):
            verdicts.append((reading, ACCEPT))
        elif kind == "reject":
            verdicts.append((reading, REJECT))
        ballots = [lab.ballot(v, round_, verdicts) for v in (1, 2, 3)]
        lab.close(round_, *due, *fresh, *ballots)
        accepted = [e for e in (*settling, *due, reading) if lab.outcome(e) == tally.ACCEPTED]
        accept(sorted(accepted, key=lambda e: times[e.digest]))
    expected = counted[-1][1] - counted[0][1] if counted else 0
    assert energy(lab) == (expected, 0)
    stored = [row for row in lab.app.blocks.all_results() if row[2] == tally.ACCEPTED]
    late = [n for w in lab.windows() for n in w.adjustments.values()]
    assert sum(w.accepted for w in lab.windows()) + sum(n[0] for n in late) == len(stored)
    lab.database.close()
