"""The audit of a chain that many nodes keep: changes, convictions, gaps, pruned bodies."""

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest

from ledger.audit import AuditReport, audit, audit_wide
from ledger.engine.abci import Decision
from ledger.network import NetworkChange, RegionGateways, Upgrade, What
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from ledger.wide import codes
from ledger.wide.application import WideApplication
from ledger.wide.summary import Summary
from tests.ledger.keys_of import ed25519, signer
from tests.ledger.regional.generate import Play, Region, summaries
from tests.ledger.wide.bench import NOWHERE, OPERATORS, VALIDATORS, convicted
from tests.ledger.wide.bench import summary as other_summary

HEAD_OFFICE = signer("head office")
NEW = VALIDATORS[0]._replace(name="new", public_key=ed25519("new"))


class Chain:
    """A wide-area chain in a folder, with the region whose summaries it takes."""

    def __init__(self, path: Path, *, lie: bool = False) -> None:
        self.directory = RegionDirectory(path)
        region = Region(size=4, cluster_size=4)
        self.genesis = region.wide_genesis = dataclasses.replace(
            region.wide_genesis,
            operators=tuple(key.public_key for key in OPERATORS),
            threshold=2,
            validators=VALIDATORS,
        )
        play = Play(region, self.directory.regional)
        for _ in range(16):
            play.play()
        self.reports = summaries(play)
        play.close()
        self.key = play.region.gateways[0]
        self.directory.genesis.write_bytes(region.genesis.encode())
        self.directory.wide_genesis.write_bytes(self.genesis.encode())
        if lie:
            self.reports[0] = self.altered(0, energy_in=7)
        self.app: WideApplication = self.directory.open_wide()

    def altered(self, number: int, **changes: object) -> Envelope:
        true = Summary.decode(self.reports[number].payload)
        return self.key.seal(dataclasses.replace(true, **changes).payload())  # type: ignore[arg-type]

    def block(self, *txs: Envelope, at: int | None = None, evil: tuple[str, ...] = ()) -> None:
        decision = Decision(b"", tuple(convicted(name) for name in evil))
        height = at or self.app.height + 1
        result = self.app.finalize_block(height, [tx.raw for tx in txs], decision)
        assert all(tx.code in (codes.OK, codes.CONFLICT) for tx in result.tx_results), result
        self.app.commit()

    def change(self, what: What) -> None:
        change = NetworkChange(self.genesis.chain, self.app.network.changes + 1, what)
        self.block(*(OPERATORS[i].seal(change.payload()) for i in (0, 1)))

    def fill(self) -> None:
        self.block(self.reports[0], at=3)
        self.block(at=7)
        self.change(NEW)
        self.block(self.altered(0, energy_in=7), evil=("gw-b",))
        self.block(at=40)
        self.change(RegionGateways(NOWHERE, (HEAD_OFFICE.public_key,)))
        other = other_summary(0, NOWHERE, chain=self.genesis.chain)
        self.block(self.reports[1], HEAD_OFFICE.seal(other.payload()), evil=("sub-1",))
        self.block(self.reports[2], at=99)
        self.block(at=200)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> RegionDirectory:
    chain = Chain(tmp_path_factory.mktemp("wide"))
    chain.fill()
    chain.app.close()
    return chain.directory


@pytest.fixture(scope="module")
def pruned(original: RegionDirectory, tmp_path_factory: pytest.TempPathFactory) -> RegionDirectory:
    path = tmp_path_factory.mktemp("pruned") / "region"
    shutil.copytree(original.path, path)
    directory = RegionDirectory(path)
    app = directory.open_wide()
    assert app.prune(42) == 2  # the first summary and the conflict
    app.close()
    return directory


def altered(directory: RegionDirectory, path: Path, change: str) -> AuditReport:
    """Give the audit of a copy after an SQL statement."""
    shutil.copytree(directory.path, path)
    copy = RegionDirectory(path)
    sql = sqlite3.connect(copy.wide, isolation_level=None)
    assert sql.execute(change).rowcount > 0, "the test changes nothing"
    sql.close()
    return audit(copy)


def test_everything_that_many_nodes_do_passes(original: RegionDirectory) -> None:
    report = audit(original)
    assert report.ok, report.failure
    assert (report.wide_height, report.summaries, report.conflicts) == (200, 4, 1)
    assert report.pruned_summaries == 0


def test_pruned_chain_passes_and_says_what_is_gone(
    original: RegionDirectory, pruned: RegionDirectory
) -> None:
    whole, report = audit(original), audit(pruned)
    assert report.ok, report.failure
    assert report.pruned_summaries == 2
    assert (report.wide_height, report.summaries, report.conflicts) == (200, 4, 1)
    assert report.signatures == whole.signatures - 2


def test_chain_from_a_snapshot_passes(original: RegionDirectory, tmp_path: Path) -> None:
    for source, gone in ((original, 0), (None, 5)):
        path = tmp_path / f"{gone}"
        shutil.copytree(original.path, path)
        copy = RegionDirectory(path)
        app = (source or copy).open_wide(read_only=source is not None)
        while source is None and app.prune(1 << 40):
            pass
        info, rows = app.info(), list(app.export(app._database))
        app.close()
        for file in copy.wide.parent.glob("wide.sqlite*"):
            file.unlink()
        app = copy.open_wide()
        app.restore(info.last_block_height, info.last_block_app_hash, iter(rows))
        app.close()
        report = audit(copy)
        assert report.ok, report.failure
        assert (report.wide_height, report.summaries, report.conflicts) == (200, 4, 1)
        assert report.pruned_summaries == gone


