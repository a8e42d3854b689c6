"""From requests to application calls: what each call carries, and what is refused."""

import json
import logging

import pytest

from ledger import protobuf
from ledger.engine import abci
from ledger.engine.abci import (
    DUPLICATE_VOTE,
    Applied,
    ApplyResult,
    Decision,
    Misbehaviour,
    OfferResult,
    Snapshot,
    Validator,
)
from ledger.engine.comet import chain_id, gate
from ledger.engine.comet import messages as m
from ledger.engine.comet.node import FAILED, NOT_KEPT
from ledger.protocol import cbor
from tests.ledger.engine import driver as d
from tests.ledger.engine.plain import APP_STATE, CHAIN_ID, VALIDATORS, plain_node, served

KEYS = [(v.public_key, v.power) for v in VALIDATORS]


@pytest.fixture
def running(tmp_path):
    with served(plain_node(), tmp_path) as running:
        yield running


@pytest.fixture
def driver(running):
    return running.connect()


def test_chain_is_known_to_cometbft_by_its_id():
    assert chain_id(bytes(range(1, 9))) == CHAIN_ID
    assert len(chain_id(bytes(8))) <= 50  # types/genesis.go, MaxChainIDLen


# the handshake


def test_info_tells_where_the_application_stands(driver):
    height, app_hash, version = driver.info()
    assert (height, version) == (0, 1)
    block = driver.block([b"tx"])
    assert driver.info() == (1, block.app_hash, 1)
    assert app_hash != block.app_hash


@pytest.mark.parametrize("version", ["", "0.17.0", "2.1.0"])
def test_other_abci_version_is_refused_with_what_to_do(driver, version):
    with pytest.raises(d.Refusal, match=r"run CometBFT v0\.38 \(gridwitness cometbft install\)"):
        driver.info(version)


def test_chain_begins_with_the_applications_hash(driver):
    assert driver.init_chain(CHAIN_ID, KEYS, APP_STATE) == driver.info()[1]
    # written by hand or by a program, JSON is JSON; CometBFT sorts validators as it likes
    spaced = json.dumps(json.loads(APP_STATE), indent=2).encode()
    assert driver.init_chain(CHAIN_ID, KEYS[::-1], spaced) == driver.info()[1]


def test_version_of_the_next_blocks_rules_is_told_where_it_changes(running):
    """Its header carries what this block tells, and Info says the same (statesync/syncer.go)."""
    driver, application = running.connect(), running.node.application
    told = []
    for version in (1, 1, 2, 2, 4, 4):
        application.version = version
        told.append(driver.block([]).app_version)
        assert driver.info()[2] == version
    assert told == [None, None, 2, None, 4, None]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"chain_id": "gw-0000000000000000"}, "chain_id is 'gw-0000000000000000', not 'gw-0102"),
        ({"validators": KEYS[:1]}, "validators are others"),
        ({"validators": [*KEYS, (b"\x03" * 32, 1)]}, "validators are others"),
        ({"validators": [KEYS[0], (KEYS[1][0], 21)]}, "validators are others"),
        ({"app_state": b""}, "app_state is not"),
        ({"app_state": b"{}"}, "app_state is not"),
        ({"app_state": b'{"genesis": "00"}'}, "app_state is not"),
        ({"app_state": b"\xff"}, "app_state is not"),
        ({"app_state": b"[" * 100_000}, "app_state is not"),
        ({"initial_height": 5}, "initial_height is 5, not 1"),
    ],
)
def test_genesis_file_of_another_network_stops_the_node(running, changed, why):
    right = {"chain_id": CHAIN_ID, "validators": KEYS, "app_state": APP_STATE}
    with pytest.raises(d.Refusal, match=why):
        running.connect().init_chain(**{**right, **changed})
    running.server.stop()
    assert len(running.failures) == 1


def test_new_chain_on_a_node_with_blocks_is_refused(driver):
    driver.block([b"tx"])
    with pytest.raises(d.Refusal, match="this node has 1 blocks"):
        driver.init_chain(CHAIN_ID, KEYS, APP_STATE)


