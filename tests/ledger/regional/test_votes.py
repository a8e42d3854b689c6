"""Which votes count and what they come to (SPEC 8, 9, 11.5)."""

import pytest

from ledger.genesis import Parameters
from ledger.protocol import committee, records, rounds, tally
from ledger.regional import codes
from tests.ledger.regional.generate import ROUND_S, Meter
from tests.ledger.regional.lab import FIRST, OPEN_ROUNDS, Lab

ACCEPT, ABSTAIN, REJECT = records.ACCEPT, records.ABSTAIN, records.REJECT_VOLTAGE


@pytest.fixture
def lab():
    lab = Lab()
    yield lab
    lab.database.close()


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ([1, 1, 1, 1], tally.ACCEPTED),
        ([1, 1, 1, 17], tally.ACCEPTED),
        ([1, 1, 17], tally.OPEN),
        ([1, 1], tally.OPEN),  # half of the seats is not more than half
        ([16, 17, 63], tally.REJECTED),  # whatever the reasons
        ([16, 17, 0], tally.OPEN),
        ([], tally.OPEN),
        ([0, 0, 0, 0], tally.OPEN),
    ],
)
def test_more_than_half_of_the_seats_drawn_settles(lab, verdicts, outcome):
    reading = lab.reading(0, FIRST)
    ballots = [lab.ballot(i + 1, FIRST, [(reading, v)]) for i, v in enumerate(verdicts)]
    lab.close(FIRST, reading, *ballots)
    accepts, rejects, abstains = tally.count(verdicts)
    assert lab.results(reading) == [(1, outcome, 4, accepts, rejects, abstains)]
    assert (lab.app.state.open.get(reading.digest) is not None) == (outcome == tally.OPEN)


def test_own_vote_does_not_count(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, *lab.ballots(FIRST, [reading], voters=[0, 1, 2]))
    assert lab.results(reading)[-1][1:] == (tally.OPEN, 4, 2, 0, 0)


def test_vote_from_another_cluster_does_not_count_but_its_ballot_has_a_place():
    lab = Lab(10, cluster_size=5)
    reading = lab.reading(0, FIRST)
    stray = lab.ballots(FIRST, [reading], voters=range(5, 10))
    block = lab.close(FIRST, reading, *stray, lab.ballot(1, FIRST, [(reading, ACCEPT)]))
    assert lab.results(reading)[-1][1:] == (tally.OPEN, 4, 1, 0, 0)
    assert len(block.records) == 7
    lab.database.close()


def test_only_the_members_drawn_count_in_a_large_cluster():
    lab = Lab(16, parameters=Parameters(ROUND_S, 5, OPEN_ROUNDS, 5))
    reading = lab.reading(0, FIRST)
    others = sorted(m.address for m in lab.region.meters[1:])
    meter = lab.region.meters[0].address
    genesis = lab.region.genesis.digest
    drawn = committee.draw(genesis, rounds.term_of(FIRST), meter, others, 5)
    assert len(drawn) == 5
    votes = {
        i: ACCEPT if m.address in drawn else REJECT for i, m in enumerate(lab.region.meters) if i
    }
    ballots = [lab.ballot(i, FIRST, [(reading, verdict)]) for i, verdict in votes.items()]
    block = lab.close(FIRST, reading, *ballots)
    assert lab.results(reading) == [(1, tally.ACCEPTED, 5, 5, 0, 0)]
    assert len(block.records) == 16
    assert not any(lab.member(i).suspended for i in range(16))
    lab.database.close()


def test_fewer_than_three_seats_settle_nothing():
    lab = Lab(3)
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, *lab.ballots(FIRST, [reading]))
    assert lab.results(reading)[-1][1:] == (tally.OPEN, 2, 2, 0, 0)
    lab.close(FIRST + OPEN_ROUNDS)
    assert lab.outcome(reading) == tally.UNCONFIRMED
    lab.database.close()


def test_verdicts_on_unknown_digests_are_not_kept(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, *lab.ballots(FIRST, [reading], voters=range(1, 5)))
    lab.close(FIRST + 1, reading)
    assert lab.results(reading) == [(2, tally.OPEN, 4, 0, 0, 0)]
    lab.close(FIRST + 2, *lab.ballots(FIRST + 2, [reading], voters=range(1, 4)))
    assert lab.outcome(reading) == tally.ACCEPTED


def test_abstention_may_become_a_verdict_later(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, *lab.ballots(FIRST, [reading], ABSTAIN, voters=range(1, 5)))
    assert lab.results(reading)[-1][1:] == (tally.OPEN, 4, 0, 0, 4)
    lab.close(FIRST + 1, *lab.ballots(FIRST + 1, [reading], voters=range(1, 4)))
    assert lab.results(reading)[-1][1:] == (tally.ACCEPTED, 4, 3, 0, 1)
    assert not any(lab.member(i).suspended for i in range(5))


