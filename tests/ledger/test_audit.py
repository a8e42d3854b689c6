"""The audit finds whatever is wrong in a copy, and says where."""

import dataclasses
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.audit import AuditReport, Failure, audit
from ledger.audit.report import REGIONAL, WIDE
from ledger.engine.solo import Solo
from ledger.protocol import cbor, records, tally
from ledger.protocol.cose import Envelope, payload_digest
from ledger.region import RegionDirectory, RegionError
from ledger.regional.blocks import place_of, record_id
from ledger.wide.summary import Summary
from tests.ledger.regional.generate import Play, Region, eventful, region_folder, summaries

REGIONAL_TABLES = {
    "heads": ("height", ("digest", "payload", "envelope")),
    "records": ("id", ("packed",)),
    "signers": ("number", ("address",)),
    "history": ("level, place", ("digest",)),
    "state": ("key", ("key", "value")),
    "pending": ("position", ("envelope",)),
    "windows": ("to_height", ("aggregate",)),
    "meta": ("name", ("value",)),
}
WIDE_TABLES = {
    "kept": ("number", ("envelope",)),
    "summaries": ("region", ("region",)),
    "blocks": ("height", ("app_hash",)),
    "history": ("level, place", ("digest",)),
    "state": ("key", ("key", "value")),
    "meta": ("name", ("value",)),
}
FLIPS = 5


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RegionDirectory:
    """Six meters, seven rounds, and a reading that waits; two windows are reported."""
    path = tmp_path_factory.mktemp("small")
    region = Region(size=6, cluster_size=6)
    play = Play(region, RegionDirectory(path).regional)
    for step in range(10):
        play.play(rejected={region.meters[1].address} if step == 3 else ())
    play.execute([region.reading(meter, play.round) for meter in region.meters[:2]])
    folder = region_folder(path, play)
    play.close()
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> RegionDirectory:
    """Twenty meters and forty rounds in which everything happens."""
    path = tmp_path_factory.mktemp("large")
    play = eventful(RegionDirectory(path).regional)
    folder = region_folder(path, play)
    play.close()
    return folder


Change = Callable[[sqlite3.Connection], object]


class Copies:
    """Copies of a region's folder in which something was changed."""

    def __init__(self, original: RegionDirectory, path: Path) -> None:
        self._original = original
        self._path = path
        self._count = 0

    def make(self) -> RegionDirectory:
        self._count += 1
        path = self._path / str(self._count)
        shutil.copytree(self._original.path, path)
        return RegionDirectory(path)

    def audited(self, change: Change, *, wide: bool = False) -> AuditReport:
        folder = self.make()
        edit(folder.wide if wide else folder.regional, change)
        return audit(folder)

    def failure(self, change: Change, *, wide: bool = False) -> Failure:
        report = self.audited(change, wide=wide)
        assert not report.ok
        assert report.failure is not None
        assert report.failure.chain == (WIDE if wide else REGIONAL)
        return report.failure


def edit(path: Path, change: Change) -> None:
    sql = sqlite3.connect(path, isolation_level=None)
    change(sql)
    sql.close()


@pytest.fixture
def copies(small: RegionDirectory, tmp_path: Path) -> Copies:
    return Copies(small, tmp_path)


def do(sql: str, *parameters: object) -> Change:
    def change(connection: sqlite3.Connection) -> None:
        assert connection.execute(sql, parameters).rowcount > 0, "the test changes nothing"

    return change


# what is right


def test_untouched_region_passes(large: RegionDirectory) -> None:
    seen: list[tuple[int, int]] = []
    report = audit(large, lambda done, total: seen.append((done, total)))
    assert report.ok, report.failure
    assert (report.blocks, report.unsigned, report.records) == (40, 0, 1584)
    assert report.signatures == 1584 + 40 + 8
    assert (report.witnessed_height, report.wide_height, report.summaries) == (39, 8, 8)
    assert report.conflicts == 0
    assert seen == [(done, 40) for done in range(1, 41)]


def test_report_is_json(small: RegionDirectory, copies: Copies) -> None:
    told = json.loads(json.dumps(audit(small).as_json()))
    assert told["ok"] is True
    assert told["failure"] is None
    told = json.loads(json.dumps(copies.audited(do("DELETE FROM state")).as_json()))
    assert told["ok"] is False
    assert told["failure"]["chain"] == "regional"


