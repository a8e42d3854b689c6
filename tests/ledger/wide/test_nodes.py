"""The wide-area chain of many nodes: network changes, misbehaviour, versions, empty blocks."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.engine.abci import Misbehaviour, Refused, UpgradeNeeded, Validator
from ledger.network import NetworkState, RegionGateways, Remove, Upgrade
from ledger.protocol import cbor
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadProof
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication
from ledger.wide.entries import decode_misbehaviour
from ledger.wide.proofs import verify_gateways, verify_kept, verify_network
from tests.ledger.keys_of import ed25519, signer
from tests.ledger.wide.bench import (
    MANAGED,
    NORTH,
    NORTH_KEY,
    NOWHERE,
    OPERATORS,
    VALIDATORS,
    Managed,
    convicted,
)

NEW = VALIDATORS[0]._replace(name="new", public_key=ed25519("new"))
POWERS = {Validator(v.public_key, v.power) for v in VALIDATORS}
HEAD_OFFICE = signer("head office")


@pytest.fixture
def node() -> Managed:
    node = Managed()
    assert node.send(node.sealed(0), node.sealed(1)) == [codes.OK, codes.OK]
    return node


def kept(node: Managed, number: int):
    answer = node.app.query("kept", number.to_bytes(8, "big"))
    return verify_kept(answer.app_hash, answer.value, answer.proof), answer.value


# genesis


def test_genesis_names_the_first_validators(node: Managed) -> None:
    assert set(node.app.validators()) == POWERS
    assert node.app.genesis_bytes() == MANAGED.encode()


def test_network_leaf_is_absent_until_it_changes(node: Managed) -> None:
    answer = node.app.query("network", b"")
    assert answer.value is None
    verify_network(answer.app_hash, None, answer.proof)
    with pytest.raises(BadProof):
        verify_network(answer.app_hash, b"\x80", answer.proof)


# network changes


def test_validators_change_by_m_of_n(node: Managed) -> None:
    assert node.send(node.approval(NEW, 0)) == [codes.OK]
    assert node.updates == ()
    assert node.send(node.approval(NEW, 1)) == [codes.OK]
    assert node.updates == (Validator(NEW.public_key, 10),)
    assert set(node.app.validators()) == {*POWERS, Validator(NEW.public_key, 10)}
    assert node.change(Remove("gw-a")) == [codes.OK, codes.OK]
    assert node.updates == (Validator(VALIDATORS[0].public_key, 0),)


def test_changes_of_one_block_come_to_the_engine_once(node: Managed) -> None:
    txs = [node.approval(NEW, i, 1) for i in (0, 1)]
    txs += [node.approval(NEW._replace(power=77), i, 2) for i in (0, 1)]
    txs += [node.approval(Remove("gw-b"), i, 3) for i in (0, 1)]
    assert node.send(*txs) == [codes.OK] * 6
    expected = {Validator(NEW.public_key, 77), Validator(VALIDATORS[1].public_key, 0)}
    assert set(node.updates) == expected


def test_network_is_proved(node: Managed) -> None:
    node.change(NEW)
    answer = node.app.query("network", b"")
    assert answer.value is not None
    verify_network(answer.app_hash, answer.value, answer.proof)
    state = NetworkState.decode(answer.value)
    assert state == node.app.network
    assert state.changes == 1
    with pytest.raises(BadProof):
        verify_network(answer.app_hash, None, answer.proof)


def test_approvals_are_kept_with_entries_of_their_own(node: Managed) -> None:
    approvals = [node.approval(NEW, 0), node.approval(NEW, 1)]
    node.send(*approvals)
    for number, (approval, operator) in enumerate(zip(approvals, OPERATORS, strict=False), 2):
        entry, value = kept(node, number)
        assert value == approval.raw
        assert entry[:3] == (operator.address, 1, codes.NETWORK_CHANGE)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (Remove("nobody"), codes.IMPOSSIBLE),
        (VALIDATORS[0], codes.IMPOSSIBLE),
        (NEW._replace(public_key=bytes(32)), codes.MALFORMED),
        (RegionGateways(NOWHERE, (b"\x02" + b"\xff" * 32,)), codes.MALFORMED),
    ],
)
def test_refused_change_leaves_no_trace(node: Managed, what, code: int) -> None:
    before, approval = node.app.app_hash, node.approval(what)
    assert node.app.check_tx(approval.raw).code == code
    assert not node.app.process_proposal(2, [approval.raw])
    assert node.app.prepare_proposal([approval.raw], 10_000) == []
    assert node.send(approval) == [code]
    assert node.app.app_hash == before


def test_other_refusals_have_the_regions_codes(node: Managed) -> None:
    stranger = signer("stranger").seal(node.approval(NEW).payload)
    forged = bytearray(node.approval(NEW).raw)
    forged[-1] ^= 1
    elsewhere = Managed(genesis=MANAGED.__class__("x", 0, (), MANAGED.operators, 2, VALIDATORS))
    txs = [
        stranger,
        Envelope.parse(bytes(forged)),
        elsewhere.approval(NEW),
        node.approval(NEW, number=2),
        node.approval(NEW),
        node.approval(NEW),
    ]
    found = [codes.UNKNOWN_SIGNER, codes.BAD_SIGNATURE, codes.WRONG_CHAIN, codes.WRONG_NUMBER]
    assert node.send(*txs) == [*found, codes.OK, codes.DUPLICATE]


def test_new_region_reports_after_its_change(node: Managed) -> None:
    report = HEAD_OFFICE.seal(node.sealed(0, NOWHERE).payload)
    assert node.send(report) == [codes.UNKNOWN_REGION]
    assert node.change(RegionGateways(NOWHERE, (HEAD_OFFICE.public_key,))) == [codes.OK, codes.OK]
    assert node.send(report) == [codes.OK]
    assert NOWHERE in cbor.loads(node.app.query("regions", b"").value or b"")
    answer = node.app.query("gateways", NOWHERE)
    assert cbor.loads(answer.value or b"") == [HEAD_OFFICE.public_key]
    verify_gateways(answer.app_hash, NOWHERE, answer.value, answer.proof)


def test_new_gateway_keys_take_the_place_of_the_genesis(node: Managed) -> None:
    old = node.sealed(2)
    node.change(RegionGateways(NORTH, (HEAD_OFFICE.public_key,)))
    assert node.send(old) == [codes.UNKNOWN_SIGNER]
    assert node.send(HEAD_OFFICE.seal(old.payload)) == [codes.OK]


def test_change_is_in_force_for_the_next_transaction_of_its_block(node: Managed) -> None:
    gateways = RegionGateways(NORTH, (HEAD_OFFICE.public_key,))
    txs = [node.approval(gateways, 0), node.approval(gateways, 1)]
    txs += [HEAD_OFFICE.seal(node.sealed(2).payload), node.sealed(3)]
    assert node.send(*txs) == [codes.OK, codes.OK, codes.OK, codes.UNKNOWN_SIGNER]
    assert len(node.app.prepare_proposal([tx.raw for tx in txs], 10_000)) == 0  # all there


def test_chain_without_operators_takes_no_change() -> None:
    node = Managed(genesis=MANAGED.__class__("bare", 0, MANAGED.regions))
    assert node.app.validators() == ()
    assert node.send(node.approval(NEW)) == [codes.UNKNOWN_SIGNER]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=33)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
FUZZED = Managed()
FUZZED.send(FUZZED.sealed(0))
SIGNERS = [*OPERATORS, NORTH_KEY]


@settings(deadline=None)
@given(st.data())
def test_any_transaction_ends_in_a_code(data: st.DataObject) -> None:
    """Signed by those who may sign: whatever an operator's or gateway's program makes."""
    node, key = FUZZED, data.draw(st.sampled_from(SIGNERS))
    base = data.draw(st.sampled_from([node.approval(NEW), node.sealed(1), node.sealed(0)]))
    fields = cbor.loads(base.payload)
    if data.draw(st.booleans()):
        fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(VALUES)
    raw = bytearray(key.seal(cbor.dumps(fields)).raw)
    for _ in range(data.draw(st.integers(0, 2))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    before = node.app.app_hash
    result = node.app.check_tx(bytes(raw))
    assert result.code in codes.NAMES
    kept_ = node.app.process_proposal(2, [bytes(raw)])
    assert kept_ == (result.code == codes.OK)
    assert node.app.app_hash == before


def test_operators_are_told_what_came_of_their_approval(node: Managed) -> None:
    txs = [node.approval(NEW, i).raw for i in (0, 1)]
    told = [result.log for result in node.app.finalize_block(2, txs).tx_results]
    assert told == ["network change 1 waits for more operators", "network change 1 is in force"]


def test_size_of_a_proposal_counts_as_the_engine_counts(node: Managed) -> None:
    """CometBFT stops a proposer whose block is a byte too long."""
    txs = [node.sealed(2).raw, node.sealed(3).raw]
    whole = sum(len(tx) + 3 for tx in txs)
    assert node.app.prepare_proposal(txs, whole) == txs
    assert node.app.prepare_proposal(txs, whole - 1) == txs[:1]


def test_app_hash_follows_from_the_sequence_alone() -> None:
    """Wherever the engine ends its blocks, with empty ones in between."""
    made = Managed()
    steps: list[Misbehaviour | bytes] = [made.sealed(0).raw, made.approval(NEW, 0).raw]
    steps += [convicted("gw-b"), made.approval(NEW, 1).raw, made.sealed(1).raw]
    steps += [made.approval(VALIDATORS[1], i, 2).raw for i in (2, 0)]
    given_ = RegionGateways(NOWHERE, (HEAD_OFFICE.public_key,))
    steps += [made.approval(given_, i, 3).raw for i in (1, 2)]
    steps += [HEAD_OFFICE.seal(made.sealed(0, NOWHERE).payload).raw, made.sealed(0, alarms=9).raw]
    found = set()
    for seed in range(8):
        rng, node, rest = random.Random(seed), Managed(), list(steps)
        while rest:
            size = rng.randint(0, 4)
            node.app.apply(node.app.height + rng.randint(1, 3), rest[:size])
            node.app.commit()
            rest = rest[size:]
        found.add((node.app.app_hash, node.app.log.root(), node.app.validators()))
    assert len(found) == 1
    assert node.app.log.size == len(steps)


# misbehaviour


def test_convicted_validator_loses_its_vote_and_is_on_record(node: Managed) -> None:
    evil = convicted("gw-b", height=1)
    assert node.block(node.sealed(2), evil=[evil]) == [codes.OK]
    assert node.updates == (Validator(VALIDATORS[1].public_key, 0),)
    entry, value = kept(node, 2)  # before the block's transactions
    assert entry[:3] == (evil.address, 1, codes.MISBEHAVIOUR)
    assert value is not None
    assert decode_misbehaviour(value) == evil
    assert node.change(VALIDATORS[1]) == [codes.OK, codes.OK]
    assert node.updates == (Validator(VALIDATORS[1].public_key, 10),)


def test_record_is_kept_also_of_one_that_is_no_validator_any_more(node: Managed) -> None:
    node.change(Remove("gw-b"))
    before = node.app.app_hash
    node.block(evil=[convicted("gw-b", 2), Misbehaviour(2, bytes(20), 0)])
    assert node.updates == ()
    assert node.app.app_hash != before
    assert node.app.log.size == 6


def test_last_validator_keeps_its_vote(node: Managed) -> None:
    node.block(evil=[convicted(v.name) for v in VALIDATORS])
    assert len(node.updates) == 3
    assert node.app.validators() == (Validator(VALIDATORS[-1].public_key, 10),)


# versions


def test_block_under_newer_rules_is_not_touched(node: Managed) -> None:
    assert node.change(Upgrade(2, 5)) == [codes.OK, codes.OK]  # block 2
    node.block(node.sealed(2))
    assert node.app.info().app_version == 1
    node.block()
    before = node.app.info()
    assert (before.last_block_height, before.app_version) == (4, 2)
    report = node.sealed(3).raw
    for _ in range(2):
        with pytest.raises(UpgradeNeeded, match=r"block 5 .* version 2 .* version 1"):
            node.app.finalize_block(5, [report])
        assert node.app.info() == before
        assert node.app.app_hash == before.last_block_app_hash
    assert not node.app.process_proposal(5, [report])
    assert node.app.prepare_proposal([report], 10_000) == []


def test_version_from_a_height_that_is_past_is_let_in_and_voted_for_by_no_node(
    node: Managed,
) -> None:
    node.block(node.sealed(2))
    block = node.app.height + 1
    late = [node.approval(Upgrade(2, block), 0).raw, node.approval(Upgrade(2, 1), 1).raw]
    for tx in late:
        assert node.app.check_tx(tx).code == codes.IMPOSSIBLE
        assert not node.app.process_proposal(block, [tx])
    timely = node.approval(Upgrade(2, block + 1), 0).raw
    assert node.app.check_tx(timely).code == codes.OK
    assert node.app.prepare_proposal([*late, timely], 10_000) == [timely]
    assert node.app.process_proposal(block, [timely])
    # a decided block counts it, whatever its height
    assert node.change(Upgrade(2, 1)) == [codes.OK, codes.OK]


def test_program_that_has_the_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "wide.sqlite"
    node = Managed(path)
    node.change(Upgrade(2, 2))
    with pytest.raises(UpgradeNeeded):
        node.app.finalize_block(2, [])
    node.app.close()

    class Newer(WideApplication):
        VERSIONS = (1, 2)

    node.app = Newer(MANAGED, Database(path, TABLES), Verifier())
    assert node.app.info().app_version == 2
    assert node.send(node.sealed(0)) == [codes.OK]
    node.app.close()


# blocks


def rows(node: Managed, table: str) -> int:
    with_sql = node.app._database.connection
    return int(with_sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_empty_blocks_take_no_room_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "wide.sqlite"
    node = Managed(path)
    node.block(node.sealed(0))
    for _ in range(50):
        node.block()
    node.block(node.sealed(5))  # refused: nothing is kept
    assert rows(node, "blocks") == 2
    node.block(node.sealed(1))
    node.block(height=900)  # an engine's heights rise, in whatever steps
    assert node.app.store._sql.execute("SELECT height FROM blocks").fetchall() == [
        (1,),
        (53,),
        (900,),
    ]
    before = node.app.info()
    node.app.close()
    again = Managed(path)
    assert again.app.info() == before
    assert before.last_block_height == 900
    again.app.close()


def test_block_that_was_committed_is_not_applied_again(node: Managed) -> None:
    for height in (1, 0, -1):
        with pytest.raises(ValueError, match="comes after block 1"):
            node.app.finalize_block(height, [])


def test_proposals_after_an_uncommitted_block_see_the_committed_state(node: Managed) -> None:
    """The engine went away between the two calls."""
    report = node.sealed(2).raw
    node.app.finalize_block(2, [report])
    assert node.app.process_proposal(2, [report])
    assert node.block(node.sealed(2)) == [codes.OK]


def test_changes_of_a_dropped_block_are_forgotten(node: Managed) -> None:
    txs = [node.approval(NEW, 0).raw, node.approval(NEW, 1).raw]
    node.app.finalize_block(2, txs)
    assert len(node.app.validators()) == 5
    node.app.finalize_block(2, [])
    node.app.commit()
    assert len(node.app.validators()) == 4


def test_query_that_is_not_known_is_refused(node: Managed) -> None:
    with pytest.raises(Refused) as caught:
        node.app.query("network", b"x")
    assert caught.value.code == codes.UNKNOWN_QUERY