@pytest.mark.parametrize("verdict", [ACCEPT, REJECT])
def test_verdict_is_not_taken_back_by_an_abstention(lab, verdict):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, lab.ballot(1, FIRST, [(reading, verdict)]))
    lab.close(FIRST + 1, lab.ballot(1, FIRST + 1, [(reading, ABSTAIN)]))
    assert lab.app.state.open.get(reading.digest).votes[lab.region.meters[1].address] == verdict
    assert not lab.member(1).suspended


@pytest.mark.parametrize(("before", "after"), [(ACCEPT, REJECT), (REJECT, ACCEPT)])
def test_contradicting_verdict_counts_as_first_given_and_suspends(lab, before, after):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, lab.ballot(1, FIRST, [(reading, before)]))
    lab.close(FIRST + 1, lab.ballot(1, FIRST + 1, [(reading, after)]))
    assert lab.app.state.open.get(reading.digest).votes[lab.region.meters[1].address] == before
    assert lab.member(1).suspended
    assert lab.deliver(lab.ballot(1, FIRST + 2)) == [codes.NOT_ACTIVE]


def test_another_reason_of_a_reject_is_no_contradiction(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, lab.ballot(1, FIRST, [(reading, 16)]))
    lab.close(FIRST + 1, lab.ballot(1, FIRST + 1, [(reading, 63)]))
    assert lab.app.state.open.get(reading.digest).votes[lab.region.meters[1].address] == 16
    assert not lab.member(1).suspended


def test_contradiction_of_two_ballots_in_one_block_suspends(lab):
    reading = lab.reading(0, FIRST)
    first = lab.ballot(1, FIRST, [(reading, ACCEPT)])
    second = lab.ballot(1, FIRST + 1, [(reading, REJECT)])
    lab.close(FIRST + 1, second, first, reading)
    assert lab.results(reading)[-1][2:] == (4, 1, 0, 0)
    assert lab.member(1).suspended


def test_stranger_to_the_committee_may_contradict_itself():
    lab = Lab(10, cluster_size=5)
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, lab.ballot(7, FIRST, [(reading, ACCEPT)]))
    lab.close(FIRST + 1, lab.ballot(7, FIRST + 1, [(reading, REJECT)]))
    assert not lab.member(7).suspended
    lab.database.close()


def test_late_votes_settle_an_open_reading_and_leave_two_results(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, lab.ballot(1, FIRST, [(reading, REJECT)]))
    lab.close(FIRST + 1, lab.ballot(2, FIRST + 1, [(reading, REJECT)]))
    block = lab.close(FIRST + 2, lab.ballot(3, FIRST + 2, [(reading, REJECT)]))
    assert lab.results(reading) == [
        (1, tally.OPEN, 4, 0, 1, 0),
        (3, tally.REJECTED, 4, 0, 3, 0),
    ]
    assert [r.digest for r in block.results] == [reading.digest]


def test_votes_on_a_settled_reading_change_nothing(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, *lab.ballots(FIRST, [reading], voters=range(1, 4)))
    lab.close(FIRST + 1, lab.ballot(4, FIRST + 1, [(reading, REJECT)]))
    assert lab.results(reading) == [(1, tally.ACCEPTED, 4, 3, 0, 0)]


@pytest.mark.parametrize("late", [0, 3])
def test_open_reading_takes_votes_in_the_next_l_rounds_and_expires_with_the_last(late):
    """L counts from the round of its block, not from its own."""
    for votes_at_last in (False, True):
        lab = Lab()
        opened = FIRST + late
        reading = lab.reading(0, FIRST)
        lab.close(opened, reading, *lab.ballots(opened, [reading], voters=[1, 2]))
        last = opened + OPEN_ROUNDS
        for round_ in range(opened + 1, last):
            lab.close(round_)
            assert lab.outcome(reading) == tally.OPEN
        votes = [lab.ballot(3, last, [(reading, ACCEPT)])] if votes_at_last else []
        lab.close(last, *votes)
        wanted = tally.ACCEPTED if votes_at_last else tally.UNCONFIRMED
        assert lab.outcome(reading) == wanted
        assert len(lab.app.state.open) == 0
        lab.close(last + 1, lab.ballot(4, last + 1, [(reading, ACCEPT)]))
        assert lab.outcome(reading) == wanted
        lab.database.close()


