"""Snapshots: whole or not there, restored whole or not at all, whatever peers send (SPEC 17)."""

import os
import random
import signal
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import snapshot as snapshot_module
from ledger.engine.abci import ApplyResult, OfferResult, Snapshot
from ledger.engine.solo import Solo
from ledger.network import NetworkChange
from ledger.protocol import cbor, records, rounds, tally
from ledger.protocol.cose import Envelope
from ledger.regional import restore
from ledger.regional.application import TABLES, RegionalApplication
from ledger.snapshot import FORMAT, MAX_ROW_BYTES, BadSnapshot, Row, Snapshots, fields, pack, unpack
from ledger.store import Database, StoreError
from ledger.verify import Verifier
from ledger.wide import restore as wide_restore
from ledger.wide.application import TABLES as WIDE_TABLES
from ledger.wide.application import WideApplication
from tests.ledger.light.proofs import with_validators
from tests.ledger.regional.generate import (
    Play,
    Region,
    eventful,
    fingerprint,
    summaries,
    validator,
)
from tests.ledger.regional.lab import FIRST, Lab

# chunks

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
rows = st.lists(st.lists(values, max_size=3).map(lambda row: [1, *row]), max_size=30)


@given(rows)
def test_rows_come_out_of_chunks_as_they_went_in(content: list[Row]) -> None:
    assert [row for chunk in pack(iter(content)) for row in unpack(chunk)] == content


def test_chunks_are_never_longer_than_a_mebibyte() -> None:
    rng = random.Random(1)
    content = [[1, rng.randbytes(rng.randrange(200_000))] for _ in range(40)]
    content.append([1, rng.randbytes(MAX_ROW_BYTES - 20)])
    chunks = list(pack(iter(content)))
    assert len(chunks) > 4
    assert max(map(len, chunks)) <= snapshot_module.MAX_CHUNK_BYTES
    assert [row for chunk in chunks for row in unpack(chunk)] == content
    with pytest.raises(ValueError, match="fits in no chunk"):
        list(pack(iter([[1, bytes(MAX_ROW_BYTES)]])))


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(zlib.compress))
def test_any_bytes_are_rows_or_one_declared_error(chunk: bytes) -> None:
    try:
        list(unpack(chunk))
    except BadSnapshot:
        pass


def test_chunk_that_unfolds_without_end_is_refused() -> None:
    bomb = zlib.compress(bytes(1 << 28), 9)
    assert len(bomb) < snapshot_module.MAX_CHUNK_BYTES
    with pytest.raises(BadSnapshot, match="length allowed"):
        list(unpack(bomb))


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        zlib.compress(b"")[:-1],
        zlib.compress(b"") + b"\0",
        zlib.compress(b"\0\0\0\5\x81\1"),
        zlib.compress(b"\0\0\0"),
        zlib.compress(b"\0\0\0\1\x80"),
        zlib.compress(b"\0\0\0\1\1"),
        zlib.compress(b"\0\0\0\2\x81\xf5"),
        bytes(snapshot_module.MAX_CHUNK_BYTES + 1),
    ],
)
def test_chunk_of_another_form_is_refused(chunk: bytes) -> None:
    with pytest.raises(BadSnapshot):
        list(unpack(chunk))


def test_fields_are_of_exactly_their_types() -> None:
    assert fields([1, 2, b"", None], int, bytes, (bytes, type(None))) == [2, b"", None]
    for row in ([1], [1, 2, 3], [1, True, b""], [1, b"", b""]):
        with pytest.raises(BadSnapshot):
            fields(row, int, bytes)


# a region's


