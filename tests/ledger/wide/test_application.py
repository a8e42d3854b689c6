"""The rules of the wide-area chain (SPEC 13.3)."""

import dataclasses
import random
import sqlite3
from pathlib import Path

import pytest

from ledger.engine.abci import Refused
from ledger.protocol import cbor, records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadProof
from ledger.store import Database, StoreError
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication
from ledger.wide.proofs import verify_kept, verify_region, verify_summary
from ledger.wide.state import Region
from tests.ledger.wide.bench import (
    CHAIN,
    EAST,
    GENESIS,
    NORTH,
    NORTH_KEY,
    NOWHERE,
    SOUTH,
    SOUTH_KEY,
    Node,
    sealed,
    summary,
)


@pytest.fixture
def node() -> Node:
    node = Node()
    assert node.send(sealed(0), sealed(1)) == [codes.OK, codes.OK]
    return node


def test_summaries_in_order_add_up(node: Node) -> None:
    assert node.send(sealed(2), sealed(0, SOUTH)) == [codes.OK, codes.OK]
    north = node.app.state.region(NORTH)
    assert (north.summaries, north.to_height, north.to_round) == (3, 30, 29)
    assert (north.energy_in, north.energy_out) == (3003, 3)
    assert (north.accepted, north.rejected, north.unconfirmed) == (308, 11, 6)
    assert (north.alarms, north.members, north.conflict) == (3, 11, None)
    assert north.last == payload_digest(summary(2).payload())
    assert north.log_root == summary(2).log_root
    assert node.app.state.region(SOUTH).to_height == 10


def test_broken_bytes_are_malformed(node: Node) -> None:
    for raw in (b"", b"\xd2", bytes(200), sealed(2).raw[:-1], b"\x00" * 2000):
        assert node.app.check_tx(raw).code == codes.MALFORMED


def test_other_record_is_malformed(node: Node) -> None:
    assert node.refuses(NORTH_KEY.seal(records.Close(CHAIN, 1).payload())) == codes.MALFORMED


def test_summary_for_another_chain_is_refused(node: Node) -> None:
    assert node.refuses(sealed(2, chain=b"elsewher")) == codes.WRONG_CHAIN


def test_summary_of_an_unknown_region_is_refused(node: Node) -> None:
    assert node.refuses(sealed(2, region=NOWHERE)) == codes.UNKNOWN_REGION


def test_gateway_of_another_region_is_refused(node: Node) -> None:
    assert node.refuses(SOUTH_KEY.seal(summary(2).payload())) == codes.UNKNOWN_SIGNER


def test_wrong_signature_is_refused(node: Node) -> None:
    raw = bytearray(sealed(2).raw)
    raw[-1] ^= 1
    assert node.refuses(Envelope.parse(bytes(raw))) == codes.BAD_SIGNATURE


def test_gap_between_summaries_is_refused(node: Node) -> None:
    assert node.refuses(sealed(3)) == codes.GAP


@pytest.mark.parametrize("number", [0, 1])
def test_summary_again_is_a_duplicate(node: Node, number: int) -> None:
    assert node.refuses(sealed(number)) == codes.DUPLICATE


@pytest.mark.parametrize(
    "change",
    [
        {"energy_in": 999_999},
        {"to_height": 20, "log_size": 20},
        {"from_height": 5},
        {"log_root": bytes(32)},
    ],
    ids=["content", "reaches further", "overlap", "log"],
)
def test_other_summary_for_reported_heights_is_kept_as_evidence(
    node: Node, change: dict[str, object]
) -> None:
    before = node.app.state.region(NORTH)
    liar = sealed(0, **change)
    assert node.app.check_tx(liar.raw).code == codes.OK  # else no block could keep it
    assert node.app.process_proposal(9, [liar.raw])
    assert node.app.prepare_proposal([liar.raw], 10_000) == [liar.raw]
    assert node.send(liar) == [codes.CONFLICT]
    after = node.app.state.region(NORTH)
    assert after == dataclasses.replace(before, conflict=payload_digest(liar.payload))
    assert node.app.store.kept(2) == liar.raw


def test_one_piece_of_evidence_a_region_is_kept(node: Node) -> None:
    liar = sealed(0, energy_in=999_999)
    assert node.send(liar) == [codes.CONFLICT]
    assert node.refuses(liar) == codes.DUPLICATE
    assert node.refuses(sealed(0, energy_in=999_998)) == codes.KNOWN_CONFLICT
    assert node.app.store.count() == 3


