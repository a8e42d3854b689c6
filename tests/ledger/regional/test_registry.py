"""Registry changes: m of n operators, one after the other, in effect once witnessed (SPEC 11.5)."""

import pytest

from ledger.protocol import records, rounds
from ledger.regional import codes
from tests.ledger.regional.generate import Meter, signer
from tests.ledger.regional.lab import FIRST, Lab

NEW, OTHER = signer("new meter"), signer("other meter")


@pytest.fixture
def lab():
    lab = Lab()
    yield lab
    lab.database.close()


def witness(lab: Lab, round_: int, numbers=range(5)) -> None:
    """Close a round in which these meters name the newest head."""
    lab.close(round_, *[lab.ballot(i, round_) for i in numbers])


def is_member(lab: Lab, key) -> bool:
    return lab.app.state.members.get(key.address) is not None


def test_threshold_of_operators_is_needed(lab):
    lab.close(FIRST, lab.join(0, 1, NEW.public_key))
    witness(lab, FIRST + 1)
    witness(lab, FIRST + 2)
    assert not is_member(lab, NEW)
    assert lab.app.state.registry.changes == 0
    # the second approval may come much later
    lab.close(FIRST + 3, lab.join(2, 1, NEW.public_key))
    assert lab.app.state.registry.changes == 1
    assert not is_member(lab, NEW)
    witness(lab, FIRST + 4)
    assert is_member(lab, NEW)


def test_change_takes_effect_only_when_the_head_that_holds_it_is_witnessed(lab):
    lab.close(FIRST, lab.join(0, 1, NEW.public_key), lab.join(1, 1, NEW.public_key))
    witness(lab, FIRST + 1, range(3))  # 3 of 5 is not more than two thirds
    assert not is_member(lab, NEW)
    witness(lab, FIRST + 2, [3])
    assert is_member(lab, NEW)
    member = lab.app.state.members.get(NEW.address)
    assert member.active_from == FIRST + 3
    assert member.votes_from == rounds.EPOCH_ROUNDS
    assert (member.cluster, member.public_key) == ("c0", NEW.public_key)
    assert len(lab.app.state.approvals) == 0


def test_ballots_that_name_an_older_head_do_not_witness_the_change(lab):
    lab.close(FIRST)
    older = lab.app.last_digest
    lab.close(FIRST + 1, lab.join(0, 1, NEW.public_key), lab.join(1, 1, NEW.public_key))
    lab.close(FIRST + 2, *[lab.ballot(i, FIRST + 2, parent=older) for i in range(5)])
    assert lab.app.state.registry.witnessed == 1
    assert not is_member(lab, NEW)


@pytest.mark.parametrize("number", [2, 3, 0xFFFFFFFF])
def test_number_that_is_not_the_next_is_refused(lab, number):
    assert lab.deliver(lab.join(0, number, NEW.public_key)) == [codes.WRONG_NUMBER]


def test_approval_is_not_taken_twice(lab):
    approval = lab.join(0, 1, NEW.public_key)
    assert lab.deliver(approval, approval) == [0, codes.DUPLICATE]
    assert lab.deliver(approval) == [codes.DUPLICATE]
    lab.close(FIRST)
    assert lab.deliver(approval) == [codes.DUPLICATE]
    lab.close(FIRST + 1, lab.join(1, 1, NEW.public_key))
    for operator in range(3):  # approved: its number is over
        assert lab.deliver(lab.join(operator, 1, NEW.public_key)) == [codes.WRONG_NUMBER]


def test_one_operator_does_not_make_a_threshold_of_two(lab):
    approval = lab.join(0, 1, NEW.public_key)
    lab.close(FIRST, approval)
    for round_ in range(FIRST + 1, FIRST + 4):
        assert lab.deliver(approval) == [codes.DUPLICATE]
        witness(lab, round_)
    assert lab.app.state.registry.changes == 0