def test_audit_changes_no_database(small: RegionDirectory) -> None:
    before = [path.read_bytes() for path in (small.regional, small.wide)]
    assert audit(small).ok
    assert [path.read_bytes() for path in (small.regional, small.wide)] == before


def test_region_is_audited_while_its_gateway_writes(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    play = Play(Region(size=4, cluster_size=4), directory.regional)
    directory.genesis.write_bytes(play.region.genesis.encode())
    for blocks in range(1, 4):
        play.play()
        report = audit(directory)
        assert report.ok, report.failure
        assert report.blocks == blocks
    play.close()


def test_region_without_blocks_passes(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    play = Play(Region(size=4, cluster_size=4), directory.regional)
    directory.genesis.write_bytes(play.region.genesis.encode())
    assert audit(directory).ok
    play.close()


def test_pinned_genesis_is_compared(small: RegionDirectory) -> None:
    genesis = small.load_genesis()
    assert audit(small, expected_genesis=genesis.digest).ok
    report = audit(small, expected_genesis=bytes(32))
    assert "genesis has digest" in str(report.failure)


def test_folder_without_a_genesis_is_no_region(tmp_path: Path) -> None:
    with pytest.raises(RegionError):
        audit(RegionDirectory(tmp_path))


def test_other_genesis_beside_the_ledger_is_found(copies: Copies) -> None:
    folder = copies.make()
    other = dataclasses.replace(folder.load_genesis(), name="other")
    folder.genesis.write_bytes(other.encode())
    assert "another genesis" in str(audit(folder).failure)


# one byte


def blobs(path: Path, tables: dict[str, tuple[str, tuple[str, ...]]]) -> list[tuple[str, str, int]]:
    """Give (table, column, rowid or position) of every blob; positions for tables without rowid."""
    sql = sqlite3.connect(path)
    found = []
    for table, (key, columns) in tables.items():
        keys = sql.execute(f"SELECT {key} FROM {table} ORDER BY {key}").fetchall()
        found += [(table, column, i) for column in columns for i in range(len(keys))]
    sql.close()
    return found


def flip(table: str, key: str, column: str, position: int, rng: random.Random) -> Change:
    def change(sql: sqlite3.Connection) -> None:
        names = key.split(", ")
        where = " AND ".join(f"{name}=?" for name in names)
        row = sql.execute(
            f"SELECT {key}, {column} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {position}"
        ).fetchone()
        blob = bytearray(row[-1])
        blob[rng.randrange(len(blob))] ^= rng.randint(1, 255)
        sql.execute(f"UPDATE {table} SET {column}=? WHERE {where}", [bytes(blob), *row[:-1]])

    return change


def sample(
    path: Path, tables: dict[str, tuple[str, tuple[str, ...]]], rng: random.Random
) -> list[tuple[str, str, int]]:
    """Give some blobs of every column."""
    chosen = []
    everything = blobs(path, tables)
    for table, (_, columns) in tables.items():
        for column in columns:
            own = [blob for blob in everything if blob[:2] == (table, column)]
            assert own, (table, column)
            chosen += rng.sample(own, min(FLIPS, len(own)))
    return chosen


def test_any_changed_byte_of_the_regional_chain_is_found(copies: Copies) -> None:
    rng = random.Random(1)
    original = copies.make().regional
    for table, column, position in sample(original, REGIONAL_TABLES, rng):
        change = flip(table, REGIONAL_TABLES[table][0], column, position, rng)
        if table == "meta" and meta_names(original)[position] == "engine-height":
            continue  # where the engine stands is not part of the chain
        failure = copies.failure(change)
        if table == "records":
            assert (failure.block, failure.record) == place_of(ids(original)[position])
            assert failure.kind is not None
        if table == "heads":
            assert failure.block == position + 1
        if table == "pending":
            assert (failure.block, failure.record) == (None, position)


def test_any_changed_byte_of_the_wide_area_chain_is_found(copies: Copies) -> None:
    rng = random.Random(2)
    original = copies.make().wide
    for table, column, position in sample(original, WIDE_TABLES, rng):
        failure = copies.failure(
            flip(table, WIDE_TABLES[table][0], column, position, rng), wide=True
        )
        if table == "kept":
            assert (failure.block, failure.record) == (position + 1, position)
        if table == "blocks":
            assert failure.block == position + 1


def test_changed_byte_among_events_is_found(large: RegionDirectory, tmp_path: Path) -> None:
    rng = random.Random(3)
    copies = Copies(large, tmp_path)
    every = ids(large.regional)
    for position in rng.sample(range(len(every)), 6):
        failure = copies.failure(flip("records", "id", "packed", position, rng))
        assert (failure.block, failure.record) == place_of(every[position])


def ids(path: Path) -> list[int]:
    sql = sqlite3.connect(path)
    found = [row[0] for row in sql.execute("SELECT id FROM records ORDER BY id")]
    sql.close()
    return found


def meta_names(path: Path) -> list[str]:
    sql = sqlite3.connect(path)
    found = [row[0] for row in sql.execute("SELECT name FROM meta ORDER BY name")]
    sql.close()
    return found


def test_failure_names_block_record_kind_signer_and_slot(copies: Copies) -> None:
    def spoil(sql: sqlite3.Connection) -> None:
        signer, signature, rest = cbor.loads(take_packed(sql, record_id(4, 2)))
        signature = signature[:-1] + bytes([signature[-1] ^ 1])
        packed = cbor.dumps([signer, signature, rest])
        sql.execute("UPDATE records SET packed=? WHERE id=?", [packed, record_id(4, 2)])

    failure = copies.failure(spoil)
    assert (failure.block, failure.record, failure.kind) == (4, 2, "reading")
    assert failure.slot == "boot 1, seq 4, time 6180"
    assert failure.signer is not None
    assert str(failure) == (
        f"regional chain, block 4, record 2 (reading of {failure.signer}, boot 1, seq 4, "
        "time 6180): bad-signature: signature does not fit"
    )


# whole rows


def take_packed(sql: sqlite3.Connection, id_: int) -> bytes:
    return bytes(sql.execute("SELECT packed FROM records WHERE id=?", [id_]).fetchone()[0])


def swap(one: int, other: int) -> Change:
    def change(sql: sqlite3.Connection) -> None:
        first, second = take_packed(sql, one), take_packed(sql, other)
        sql.execute("UPDATE records SET packed=? WHERE id=?", [second, one])
        sql.execute("UPDATE records SET packed=? WHERE id=?", [first, other])

    return change


def test_missing_record_is_named(copies: Copies) -> None:
    for index in (0, 5, 11):
        failure = copies.failure(do("DELETE FROM records WHERE id=?", record_id(5, index)))
        assert str(failure) == f"regional chain, block 5: record {index} is missing"


def test_added_record_is_named(copies: Copies) -> None:
    def change(sql: sqlite3.Connection) -> None:
        raw = take_packed(sql, record_id(6, 3))
        sql.execute("INSERT INTO records VALUES (?,?)", [record_id(5, 12), raw])

    failure = copies.failure(change)
    assert (failure.block, failure.record) == (5, 12)
    assert "the head counts 12 records" in str(failure)


@pytest.mark.parametrize("height", [0, 11, 4000])
def test_record_of_a_block_that_is_not_there_is_named(copies: Copies, height: int) -> None:
    def change(sql: sqlite3.Connection) -> None:
        raw = take_packed(sql, record_id(6, 3))
        sql.execute("INSERT INTO records VALUES (?,?)", [record_id(height, 0), raw])

    failure = copies.failure(change)
    assert (failure.block, failure.record) == (height, 0)


def test_records_out_of_order_are_named(copies: Copies) -> None:
    failure = copies.failure(swap(record_id(5, 1), record_id(5, 4)))
    assert (failure.block, failure.record) == (5, 1)
    assert "order" in str(failure)


def test_records_swapped_between_blocks_are_named(copies: Copies) -> None:
    failure = copies.failure(swap(record_id(4, 1), record_id(7, 1)))
    assert (failure.block, failure.record) == (4, 1)


def test_record_twice_in_a_block_is_named(copies: Copies) -> None:
    def change(sql: sqlite3.Connection) -> None:
        raw = take_packed(sql, record_id(5, 1))
        sql.execute("UPDATE records SET packed=? WHERE id=?", [raw, record_id(5, 2)])

    failure = copies.failure(change)
    assert (failure.block, failure.record) == (5, 2)
    assert "duplicate" in str(failure)


@pytest.mark.parametrize("height", [1, 6, 10])
def test_missing_block_is_named(copies: Copies, height: int) -> None:
    failure = copies.failure(do("DELETE FROM heads WHERE height=?", height))
    assert failure.block == height


def test_swapped_heads_are_named(copies: Copies) -> None:
    def change(sql: sqlite3.Connection) -> None:
        for old, new in ((3, -3), (4, 3), (-3, 4)):
            sql.execute("UPDATE heads SET height=? WHERE height=?", [new, old])

    assert copies.failure(change).block == 3


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ("signers", "number=(SELECT max(number) FROM signers)"),
        ("slots", "id=(SELECT max(id) FROM slots)"),
        ("digests", "id=(SELECT min(id) FROM digests)"),
        ("results", "height=7"),
        ("history", "level=1 AND place=2"),
        ("state", "key=(SELECT min(key) FROM state)"),
        ("state", "1"),
        ("pending", "position=0"),
        ("windows", "to_height=5"),
        ("meta", "name='genesis'"),
    ],
)
def test_missing_row_of_any_table_is_found(copies: Copies, table: str, where: str) -> None:
    failure = copies.failure(do(f"DELETE FROM {table} WHERE {where}"))
    assert "genesis" in str(failure) or "missing" in str(failure) or "none is" in str(failure)


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("signers", "(99, x'00')"),
        ("slots", "(1, 2)"),
        ("digests", "(-5, 9)"),
        ("results", "(1048576, 9, 1, 5, 5, 0, 0, NULL)"),
        ("history", "(7, 7, x'00')"),
        ("state", "(x'6d00', x'00')"),
        ("windows", "(7, x'00')"),
        ("meta", "('note', x'00')"),
        ("slots", "('text', 2.5)"),
    ],
)
def test_added_row_of_any_table_is_found(copies: Copies, table: str, values: str) -> None:
    failure = copies.failure(do(f"INSERT INTO {table} VALUES {values}"))
    assert f"the table {table} holds a row that no record makes" in str(failure)


