"""Whole votes on a street: the honest are left alone, the false found, the repaired believed."""

from firmware.meter.voter import Voter
from ledger.protocol import records as r
from ledger.protocol.errors import MalformedRecord
from tests.firmware.meter.street import CHAIN, COUNT, Street, T, Watcher


def ready(rounds=420):
    """Give a meter that has watched its street for hours; the first one learns, the others copy."""
    watcher = Watcher(Street(seed=3))
    watcher.run(rounds)
    return watcher


def liar(meter, change):
    """Make a lie of one meter's voltage."""

    def lie(i, voltage, frequency):
        return (change(voltage), frequency) if i == meter else (voltage, frequency)

    return lie


def first_rejected(watcher, lie, rounds, meter=4):
    for number in range(1, rounds + 1):
        found = watcher.step(lie)
        assert all(v == r.ACCEPT for i, v in found.items() if i != meter), found
        if r.is_reject(found[meter]):
            return number
    return None


def test_honest_street_is_accepted_from_the_first_round_on():
    for seed in (1, 2, 3):
        assert Watcher(Street(seed)).run(700) == [0] * COUNT


def test_scale_of_two_percent_and_offset_of_three_volts_are_rejected_within_ten_rounds():
    changes = (
        lambda v: v * 98 // 100,
        lambda v: v * 102 // 100,
        lambda v: v + 3_000,
        lambda v: v - 3_000,
    )
    for change in changes:
        number = first_rejected(ready(), liar(4, change), 10)
        assert number is not None, number


def test_scale_of_one_percent_and_drift_of_one_percent_an_hour_are_rejected_within_an_hour():
    assert first_rejected(ready(), liar(4, lambda v: v * 99 // 100), 60) is not None
    drifted = [0]

    def drift(voltage):
        drifted[0] += 40
        return voltage + drifted[0]

    watcher = ready()
    assert first_rejected(watcher, liar(4, drift), 60) is not None


def test_frozen_voltage_is_rejected_though_its_frequency_lives():
    assert first_rejected(ready(), liar(4, lambda v: 236_120), 12) is not None


def test_half_of_a_cluster_on_another_phase_is_not_accused_when_its_loads_come_on():
    watcher = ready()
    other = [0]

    def phase(i, voltage, frequency):
        return voltage - (other[0] * (i % 2)), frequency

    for fall in (1_000, 4_000, 8_000, 3_000, 9_000, 0, 6_000):
        other[0] = fall
        assert watcher.run(4, phase) == [0] * COUNT, fall


def test_repaired_meter_is_believed_within_four_rounds():
    watcher = ready()
    watcher.run(60, liar(4, lambda v: v + 3_000))
    found = [watcher.step()[4] for _ in range(8)]
    assert found[4:] == [r.ACCEPT] * 4


def test_one_dropout_does_not_discredit_the_readings_after_it():
    watcher = ready()
    assert watcher.step(liar(4, lambda v: 0))[4] == r.REJECT_VOLTAGE
    assert [watcher.step()[4] for _ in range(5)] == [r.ACCEPT] * 5


def test_error_from_the_first_reading_on_is_rejected_once_places_are_known():
    watcher = Watcher(Street(seed=5))
    lie = liar(4, lambda v: v + 12_000)
    watcher.run(420, lie)
    found = watcher.step(lie)
    assert found[4] == r.REJECT_VOLTAGE
    assert [v for i, v in found.items() if i != 4] == [r.ACCEPT] * (COUNT - 2)


def test_place_that_was_wrong_is_learnt_anew_after_a_repair():
    for wrong in (3_000, 7_000, 12_000):  # within the class of the meters, about at its end, beyond
        watcher = Watcher(Street(seed=5))
        watcher.run(420, liar(4, lambda v, wrong=wrong: v + wrong))
        watcher.run(40)
        assert watcher.run(40)[4] == 0, wrong


def test_place_that_was_right_is_kept_however_long_the_lie():
    watcher = ready()
    assert watcher.run(200, liar(4, lambda v: v + 5_000))[4] == 200
    watcher.run(4)
    assert watcher.run(20)[4] == 0


def test_restart_knows_what_was_saved():
    watcher = ready()
    watcher.restart()
    assert first_rejected(watcher, liar(4, lambda v: v * 102 // 100), 10) is not None


def test_restart_with_other_neighbours_keeps_those_that_stayed():
    watcher = ready()
    saved = watcher.voter.export()
    voter = Voter(CHAIN, T, watcher.names[2:] + [b"z" * 16])
    voter.restore(saved)
    assert voter._feeder.learnt(voter._neighbours[watcher.names[2]].profile.slot) > 400
    assert voter._feeder.learnt(voter._neighbours[b"z" * 16].profile.slot) == 0


def test_saved_bytes_that_are_none_are_refused():
    voter = Voter(CHAIN, T, [b"a" * 16])
    good = voter.export()
    for data in (
        b"",
        b"\x80",
        good[:-1],
        good + b"\x00",
        b"\x83\x01\x41a\x40",
        b"\x83\x02\x40\x40",
    ):
        try:
            voter.restore(data)
        except MalformedRecord:
            continue
        raise AssertionError("taken up: " + repr(data))


def test_clock_that_is_slow_is_rejected_and_a_link_that_was_lost_is_not():
    watcher = ready(60)
    rejected = 0
    for _ in range(8):
        watcher.step(shift=-15)
        rejected += list(watcher.given.values()).count(r.REJECT_TIME)
    assert rejected >= 4
    watcher = ready(60)
    watcher.run(3)
    for _ in range(12):
        assert 3 not in watcher.step(only=(1, 2, 4, 5, 6, 7))
    for _ in range(6):
        assert watcher.step()[3] == r.ACCEPT


def test_clock_that_is_fast_is_rejected_when_its_round_comes():
    watcher = ready(60)
    for _ in range(3):
        watcher.step(shift=5)
        assert r.REJECT_TIME not in watcher.given.values()
    rejected = 0
    for _ in range(8):
        watcher.step(only=(1, 2, 4, 5, 6, 7))
        rejected += list(watcher.given.values()).count(r.REJECT_TIME)
    assert rejected == 3


def test_meter_whose_own_clock_is_wrong_accuses_nobody_of_a_wrong_clock():
    watcher = ready(60)
    watcher.street.round -= 30  # this meter, and nobody else, is half an hour back
    for _ in range(10):
        watcher.step(only=())
        assert r.REJECT_TIME not in watcher.given.values()