def test_of_two_changes_with_one_number_the_first_in_order_is_taken(lab):
    """All three approve one, two of them another one too, in one block."""
    one = [lab.join(i, 1, NEW.public_key) for i in range(3)]
    two = [lab.join(i, 1, OTHER.public_key) for i in (1, 2)]
    lab.close(FIRST, *one, *two)
    assert lab.app.state.registry.changes == 1
    assert len(lab.app.state.approvals) == 1
    witness(lab, FIRST + 1)
    assert is_member(lab, NEW) != is_member(lab, OTHER)
    assert lab.app.state.registry.changes == 1
    # the one that lost its number has to be approved anew
    lost = OTHER if is_member(lab, NEW) else NEW
    lab.close(FIRST + 2, *[lab.join(i, 2, lost.public_key) for i in range(2)])
    witness(lab, FIRST + 3)
    assert is_member(lab, lost)


def test_half_approved_change_is_dropped_when_another_takes_its_number(lab):
    lab.close(FIRST, lab.join(0, 1, OTHER.public_key))
    lab.close(FIRST + 1, lab.join(1, 1, NEW.public_key), lab.join(2, 1, NEW.public_key))
    assert len(lab.app.state.approvals) == 1
    assert lab.deliver(lab.join(1, 1, OTHER.public_key)) == [codes.WRONG_NUMBER]


def test_order_of_delivery_does_not_decide_between_two_changes():
    heads = set()
    for reverse in (False, True):
        lab = Lab()
        changes = [lab.join(i, 1, k.public_key) for k in (NEW, OTHER) for i in range(3)]
        lab.close(FIRST, *(reversed(changes) if reverse else changes))
        witness(lab, FIRST + 1)
        heads.add(lab.app.last_digest)
        lab.database.close()
    assert len(heads) == 1


def test_changes_that_wait_together_take_effect_in_the_order_of_their_numbers():
    """The same key is to join two clusters: the change with the lower number wins."""
    for clusters in (("north", "south"), ("south", "north")):
        lab = Lab()
        lab.close(FIRST, *[lab.join(i, 1, NEW.public_key, clusters[0]) for i in range(2)])
        lab.close(FIRST + 1, *[lab.join(i, 2, NEW.public_key, clusters[1]) for i in range(2)])
        witness(lab, FIRST + 2)
        assert lab.app.state.members.get(NEW.address).cluster == clusters[0]
        assert len(lab.app.state.approvals) == 0
        lab.database.close()


def test_signature_of_an_operator_over_another_change_is_refused(lab):
    from ledger.protocol import cose

    good, other = lab.join(0, 1, NEW.public_key), lab.join(0, 1, OTHER.public_key)
    forged = cose.join(good.kid, good.payload, other.signature)
    assert lab.deliver(forged) == [codes.BAD_SIGNATURE]


def test_impossible_changes_are_refused(lab):
    member = lab.region.meters[1].key.public_key
    assert lab.deliver(lab.join(0, 1, member)) == [codes.IMPOSSIBLE]
    assert lab.deliver(lab.region.approve(0, 1, records.LEAVE, NEW.public_key)) == [
        codes.IMPOSSIBLE
    ]
    assert lab.deliver(lab.join(0, 1, b"\x02" + b"\xff" * 32)) == [codes.MALFORMED]
    assert lab.deliver(lab.join(0, 1, b"\x04" + bytes(32))) == [codes.MALFORMED]


def leave(lab: Lab, meter: int, round_: int, number: int = 1) -> None:
    lab.close(round_, *[lab.leave(i, number, meter) for i in range(2)])
    witness(lab, round_ + 1)


def test_member_that_left_is_refused_in_later_rounds_only(lab):
    leave(lab, 4, FIRST)
    assert lab.member(4).active_until == FIRST + 2
    assert lab.deliver(lab.reading(4, FIRST + 2)) == [codes.NOT_ACTIVE]
    assert lab.deliver(lab.ballot(4, FIRST + 2)) == [codes.NOT_ACTIVE]
    late = lab.reading(4, FIRST + 1)
    lab.close(FIRST + 2, late)
    assert lab.results(late)[-1][2] == 4
    assert lab.deliver(lab.leave(2, 2, 4)) == [codes.IMPOSSIBLE]
    assert lab.deliver(lab.join(2, 2, lab.region.meters[4].key.public_key)) == [codes.IMPOSSIBLE]
    reading = lab.reading(0, FIRST + 3)
    lab.close(FIRST + 3, reading)
    assert lab.results(reading)[-1][2] == 3