@pytest.mark.parametrize(
    "change",
    [
        "outcome=1",
        "drawn=drawn+1",
        "accepts=accepts+1",
        "rejects=0",
        "abstains=NULL",
        "outcome='x'",
    ],
)
def test_changed_result_is_named(copies: Copies, change: str) -> None:
    sql = f"UPDATE OR IGNORE results SET {change} WHERE height=4 AND outcome={tally.REJECTED}"
    if "NULL" in change:
        sql = sql.replace("abstains=NULL", "abstains=x'00'")
    failure = copies.failure(do(sql))
    assert failure.block == 4
    assert "the votes on record" in str(failure)
    assert "rejected (5 drawn: 0 for, 5 against, 0 abstained)" in str(failure)


def test_changed_state_names_its_member(copies: Copies) -> None:
    sql = "UPDATE state SET value=x'80' WHERE key=(SELECT min(key) FROM state)"
    assert "the state of member" in str(copies.failure(do(sql)))


@pytest.mark.parametrize("value", ["7", "'text'", "NULL", "2.5", "x''", "zeroblob(2000)"])
def test_other_types_in_any_column_are_a_failure(copies: Copies, value: str) -> None:
    for table, column in [("records", "packed"), ("heads", "payload"), ("heads", "digest")]:
        if value == "NULL":
            continue
        key = "id" if table == "records" else "height"
        height = record_id(3, 2) if table == "records" else 3
        assert (
            copies.failure(do(f"UPDATE {table} SET {column}={value} WHERE {key}={height}")).block
            == 3
        )
    if value != "NULL":
        copies.failure(do(f"UPDATE pending SET envelope={value}"))
        copies.failure(do(f"UPDATE meta SET value={value} WHERE name='genesis'"))
    if value != "zeroblob(2000)":
        failure = copies.failure(do(f"UPDATE heads SET envelope={value} WHERE height=3"))
        assert failure.block in (3, 4)


