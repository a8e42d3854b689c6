"""Who is a neighbour: operators' approvals, m of n, in order, once."""

import asyncio

from firmware.meter.identity import Identity
from firmware.meter.members import Members
from ledger.protocol import messages, p256, records
from ledger.protocol.errors import MalformedRecord

HEAP = "400k"
CHAIN = bytes(8)
OPERATORS = [Identity(bytes(31) + bytes((number,))) for number in (31, 32, 33)]
OWN, FIRST, SECOND = [Identity(bytes(31) + bytes((number,))) for number in (41, 42, 43)]

_keys = {}


async def verify(envelope, public_key):
    """Check a signature; tables are kept from test to test."""
    if public_key not in _keys:
        _keys[public_key] = p256.PublicKey(public_key, 3)
    envelope.verify(_keys[public_key])


def make(threshold=2, neighbours=(FIRST,)):
    return Members(
        CHAIN,
        "c1",
        OWN.address,
        [one.public_key for one in neighbours],
        [one.public_key for one in OPERATORS],
        threshold,
        verify,
    )


def change(number, action, who, cluster="c1", signers=(0, 1), chain=CHAIN):
    """Give the approvals of one change."""
    cluster = cluster if action == records.JOIN else ""
    record = records.RegistryChange(chain, number, action, who.public_key, cluster)
    return [OPERATORS[i].seal(record.payload()).raw for i in signers]


def take(members, *approvals):
    every = []
    for some in approvals:
        every += some
    return asyncio.run(members.take(messages.encode_members(every)))


def test_change_of_enough_operators_counts():
    members = make()
    assert take(members, change(1, records.JOIN, SECOND))
    assert sorted(members.keys) == sorted([FIRST.address, SECOND.address])
    assert take(members, change(2, records.LEAVE, FIRST))
    assert list(members.keys) == [SECOND.address]


def test_change_of_too_few_operators_does_not_count():
    members = make()
    assert not take(members, change(1, records.JOIN, SECOND, signers=(0,)))
    assert not take(members, change(1, records.JOIN, SECOND, signers=(0, 0)))
    assert members.number == 0


def test_approvals_of_different_contents_do_not_add_up():
    members = make()
    one = change(1, records.JOIN, SECOND, signers=(0,))
    other = change(1, records.JOIN, SECOND, "c2", signers=(1,))
    assert not take(members, one, other)


def test_forged_approval_does_not_count_and_hides_no_good_one():
    members = make()
    good = change(1, records.JOIN, SECOND, signers=(0, 1, 2))
    forged = good[0][:-1] + bytes((good[0][-1] ^ 1,))
    assert not take(members, [forged, good[1]])
    assert take(members, [forged, good[1], good[2]])


def test_forged_approvals_cost_a_few_checks_however_many_they_are():
    tried = []

    async def count(envelope, public_key):
        tried.append(public_key)
        await verify(envelope, public_key)

    keys = [one.public_key for one in OPERATORS]
    members = Members(CHAIN, "c1", OWN.address, [FIRST.public_key], keys, 2, count)
    forged = []
    for number in range(1, 21):
        raw = change(1, records.JOIN, SECOND, "c%d" % number, signers=(0,))[0]
        forged.append(raw[:-1] + bytes((raw[-1] ^ 1,)))
    assert not take(members, forged)
    assert len(tried) == 4
    assert take(members, change(1, records.JOIN, SECOND))


def test_stranger_is_no_operator():
    members = make(threshold=1)
    record = records.RegistryChange(CHAIN, 1, records.JOIN, SECOND.public_key, "c1")
    assert not take(members, [SECOND.seal(record.payload()).raw])


def test_changes_apply_in_order_of_their_numbers():
    members = make()
    both = change(2, records.LEAVE, SECOND) + change(1, records.JOIN, SECOND)
    assert not take(members, both)
    assert members.number == 2


def test_old_change_does_not_come_back():
    members = make()
    take(members, change(1, records.JOIN, SECOND), change(2, records.LEAVE, SECOND))
    assert not take(members, change(1, records.JOIN, SECOND))
    kept = make()
    kept.restore(members.export())
    assert not take(kept, change(1, records.JOIN, SECOND))
    assert list(kept.keys) == [FIRST.address]


def test_member_that_joins_another_cluster_is_no_neighbour():
    members = make(neighbours=(FIRST, SECOND))
    assert take(members, change(1, records.JOIN, SECOND, "c2"))
    assert list(members.keys) == [FIRST.address]


def test_meter_is_not_its_own_neighbour():
    members = make(neighbours=(OWN, FIRST))
    assert not take(members, change(1, records.JOIN, OWN))
    assert list(members.keys) == [FIRST.address]


def test_message_of_another_region_is_refused():
    try:
        take(make(), change(1, records.JOIN, SECOND, chain=bytes(7) + b"x"))
    except MalformedRecord:
        return
    raise AssertionError("taken")