def test_votes_that_come_with_the_expiring_close_count(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, *lab.ballots(FIRST, [reading], voters=[1, 2]))
    # rounds were left out: step 4 of SPEC 11.5 comes before step 5
    lab.close(FIRST + 50, lab.ballot(3, FIRST + 50, [(reading, ACCEPT)]))
    assert lab.outcome(reading) == tally.ACCEPTED


def test_suspended_voters_seat_stays_in_the_committee_of_its_round(lab):
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading, lab.reading(4, FIRST), lab.reading(4, FIRST, power=1))
    lab.close(FIRST + 1, *lab.ballots(FIRST + 1, [reading], voters=[1, 2]))
    assert lab.results(reading)[0][2] == 4
    lab.close(FIRST + 2, *lab.ballots(FIRST + 2, [reading], voters=[3]))
    assert lab.results(reading)[-1] == (3, tally.ACCEPTED, 4, 3, 0, 0)
    # of the next round it is not
    later = lab.reading(0, FIRST + 3)
    lab.close(FIRST + 3, later)
    assert lab.results(later)[-1][2] == 3


def test_late_reading_is_judged_by_the_committee_of_its_own_round(lab):
    """Whoever joined or was suspended since does not change it."""
    late = lab.reading(0, FIRST)
    lab.close(FIRST + 1, lab.reading(4, FIRST + 1), lab.reading(4, FIRST + 1, power=1))
    lab.close(FIRST + 2, late, *lab.ballots(FIRST + 2, [late], voters=range(1, 4)))
    assert lab.results(late)[-1] == (2, tally.ACCEPTED, 4, 3, 0, 0)


def test_seed_of_an_epoch_is_the_newest_head_before_it():
    lab = Lab(16, parameters=Parameters(ROUND_S, 5, 0xFFFF, 5))
    start = rounds.EPOCH_ROUNDS
    lab.close(start - 2)
    seed = lab.app.last_digest
    reading, late = lab.reading(0, start, seq=2), lab.reading(0, start - 1, seq=1)
    voters = range(1, 16)
    lab.close(start, reading, late, *lab.ballots(start, [reading, late], voters=voters))
    others = sorted(m.address for m in lab.region.meters[1:])
    meter = lab.region.meters[0].address
    for round_, envelope, digest in (
        (start, reading, seed),
        (start - 1, late, lab.region.genesis.digest),
    ):
        drawn = set(committee.draw(digest, rounds.term_of(round_), meter, others, 5))
        silent = [i for i in voters if lab.region.meters[i].address in drawn]
        other = Lab(16, parameters=lab.region.parameters)
        other.close(start - 2)
        votes = [i for i in voters if i not in silent]
        other.close(start, envelope, *other.ballots(start, [envelope], voters=votes))
        assert other.results(envelope)[-1] == (2, tally.OPEN, 5, 0, 0, 0)
        other.database.close()
    assert lab.outcome(reading) == lab.outcome(late) == tally.ACCEPTED
    lab.database.close()


def test_new_member_is_judged_by_its_whole_cluster_and_votes_from_the_next_epoch():
    lab = Lab(14, parameters=Parameters(ROUND_S, 5, 0xFFFF, 5))
    new = Meter("new", "c0")
    lab.honest_round(FIRST)
    key = new.key.public_key
    lab.close(FIRST + 1, lab.join(0, 1, key), lab.join(1, 1, key))
    approved = lab.app.last_digest
    lab.close(FIRST + 2, *[lab.ballot(i, FIRST + 2, parent=approved) for i in range(14)])
    lab.region.meters.append(new)
    member = lab.member(14)
    assert (member.active_from, member.votes_from) == (FIRST + 3, rounds.EPOCH_ROUNDS)
    own, other = lab.reading(14, FIRST + 3), lab.reading(0, FIRST + 3)
    votes = lab.ballots(FIRST + 3, [own, other], voters=range(1, 15))
    lab.close(FIRST + 3, own, other, *votes)
    assert lab.results(own)[-1] == (4, tally.ACCEPTED, 14, 13, 0, 0)
    assert lab.results(other)[-1] == (4, tally.ACCEPTED, 5, 5, 0, 0)
    assert lab.app.state.members.get(new.key.address).ballot_round == FIRST + 3
    epoch = rounds.EPOCH_ROUNDS
    votes_of_new = 0
    readings = [lab.reading(i, epoch) for i in range(15)]
    block = lab.close(epoch, *readings, *lab.ballots(epoch, readings, voters=[14]))
    for result in block.results:
        assert result.drawn == 5
        votes_of_new += result.accepts
    assert votes_of_new > 0
    assert lab.deliver(lab.reading(14, FIRST + 2)) == [codes.NOT_ACTIVE]
    lab.database.close()