def test_forged_evidence_is_refused(node: Node) -> None:
    raw = bytearray(sealed(0, energy_in=999_999).raw)
    raw[-1] ^= 1
    assert node.refuses(Envelope.parse(bytes(raw))) == codes.BAD_SIGNATURE


def test_region_in_conflict_still_reports(node: Node) -> None:
    node.send(sealed(0, energy_in=999_999))
    assert node.send(sealed(2)) == [codes.OK]
    assert node.app.state.region(NORTH).conflict is not None


@pytest.mark.parametrize(
    "change",
    [
        {"witnessed_height": 18},
        {"witnessed_height": 19, "witnessed_digest": b"other" + bytes(27)},
        {"from_round": 19},
    ],
    ids=["witnessed height", "another head witnessed", "rounds"],
)
def test_summary_that_takes_back_is_refused(node: Node, change: dict[str, object]) -> None:
    assert node.refuses(sealed(2, **change)) == codes.BACKWARDS


def test_log_of_another_size_than_its_heights_is_malformed(node: Node) -> None:
    assert node.refuses(sealed(2, log_size=29)) == codes.MALFORMED


def test_totals_stop_counting_rather_than_the_chain() -> None:
    node = Node()
    most = {"energy_in": (1 << 63) - 1}
    assert node.send(sealed(0, **most), sealed(1, **most)) == [codes.OK, codes.OK]
    assert node.app.state.region(NORTH).energy_in == (1 << 63) - 1


def test_app_hash_follows_from_the_sequence_alone() -> None:
    txs = [sealed(0), sealed(0, SOUTH), sealed(1), sealed(0, rejected=9), sealed(2)]
    txs += [sealed(5), sealed(1, SOUTH)]
    hashes = set()
    for seed in range(5):
        rng, node, rest = random.Random(seed), Node(), list(txs)
        while rest:
            size = rng.randint(0, 3)
            node.send(*rest[:size])
            rest = rest[size:]
        hashes.add(node.app.app_hash)
    assert len(hashes) == 1


def test_order_of_regions_is_in_the_app_hash() -> None:
    one, other = Node(), Node()
    one.send(sealed(0), sealed(0, SOUTH))
    other.send(sealed(0, SOUTH), sealed(0))
    assert one.app.app_hash != other.app.app_hash


def test_reopened_chain_stands_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "wide.sqlite"
    node = Node(path)
    node.send(sealed(0))
    node.send()
    before = node.app.info()
    node.app.close()
    again = Node(path)
    assert again.app.info() == before
    assert again.app.info().last_block_height == 2
    assert again.send(sealed(1)) == [codes.OK]
    again.app.close()


def test_chain_of_another_genesis_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "wide.sqlite"
    Node(path).app.close()
    other = dataclasses.replace(GENESIS, name="other")
    with Database(path, TABLES) as database, pytest.raises(StoreError, match="another genesis"):
        WideApplication(other, database, Verifier())


def test_block_that_fails_leaves_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before, size = node.app.info(), node.app.log.size

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(node.app.store, "put_block", broken)
        with pytest.raises(sqlite3.OperationalError):
            node.send(sealed(2))
    assert (node.app.info(), node.app.app_hash) == (before, before.last_block_app_hash)
    assert node.app.log.size == size
    assert node.send(sealed(2)) == [codes.OK]


def test_block_that_was_not_committed_is_dropped(node: Node) -> None:
    node.app.finalize_block(2, [sealed(2).raw])
    result = node.app.finalize_block(2, [sealed(2).raw])
    assert [tx.code for tx in result.tx_results] == [codes.OK]
    node.app.commit()
    assert node.app.state.region(NORTH).to_height == 30


# proofs


def test_region_is_proved_under_the_app_hash(node: Node) -> None:
    answer = node.app.query("region", NORTH)
    assert answer.app_hash == node.app.app_hash
    assert answer.value is not None
    verify_region(answer.app_hash, NORTH, answer.value, answer.proof)
    assert Region.decode(answer.value) == node.app.state.region(NORTH)


def test_region_without_a_report_is_proved_absent(node: Node) -> None:
    answer = node.app.query("region", SOUTH)
    assert answer.value is None
    verify_region(answer.app_hash, SOUTH, None, answer.proof)


def test_other_figures_are_not_proved(node: Node) -> None:
    answer = node.app.query("region", NORTH)
    lie = dataclasses.replace(node.app.state.region(NORTH), energy_in=1).encode()
    for value in (lie, None):
        with pytest.raises(BadProof):
            verify_region(answer.app_hash, NORTH, value, answer.proof)
    with pytest.raises(BadProof):
        verify_region(bytes(32), NORTH, answer.value, answer.proof)


