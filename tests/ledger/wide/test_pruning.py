"""Pruned nodes and nodes that began from a snapshot judge and prove as full ones (SPEC 13.6)."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.engine.abci import ApplyResult, Decision, OfferResult
from ledger.network import RegionGateways, Remove, Upgrade
from ledger.protocol.errors import ProtocolError
from ledger.snapshot import BadSnapshot, Row, Snapshots, pack, unpack
from ledger.store import Database
from ledger.wide import codes
from ledger.wide.proofs import verify_kept, verify_summary
from tests.ledger.keys_of import signer
from tests.ledger.wide.bench import (
    NORTH,
    NOWHERE,
    SOUTH,
    VALIDATORS,
    Managed,
    convicted,
    sealed,
)

HEAD_OFFICE = signer("head office")


def eventful(path: Path | None = None) -> Managed:
    """Give a chain in which everything has happened."""
    node = Managed(path)
    node.block(node.sealed(0), node.sealed(0, SOUTH))
    node.block(node.sealed(1), node.sealed(0, energy_in=7))  # a conflict
    node.block()
    node.change(VALIDATORS[0]._replace(power=3))
    node.block(node.sealed(2), evil=[convicted("gw-b")])
    node.change(RegionGateways(NOWHERE, (HEAD_OFFICE.public_key,)))
    node.block(HEAD_OFFICE.seal(node.sealed(0, NOWHERE).payload), node.approval(Remove("sub-1")))
    node.block()
    return node


def rows_of(node: Managed) -> list[Row]:
    return list(node.app.export(node.app._database))


def restored(rows: list[Row], like: Managed) -> Managed:
    node = Managed()
    info = like.app.info()
    node.app.restore(info.last_block_height, info.last_block_app_hash, iter(rows))
    return node


# pruning


def test_pruned_summary_is_still_proved(tmp_path: Path) -> None:
    node = eventful(tmp_path / "wide.sqlite")
    before = node.app.info()
    assert node.app.prune(5) == 4  # the three summaries and the conflict of blocks 1 and 2
    assert node.app.prune(5) == 0
    assert node.app.info() == before
    for to_height, there in ((10, False), (20, False), (30, True)):
        answer = node.app.query("summary", NORTH + to_height.to_bytes(8, "big"))
        assert (answer.value is not None) == there
        entry = verify_summary(answer.app_hash, NORTH, to_height, answer.value, answer.proof)
        assert entry.code == codes.OK
    for number in range(node.app.log.size):
        answer = node.app.query("kept", number.to_bytes(8, "big"))
        verify_kept(answer.app_hash, answer.value, answer.proof)
    assert [height for height, _ in node.app.store.summaries_of(NORTH)] == [30]
    node.app.close()
    again = Managed(tmp_path / "wide.sqlite")
    assert again.app.info() == before
    again.app.close()


def test_network_changes_and_misbehaviour_are_never_pruned() -> None:
    node = eventful()
    while node.app.prune(1 << 40, most=1):
        pass
    for number, (entry, body) in enumerate(node.app.store.entries()):
        assert (body is None) == (entry.code in (codes.OK, codes.CONFLICT)), number


def test_pruning_goes_in_portions() -> None:
    node = eventful()
    assert [node.app.prune(1 << 40, most=4) for _ in range(3)] == [4, 2, 0]


def test_pruning_looks_at_nothing_but_what_goes() -> None:
    plan = eventful().app._database.connection.execute(
        "EXPLAIN QUERY PLAN SELECT number FROM kept"
        " WHERE envelope IS NOT NULL AND code NOT IN (26, 27) AND block<? LIMIT ?",
        (5, 5),
    )
    assert "kept_summaries" in str(plan.fetchall())


def test_age_is_told_by_noted_times() -> None:
    node = Managed()
    hour = 3600
    for number in range(6):
        node.block(node.sealed(number))
        node.app.note_time(1_000_000 + number * hour)
    node.app.note_time(5)  # a clock that went back makes nothing older
    node.app.note_time(1_000_000 + 5 * hour + 1)  # within the hour: not noted
    assert node.app.prune_before(1_000_000 - 1) == 0
    assert node.app.prune_before(1_000_000 + 2 * hour) == 3
    left = [to_height for to_height, _ in node.app.store.summaries_of(NORTH)]
    assert left == [40, 50, 60]


def txs_for(rng: random.Random, node: Managed) -> list[bytes]:
    """Give all kinds of transactions about old, present and future heights."""
    found = []
    for _ in range(rng.randint(0, 6)):
        number = rng.randint(0, 6)
        change = rng.choice([{}, {}, {"energy_in": rng.randint(0, 3)}, {"log_root": bytes(32)}])
        region = rng.choice([NORTH, SOUTH, NOWHERE])
        envelope = node.sealed(number, region, **change)
        if region == NOWHERE:
            envelope = HEAD_OFFICE.seal(envelope.payload)
        found.append(envelope.raw)
        what = rng.choice([Remove("gw-b"), VALIDATORS[1], Upgrade(2, 1 << 40)])
        found.append(node.approval(what, rng.randrange(3)).raw)
    rng.shuffle(found)
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 9))
def test_pruned_full_and_restored_nodes_stay_equal(seed: int, before: int) -> None:
    rng = random.Random(seed)
    full, pruned, bare = eventful(), eventful(), eventful()
    pruned.app.prune(before)
    while bare.app.prune(1 << 40):
        pass
    nodes = [full, pruned, restored(rows_of(full), full), restored(rows_of(bare), bare)]
    for _ in range(4):
        txs = txs_for(rng, full)
        evil = (convicted(rng.choice(VALIDATORS).name),) if rng.random() < 0.3 else ()
        checked = {tuple(node.app.check_tx(tx).code for tx in txs) for node in nodes}
        proposed = {tuple(node.app.prepare_proposal(txs, 5_000)) for node in nodes}
        height = full.app.height + 1
        results = {node.app.finalize_block(height, txs, Decision(b"", evil)) for node in nodes}
        assert len(checked) == len(proposed) == 1
        assert len({(r.app_hash, r.validator_updates, codes_of(r)) for r in results}) == 1
        for node in nodes:
            node.app.commit()
        nodes[1].app.prune(rng.randint(0, height + 1))


def codes_of(result) -> tuple[int, ...]:
    return tuple(tx.code for tx in result.tx_results)


# snapshots


def test_restored_node_is_the_node(tmp_path: Path) -> None:
    original = eventful(tmp_path / "wide.sqlite")
    assert original.app.path == tmp_path / "wide.sqlite"
    rows = [
        row for chunk in pack(original.app.export(original.app._database)) for row in unpack(chunk)
    ]
    node = restored(rows, original)
    assert node.app.info() == original.app.info()
    assert node.app.validators() == original.app.validators()
    assert rows_of(node) == rows_of(original)
    assert node.app.regions() == original.app.regions()
    for key in (NORTH, SOUTH, NOWHERE):
        assert node.app.query("region", key) == original.app.query("region", key)
    with Database(tmp_path / "wide.sqlite", "", read_only=True) as beside:
        assert node.app.height_in(beside) == original.app.height
        assert list(node.app.export(beside)) == rows
    original.app.close()


def test_restored_node_tells_the_version_of_the_next_block() -> None:
    """CometBFT takes no snapshot whose application says another than the next header."""
    original = Managed()
    original.change(Upgrade(2, 3))
    for height, version in ((1, 1), (2, 2)):
        assert original.app.info().last_block_height == height
        assert original.app.info().app_version == version
        assert restored(rows_of(original), original).app.info() == original.app.info()
        if height == 1:
            original.block(original.sealed(1))


def test_node_joins_over_the_engines_interface(tmp_path: Path) -> None:
    original = eventful(tmp_path / "old" / "wide.sqlite")
    given_ = Snapshots(tmp_path / "given", original.app)
    snapshot = given_.take()
    assert snapshot.height == original.app.height
    node = Managed(tmp_path / "new" / "wide.sqlite")
    taken = Snapshots(tmp_path / "taken", node.app)
    assert taken.offer(snapshot, original.app.app_hash) == OfferResult.ACCEPT
    for index in range(snapshot.chunks):
        chunk = given_.load(snapshot.height, snapshot.format, index)
        assert taken.apply(index, chunk, "peer").result == ApplyResult.ACCEPT
    assert node.app.info() == original.app.info()
    assert Snapshots(tmp_path / "again", node.app).take() == snapshot
    for each in (original, node):
        assert each.block(each.sealed(3)) == [codes.OK]
    assert node.app.app_hash == original.app.app_hash
    original.app.close()
    node.app.close()


def test_chain_that_has_begun_is_not_overwritten() -> None:
    original = eventful()
    with pytest.raises(BadSnapshot, match="already"):
        original.app.restore(99, original.app.app_hash, iter(rows_of(original)))


def test_empty_chain_has_a_snapshot_too() -> None:
    original = Managed()
    original.block()
    assert restored(rows_of(original), original).app.info() == original.app.info()


def refused(rows: Iterator[Row] | list[Row], original: Managed, app_hash: bytes | None = None):
    """Check that rows are refused with one declared error and leave nothing."""
    node = Managed()
    before = node.app.info()
    info = original.app.info()
    with pytest.raises(ProtocolError) as caught:
        node.app.restore(info.last_block_height, app_hash or info.last_block_app_hash, iter(rows))
    assert node.app.info() == before
    assert rows_of(node) == rows_of(Managed())
    assert node.block(node.sealed(0)) == [codes.OK]
    return str(caught.value)


ORIGINAL = eventful()
ROWS = rows_of(ORIGINAL)
STATES = sum(row[0] == 1 for row in ROWS)


def test_snapshot_of_another_state_is_refused() -> None:
    assert "application hash" in refused(ROWS, ORIGINAL, bytes(32))


def test_snapshot_of_another_genesis_is_refused() -> None:
    rows = [[1, b"g", bytes(32)] if row[:2] == [1, b"g"] else row for row in ROWS]
    refused(rows, ORIGINAL)
    other = Managed(genesis=ORIGINAL.genesis.__class__("other", 0, ORIGINAL.genesis.regions))
    info = ORIGINAL.app.info()
    with pytest.raises(ProtocolError):  # all is well but for whose chain it is
        other.app.restore(info.last_block_height, info.last_block_app_hash, iter(ROWS))


@pytest.mark.parametrize("at", range(len(ROWS)))
def test_every_missing_or_doubled_row_is_found(at: int) -> None:
    refused(ROWS[:at] + ROWS[at + 1 :], ORIGINAL)
    refused([*ROWS[: at + 1], ROWS[at], *ROWS[at + 1 :]], ORIGINAL)


@pytest.mark.parametrize("at", range(len(ROWS)))
def test_every_other_field_is_found(at: int) -> None:
    for place, value in enumerate(ROWS[at]):
        others = [None, True, -1, 1 << 63, "x", [], b"", b"\x80"]
        if isinstance(value, int):
            others += [value + 1, float(value)]
        elif isinstance(value, bytes):
            others += [value[:-1], value[:-1] + bytes([value[-1] ^ 1]), value + b"\0"]
        for other in others:
            if place == 5 and other is None and ROWS[at][3] in (codes.OK, codes.CONFLICT):
                continue  # a summary may be pruned
            row = [*ROWS[at][:place], other, *ROWS[at][place + 1 :]]
            refused([*ROWS[:at], row, *ROWS[at + 1 :]], ORIGINAL)


def test_body_signed_by_another_is_found() -> None:
    (at,) = [i for i, row in enumerate(ROWS) if row[0] == 2 and row[1:4] == [NORTH, 20, codes.OK]]
    envelope = HEAD_OFFICE.seal(sealed(1, chain=ORIGINAL.genesis.chain).payload)
    refused([*ROWS[:at], [*ROWS[at][:5], envelope.raw], *ROWS[at + 1 :]], ORIGINAL)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers() | st.none() | st.binary(max_size=9), min_size=1), max_size=4)
)
def test_any_rows_give_one_declared_error(rows: list[Row]) -> None:
    refused(rows, ORIGINAL)


def test_disk_that_fails_leaves_an_empty_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Managed()

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    info = ORIGINAL.app.info()
    with monkeypatch.context() as patch:
        patch.setattr(node.app.store, "put_block", broken)
        with pytest.raises(Exception, match="disk full"):
            node.app.restore(info.last_block_height, info.last_block_app_hash, iter(ROWS))
    assert node.app.info().last_block_height == 0
    node.app.restore(info.last_block_height, info.last_block_app_hash, iter(ROWS))
    assert node.app.info() == info