# who signed the heads


def sign_head(
    key_of: Callable[[Region], int | None], at: int, *, gateways: int = 1, **changes: object
) -> Change:
    """Sign a head, with other fields, by a gateway (its number) or by a meter (None)."""
    region = Region(size=6, cluster_size=6, gateways=gateways)
    gateway = key_of(region)
    key = region.meters[0].key if gateway is None else region.gateways[gateway]

    def change(sql: sqlite3.Connection) -> None:
        (payload,) = sql.execute("SELECT payload FROM heads WHERE height=?", [at]).fetchone()
        head = records.decode(payload)
        for name, value in changes.items():
            setattr(head, name, value)
        payload = head.payload()
        sql.execute(
            "UPDATE heads SET payload=?, digest=?, envelope=? WHERE height=?",
            [payload, payload_digest(payload), key.seal(payload).raw, at],
        )

    return change


def test_other_gateways_signature_is_as_good(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    play = Play(Region(size=6, cluster_size=6, gateways=3), directory.regional)
    directory.genesis.write_bytes(play.region.genesis.encode())
    for _ in range(6):
        play.play()
    play.close()
    edit(directory.regional, sign_head(lambda _: 2, 5, gateways=3))
    report = audit(directory)
    assert report.ok, report.failure
    assert report.blocks == 6


def test_head_signed_by_a_meter_is_named(copies: Copies) -> None:
    failure = copies.failure(sign_head(lambda _: None, 5))
    assert failure.block == 5
    assert "no gateway of the region" in str(failure)


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("previous", bytes(32), "link to the head before"),
        ("records_root", bytes(32), "records root"),
        ("results_root", bytes(32), "results root"),
        ("state_root", bytes(32), "state root"),
        ("history_root", bytes(32), "history root"),
        ("time", 6241, "time"),
        ("chain", bytes(8), "region"),
        ("height", 7, "height"),
    ],
)
def test_wrong_head_is_found_even_when_the_gateway_signed_it(
    copies: Copies, field: str, value: object, name: str
) -> None:
    failure = copies.failure(sign_head(lambda _: 0, 3, **{field: value}))
    assert failure.block == 3
    assert f"the head's {name} is" in str(failure)