def test_every_summary_is_proved_to_be_kept(node: Node) -> None:
    node.send(sealed(0, SOUTH), sealed(2), sealed(0, energy_in=999_999), sealed(3))
    for number in range(4):
        key = NORTH + (10 * (number + 1)).to_bytes(8, "big")
        answer = node.app.query("summary", key)
        assert answer.value == sealed(number).raw
        where = (NORTH, 10 * (number + 1))
        verify_summary(answer.app_hash, *where, answer.value, answer.proof)
        lie = sealed(number, alarms=9).raw
        for other in ((*where, lie), (SOUTH, where[1], answer.value), (NORTH, 5, answer.value)):
            with pytest.raises(BadProof):
                verify_summary(answer.app_hash, *other, answer.proof)


BROKEN_PROOFS = [[], [1], [None, [b"", [], []], 0, [], b""], [b"x", 1, 2, 3, 4], None]


@pytest.mark.parametrize("proof", BROKEN_PROOFS)
def test_broken_proof_is_refused(node: Node, proof: list[object]) -> None:
    with pytest.raises(BadProof):
        verify_summary(node.app.app_hash, NORTH, 10, sealed(0).raw, proof)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("value", [None, 7, b"", b"\x01" * 40, "text", [], [b""], -1, True])
def test_any_part_of_a_proof_may_be_anything(node: Node, place: int, value: object) -> None:
    answer = node.app.query("summary", NORTH + (10).to_bytes(8, "big"))
    proof = list(answer.proof)
    proof[place] = value
    with pytest.raises(BadProof):
        verify_kept(answer.app_hash, answer.value, proof)


def test_evidence_is_proved_as_evidence(node: Node) -> None:
    liar = sealed(0, energy_in=999_999)
    node.send(liar)
    answer = node.app.query("kept", (2).to_bytes(8, "big"))
    entry = verify_kept(answer.app_hash, answer.value, answer.proof)
    assert answer.value == liar.raw
    assert (entry.subject, entry.place, entry.code) == (NORTH, 10, codes.CONFLICT)
    assert entry.digest == payload_digest(liar.payload)
    with pytest.raises(BadProof, match="in effect"):
        verify_summary(answer.app_hash, NORTH, 10, answer.value, answer.proof)
    assert node.app.query("kept", (3).to_bytes(8, "big")).proof == []


def test_regions_are_told(node: Node) -> None:
    assert cbor.loads(node.app.query("regions", b"").value or b"") == sorted([NORTH, SOUTH, EAST])


def test_all_that_can_be_asked_has_its_key_form(node: Node) -> None:
    for path in ("region", "network", "gateways", "offers", "summary", "kept", "regions"):
        for size in (1, 7, 9, 15, 17, 200):
            with pytest.raises(Refused):
                node.app.query(path, bytes(size))


def test_summary_that_is_not_there_has_no_value(node: Node) -> None:
    for to_height in (11, 1 << 63, (1 << 64) - 1):
        assert node.app.query("summary", NORTH + to_height.to_bytes(8, "big")).value is None


@pytest.mark.parametrize(("path", "key"), [("balance", NORTH), ("region", b""), ("summary", NORTH)])
def test_unknown_query_is_refused(node: Node, path: str, key: bytes) -> None:
    with pytest.raises(Refused):
        node.app.query(path, key)


def test_summary_that_follows_one_let_in_is_let_in_before_that_is_in_a_block(node: Node) -> None:
    app = node.app
    assert app.check_tx(sealed(3).raw).code == codes.GAP
    assert app.check_tx(sealed(2).raw).code == codes.OK
    assert app.check_tx(sealed(3).raw).code == codes.OK
    assert app.check_tx(sealed(5).raw).code == codes.GAP
    both = [sealed(2).raw, sealed(3).raw]
    assert app.prepare_proposal(both, 10_000) == both
    assert not app.process_proposal(9, [sealed(3).raw])


def test_summary_that_follows_one_of_a_proposal_is_let_in_until_the_next_block(node: Node) -> None:
    app = node.app
    assert app.process_proposal(9, [sealed(2).raw])
    assert app.check_tx(sealed(3).raw).code == codes.OK
    node.send()  # a block without the one that was proposed
    assert app.check_tx(sealed(3).raw).code == codes.GAP
