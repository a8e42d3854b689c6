"""Whatever bytes a database's file holds, an audit ends with its report."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.region import RegionDirectory
from tests.ledger.regional.generate import Play, Region, region_folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> RegionDirectory:
    path = tmp_path_factory.mktemp("original")
    play = Play(Region(size=4, cluster_size=4), RegionDirectory(path).regional)
    for _ in range(6):
        play.play()
    folder = region_folder(path, play)
    play.close()
    return folder


@pytest.fixture
def folder(original: RegionDirectory, tmp_path: Path) -> RegionDirectory:
    shutil.copytree(original.path, tmp_path / "copy")
    return RegionDirectory(tmp_path / "copy")


def sentence(folder: RegionDirectory) -> str:
    report = audit(folder)
    assert not report.ok
    return str(report.failure)


@pytest.mark.parametrize("size", [0, 1, 16, 99, 100, 4095, 4096, 20_000])
def test_truncated_file_is_a_sentence(folder: RegionDirectory, size: int) -> None:
    data = folder.regional.read_bytes()
    assert size < len(data)
    folder.regional.write_bytes(data[:size])
    assert "regional.sqlite" in sentence(folder) or "regional chain" in sentence(folder)


def test_missing_ledger_is_a_sentence(folder: RegionDirectory) -> None:
    folder.regional.unlink()
    assert "does not exist" in sentence(folder)


def test_file_that_is_no_database_is_a_sentence(folder: RegionDirectory) -> None:
    folder.regional.write_bytes(random.Random(0).randbytes(30_000))
    assert "not a database" in sentence(folder)


def test_other_schema_version_is_a_sentence(folder: RegionDirectory) -> None:
    sql = sqlite3.connect(folder.wide)
    sql.execute("PRAGMA user_version=7")
    sql.close()
    assert "version 7" in sentence(folder)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE results",
        "DROP INDEX heads_digest",
        "ALTER TABLE state ADD COLUMN note TEXT",
        "CREATE TABLE extra (a)",
        "CREATE TRIGGER t AFTER INSERT ON heads BEGIN DELETE FROM records; END",
        "CREATE VIEW v AS SELECT 1",
    ],
)
def test_other_schema_is_refused(folder: RegionDirectory, change: str) -> None:
    sql = sqlite3.connect(folder.regional)
    sql.execute(change)
    sql.close()
    assert "other tables" in sentence(folder)


def test_view_that_never_ends_is_not_read(folder: RegionDirectory) -> None:
    sql = sqlite3.connect(folder.regional)
    sql.execute("DROP TABLE records")
    sql.execute(
        "CREATE VIEW records AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
        " SELECT id, x'00' AS envelope FROM n"
    )
    sql.close()
    assert "other tables" in sentence(folder)


def test_enormous_cell_is_not_read(folder: RegionDirectory) -> None:
    sql = sqlite3.connect(folder.regional)
    with sql:
        sql.execute("UPDATE records SET packed=zeroblob(70000000) WHERE id=1048576")
    sql.close()
    assert "too big" in sentence(folder)


@pytest.mark.parametrize("seed", range(12))
def test_file_with_any_damage_ends_in_a_report(folder: RegionDirectory, seed: int) -> None:
    """Damage in unused space is no failure; in all other places it must be one."""
    rng = random.Random(seed)
    path = rng.choice([folder.regional, folder.wide])
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 3, 40])):
        start = rng.randrange(len(data))
        size = rng.choice([1, 1, 8, 600])
        data[start : start + size] = rng.randbytes(len(data[start : start + size]))
    path.write_bytes(bytes(data))
    report = audit(folder)
    assert report.ok or str(report.failure)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_log_of_the_database_ends_in_a_report(
    original: RegionDirectory, tmp_path: Path, seed: int
) -> None:
    """A gateway that was cut off leaves SQLite's write-ahead log behind, which may be torn."""
    directory = RegionDirectory(tmp_path / "live")
    directory.path.mkdir()
    play = Play(Region(size=4, cluster_size=4), directory.regional)
    directory.genesis.write_bytes(play.region.genesis.encode())
    for _ in range(5):
        play.play()
    shutil.copytree(directory.path, tmp_path / "cut")
    play.close()
    cut = RegionDirectory(tmp_path / "cut")
    log = cut.regional.with_name(cut.regional.name + "-wal")
    data = log.read_bytes()
    log.write_bytes(data[: random.Random(seed).randrange(len(data))])
    report = audit(cut)
    assert report.ok or str(report.failure)
    assert report.blocks <= 5
