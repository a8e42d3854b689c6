"""Properties of committees and tallies (SPEC sections 8 and 9)."""

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.protocol import committee, records, rounds, tally

addresses = st.binary(min_size=16, max_size=16)
seeds = st.binary(min_size=32, max_size=32)
terms = st.integers(0, 2**32)
candidates = st.lists(addresses, max_size=40, unique=True)
ks = st.integers(3, 255)
counts = st.integers(0, 300)


@given(seeds, terms, addresses, candidates, ks, st.randoms(use_true_random=False))
def test_the_order_of_candidates_is_irrelevant(seed, term, meter, voters, k, shuffle):
    drawn = committee.draw(seed, term, meter, voters, k)
    mixed = list(voters)
    shuffle.shuffle(mixed)
    assert committee.draw(seed, term, meter, mixed, k) == drawn


@given(seeds, terms, addresses, candidates, ks)
def test_a_committee_is_some_of_the_candidates_in_rising_order(seed, term, meter, voters, k):
    drawn = committee.draw(seed, term, meter, voters, k)
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(voters)
    assert len(drawn) == (len(voters) if len(voters) <= 12 else min(k, len(voters)))


@given(seeds, terms, addresses, st.lists(addresses, min_size=14, max_size=40, unique=True), ks)
def test_who_leaves_takes_no_other_seat_away(seed, term, meter, voters, k):
    drawn = committee.draw(seed, term, meter, voters, k)
    left = [voter for voter in voters if voter != drawn[0]]
    assert set(committee.draw(seed, term, meter, left, k)) >= set(drawn[1:])


def test_every_candidate_is_drawn_about_equally_often():
    draw = random.Random(8)
    voters = [draw.randbytes(16) for _ in range(30)]
    seats = dict.fromkeys(voters, 0)
    for term in range(2000):
        for voter in committee.draw(bytes(32), term, bytes(16), voters, 6):
            seats[voter] += 1
    # 400 expected, standard deviation 18
    assert all(300 < n < 500 for n in seats.values())


@given(counts, counts, counts)
def test_an_outcome_is_never_both(drawn, accepts, rejects):
    assume(accepts + rejects <= drawn)
    accepted = tally.outcome(drawn, accepts, rejects) == tally.ACCEPTED
    rejected = tally.outcome(drawn, rejects, accepts) == tally.ACCEPTED
    assert not (accepted and rejected)
    assert (tally.outcome(drawn, accepts, rejects) == tally.REJECTED) == rejected


@given(counts, counts, counts)
def test_one_more_accept_never_takes_an_acceptance_away(drawn, accepts, rejects):
    assume(accepts + 1 + rejects <= drawn)
    before = tally.outcome(drawn, accepts, rejects)
    after = tally.outcome(drawn, accepts + 1, rejects)
    assert before in (tally.OPEN, after)


@given(counts, counts, counts)
def test_an_abstention_that_becomes_a_vote_settles_nothing_the_other_way(drawn, accepts, rejects):
    assume(accepts + rejects + 1 <= drawn)
    if tally.outcome(drawn, accepts, rejects) == tally.ACCEPTED:
        assert tally.outcome(drawn, accepts, rejects + 1) == tally.ACCEPTED


@given(st.integers(-5, 2), counts, counts)
def test_fewer_than_three_seats_settle_nothing(drawn, accepts, rejects):
    assert tally.outcome(drawn, accepts, rejects) == tally.OPEN


@given(st.integers(3, 300), counts)
def test_it_takes_more_than_half_of_the_seats_drawn(drawn, accepts):
    accepted = tally.outcome(drawn, accepts, 0) == tally.ACCEPTED
    assert accepted == (accepts > drawn / 2)


@given(st.lists(st.sampled_from([0, 1, *range(16, 64)]), max_size=60))
def test_every_verdict_is_counted_once(verdicts):
    accepts, rejects, abstentions = tally.count(verdicts)
    assert accepts + rejects + abstentions == len(verdicts)
    assert accepts == verdicts.count(records.ACCEPT)
    assert abstentions == verdicts.count(records.ABSTAIN)


@given(st.integers(0, 2**40 - 1), st.integers(1, 86_400))
def test_every_instant_is_in_exactly_one_round(time_s, round_s):
    round_ = rounds.round_of(time_s, round_s)
    assert rounds.end_of(round_ - 1, round_s) <= time_s < rounds.end_of(round_, round_s)


@given(st.integers(0, 2**32 - 1))
def test_terms_and_epochs_nest(round_):
    assert rounds.epoch_of(round_) == rounds.term_of(round_) // rounds.EPOCH_TERMS
    start = rounds.next_epoch_start(round_)
    assert rounds.epoch_of(start) == rounds.epoch_of(start - 1) + 1
    assert rounds.epoch_of(start - 1) == rounds.epoch_of(round_)