def test_member_that_left_and_is_caught_later_is_not_a_member_in_between(lab):
    leave(lab, 4, FIRST)
    left = lab.member(4).active_until
    between = lab.reading(0, FIRST + 5)
    lab.close(FIRST + 5, between)
    assert lab.results(between)[-1][2] == 3
    lab.close(FIRST + 9, lab.reading(4, FIRST + 1), lab.reading(4, FIRST + 1, power=1))
    assert lab.member(4).suspended
    assert lab.member(4).active_until == left
    # the committee of a reading that is open since then is what it was
    lab.close(FIRST + 10, *lab.ballots(FIRST + 10, [between], voters=[1, 2]))
    assert lab.results(between)[-1][1:3] == (1, 3)


def test_waiting_records_of_a_member_that_leaves_are_dropped(lab):
    ahead = lab.reading(4, FIRST + 5)
    assert lab.deliver(ahead) == [0]
    leave(lab, 4, FIRST)
    assert lab.close(FIRST + 5).records == ()


def test_change_in_a_region_without_members_takes_effect_at_once():
    lab = Lab(0)
    lab.close(FIRST, lab.join(0, 1, NEW.public_key), lab.join(1, 1, NEW.public_key))
    assert is_member(lab, NEW)
    assert lab.app.state.members.get(NEW.address).active_from == FIRST + 1
    # from here on there is somebody to witness
    lab.close(FIRST + 1, lab.join(0, 2, OTHER.public_key), lab.join(1, 2, OTHER.public_key))
    assert not is_member(lab, OTHER)
    lab.region.meters.append(Meter("x", "c0"))
    lab.region.meters[0].key = NEW
    lab.close(FIRST + 2, lab.ballot(0, FIRST + 2))
    assert is_member(lab, OTHER)
    lab.reopen()
    assert is_member(lab, OTHER)
    lab.database.close()


def test_change_takes_effect_at_once_when_the_last_member_goes():
    """Nobody is left who could witness it; the close that ends the last membership sees that."""
    lab = Lab(1)
    lab.close(FIRST, *[lab.join(i, 1, NEW.public_key) for i in range(2)])
    lab.close(FIRST + 1, lab.reading(0, FIRST), lab.reading(0, FIRST, power=1))
    assert is_member(lab, NEW)
    root = lab.app.state.root()
    lab.close(FIRST + 2)
    assert lab.app.state.root() == root
    lab.database.close()


def test_last_head_of_the_old_members_is_witnessed_though_the_new_ones_are_silent():
    """Three of three name the head that holds a change, after three more have joined."""
    lab = Lab(3)
    keys = [signer(f"silent {i}") for i in range(4)]
    for number, key in enumerate(keys[:3], 1):
        lab.deliver(*[lab.join(i, number, key.public_key) for i in range(2)])
        lab.close(FIRST + number)
    witness(lab, FIRST + 4, range(3))
    lab.close(FIRST + 5)  # six members from here on
    named = lab.app.last_digest
    assert lab.app.blocks.head(5).round == FIRST + 5
    lab.close(FIRST + 6, *[lab.ballot(i, FIRST + 6, parent=named) for i in range(3)])
    # head 5 is the six members' and has three names, head 4 is the three members' and has three
    assert lab.app.state.registry.witnessed == 4
    lab.database.close()


def test_operator_has_one_open_approval_and_the_newest_counts(lab):
    """Who thinks again takes the approval back; endless ideas do not fill the state."""
    ideas = [signer(f"idea {i}") for i in range(5)]
    for step, key in enumerate(ideas):
        lab.close(FIRST + step, lab.join(0, 1, key.public_key))
        assert len(lab.app.state.approvals) == 1
    lab.close(FIRST + 5, lab.join(1, 1, ideas[0].public_key))
    assert lab.app.state.registry.changes == 0  # the first operator approves another one by now
    assert len(lab.app.state.approvals) == 2
    lab.close(FIRST + 6, lab.join(1, 1, ideas[-1].public_key))
    assert lab.app.state.registry.changes == 1
    assert len(lab.app.state.approvals) == 1
    root = lab.app.state.root()
    lab.reopen()
    assert lab.app.state.root() == root
