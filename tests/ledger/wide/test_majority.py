"""A region of several gateways reports what more than half of them hand in (SPEC 13.3, 13.4)."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.audit import audit_wide
from ledger.merkle import Log
from ledger.network import RegionGateways
from ledger.protocol import cbor, records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadProof, MalformedRecord, ProtocolError
from ledger.region import RegionDirectory
from ledger.snapshot import Row
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication
from ledger.wide.entries import Entry
from ledger.wide.proofs import verify_kept, verify_offers, verify_summary
from ledger.wide.restore import kept_row, state_row
from ledger.wide.state import LOG_KEY, MOST_OFFERS, Offers, State
from ledger.wide.store import WideStore
from tests.ledger.wide.bench import (
    EAST,
    EAST_KEYS,
    MANAGED,
    NORTH,
    NORTH_KEY,
    SECOND_KEY,
    Managed,
    Node,
    offer,
    sealed,
    summary,
)

ABSURD = {
    "to_height": records.MAX_ROUND,
    "to_round": records.MAX_ROUND,
    "log_size": records.MAX_ROUND,
    "energy_in": (1 << 63) - 1,
}


@pytest.fixture
def node() -> Node:
    return Node()


def offered(number: int, gateway: int, **changes: object) -> Envelope:
    return offer(number, gateway, chain=MANAGED.chain, **changes)


def height(node: Node) -> int:
    return node.app.state.region(EAST).to_height


# when a summary takes effect


def test_summary_takes_effect_when_more_than_half_hand_it_in(node: Node) -> None:
    assert node.send(offer(0, 0), offer(0, 3)) == [codes.OFFERED, codes.OFFERED]
    assert height(node) == 0
    assert node.send(offer(0, 1)) == [codes.OK]
    assert height(node) == 10
    assert node.app.store.kept(2) == offer(0, 1).raw
    assert node.app.state.offers(EAST) == Offers()


def test_one_gateway_alone_moves_nothing(node: Node) -> None:
    assert node.send(offer(0, 4, **ABSURD)) == [codes.OFFERED]
    assert node.app.query("region", EAST).value is None
    assert node.send(*(offer(0, gateway) for gateway in range(3)))[-1] == codes.OK
    assert (height(node), node.app.state.region(EAST).energy_in) == (10, 1000)
    assert node.app.state.region(EAST).conflict is None


def test_late_gateways_same_summary_is_a_duplicate(node: Node) -> None:
    node.send(*(offer(0, gateway) for gateway in range(3)))
    assert node.refuses(offer(0, 3)) == codes.DUPLICATE
    assert node.refuses(offer(0, 0)) == codes.DUPLICATE


def test_same_offer_again_is_a_duplicate(node: Node) -> None:
    node.send(offer(0, 0))
    assert node.refuses(offer(0, 0)) == codes.DUPLICATE


def test_changed_mind_takes_the_place_of_the_old_offer(node: Node) -> None:
    node.send(offer(0, 0, alarms=9), offer(0, 1, alarms=9), offer(0, 0))
    assert node.send(offer(0, 2, alarms=9)) == [codes.OFFERED]  # two of three still say so
    assert node.send(offer(0, 1), offer(0, 3)) == [codes.OFFERED, codes.OK]
    assert node.app.state.region(EAST).alarms == 1


def test_gateway_changes_its_mind_a_few_times_a_window(node: Node) -> None:
    for alarms in range(MOST_OFFERS):
        assert node.send(offer(0, 0, alarms=alarms)) == [codes.OFFERED]
    assert node.refuses(offer(0, 0, alarms=99)) == codes.TOO_MANY_OFFERS
    assert node.send(*(offer(0, gateway) for gateway in (1, 2, 3)))[-1] == codes.OK
    assert node.send(offer(1, 0)) == [codes.OFFERED]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"from_height": 15}, codes.GAP),
        ({"from_round": 9}, codes.BACKWARDS),
        ({"witnessed_height": 8}, codes.BACKWARDS),
    ],
)
def test_offer_keeps_the_rules_of_a_summary(node: Node, change: dict[str, int], code: int) -> None:
    node.send(*(offer(0, gateway) for gateway in range(3)))
    assert node.refuses(offer(1, 0, **change)) == code


def test_stranger_offers_nothing(node: Node) -> None:
    assert node.refuses(SECOND_KEY.seal(summary(0, EAST).payload())) == codes.UNKNOWN_SIGNER
    forged = bytearray(offer(0, 0).raw)
    forged[-1] ^= 1
    assert node.refuses(Envelope.parse(bytes(forged))) == codes.BAD_SIGNATURE


def test_proposal_may_hold_what_only_becomes_an_offer(node: Node) -> None:
    txs = [offer(0, 0).raw, offer(0, 1).raw]
    assert node.app.check_tx(txs[0]).code == codes.OK
    assert node.app.prepare_proposal([*txs, txs[0]], 10_000) == txs
    assert node.app.process_proposal(1, txs)
    assert not node.app.process_proposal(1, [*txs, txs[0]])


def test_summary_that_follows_one_let_in_needs_that_in_effect_for_a_block(node: Node) -> None:
    assert node.app.check_tx(offer(0, 0).raw).code == codes.OK
    assert node.app.check_tx(offer(1, 0).raw).code == codes.OK
    both = [offer(0, 0).raw, offer(1, 0).raw]
    assert node.app.prepare_proposal(both, 10_000) == both[:1]
    assert not node.app.process_proposal(1, both)
    node.send(offer(0, 0))
    assert node.app.check_tx(offer(1, 0).raw).code == codes.GAP


def test_evidence_says_which_gateway_it_is_against(node: Node) -> None:
    node.send(*(offer(0, gateway) for gateway in range(3)))
    liar = offer(0, 4, energy_in=7)
    assert node.send(liar) == [codes.CONFLICT]
    entry = node.app.store.entry(3)
    assert entry is not None
    assert (entry.region, entry.gateway) == (EAST, EAST_KEYS[4].address)
    assert node.app.state.region(EAST).conflict == payload_digest(liar.payload)
    assert node.refuses(offer(0, 3, energy_in=8)) == codes.KNOWN_CONFLICT
    assert node.send(*(offer(1, gateway) for gateway in range(3)))[-1] == codes.OK


def test_new_gateways_begin_without_offers() -> None:
    node = Managed()
    node.send(offered(0, 0), offered(0, 1))
    left = (EAST_KEYS[0], EAST_KEYS[1], EAST_KEYS[2])
    assert node.change(RegionGateways(EAST, tuple(k.public_key for k in left))) == [codes.OK] * 2
    assert node.app.state.offers(EAST) == Offers()
    assert node.send(offered(0, 4)) == [codes.UNKNOWN_SIGNER]
    assert node.send(offered(0, 0), offered(0, 1)) == [codes.OFFERED, codes.OK]


def test_region_that_is_left_with_one_gateway_needs_no_other() -> None:
    node = Managed()
    node.send(offered(0, 0))
    node.change(RegionGateways(EAST, (EAST_KEYS[1].public_key,)))
    assert node.send(offered(0, 1), offered(1, 1)) == [codes.OK, codes.OK]


# A gateway's steps: (gateway, story). Stories of the first two are the minority's.
STEPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_minority_never_puts_a_summary_in_effect_and_the_majority_always_can(
    steps: list[tuple[int, int]],
) -> None:
    node = Node()
    for gateway, story in steps:
        # the honest three say one thing; the two others anything else, and that as well
        changes = {"alarms": story} if gateway < 2 else {}
        node.send(offer(0, gateway, **changes))
        region = node.app.state.region(EAST)
        assert region.summaries in (0, 1)
        if region.summaries:
            assert region.last == payload_digest(summary(0, EAST).payload())
    node.send(*(offer(0, gateway) for gateway in (2, 3, 4)))
    assert node.app.state.region(EAST).last == payload_digest(summary(0, EAST).payload())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 9)), max_size=30))
def test_offers_stay_bounded(steps: list[tuple[int, int]]) -> None:
    node = Node()
    for gateway, story in steps:
        node.send(offer(0, gateway, alarms=100 + story + 10 * gateway))
    assert node.app.store.count() <= 2 * MOST_OFFERS
    assert len(node.app.state.offers(EAST).rows) <= 2
    assert height(node) == 0


# one gateway: as ever


def test_region_of_one_gateway_stays_byte_for_byte() -> None:
    genesis = dataclasses.replace(MANAGED, regions=((NORTH, (NORTH_KEY.public_key,)),))
    node = Managed(genesis=genesis)
    north = [node.sealed(number) for number in range(3)]
    assert node.send(north[0], north[1], node.sealed(0, energy_in=9)) == [0, 0, codes.CONFLICT]
    assert node.send(north[2]) == [codes.OK]
    whole = sha256(repr(list(node.app.store.entries())).encode()).hexdigest()
    assert node.app.app_hash.hex() == GOLDEN_HASH
    assert whole == GOLDEN_ENTRIES
    answer = node.app.query("offers", NORTH)
    assert answer.value is None
    verify_offers(answer.app_hash, NORTH, None, answer.proof)


# as they were before offers
GOLDEN_HASH = "c836c2d77b85ca5b0b4e7cb306a716420798ff000ca6b9cbe6e037fd66f9ea39"
GOLDEN_ENTRIES = "041208ffedd844e189f0eabb3fb1f153aa0efa4d26907a62bd96d4096f265169"


# proofs


def test_offer_is_no_summary_in_effect(node: Node) -> None:
    node.send(offer(0, 0))
    assert node.app.query("summary", EAST + (10).to_bytes(8, "big")).proof == []
    answer = node.app.query("kept", bytes(8))
    entry = verify_kept(answer.app_hash, answer.value, answer.proof)
    assert (entry.code, entry.region, entry.gateway) == (
        codes.OFFERED,
        EAST,
        EAST_KEYS[0].address,
    )
    with pytest.raises(BadProof, match="in effect"):
        verify_summary(answer.app_hash, EAST, 10, answer.value, answer.proof)


def test_offers_are_proved(node: Node) -> None:
    node.send(offer(0, 0))
    answer = node.app.query("offers", EAST)
    assert answer.value is not None
    verify_offers(answer.app_hash, EAST, answer.value, answer.proof)
    found = Offers.decode(answer.value)
    assert found.rows == ((EAST_KEYS[0].address, payload_digest(offer(0, 0).payload), 1),)
    for value in (None, Offers().encode()):
        with pytest.raises(BadProof):
            verify_offers(answer.app_hash, EAST, value, answer.proof)


ROW = [b"a" * 16, bytes(32), 1]


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [ROW, ROW],
        [[b"b" * 16, bytes(32), 1], ROW],
        [[b"a" * 15, bytes(32), 1]],
        [[b"a" * 16, bytes(31), 1]],
        [[b"a" * 16, bytes(32), 0]],
        [[b"a" * 16, bytes(32), MOST_OFFERS + 1]],
        [[b"a" * 16, bytes(32), True]],
        [ROW[:2]],
        [[bytes([i]) * 16, bytes(32), 1] for i in range(17)],
    ],
)
def test_leaf_of_another_form_is_malformed(rows: object) -> None:
    with pytest.raises(MalformedRecord):
        Offers.decode(cbor.dumps(rows))


@given(st.binary(max_size=120))
def test_any_bytes_are_offers_or_malformed(data: bytes) -> None:
    try:
        found = Offers.decode(data)
    except MalformedRecord:
        return
    assert found.encode() == data


# snapshots, pruning, audit


def fill(node: Managed) -> None:
    node.send(offered(0, 4, **ABSURD), offered(0, 0), offered(0, 1))
    node.send(offered(0, 1, alarms=9), offered(0, 1), node.sealed(0))
    node.send(offered(0, 2))
    node.send(offered(0, 4, energy_in=5), offered(1, 3))
    node.change(RegionGateways(EAST, tuple(key.public_key for key in EAST_KEYS[:3])))
    node.send(offered(1, 0), offered(1, 2), offered(2, 1))


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Managed]:
    node = Managed(tmp_path / "wide.sqlite")
    fill(node)
    assert node.app.state.region(EAST).summaries == 2
    assert len(node.app.state.offers(EAST).rows) == 1
    yield node
    node.app.close()


def restored(node: Managed, rows: Iterator[Row]) -> WideApplication:
    app = WideApplication(MANAGED, Database(None, TABLES), Verifier())
    app.restore(node.app.height, node.app.app_hash, rows)
    return app


@pytest.mark.parametrize("before", [0, 3, 4, 99])
def test_snapshot_brings_offers_along_pruned_or_not(full: Managed, before: int) -> None:
    full.app.prune(before)
    app = restored(full, full.app.export(full.app._database))
    assert app.app_hash == full.app.app_hash
    assert app.state.offers(EAST) == full.app.state.offers(EAST)
    later = [offered(2, 0).raw]
    codes_of = [a.finalize_block(99, later).tx_results for a in (app, full.app)]
    assert codes_of[0] == codes_of[1]
    assert [result.code for result in codes_of[0]] == [codes.OK]
    assert app.app_hash == full.app.app_hash


def forged(node: Managed, change: dict[int, Entry]) -> WideApplication:
    """Restore without bodies, with other entries; the state's log is made to fit to them."""
    rows = [(change.get(i, e), b) for i, (e, b) in enumerate(node.app.store.entries())]
    log = Log(WideStore(Database(None, TABLES)))
    for entry, _ in rows:
        log.append(entry.encode())
    leaves = dict(node.app.store.state_rows()) | {LOG_KEY: cbor.dumps([log.size, log.root()])}
    state = State(sorted(leaves.items()))
    app = WideApplication(MANAGED, Database(None, TABLES), Verifier())
    all_rows = [state_row(key, value) for key, value in sorted(leaves.items())]
    all_rows += [
        kept_row(*entry, body if entry.code == codes.NETWORK_CHANGE else None)
        for entry, body in rows
    ]
    app.restore(node.app.height, state.root(), iter(all_rows))
    return app


