"""The tally (SPEC section 9) on both interpreters, against the shared vectors."""

from ledger.protocol import tally
from tests.vector_files import load


def test_outcomes_are_those_of_the_vectors():
    for drawn, accepts, rejects, expected in load("tally")["outcomes"]:
        assert tally.outcome(drawn, accepts, rejects) == expected, (drawn, accepts, rejects)


def test_counts_are_those_of_the_vectors():
    for case in load("tally")["counts"]:
        expected = (case["accepts"], case["rejects"], case["abstentions"])
        assert tally.count(case["verdicts"]) == expected


def test_half_of_an_even_committee_is_no_majority():
    assert tally.outcome(4, 2, 0) == tally.OPEN
    assert tally.outcome(4, 3, 0) == tally.ACCEPTED
    assert tally.outcome(4, 0, 2) == tally.OPEN
    assert tally.outcome(4, 0, 3) == tally.REJECTED


def test_seats_drawn_count_and_not_votes_cast():
    assert tally.outcome(11, 5, 0) == tally.OPEN
    assert tally.outcome(11, 6, 5) == tally.ACCEPTED


def test_fewer_than_three_seats_settle_nothing():
    for drawn in range(3):
        assert tally.outcome(drawn, drawn, 0) == tally.OPEN
        assert tally.outcome(drawn, 0, drawn) == tally.OPEN


def test_every_outcome_has_a_name():
    outcomes = (tally.OPEN, tally.ACCEPTED, tally.REJECTED, tally.UNCONFIRMED, tally.EQUIVOCATED)
    assert sorted(tally.OUTCOME_NAMES) == sorted(outcomes)