def test_signature_of_another_head_is_named(copies: Copies) -> None:
    sql = "UPDATE heads SET envelope=(SELECT envelope FROM heads WHERE height=4) WHERE height=5"
    failure = copies.failure(do(sql))
    assert failure.block == 5
    assert "another head is signed" in str(failure)


def test_newest_block_without_signature_is_told_apart(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    play = Play(Region(size=4, cluster_size=4), directory.regional)
    directory.genesis.write_bytes(play.region.genesis.encode())
    play.play()
    play.node.execute([play.region.close(play.round).raw])
    report = audit(directory)
    assert report.ok, report.failure
    assert (report.blocks, report.unsigned) == (1, 1)
    play.node.execute([play.region.close(play.round + 1).raw])
    assert "block 2 is not signed" in str(audit(directory).failure)
    play.close()


def test_unsigned_head_below_a_signed_one_is_named(copies: Copies) -> None:
    failure = copies.failure(do("UPDATE heads SET envelope=NULL WHERE height=5"))
    assert "block 5 is not" in str(failure)


# history that the gateway rewrites, and signs anew


def rewritten(path: Path, rounds: int, *, keep_ballots: bool) -> RegionDirectory:
    """Give a chain of ``rounds`` whose gateway left out a reading of its third block afterwards.

    Its meters have named the heads of the true chain up to the last but one. The gateway keeps
    their ballots, or leaves out all that name what it has rewritten.
    """
    region = Region(size=4, cluster_size=4)
    true = Play(region, path / "true.sqlite")
    for _ in range(rounds):
        true.play()
    directory = RegionDirectory(path / "false")
    directory.path.mkdir()
    directory.genesis.write_bytes(region.genesis.encode())
    false = Play(region, directory.regional)
    for height, block in enumerate(true.blocks, 1):
        envelopes = [Envelope.parse(raw) for raw in block]
        if height == 3:
            del envelopes[0]
        if keep_ballots:
            # what the gateway's own program would not do
            false.app.delivery.named_height = lambda _: 0  # type: ignore[method-assign]
        false.execute(envelopes)
    true.close()
    false.close()
    return directory


def test_rewritten_history_is_refuted_by_the_ballots_that_named_the_true_one(
    tmp_path: Path,
) -> None:
    failure = audit(rewritten(tmp_path, 6, keep_ballots=True)).failure
    assert failure is not None
    assert (failure.block, failure.kind) == (4, "ballot")
    assert "unknown-parent" in str(failure)


def test_rewritten_history_is_not_witnessed(tmp_path: Path) -> None:
    report = audit(rewritten(tmp_path, 6, keep_ballots=False))
    assert report.ok, report.failure
    assert report.blocks == 6
    assert report.witnessed_height == 2


# the wide-area chain


def test_summary_that_its_region_does_not_bear_out_is_named(copies: Copies) -> None:
    """The gateway reports more energy than its meters measured, and signs it."""
    folder = copies.make()
    folder.wide.unlink()
    regional = folder.open_regional(read_only=True)
    region = Region(size=6, cluster_size=6)
    (_, raw) = wide_rows(copies.make())[0]
    true = Summary.decode(Envelope.parse(raw).payload)
    lie = dataclasses.replace(true, energy_in=true.energy_in + 1)
    wide = folder.open_wide()
    result = Solo(wide).execute([region.gateways[0].seal(lie.payload()).raw])
    assert result.tx_results[0].code == 0
    wide.close()
    regional.close()
    report = audit(folder)
    assert report.failure is not None
    assert (report.failure.chain, report.failure.block, report.failure.record) == (WIDE, 1, 0)
    assert f"its energy in is {lie.energy_in}; the regional chain gives" in str(report.failure)


def wide_rows(folder: RegionDirectory) -> list[tuple[int, bytes]]:
    wide = folder.open_wide()
    found = wide.store.summaries_of(folder.load_genesis().chain)
    wide.close()
    return found


def test_regional_chain_that_was_rolled_back_is_found(tmp_path: Path) -> None:
    """An old copy of the regional chain is right in itself; the wide area knows better."""
    directory = RegionDirectory(tmp_path)
    play = Play(Region(size=4, cluster_size=4), directory.regional)
    for _ in range(7):
        play.play()
    play.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    old = directory.regional.read_bytes()
    for _ in range(3):
        play.play()
    region_folder(tmp_path, play)
    play.close()
    assert audit(directory).ok
    directory.regional.write_bytes(old)
    assert "the regional chain here has 7 signed blocks" in str(audit(directory).failure)


def test_evidence_of_a_conflict_is_counted(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    play = Play(Region(size=4, cluster_size=4), directory.regional)
    for _ in range(6):
        play.play()
    region_folder(tmp_path, play)
    (envelope,) = summaries(play)
    play.close()
    other = dataclasses.replace(Summary.decode(envelope.payload), energy_in=7)
    wide = directory.open_wide()
    Solo(wide).execute([play.region.gateways[0].seal(other.payload()).raw])
    wide.close()
    report = audit(directory)
    assert report.ok, report.failure
    assert (report.summaries, report.conflicts, report.wide_height) == (1, 1, 2)


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM kept WHERE number=0",
        "DELETE FROM kept WHERE number=1",
        "DELETE FROM blocks WHERE height=1",
        "DELETE FROM blocks WHERE height=2",
        "DELETE FROM summaries",
        "DELETE FROM state WHERE key=x'6c'",
        "DELETE FROM history WHERE level=1",
        "UPDATE kept SET code=22 WHERE number=1",
        "UPDATE kept SET block=1 WHERE number=1",
        "UPDATE kept SET block='x' WHERE number=1",
        "INSERT INTO blocks VALUES (3, x'00')",
        "INSERT INTO kept SELECT 2, 2, subject, place, code, digest, envelope FROM kept LIMIT 1",
        "INSERT INTO meta VALUES ('note', x'00')",
    ],
)
def test_any_other_row_of_the_wide_area_chain_is_found(copies: Copies, change: str) -> None:
    copies.failure(do(change), wide=True)


def test_summary_kept_as_evidence_and_not_in_effect_is_named(copies: Copies) -> None:
    failure = copies.failure(do("UPDATE kept SET code=22 WHERE number=1"), wide=True)
    assert (failure.block, failure.record, failure.kind) == (2, 1, "summary")
    assert "kept as conflict, and it is ok" in str(failure)


def test_other_wide_genesis_is_found(copies: Copies) -> None:
    folder = copies.make()
    other = dataclasses.replace(folder.load_wide_genesis(), name="other")
    folder.wide_genesis.write_bytes(other.encode())
    assert "another genesis" in str(audit(folder).failure)