def test_entries_alone_show_every_majority(full: Managed) -> None:
    forged(full, {})
    entries = [entry for entry, _ in full.app.store.entries()]
    first = entries[0]
    assert first.code == codes.OFFERED
    east = [
        (number, entry)
        for number, entry in enumerate(entries)
        if entry.code != codes.NETWORK_CHANGE and entry.region == EAST
    ]
    settled = [number for number, entry in east if entry.code == codes.OK]
    assert len(settled) == 2
    for number, entry in east:
        wrong = []
        if entry.code == codes.OK:  # of figures, or of heights, that no majority offers
            wrong = [entry._replace(digest=bytes(32)), entry._replace(place=0)]
        elif entry.code == codes.CONFLICT:
            wrong = [entry._replace(subject=EAST), entry._replace(subject=EAST + bytes(16))]
        else:
            wrong = [
                entry._replace(code=codes.OK, subject=EAST),
                entry._replace(subject=EAST + bytes(16)),
                entry._replace(place=0),
            ]
            if 0 < number < settled[0]:
                wrong.append(first)
        for other in wrong:
            with pytest.raises(ProtocolError):
                forged(full, {number: other})


def audited(path: Path, change: str = "") -> str | None:
    directory = RegionDirectory(path)
    directory.wide_genesis.parent.mkdir(parents=True, exist_ok=True)
    directory.wide_genesis.write_bytes(MANAGED.encode())
    if change:
        sql = sqlite3.connect(directory.wide, isolation_level=None)
        assert sql.execute(change).rowcount > 0, "the test changes nothing"
        sql.close()
    report = audit_wide(directory)
    return None if report.ok else str(report.failure)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = RegionDirectory(tmp_path / "copy")
    directory.wide.parent.mkdir(parents=True, exist_ok=True)
    node = Managed(directory.wide)
    fill(node)
    node.app.close()
    return directory.path