# blocks


def test_block_carries_proposer_evidence_time_and_updates(running):
    driver = running.connect()
    running.node.application.updates = (Validator(b"\x01" * 32, 0), Validator(b"\x03" * 32, 7))
    driver.proposer, driver.time_s = b"\x0b" * 20, 1_800_000_000
    address = VALIDATORS[1].address
    block = driver.block([b"tx", b""], [d.Evidence(DUPLICATE_VOTE, address, 20, 1)])
    assert block.codes == [0, 0]
    assert block.updates == {b"\x01" * 32: 0, b"\x03" * 32: 7}
    found = Misbehaviour(DUPLICATE_VOTE, address, 1)
    assert running.node.application.decisions == [Decision(b"\x0b" * 20, (found,), 1_800_000_000)]


def test_every_transaction_has_one_result_in_order(driver):
    assert driver.decide([b"a", b"no", b"b", b"no"]).codes == [0, 7, 0, 7]
    assert driver.decide([]).codes == []


def test_proposal_against_the_rules_is_rejected_and_the_node_goes_on(running, caplog):
    driver = running.connect()
    with caplog.at_level(logging.WARNING):
        assert driver.process([b"a", b"no"]) is False
    assert "height 1" in caplog.text
    assert driver.process([b"a"]) is True
    assert running.failures == []


@pytest.mark.parametrize("bad", [b"", b"x", bytes(91), bytes(1025)], ids=len)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_proposal_with_what_no_record_can_be_is_refused_unasked(tmp_path, bad, place):
    asked = []
    with served(plain_node(tx_bytes=m.TX_BYTES), tmp_path) as running:
        running.node.application.process_proposal = lambda height, txs: asked.append(txs) or True
        driver = running.connect()
        good = [bytes(92), bytes(1024)]
        assert driver.process([*good[:place], bad, *good[place:]]) is False
        assert asked == []
        assert driver.process(good) is True
        assert asked == [good]
        assert running.failures == []


def test_proposal_of_a_million_transactions_is_read_up_to_the_first(monkeypatch):
    read = []
    field = protobuf.Field
    monkeypatch.setattr(protobuf, "Field", lambda *of: read.append(of) or field(*of))
    body = b"\x0a\x00" * 1_000_000
    request = m.decode_request(b"\x8a\x01" + protobuf.delimited(body + b"\x28\x01"))
    assert request == m.HopelessProposal()
    assert len(read) == 2  # the request, and the first of its fields


def test_proposal_holds_what_the_application_takes(driver):
    assert driver.prepare([b"a", b"no", b"b"]) == [b"a", b"b"]
    assert driver.prepare([]) == []


@pytest.mark.parametrize("size", [1, 127, 128, 300])
def test_proposal_counts_what_protobuf_adds_to_each_transaction(driver, size):
    txs = [bytes([i]) * size for i in range(4)]
    # CometBFT's own count: types/tx.go, ComputeProtoSizeForTxs, of message Data{repeated bytes = 1}
    total = sum(len(d.always(1, tx)) for tx in txs)
    assert driver.prepare(txs, total) == txs
    assert driver.prepare(txs, total - 1) == txs[:3]
    assert driver.prepare(txs, 0) == []


def test_small_transaction_follows_a_large_one_that_has_no_room(driver):
    assert driver.prepare([b"a" * 50, b"b" * 50, b"c"], 60) == [b"a" * 50, b"c"]


@pytest.mark.parametrize("height", [0, 2, -1, 2**62])
def test_block_that_is_not_the_next_stops_the_node(running, height):
    with pytest.raises(d.Closed):
        running.connect().finalize([b"tx"], height=height)
    running.server.stop()
    assert "restored from a backup" in str(running.failures[0])


def test_commit_without_a_block_stops_the_node(running):
    with pytest.raises(d.Closed):
        running.connect().commit()
    running.server.stop()
    assert len(running.failures) == 1