class Node:
    """A node of a region, with its folder."""

    def __init__(self, region: Region, path: Path, **options: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.database = Database(path / "regional.sqlite", TABLES)
        self.app = RegionalApplication(region.genesis, self.database, Verifier())
        self.snapshots = Snapshots(path / "snapshots", self.app, **options)

    def close(self) -> None:
        self.database.close()


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Everything of a play, and something of every kind that waits."""
    path = tmp_path_factory.mktemp("play") / "regional.sqlite"
    play = eventful(path, rounds=33, gateways=3, validators=4)
    region = play.region
    ahead = [region.reading(meter, play.round) for meter in region.meters[3:6]]
    play.execute([*ahead, region.close(play.round, 1)])
    yield play
    play.close()


@pytest.fixture(scope="module")
def small() -> Iterator[Play]:
    """As little as has rows of every kind but older blocks'."""
    play = Play(Region(5, cluster_size=5, gateways=3, validators=4))
    for _ in range(7):
        play.play()
    ahead = [play.region.reading(meter, play.round) for meter in play.region.meters[:2]]
    play.execute([*ahead, play.region.close(play.round, 1)])
    yield play
    play.close()


@pytest.fixture(scope="module")
def taken(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a snapshot of the play."""
    path = tmp_path_factory.mktemp("taken")
    Snapshots(path, play.app).take()
    return path


def chunks_of(folder: Path, snapshot: Snapshot) -> list[bytes]:
    where = folder / f"{snapshot.height}-{snapshot.format}"
    return [(where / str(index)).read_bytes() for index in range(snapshot.chunks)]


def offered(chunks: list[bytes], height: int) -> Snapshot:
    metadata = b"".join(sha256(chunk).digest() for chunk in chunks)
    digest = sha256(cbor.dumps([height, FORMAT, metadata])).digest()
    return Snapshot(height, FORMAT, len(chunks), digest, metadata)


def feed(node: Node, chunks: list[bytes], height: int, app_hash: bytes) -> ApplyResult:
    assert node.snapshots.offer(offered(chunks, height), app_hash) == OfferResult.ACCEPT
    result = None
    for index, chunk in enumerate(chunks):
        result = node.snapshots.apply(index, chunk, f"peer {index}").result
    assert result is not None
    return result


def test_new_node_goes_on_from_a_snapshot_as_all_others(play: Play, taken: Path, tmp_path: Path):
    node = Node(play.region, tmp_path)
    (snapshot,) = Snapshots(taken, play.app).list()
    assert snapshot.height == play.node.height
    chunks = chunks_of(taken, snapshot)
    assert feed(node, chunks, snapshot.height, play.app.app_hash) == ApplyResult.ACCEPT
    assert node.app.info() == play.app.info()
    assert (node.app.height, node.app.last_round) == (play.app.height, play.app.last_round)
    assert node.app.blocks.waiting() == play.app.blocks.waiting()
    assert list(node.app.blocks.all_results()) == list(play.app.blocks.all_results())
    for height in range(1, node.app.height + 1):
        assert node.app.blocks.records_of(height) == play.app.blocks.records_of(height)
        assert node.app.bridge(1, height) == play.app.bridge(1, height) if height > 1 else True
    # a copy of the play's file goes on with the same transactions
    play.database.connection.execute("VACUUM INTO ?", [str(tmp_path / "other.sqlite")])
    with Database(tmp_path / "other.sqlite", TABLES) as database:
        other = Play(play.region)
        other.close()
        other.app = RegionalApplication(play.region.genesis, database, Verifier())
        other.node, other.round, other.silent = Solo(other.app), play.round, play.silent
        for _ in range(6):
            other.play()
            Solo(node.app).execute(other.blocks[-1])
            assert node.app.app_hash == other.app.app_hash
        assert node.app.blocks.windows_after(0)[1:] == other.app.blocks.windows_after(0)[-1:]
    node.close()


def test_restored_node_makes_the_same_snapshot(play: Play, taken: Path, tmp_path: Path) -> None:
    node = Node(play.region, tmp_path)
    (snapshot,) = Snapshots(taken, play.app).list()
    feed(node, chunks_of(taken, snapshot), snapshot.height, play.app.app_hash)
    assert node.snapshots.take() == snapshot
    node.close()
    # and is there after a restart
    node = Node(play.region, tmp_path)
    assert node.app.info() == play.app.info()
    assert node.snapshots.list() == [snapshot]
    node.close()


def test_node_that_has_blocks_restores_nothing(play: Play, taken: Path, tmp_path: Path) -> None:
    node = Node(play.region, tmp_path)
    Solo(node.app).execute([])
    (snapshot,) = Snapshots(taken, play.app).list()
    assert node.snapshots.offer(snapshot, play.app.app_hash) == OfferResult.ABORT
    assert node.snapshots.apply(0, b"", "peer").result == ApplyResult.ABORT
    node.close()


def test_offers_of_another_form_are_rejected(play: Play, taken: Path, tmp_path: Path) -> None:
    node = Node(play.region, tmp_path)
    (good,) = Snapshots(taken, play.app).list()
    where = (good.height, good.format, good.chunks)
    assert (
        node.snapshots.offer(Snapshot(good.height, 9, 1, good.hash, good.metadata), bytes(32))
        == OfferResult.REJECT_FORMAT
    )
    many = snapshot_module.MAX_CHUNKS + 1
    for bad in (
        Snapshot(*where, bytes(32), good.metadata),
        Snapshot(*where, good.hash, good.metadata + b"\0"),
        Snapshot(good.height, FORMAT, 0, good.hash, b""),
        Snapshot(good.height, FORMAT, 1 << 40, good.hash, good.metadata),
        offered([b""] * many, good.height),
        Snapshot(0, FORMAT, *where[2:], good.hash, good.metadata),
        Snapshot(1 << 64, FORMAT, *where[2:], good.hash, good.metadata),
    ):
        assert node.snapshots.offer(bad, bytes(32)) == OfferResult.REJECT
    node.close()


def test_chunk_that_was_not_offered_is_fetched_again_from_another(play, taken, tmp_path) -> None:
    node = Node(play.region, tmp_path)
    (snapshot,) = Snapshots(taken, play.app).list()
    chunks = chunks_of(taken, snapshot)
    node.snapshots.offer(snapshot, play.app.app_hash)
    applied = node.snapshots.apply(0, chunks[0][:-1], "liar")
    assert applied.result == ApplyResult.RETRY
    assert (applied.refetch, applied.reject_senders) == ((0,), ("liar",))
    for index in (-1, len(chunks)):
        assert node.snapshots.apply(index, b"", "peer").result == ApplyResult.ABORT
    for index, chunk in reversed(list(enumerate(chunks))):
        applied = node.snapshots.apply(index, chunk, "honest")
        assert applied.result == ApplyResult.ACCEPT
    assert node.app.info() == play.app.info()
    node.close()


# what liars send

Change = Callable[[list[Row]], list[Row]]


def swap(kind: int, field: int, value: object, at: int = 0) -> Change:
    def change(content: list[Row]) -> list[Row]:
        found = [row for row in content if row[0] == kind][at]
        old = found[field]
        found[field] = value(old) if callable(value) else value
        assert found[field] != old
        return content

    return change


def drop(kind: int, at: int = 0) -> Change:
    def change(content: list[Row]) -> list[Row]:
        content.remove([row for row in content if row[0] == kind][at])
        return content

    return change


def twice(kind: int, at: int = 0) -> Change:
    def change(content: list[Row]) -> list[Row]:
        place = content.index([row for row in content if row[0] == kind][at])
        return [*content[: place + 1], content[place], *content[place + 1 :]]

    return change


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def resigned(raw: bytes) -> bytes:
    """Give an envelope with a signature that does not fit; its digest stays."""
    envelope = Envelope.parse(raw)
    return raw[: -len(envelope.signature)] + bytes(31) + b"\1" + bytes(31) + b"\1"


LIES: dict[str, Change] = {
    "head changed": swap(restore.HEAD, 1, flip),
    "last head changed": swap(restore.HEAD, 1, flip, -1),
    "head missing": drop(restore.HEAD),
    "last head missing": drop(restore.HEAD, -1),
    "head twice": twice(restore.HEAD),
    "window changed": swap(restore.WINDOW, 2, flip),
    "window's height changed": swap(restore.WINDOW, 1, lambda n: n - 1),
    "window of no block": swap(restore.WINDOW, 1, 1 << 63),
    "window missing": drop(restore.WINDOW),
    "aggregate changed": swap(restore.AGGREGATE, 1, flip),
    "aggregate missing": drop(restore.AGGREGATE),
    "aggregate twice": twice(restore.AGGREGATE),
    "waiting record missing": drop(restore.WAITING),
    "waiting record twice": twice(restore.WAITING),
    "waiting record's signature": swap(restore.WAITING, 1, resigned),
    "waiting close missing": drop(restore.CLOSE),
    "waiting close's signature": swap(restore.CLOSE, 1, resigned),
    "misbehaviour added": lambda rows_: sorted(
        [*rows_, [restore.MISBEHAVIOUR, b"\x80"]], key=lambda row: row[0]
    ),
    "state changed": swap(restore.STATE, 2, flip),
    "state key changed": swap(restore.STATE, 1, flip),
    "state missing": drop(restore.STATE),
    "state row of another type": swap(restore.STATE, 2, 7),
    "body changed": swap(restore.BODY, 2, flip),
    "body's signature": swap(restore.BODY, 2, resigned),
    "body's number": swap(restore.BODY, 1, lambda n: n + 1),
    "body's number negative": swap(restore.BODY, 1, -1),
    "body's number huge": swap(restore.BODY, 1, 1 << 63),
    "body missing": drop(restore.BODY),
    "last body missing": drop(restore.BODY, -1),
    "body twice": twice(restore.BODY),
    "result changed": swap(restore.RESULT, 3, lambda n: n + 1),
    "result negative": swap(restore.RESULT, 4, -(1 << 64)),
    "result missing": drop(restore.RESULT),
    "last result missing": drop(restore.RESULT, -1),
    "result twice": twice(restore.RESULT),
    "result of another record": swap(restore.RESULT, 1, lambda n: n + 1),
    "result of a height to come": swap(restore.RESULT, 2, 1 << 62, -1),
    "result with a digest": swap(restore.RESULT, 8, bytes(32)),
    "kept record of a block that is here": lambda rows_: sorted(
        [*rows_, [restore.KEPT, 1 << 20, rows_[-1][1].to_bytes(8, "big"), []]],
        key=lambda row: row[0],
    ),
    "rows in another order": lambda rows_: [*rows_[1:], rows_[0]],
    "result above the newest block": lambda rows_: [
        *rows_,
        [
            restore.RESULT,
            next(row[1] for row in rows_ if row[0] == restore.BODY),
            sum(row[0] == restore.HEAD for row in rows_) + 1,
            *(tally.ACCEPTED, 4, 4, 0, 0, None),
        ],
    ],
    "newest head changed": swap(restore.NEWEST, 1, flip),
    "newest head missing": drop(restore.NEWEST),
    "newest head twice": twice(restore.NEWEST),
    "last head twice": twice(restore.HEAD, -1),
    "unknown kind": lambda rows_: [*rows_, [12, b""]],
    "kind 0": lambda rows_: [[0, b""], *rows_],
    "nothing": lambda _: [],
}


@pytest.mark.parametrize("lie", LIES)
def test_lie_is_found_and_leaves_the_node_empty(small: Play, tmp_path: Path, lie: str) -> None:
    play = small
    node = Node(play.region, tmp_path)
    empty = tables(node)
    content = LIES[lie]([list(row) for row in play.app.export(play.database)])
    chunks = list(pack(iter(content)))
    height, app_hash = play.app.info().last_block_height, play.app.app_hash
    assert node.snapshots.offer(offered(chunks, height), app_hash) == OfferResult.ACCEPT
    applied = [node.snapshots.apply(i, c, f"peer {i}") for i, c in enumerate(chunks)][-1]
    assert applied.result == ApplyResult.REJECT_SNAPSHOT
    assert applied.reject_senders == tuple(sorted(f"peer {i}" for i in range(len(chunks))))
    assert tables(node) == empty
    assert node.app.info().last_block_height == 0
    # and an honest one comes after it
    chunks = list(pack(play.app.export(play.database)))
    assert feed(node, chunks, height, app_hash) == ApplyResult.ACCEPT
    assert node.app.info() == play.app.info()
    node.close()


# what grows when it is unfolded


class Taken(Exception):
    """A row came further than it may."""


def refused(play: Play, content: list[Row], why: str) -> None:
    """Check that rows are refused for a reason, in the order in which they come."""
    with Database(None, TABLES) as database:
        app = RegionalApplication(play.region.genesis, database, Verifier())
        with pytest.raises(BadSnapshot, match=why):
            app.restore(9, play.app.app_hash, iter(content))


def before(play: Play, kind: int) -> list[Row]:
    """Give the rows of an honest snapshot of smaller kinds."""
    return [row for row in play.app.export(play.database) if row[0] < kind]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([restore.NEWEST, bytes(1025)], "longer than the rules"),
        ([restore.WAITING, bytes(1025)], "longer than the rules"),
        ([restore.CLOSE, bytes(1025)], "longer than the rules"),
        ([restore.MISBEHAVIOUR, bytes(65)], "longer than the rules"),
        ([restore.HEAD, bytes(1025)], "longer than the rules"),
        ([restore.STATE, b"m" + bytes(16), bytes(1025)], "leaf of the state is longer"),
        ([restore.STATE, b"r", bytes(1025)], "leaf of the state is longer"),
        ([restore.STATE, b"g" + bytes(16), bytes(1025)], "leaf of the state is longer"),
        ([restore.STATE, bytes(34), b""], "leaf of the state is longer"),
        ([restore.STATE, b"o" + bytes(32), bytes((1 << 19) + 1)], "leaf of the state is longer"),
        ([restore.KEPT, 1 << 20, bytes(1025), []], "longer than the rules"),
        ([restore.BODY, 1 << 20, bytes(1025)], "longer than the rules"),
    ],
)
def test_row_longer_than_the_rules_can_make_it_is_refused(small: Play, row: Row, why: str) -> None:
    refused(small, [*before(small, row[0]), row], why)


def test_row_of_more_items_than_one_has_is_not_built() -> None:
    chunk = next(pack(iter([[1, [0] * 127]])))
    with pytest.raises(BadSnapshot, match="cannot be read"):
        list(unpack(chunk))


def test_no_head_is_taken_before_the_newest_one_fits_the_application_hash(
    small: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(*_: object) -> None:
        raise Taken

    monkeypatch.setattr(restore.Blocks, "append_head", take)
    content = list(small.app.export(small.database))
    forged = records.decode(content[0][1])
    forged.height = 1 << 31
    content[0] = [restore.NEWEST, forged.payload()]
    refused(small, content, "do not give the application hash")
    with pytest.raises(Taken):
        refused(small, list(small.app.export(small.database)), "none")


def test_no_more_heads_are_taken_than_the_newest_ones_height(small: Play) -> None:
    content = before(small, restore.STATE)
    refused(small, [*content, content[-1]], "more heads than the newest")


def test_no_more_records_of_a_block_are_taken_than_its_head_counts(small: Play) -> None:
    content = before(small, restore.BODY)
    bodies = [row for row in small.app.export(small.database) if row[0] == restore.BODY]
    first = [row for row in bodies if row[1] >> 20 == 1]
    one_more = [restore.BODY, first[-1][1] + 1, bodies[-1][2]]
    refused(small, [*content, *first, one_more], "block 1 has not as many records")


def test_no_more_results_of_a_block_are_taken_than_one_can_have(
    small: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_MOST_RESULTS", 2)
    refused(small, list(small.app.export(small.database)), "more results than one can have")


@pytest.mark.parametrize("limit", ["_MOST_WAITING", "_MOST_WAITING_BYTES"])
def test_no_more_waits_than_a_region_lets_wait(
    small: Play, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(restore, limit, 1)
    refused(small, list(small.app.export(small.database)), "more waits than a region")


@pytest.mark.parametrize("limit", ["_MOST_LEAVES", "_MOST_STATE_BYTES"])
def test_state_larger_than_a_node_takes_is_refused(
    small: Play, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(snapshot_module, limit, 3)
    refused(small, list(small.app.export(small.database)), "the state is larger")


@pytest.fixture(scope="module")
def wide() -> Iterator[WideApplication]:
    """A wide-area chain with a summary."""
    source = Play(Region(5, cluster_size=5))
    for _ in range(6):
        source.play()
    genesis = with_validators(source.region.wide_genesis)
    source.region.wide_genesis = genesis
    with Database(None, WIDE_TABLES) as database:
        app = WideApplication(genesis, database, Verifier())
        for envelope in summaries(source):
            assert Solo(app).execute([envelope.raw]).tx_results[0].code == 0
        yield app
    source.close()


def wide_refused(wide: WideApplication, content: list[Row], why: str) -> None:
    with Database(None, WIDE_TABLES) as database:
        app = WideApplication(wide.genesis, database, Verifier())
        with pytest.raises(BadSnapshot, match=why):
            app.restore(wide.height, wide.app_hash, iter(content))


def test_no_more_entries_are_taken_than_the_wide_areas_log_has(wide: WideApplication) -> None:
    content = list(wide_restore.export(wide.store))
    region, place = content[-1][1:3]
    more = [wide_restore.kept_row(region, place + 1, 0, bytes(32), None)]
    wide_refused(wide, [*content, *more], "more entries than the state's log")
    state = [row for row in content if row[0] == 1]
    wide_refused(wide, state, "not those of the state's log")


def test_wide_areas_rows_longer_than_the_rules_can_make_them_are_refused(
    wide: WideApplication,
) -> None:
    for key, most in ((b"g", 1024), (b"n", 1 << 19)):
        leaf = wide_restore.state_row(key, bytes(most + 1))
        wide_refused(wide, [leaf], "leaf of the state is longer")
    wide_refused(wide, [wide_restore.state_row(bytes(10), b"")], "leaf of the state is longer")
    content = list(wide_restore.export(wide.store))
    content[-1] = [*content[-1][:-1], bytes(1025)]
    wide_refused(wide, content, "a body is longer")


def tables(node: Node) -> list[tuple[str, list[tuple[object, ...]]]]:
    sql = node.database.connection
    names = [name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    return [(name, sorted(sql.execute(f"SELECT * FROM {name}"), key=repr)) for name in names]


def test_snapshot_under_another_hash_is_refused(play: Play, taken: Path, tmp_path: Path) -> None:
    node = Node(play.region, tmp_path)
    (snapshot,) = Snapshots(taken, play.app).list()
    chunks = chunks_of(taken, snapshot)
    wrong = flip(play.app.app_hash)
    assert feed(node, chunks, snapshot.height, wrong) == ApplyResult.REJECT_SNAPSHOT
    node.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rows_changed_anyhow_are_taken_whole_or_refused(data: st.DataObject) -> None:
    region = Region(4, cluster_size=4, gateways=2, validators=2)
    source = Play(region)
    for _ in range(3):
        source.play()
    content = list(source.app.export(source.database))
    with Database(None, TABLES) as database:
        empty = RegionalApplication(region.genesis, database, Verifier()).state.root()
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(content) - 1))
        field = data.draw(st.integers(0, len(content[row]) - 1))
        content[row] = list(content[row])
        content[row][field] = data.draw(values)
    with Database(None, TABLES) as database:
        app = RegionalApplication(region.genesis, database, Verifier())
        try:
            app.restore(3, source.app.app_hash, iter(content))
        except BadSnapshot:
            assert app.info().last_block_height == 0
            assert app.state.root() == empty
        else:
            assert app.app_hash == source.app.app_hash
            assert fingerprint(app) == fingerprint(source.app)
    source.close()


def test_region_of_one_node_has_no_snapshots(tmp_path: Path) -> None:
    lab = Lab(path=tmp_path / "regional.sqlite")
    lab.close(FIRST)
    with pytest.raises(StoreError, match="no peers"):
        Snapshots(tmp_path / "snapshots", lab.app).take()
    assert Snapshots(tmp_path / "snapshots", lab.app).list() == []
    lab.database.close()


def test_region_before_its_first_block_can_be_taken(tmp_path: Path) -> None:
    region = Region(4, cluster_size=4, gateways=3, validators=4)
    first, second = Node(region, tmp_path / "a"), Node(region, tmp_path / "b")
    Solo(first.app).execute([region.reading(region.meters[0], 100).raw, region.close(100).raw])
    snapshot = first.snapshots.take()
    chunks = [first.snapshots.load(1, FORMAT, i) for i in range(snapshot.chunks)]
    assert feed(second, chunks, 1, first.app.app_hash) == ApplyResult.ACCEPT
    tx = region.close(100, 1).raw
    assert Solo(first.app).execute([tx]) == Solo(second.app).execute([tx])
    assert second.app.height == 1
    for node in (first, second):
        node.close()


# taking


def test_newest_ones_are_kept(play: Play, tmp_path: Path) -> None:
    region = Region(2, gateways=1, validators=1)
    node = Node(region, tmp_path, keep=2)
    solo = Solo(node.app)
    for _ in range(4):
        solo.execute([])
        node.snapshots.take()
    assert [snapshot.height for snapshot in node.snapshots.list()] == [4, 3]
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["3-1", "4-1"]
    assert node.snapshots.load(2, FORMAT, 0) == b""
    assert node.snapshots.load(3, FORMAT, 99) == b""
    node.close()


def test_snapshot_is_of_the_moment_at_which_it_was_begun(tmp_path: Path) -> None:
    region = Region(4, cluster_size=4, gateways=1, validators=1)
    node = Node(region, tmp_path)
    solo = Solo(node.app)
    solo.execute([region.reading(region.meters[0], 100).raw])
    before = node.app.app_hash
    taking = node.snapshots.begin()
    solo.execute([region.close(100).raw])
    snapshot = taking.finish()
    assert (taking.height, snapshot.height) == (1, 1)
    other = Node(region, tmp_path / "other")
    chunks = [node.snapshots.load(1, FORMAT, i) for i in range(snapshot.chunks)]
    assert feed(other, chunks, 1, before) == ApplyResult.ACCEPT
    for one in (node, other):
        one.close()


KILLS = 25


def run_and_kill(work: Callable[[], None], spin: int) -> int:
    """Let a child work and kill it after some turns; gives its status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, b"x")
            work()
            status = 0
        finally:
            os._exit(status)
    os.read(reader, 1)
    for _ in range(spin):
        pass
    os.kill(child, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    return os.waitpid(child, 0)[1]


def test_killed_while_taking_no_half_snapshot_is_offered(play: Play, tmp_path: Path) -> None:
    rng = random.Random(7)
    good = list(pack(play.app.export(play.database)))
    snapshot = offered(good, play.app.info().last_block_height)
    killed = 0
    for _ in range(KILLS):
        folder = tmp_path / "snapshots"
        status = run_and_kill(
            lambda: [Snapshots(folder, play.app).take() for _ in range(3)] and None,  # noqa: B023
            rng.randrange(3_000_000),
        )
        killed += os.WIFSIGNALED(status)
        snapshots = Snapshots(folder, play.app)
        assert snapshots.list() in ([], [snapshot])
        for found in snapshots.list():
            assert chunks_of(folder, found) == good
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert killed > KILLS // 3
    assert Snapshots(folder, play.app).take() == snapshot


def test_killed_while_restoring_the_node_is_empty_or_whole(play: Play, tmp_path: Path) -> None:
    rng = random.Random(8)
    chunks = list(pack(play.app.export(play.database)))
    height, app_hash = play.app.info().last_block_height, play.app.app_hash
    seen = set()
    killed = 0

    fresh = Node(play.region, tmp_path / "whole")
    feed(fresh, chunks, height, app_hash)
    whole = fingerprint(fresh.app)
    fresh.close()

    def work(path: Path) -> None:
        node = Node(play.region, path)
        feed(node, chunks, height, app_hash)
        node.close()

    for number in range(KILLS):
        path = tmp_path / str(number)
        status = run_and_kill(lambda: work(path), rng.randrange(12_000_000))  # noqa: B023
        killed += os.WIFSIGNALED(status)
        node = Node(play.region, path)
        found = node.app.info()
        assert found.last_block_height in (0, height)
        seen.add(found.last_block_height)
        if not found.last_block_height:
            assert feed(node, chunks, height, app_hash) == ApplyResult.ACCEPT
        assert node.app.info() == play.app.info()
        assert fingerprint(node.app) == whole
        node.close()
    assert killed > KILLS // 3
    assert 0 in seen


# rows of older blocks


@pytest.fixture(scope="module")
def old() -> Iterator[Play]:
    """A member joined and one left long ago; blocks of then are beyond evidence."""
    play = eventful(rounds=30, gateways=1, validators=1)
    play.round += 4200
    play.play()
    play.play()
    yield play
    play.close()


OLD_LIES: dict[str, Change] = {
    "kept record missing": drop(restore.KEPT),
    "all kept records missing": lambda rows_: [r for r in rows_ if r[0] != restore.KEPT],
    "kept record twice": twice(restore.KEPT),
    "kept record's signature": swap(restore.KEPT, 2, resigned),
    "kept record's place": swap(restore.KEPT, 1, lambda n: n + 1),
    "kept record's path": swap(restore.KEPT, 3, lambda path: path[1:]),
    "kept record's path of another type": swap(restore.KEPT, 3, [7]),
    "a meter's record is kept": lambda rows_: sorted(
        [[restore.KEPT, 1 << 20, next(r[2] for r in rows_ if r[0] == restore.BODY), []], *rows_],
        key=lambda row: row[0],
    ),
    "digest of a reading that is not here": swap(restore.RESULT, 8, bytes(32)),
    "digest missing": swap(restore.RESULT, 8, None),
    "body of an older block": lambda rows_: sorted(
        [[restore.BODY, 1 << 20, next(r[2] for r in rows_ if r[0] == restore.BODY)], *rows_],
        key=lambda row: row[0],
    ),
}


@pytest.mark.parametrize("lie", OLD_LIES)
def test_lie_about_older_blocks_is_found(old: Play, tmp_path: Path, lie: str) -> None:
    node = Node(old.region, tmp_path)
    height, app_hash = old.app.info().last_block_height, old.app.app_hash
    content = OLD_LIES[lie]([list(row) for row in old.app.export(old.database)])
    assert feed(node, list(pack(iter(content))), height, app_hash) == ApplyResult.REJECT_SNAPSHOT
    assert node.app.info().last_block_height == 0
    honest = list(pack(old.app.export(old.database)))
    assert feed(node, honest, height, app_hash) == ApplyResult.ACCEPT
    node.close()


@pytest.fixture(scope="module")
def convicted() -> Iterator[Play]:
    """A gateway lied and operators changed the network, in blocks that are beyond evidence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "EPOCH_ROUNDS", 24)
        region = Region(5, cluster_size=5, gateways=3, validators=4)
        play = Play(region)
        play.play()
        head = play.app.blocks.head(1)
        head.state_root = bytes(32)
        change = NetworkChange(region.chain, 1, validator(7)).payload()
        approvals = [operator.seal(change) for operator in region.operators[:2]]
        play.play(extra=[region.gateways[2].seal(head.payload()), *approvals])
        for _ in range(40):
            play.play()
        assert len(play.app.state.convicted) == 1
        yield play
        play.close()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (records.HEAD, "the evidence against a gateway is missing"),
        (records.NETWORK_CHANGE, "the approvals of NetworkChange 1 are missing"),
    ],
)
def test_evidence_and_approvals_that_the_state_tells_of_may_not_be_left_out(
    convicted: Play, kind: int, why: str
) -> None:
    content = list(convicted.app.export(convicted.database))
    kept = [row for row in content if row[0] == restore.KEPT]
    of_kind = [r for r in kept if records.split(Envelope.parse(r[2]).payload)[0] == kind]
    assert len(kept) == 3
    assert of_kind
    for left_out in of_kind:
        refused(convicted, [row for row in content if row is not left_out], why)
    with Database(None, TABLES) as database:
        app = RegionalApplication(convicted.region.genesis, database, Verifier())
        app.restore(9, convicted.app.app_hash, iter(content))
        assert app.app_hash == convicted.app.app_hash