def test_audit_finds_every_state_again(folder: Path) -> None:
    assert audited(folder) is None


def test_audit_of_a_pruned_chain_passes(folder: Path) -> None:
    directory = RegionDirectory(folder)
    node = Managed(directory.wide)
    assert node.app.prune(99) > 3
    node.app.close()
    assert audited(folder) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE kept SET code=0, subject=substr(subject, 1, 8) WHERE number=0",
        "UPDATE kept SET code=28 WHERE code=22",
        "DELETE FROM kept WHERE number=1",
        "UPDATE state SET value=X'80' WHERE substr(key, 1, 1)=X'70'",
        "DELETE FROM state WHERE substr(key, 1, 1)=X'70'",
    ],
)
@pytest.mark.parametrize("prune", [0, 99])
def test_audit_notices_an_altered_offer(folder: Path, change: str, prune: int) -> None:
    node = Managed(RegionDirectory(folder).wide)
    node.app.prune(prune)
    node.app.close()
    assert audited(folder, change) is not None


def test_order_of_blocks_does_not_matter_and_nodes_agree() -> None:
    txs = [offered(0, 4, alarms=5), offered(0, 0), sealed(0), offered(0, 1), offered(0, 2)]
    hashes = set()
    for size in (1, 2, 3, 5):
        node = Managed()
        for at in range(0, len(txs), size):
            node.send(*txs[at : at + size])
        hashes.add(node.app.app_hash)
    assert len(hashes) == 1
