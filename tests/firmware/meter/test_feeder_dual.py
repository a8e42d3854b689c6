"""The model of the feeder: what it explains, what it leaves over, and what it forgets."""

from firmware.meter.feeder import Feeder
from ledger.protocol.errors import MalformedRecord
from tests.firmware.meter.street import COUNT, Street


def play(feeder, street, rounds, lie=None, absent=(), distrust=()):
    """Let the feeder see rounds; gives the largest rest (mV) of each meter."""
    largest = [0] * street.count
    trusted = bytearray([0 if i in distrust else 1 for i in range(street.count)])
    for _ in range(rounds):
        measured = street.step()
        feeder.begin()
        for i in range(street.count):
            voltage, current = measured[i]
            if lie is not None:
                voltage = lie(i, voltage)
            measured[i] = voltage, current
            if i not in absent:
                feeder.put(i, voltage, current)
        feeder.fit(street.round)
        for i in range(street.count):
            rest = feeder.rest(i, street.round, measured[i][0], measured[i][1])
            if rest is not None and i not in absent:
                largest[i] = max(largest[i], abs(rest))
        feeder.learn(street.round, trusted)
    return largest


def learnt(rounds=600, **options):
    street = Street(**options)
    feeder = Feeder(street.count)
    play(feeder, street, rounds)
    return feeder, street


def test_loads_of_volts_leave_tenths_of_a_volt():
    feeder, street = learnt()
    spread = [0] * COUNT
    for _ in range(200):
        measured = street.step()
        for i in range(COUNT):
            spread[i] = max(spread[i], abs(measured[i][0] - measured[0][0]))
    assert max(spread) > 8_000
    assert max(play(feeder, street, 200)) < 700


def test_tap_change_of_the_whole_feeder_is_no_rest():
    feeder, street = learnt(tap_every=100_000)
    quiet = max(play(feeder, street, 100))
    street._busbar += 6_000
    assert max(play(feeder, street, 3)) <= max(quiet, 500)


def test_rest_of_a_liar_is_its_lie_and_others_keep_theirs():
    feeder, street = learnt()
    lie = [0] * COUNT
    lie[5] = 3_000
    largest = play(feeder, street, 20, lambda i, v: v + lie[i], distrust=(5,))
    assert 2_300 < largest[5] < 3_700
    # less than half of what is rejected at once
    assert max(largest[:5] + largest[6:]) < 1_500


def test_two_liars_of_eight_are_told_from_the_others_wherever_they_are():
    feeder, _ = learnt()
    saved = feeder.export()
    for gang in ((0, 7), (1, 6), (2, 5), (3, 4), (0, 1), (6, 7)):
        other, street = Feeder(COUNT), Street(seed=11)
        other.restore(saved)
        extra = [4_000 * (i in gang) for i in range(COUNT)]
        largest = play(other, street, 20, lambda i, v, extra=extra: v + extra[i], distrust=gang)
        honest = max([largest[i] for i in range(COUNT) if i not in gang])
        assert min([largest[i] for i in gang]) > max(2_500, honest), (gang, largest)


def test_model_that_is_wrong_for_half_of_the_meters_is_doubted_and_for_two_is_not():
    for moved, doubted in (((1, 3, 5, 7), True), ((2, 5), False)):
        feeder, street = learnt()
        play(feeder, street, 1, lambda i, v, moved=moved: v + 5_000 * (i in moved))
        assert feeder.doubts() == doubted
    play(feeder, street, 5)
    assert not feeder.doubts()


def test_absent_meters_are_no_error_of_those_present():
    feeder, street = learnt()
    assert max(play(feeder, street, 40, absent=(2, 7))) < 2_000


def test_three_voltages_make_no_neighbourhood():
    feeder, street = learnt()
    play(feeder, street, 1, absent=(3, 4, 5, 6, 7))
    assert feeder.rest(1, street.round, 230_000, 0) is None


def test_dead_and_impossible_voltages_are_absent():
    feeder, street = learnt()
    feeder.begin()
    for i in range(4):
        feeder.put(i, (0, 49_999, 500_001, 230_000)[i], 0)
    assert not feeder.fit(street.round + 1)


def test_rests_of_the_last_eight_rounds_are_kept():
    feeder, street = learnt()
    measured = street.step()
    feeder.begin()
    for i in range(COUNT):
        feeder.put(i, measured[i][0], measured[i][1])
    feeder.fit(street.round)
    asked = street.round
    then = feeder.rest(2, asked, measured[2][0], measured[2][1])
    play(feeder, street, 7)
    again = feeder.rest(2, asked, measured[2][0], measured[2][1])
    assert then is not None and again is not None
    assert abs(again - then) < 100
    play(feeder, street, 1)
    assert feeder.rest(2, asked, measured[2][0], measured[2][1]) is None


def test_place_is_the_meters_error_and_not_its_load():
    street = Street()
    feeder = Feeder(street.count)
    play(feeder, street, 900, lambda i, v: v + 5_000 * (i == 4))
    places = [feeder.place_mv(i) for i in range(COUNT)]
    assert 3_500 < places[4] < 6_500, places
    assert max([abs(places[i]) for i in range(COUNT) if i != 4]) < 2_400, places


def test_export_is_taken_up_whole():
    feeder, street = learnt()
    other = Feeder(COUNT)
    other.restore(feeder.export())
    assert other.export() == feeder.export()
    assert max(play(other, street, 50)) < 700


def test_export_of_another_size_is_refused():
    feeder, _ = learnt(rounds=5)
    for data in (b"", feeder.export()[:-1], feeder.export() + b"x", Feeder(3).export()):
        try:
            feeder.restore(data)
        except MalformedRecord:
            continue
        raise AssertionError("taken up: " + str(len(data)))


def test_what_is_known_of_those_that_stay_is_kept():
    feeder, _ = learnt()
    former = [0, 1, 3, -1, 5]
    other = feeder.rearranged(former)
    for i in range(5):
        if former[i] < 0:
            assert other.learnt(i) == 0
        else:
            assert other.learnt(i) == feeder.learnt(former[i])
            assert other.spread_mv(i) == feeder.spread_mv(former[i])
    again = other.rearranged([0, 1, -1, 2, -1, 4, -1, -1])
    assert again.learnt(3) == feeder.learnt(3)


def test_large_cluster_takes_only_the_own_load_into_account():
    street = Street(count=20)
    feeder = Feeder(20)
    play(feeder, street, 600)
    assert len(feeder.export()) == 20 * (4 + 4 + 2 + 2 + 2)
    small = feeder.rearranged([0, 1, 2, 3, 4])
    assert small.learnt(4) == feeder.learnt(4)
    assert small.rearranged([i for i in range(5)] + [-1] * 20).learnt(4) == feeder.learnt(4)


def test_a_round_allocates_nothing():
    import sys

    if sys.implementation.name != "micropython":
        return
    import micropython

    feeder, street = learnt(rounds=60)
    measured = street.step()
    trusted = bytearray([1] * COUNT)
    voltages = [one[0] for one in measured]
    currents = [one[1] for one in measured]
    round_ = street.round
    count = COUNT
    failed = None
    micropython.heap_lock()
    try:
        feeder.begin()
        for i in range(count):
            feeder.put(i, voltages[i], currents[i])
        feeder.fit(round_)
        for i in range(count):
            feeder.rest(i, round_, voltages[i], currents[i])
        feeder.learn(round_, trusted)
    except MemoryError as error:
        failed = error
    micropython.heap_unlock()
    assert failed is None