def without_region(directory: RegionDirectory, path: Path) -> RegionDirectory:
    """Give a node's folder: the wide-area chain alone."""
    shutil.copytree(directory.path, path)
    copy = RegionDirectory(path)
    copy.genesis.unlink()
    copy.regional.unlink()
    return copy


def test_chain_passes_where_no_region_is_at_hand(
    original: RegionDirectory, pruned: RegionDirectory, tmp_path: Path
) -> None:
    for source in (original, pruned):
        report = audit_wide(without_region(source, tmp_path / source.path.name))
        told = audit(source)
        assert report.ok, report.failure
        assert (report.wide_height, report.summaries, report.conflicts) == (200, 4, 1)
        assert report.pruned_summaries == told.pruned_summaries
        assert report.signatures == told.signatures - told.records - told.blocks
        assert "no region's chain is here" in report.unchecked


def test_chain_under_another_genesis_than_the_trusted_one_is_refused(
    original: RegionDirectory,
) -> None:
    genesis = original.load_wide_genesis()
    assert audit_wide(original, expected_genesis=genesis.digest).ok
    report = audit_wide(original, expected_genesis=bytes(32))
    assert "the genesis has digest" in str(report.failure)
    assert report.wide_height == 0


CHANGES = [
    "DELETE FROM kept WHERE number=3",
    "DELETE FROM kept WHERE code=27",
    "DELETE FROM kept WHERE number=(SELECT max(number) FROM kept)",
    "UPDATE kept SET envelope=NULL WHERE code=26",
    "UPDATE kept SET envelope=NULL WHERE code=27",
    "UPDATE kept SET envelope=(SELECT envelope FROM kept WHERE code=26) WHERE code=27",
    "UPDATE kept SET envelope='text' WHERE code=27",
    "UPDATE kept SET code=0 WHERE code=22",
    "UPDATE kept SET code=27 WHERE code=26",
    "UPDATE kept SET code=2.5 WHERE number=1",
    "UPDATE kept SET place=place+1 WHERE code=26",
    "UPDATE kept SET subject=x'00' WHERE number=1",
    "UPDATE kept SET digest=zeroblob(32) WHERE number=1",
    "UPDATE kept SET block=1000 WHERE number=4",
    "UPDATE kept SET block='x' WHERE number=4",
    "UPDATE kept SET number=-1 WHERE number=0",
    "DELETE FROM summaries WHERE to_height=10",
    "DELETE FROM history WHERE level=1",
    "DELETE FROM state WHERE key=x'6e'",
    "DELETE FROM state WHERE key=x'6c'",
    "UPDATE state SET value=x'80' WHERE key=x'6e'",
    "UPDATE state SET value=x'f6' WHERE key=x'6c'",
    "UPDATE state SET value=7 WHERE key=x'67'",
    "INSERT INTO state VALUES (x'7a', x'00')",
    "INSERT INTO meta VALUES ('note', x'00')",
    "DELETE FROM blocks WHERE height=200",
    "DELETE FROM blocks",
    "UPDATE blocks SET app_hash=zeroblob(32) WHERE height=200",
    "UPDATE blocks SET app_hash=7 WHERE height=200",
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_in_a_whole_chain_is_found(
    original: RegionDirectory, tmp_path: Path, change: str
) -> None:
    report = altered(original, tmp_path / "copy", change)
    if change == "DELETE FROM blocks WHERE height=200":
        # the empty blocks behind the last one that kept something are nobody's loss
        assert report.ok
        assert report.wide_height == 99
        return
    assert report.failure is not None
    assert report.failure.chain == "wide-area"


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_in_a_pruned_chain_is_found(
    pruned: RegionDirectory, tmp_path: Path, change: str
) -> None:
    report = altered(pruned, tmp_path / "copy", change)
    if change == "DELETE FROM blocks WHERE height=200":
        assert report.ok
        return
    assert report.failure is not None
    assert report.failure.chain == "wide-area"


def test_empty_block_between_others_is_no_row(original: RegionDirectory, tmp_path: Path) -> None:
    change = "INSERT INTO blocks SELECT height + 1, app_hash FROM blocks WHERE height=3"
    report = altered(original, tmp_path / "copy", change)
    assert "holds a row that no record makes" in str(report.failure)


def test_false_summary_is_named_whether_or_not_it_was_pruned(tmp_path: Path) -> None:
    chain = Chain(tmp_path, lie=True)
    chain.block(chain.reports[0])
    chain.block(chain.reports[1])
    chain.app.close()
    told = str(audit(chain.directory).failure)
    assert "its energy in is 7; the regional chain gives" in told
    app = chain.directory.open_wide()
    app.prune(2)
    app.close()
    report = audit(chain.directory)
    assert "record 0" in str(report.failure)
    assert "the regional chain gives another one" in str(report.failure)


def test_chain_under_rules_that_are_not_known_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(tmp_path)
    chain.change(Upgrade(2, 2))
    with monkeypatch.context() as patch:
        patch.setattr(WideApplication, "VERSIONS", (1, 2))
        chain.block(chain.reports[0])
    chain.app.close()
    told = str(audit(chain.directory).failure)
    assert "block 2: it cannot be checked with this program" in told
    assert "version 2" in told