@pytest.mark.parametrize("call", ["prepare", "process"])
def test_proposal_inside_a_block_stops_the_node(running, call):
    driver = running.connect()
    driver.finalize([b"tx"])
    with pytest.raises(d.Closed):
        getattr(driver, call)([b"tx"])
    running.server.stop()
    assert "between FinalizeBlock 1 and its Commit" in str(running.failures[0])


def test_engine_that_comes_back_inside_a_block_decides_it_again(running):
    first = running.connect()
    given = first.finalize([b"tx"])
    first.close()
    again = running.connect()
    assert again.info()[0] == 0
    assert again.decide([b"tx"]).app_hash == given.app_hash
    assert again.info() == (1, given.app_hash, 1)


def test_committed_is_called_after_the_commit_under_the_lock(tmp_path):
    seen = []

    def committed(height, decision):
        seen.append((height, decision.proposer, node.application.info().last_block_height))

    node = plain_node(committed=committed)
    with served(node, tmp_path) as running:
        driver = running.connect()
        driver.finalize([b"tx"])
        assert seen == []
        driver.commit()
        driver.block([])
    assert seen == [(1, bytes(20), 1), (2, bytes(20), 2)]


def test_old_blocks_may_go_when_the_node_says_how_many_it_keeps(tmp_path):
    with served(plain_node(retain_blocks=3), tmp_path) as running:
        driver = running.connect()
        assert [driver.block([]).retain for _ in range(6)] == [0, 0, 1, 2, 3, 4]


def test_all_blocks_are_kept_unless_it_says(driver):
    assert [driver.block([]).retain for _ in range(3)] == [0, 0, 0]


def test_votes_are_not_extended(driver):
    assert driver.consensus.call(d.EXTEND_VOTE, d.encode([(2, 1)])) == {}
    verify = driver.consensus.call
    assert verify(d.VERIFY_EXTENSION, d.encode([(3, 1)])) == {1: [1]}
    assert verify(d.VERIFY_EXTENSION, d.encode([(3, 1), (4, b"more")])) == {1: [2]}


# queries


def test_query_gives_value_proof_and_hash(driver):
    block = driver.block([b"tx"])
    code, value, height = driver.ask("there", b"key")
    assert (code, height) == (0, 1)
    assert cbor.loads(value) == [b"key", [1, b"proof"], block.app_hash]
    assert cbor.loads(driver.ask("there", b"")[1]) == [None, [1, b"proof"], block.app_hash]


def test_query_that_nobody_knows_is_refused(running):
    driver = running.connect()
    assert driver.ask("elsewhere", b"")[0] == 25
    hostile = driver.query.call(d.QUERY, d.encode([(2, b"\xff\xfe")]))
    assert d.number(hostile, 1) == 25
    assert running.failures == []


def test_query_of_an_old_height_is_refused(driver):
    driver.block([])
    driver.block([])
    assert driver.ask("there", b"key", 2)[0] == 0
    for height in (1, 3, -1):
        assert driver.ask("there", b"key", height)[0] == NOT_KEPT


def test_query_that_fails_does_not_stop_the_node(running, caplog):
    driver = running.connect()
    assert driver.ask("there", b"fail query")[0] == FAILED
    assert "query failed" in caplog.text
    assert driver.block([b"tx"]).codes == [0]
    assert running.failures == []


# the mempool


def test_transaction_is_checked_with_its_code(driver):
    assert driver.check_tx(b"a") == 0
    assert driver.check_tx(b"no") == 7
    assert driver.check_txs([b"a", b"no", b"b"]) == [0, 7, 0]


def test_transaction_longer_than_a_record_does_not_reach_the_application(running):
    driver = running.connect()
    assert driver.check_tx(b"x" * 1025) == gate.TOO_LONG
    assert driver.check_tx(b"x" * 1024) == 0
    assert running.node.gate.refused == {gate.TOO_LONG: 1}


# snapshots


