"""Ballots: who is in them, when a round is complete, and what comes late."""

from hashlib import sha256

from firmware.meter.voter import Voter
from ledger.protocol import quantities as q
from ledger.protocol import records as r

CHAIN = bytes(8)
PARENT = bytes(32)
T = 60
A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def reading(round_, seq=None, previous=bytes(32), voltage=230_000, frequency=50_000, boot=1):
    values = [
        (q.VOLTAGE, voltage),
        (q.ACTIVE_POWER, 0),
        (q.FREQUENCY, frequency),
        (q.ENERGY_IMPORT, 1_000_000),
    ]
    seq = round_ if seq is None else seq
    return r.Reading(CHAIN, boot, seq, round_ * T, T, 0, 0, previous, values)


def digest(who, record):
    return sha256(who + record.payload()).digest()


def give(voter, who, record):
    voter.take(who, record, digest(who, record))
    return digest(who, record)


def make(neighbours=(A, B, C)):
    return Voter(CHAIN, T, list(neighbours))


def chained(voter, who, round_, previous, **changes):
    """Give a reading that follows; returns its digest."""
    return give(voter, who, reading(round_, previous=previous, **changes))


def test_round_is_complete_when_every_neighbour_is_in():
    voter = make()
    give(voter, A, reading(5))
    voter.open_round(reading(5))
    give(voter, B, reading(5))
    assert not voter.complete()
    give(voter, C, reading(4))
    assert not voter.complete()
    give(voter, C, reading(5))
    assert voter.complete()


def test_ballot_judges_the_round_and_names_the_head():
    voter = make()
    voter.open_round(reading(5))
    digests = sorted([give(voter, who, reading(5)) for who in (A, B, C)])
    ballot = voter.vote(b"p" * 32)
    assert (ballot.round, ballot.parent) == (5, b"p" * 32)
    assert sorted(ballot.verdicts) == [(one, r.ACCEPT) for one in digests]
    r.decode(ballot.payload())


def test_ballot_without_readings_is_empty():
    voter = make()
    voter.open_round(reading(5))
    assert voter.vote(PARENT).verdicts == []


def test_stranger_is_not_judged():
    voter = make((A,))
    voter.open_round(reading(5))
    assert not voter.take(B, reading(5), digest(B, reading(5)))
    assert voter.vote(PARENT).verdicts == []


def test_reading_that_comes_early_waits_for_its_round():
    voter = make((A,))
    voter.open_round(reading(5))
    early = give(voter, A, reading(6))
    assert voter.vote(PARENT).verdicts == []
    voter.open_round(reading(6))
    assert voter.complete()
    assert voter.vote(PARENT).verdicts == [(early, r.ACCEPT)]


def test_reading_that_comes_late_is_in_the_next_ballot():
    voter = make((A,))
    for round_ in (5, 6):
        voter.open_round(reading(round_))
        assert voter.vote(PARENT).verdicts == []
    late = give(voter, A, reading(5))
    voter.open_round(reading(7))
    fresh = chained(voter, A, 7, late, seq=6)
    assert voter.vote(PARENT).verdicts == [(fresh, r.ACCEPT), (late, r.ACCEPT)]


def test_reading_that_is_sent_again_gets_its_verdict_again():
    voter = make((A,))
    voter.open_round(reading(5))
    bad = give(voter, A, reading(5, frequency=50_100))
    assert voter.vote(PARENT).verdicts == [(bad, r.REJECT_FREQUENCY)]
    assert voter.known(A, reading(5, frequency=50_100), bad)
    give(voter, A, reading(5, frequency=50_100))
    voter.open_round(reading(6))
    assert voter.vote(PARENT).verdicts == [(bad, r.REJECT_FREQUENCY)]


def test_late_abstention_is_left_out():
    voter = make((A,))
    voter.open_round(reading(5))
    give(voter, A, reading(4))  # no own values of round 4
    assert voter.vote(PARENT).verdicts == []


def test_far_rounds_are_passed_over():
    voter = make((A,))
    voter.open_round(reading(20))
    for round_ in (12, 23, 1000):
        assert not voter.take(A, reading(round_), digest(A, reading(round_)))
    assert voter.passed_over == 3


def test_ballot_stays_within_its_limits_under_a_flood():
    neighbours = [bytes((i,)) * 16 for i in range(1, 31)]
    voter = make(neighbours)
    for round_ in range(20, 25):
        voter.open_round(reading(round_))
        for who in neighbours:
            for back in range(4):
                give(voter, who, reading(round_ - back, seq=100 * round_ + back))
        ballot = voter.vote(PARENT)
        assert len(ballot.verdicts) == r.MAX_VERDICTS
        r.decode(ballot.payload())


def test_late_verdicts_are_at_most_ten_and_the_others_follow():
    neighbours = [bytes((i,)) * 16 for i in range(1, 13)]
    voter = make(neighbours)
    for round_ in (5, 6):
        voter.open_round(reading(round_))
        voter.vote(PARENT)
    late = [give(voter, who, reading(5)) for who in neighbours]
    found = []
    for round_ in (7, 8, 9):
        voter.open_round(reading(round_))
        verdicts = voter.vote(PARENT).verdicts
        assert len(verdicts) <= r.MAX_LATE_VERDICTS
        found += [one for one, _ in verdicts]
    assert sorted(found) == sorted(late)


def test_two_readings_of_one_slot_are_told_apart_and_take_no_other_place():
    voter = make((A,))
    voter.open_round(reading(5))
    one = give(voter, A, reading(5))
    two = give(voter, A, reading(5, voltage=230_010))
    verdicts = voter.vote(PARENT).verdicts
    assert verdicts == [(one, r.ACCEPT), (two, r.REJECT_SEQUENCE)]


def test_median_of_the_round_decides_about_frequency():
    voter = make()
    voter.open_round(reading(5, frequency=50_100))  # this meter's own clock is off
    digests = [give(voter, who, reading(5)) for who in (A, B, C)]
    assert sorted(voter.vote(PARENT).verdicts) == [(one, r.ACCEPT) for one in sorted(digests)]


def test_neighbour_that_leaves_is_not_judged_any_more():
    voter = make((A, B))
    voter.open_round(reading(5))
    stays = give(voter, A, reading(5))
    give(voter, B, reading(5))
    voter.change_neighbours([A])
    assert voter.complete()
    assert voter.vote(PARENT).verdicts == [(stays, r.ACCEPT)]
