"""What the audit of a copy without its old bodies checks, and says that it did not (SPEC 11.10)."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from ledger.audit import AuditReport, audit
from ledger.engine.solo import Solo
from ledger.region import RegionDirectory
from ledger.regional import prune
from ledger.regional.application import TABLES, RegionalApplication
from ledger.snapshot import Snapshots
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import Region, eventful, region_folder, signer


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> RegionDirectory:
    """Everything happened long ago, a little now; a reading and an order wait."""
    path = tmp_path_factory.mktemp("pruned")
    play = eventful(RegionDirectory(path).regional, rounds=33, gateways=3, validators=4)
    late = [play.region.reading(meter, play.round) for meter in play.region.meters[3:6]]
    play.execute([*late, *play.region.majority(play.round)])
    play.round += 4200
    for _ in range(3):
        play.play()
    ahead = play.region.reading(play.region.meters[5], play.round)
    play.execute([ahead, play.region.close(play.round)])
    folder = region_folder(path, play)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune, "_LEAST_STEP", 1)
        assert play.app.prune(1 << 30) == 35
    play.close()
    return folder


@pytest.fixture(scope="module")
def restored(pruned: RegionDirectory, tmp_path_factory: pytest.TempPathFactory) -> RegionDirectory:
    path = tmp_path_factory.mktemp("restored")
    directory = RegionDirectory(path)
    shutil.copy(pruned.genesis, directory.genesis)
    source = pruned.open_regional(read_only=True)
    with Database(directory.regional, TABLES) as database:
        app = RegionalApplication(source.genesis, database, Verifier())
        snapshots = Snapshots(path / "snapshots", app)
        snapshot = Snapshots(path / "snapshots", source).take()
        snapshots.offer(snapshot, source.app_hash)
        for index in range(snapshot.chunks):
            chunk = snapshots.load(snapshot.height, snapshot.format, index)
            assert snapshots.apply(index, chunk, "").result == 1
        app.sign_heads(signer("test gateway 1"))
    source.close()
    return directory


@pytest.mark.parametrize("which", ["pruned", "restored"])
def test_copy_without_old_bodies_passes_and_says_so(
    which: str, request: pytest.FixtureRequest
) -> None:
    report = audit(request.getfixturevalue(which))
    assert report.ok, report.failure
    assert (report.blocks, report.unsigned, report.first_body) == (37, 0, 35)
    assert "below 35 are not here" in report.unchecked
    assert report.records > 100
    assert report.witnessed_height == 36
    assert report.summaries == (8 if which == "pruned" else 0)


def test_whole_copy_leaves_nothing_unchecked(tmp_path: Path) -> None:
    play = eventful(RegionDirectory(tmp_path).regional, rounds=30)
    folder = region_folder(tmp_path, play)
    play.close()
    report = audit(folder)
    assert report.ok
    assert (report.first_body, report.unchecked) == (1, "")


def spoiled(folder: RegionDirectory, path: Path, sql: str) -> AuditReport:
    shutil.copytree(folder.path, path)
    copy = RegionDirectory(path)
    connection = sqlite3.connect(copy.regional, isolation_level=None)
    assert connection.execute(sql).rowcount > 0
    connection.close()
    return audit(copy)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM heads WHERE height=3",
        "UPDATE heads SET envelope=NULL WHERE height=3",
        "UPDATE heads SET payload=(SELECT payload FROM heads WHERE height=4) WHERE height=3",
        "UPDATE heads SET round=7 WHERE height=3",
        "DELETE FROM heads WHERE height=37",
        "DELETE FROM records WHERE id=(SELECT max(id) FROM records)",
        "DELETE FROM records WHERE id=(SELECT min(id) FROM records)",
        "UPDATE records SET packed=x'83000000' WHERE id=(SELECT max(id) FROM records)",
        "UPDATE records SET packed='x' WHERE id=(SELECT max(id) FROM records)",
        "UPDATE paths SET path=x'80'",
        "UPDATE paths SET path=7",
        "DELETE FROM paths",
        "UPDATE results SET accepts=accepts+1 WHERE height=36",
        "UPDATE results SET accepts='x' WHERE height=36",
        "UPDATE results SET digest=NULL",
        "DELETE FROM results WHERE height=37",
        "INSERT INTO results SELECT id, 38, 1, 4, 4, 0, 0, NULL FROM results WHERE height=37",
        "DELETE FROM state WHERE key=x'72'",
        "UPDATE state SET value=x'80' WHERE key=x'72'",
        "UPDATE state SET value=7 WHERE key=x'72'",
        "DELETE FROM history WHERE level=0 AND place=2",
        "DELETE FROM slots WHERE slot=(SELECT min(slot) FROM slots)",
        "DELETE FROM digests",
        "UPDATE windows SET aggregate=x'80'",
        "UPDATE windows SET aggregate=x'8701020304838080808080'",
        "UPDATE pending SET envelope=x'80' WHERE position=0",
        "UPDATE meta SET value=x'00000001' WHERE name='pruned'",
        "UPDATE meta SET value=x'00000024' WHERE name='pruned'",
        "UPDATE meta SET value=x'ffffffff' WHERE name='pruned'",
        "UPDATE meta SET value='x' WHERE name='pruned'",
        "DELETE FROM meta WHERE name='pruned'",
    ],
)
def test_what_is_wrong_in_a_pruned_copy_is_found(
    pruned: RegionDirectory, tmp_path: Path, sql: str
) -> None:
    report = spoiled(pruned, tmp_path / "copy", sql)
    assert not report.ok, sql


def test_pruned_region_goes_on_and_passes_again(pruned: RegionDirectory, tmp_path: Path) -> None:
    shutil.copytree(pruned.path, tmp_path / "copy")
    folder = RegionDirectory(tmp_path / "copy")
    region = Region(gateways=3, validators=4)
    app = folder.open_regional()
    round_ = (app.last_round or 0) + 1
    Solo(app).execute([region.close(round_, i).raw for i in (1, 2)])
    app.sign_heads(region.gateways[1])
    app.close()
    report = audit(folder)
    assert report.ok, report.failure
    assert report.blocks == 38