class Shelf:
    """Notes what it is asked; fails where it is told to."""

    def __init__(self) -> None:
        self.calls = []
        self.broken = False
        self.there = [Snapshot(20, 1, 3, b"h" * 32, b"meta"), Snapshot(10, 1, 1, b"g" * 32, b"")]

    def list(self):
        if self.broken:
            raise OSError("disk gone")
        return self.there

    def load(self, height, format_, index):
        self.list()
        return b"chunk" if (height, format_, index) == (20, 1, 2) else b""

    def offer(self, snapshot, app_hash):
        self.calls.append((snapshot, app_hash))
        return OfferResult.REJECT_FORMAT

    def apply(self, index, chunk, sender):
        self.calls.append((index, chunk, sender))
        return Applied(ApplyResult.RETRY, (0, 1, 300), ("peer-é", "b"))


def snapshot_body(snapshot: abci.Snapshot) -> bytes:
    s = snapshot
    return d.encode([(1, s.height), (2, s.format), (3, s.chunks), (4, s.hash), (5, s.metadata)])


def test_snapshots_pass_through(tmp_path):
    shelf = Shelf()
    with served(plain_node(snapshots=shelf), tmp_path) as running:
        snapshot = running.connect().snapshot
        expected = [snapshot_body(s) for s in shelf.there]
        assert snapshot.call(d.LIST_SNAPSHOTS) == {1: expected}
        chunk = [(1, 20), (2, 1), (3, 2)]
        assert snapshot.call(d.LOAD_CHUNK, d.encode(chunk)) == {1: [b"chunk"]}
        assert snapshot.call(d.LOAD_CHUNK, d.encode([(1, 2**64 - 1)])) == {}
        offer = d.encode([(1, expected[0]), (2, b"a" * 32)])
        assert snapshot.call(d.OFFER_SNAPSHOT, offer) == {1: [4]}
        apply = d.encode([(1, 5), (2, b"data"), (3, "peer-é".encode())])
        answer = snapshot.call(d.APPLY_CHUNK, apply)
        # refetch_chunks is packed: 0, 1, 300
        assert answer == {1: [3], 2: [b"\x00\x01\xac\x02"], 3: ["peer-é".encode(), b"b"]}
        assert shelf.calls == [(shelf.there[0], b"a" * 32), (5, b"data", "peer-é")]


def test_node_without_snapshots_has_none_and_takes_none(driver):
    assert driver.snapshot.call(d.LIST_SNAPSHOTS) == {}
    assert driver.snapshot.call(d.LOAD_CHUNK, d.encode([(1, 1)])) == {}
    assert driver.snapshot.call(d.OFFER_SNAPSHOT, d.always(1, b"")) == {1: [2]}
    assert driver.snapshot.call(d.APPLY_CHUNK, d.encode([(2, b"x")])) == {1: [2]}


def test_offer_without_a_snapshot_is_turned_down(tmp_path):
    with served(plain_node(snapshots=Shelf()), tmp_path) as running:
        assert running.connect().snapshot.call(d.OFFER_SNAPSHOT) == {1: [2]}


def test_snapshots_that_cannot_be_read_do_not_stop_the_node(tmp_path, caplog):
    shelf = Shelf()
    shelf.broken = True
    with served(plain_node(snapshots=shelf, retain_blocks=2), tmp_path) as running:
        driver = running.connect()
        assert driver.snapshot.call(d.LIST_SNAPSHOTS) == {}
        assert driver.snapshot.call(d.LOAD_CHUNK, d.encode([(1, 20)])) == {}
        assert driver.block([]).codes == []
        assert running.failures == []
    assert "disk gone" in caplog.text


def test_blocks_that_follow_a_snapshot_are_kept(tmp_path):
    shelf = Shelf()
    shelf.there = [Snapshot(2, 1, 1, b"", b"")]
    with served(plain_node(snapshots=shelf, retain_blocks=1), tmp_path) as running:
        driver = running.connect()
        assert [driver.block([]).retain for _ in range(5)] == [1, 2, 2, 2, 2]
