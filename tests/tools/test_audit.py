"""``gridwitness audit`` of a node's folder: the wide-area chain where no region is at hand."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway.network.create import NetworkPlan, create_regional, create_wide
from gateway.network.folder import NetworkFolder
from hil.traffic import MadeRegion
from ledger.genesis import Parameters, WideGenesis
from ledger.region import RegionDirectory
from tools import cli

REGION = MadeRegion("north")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> NetworkFolder:
    """A network of one node, whose chain holds two summaries of a region."""
    path = tmp_path_factory.mktemp("wide") / "net"
    made = create_wide(path, "test", NetworkPlan(names=["gw-a"]), [REGION.entry])
    genesis = made.load_genesis()
    assert isinstance(genesis, WideGenesis)
    app = RegionDirectory(made.paths("gw-a").path).open_wide()
    for height in (1, 2):
        app.finalize_block(height, [REGION.sealed(genesis.chain, height - 1).raw])
        app.commit()
    app.close()
    return made


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main(["audit", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_node_of_the_wide_area_is_audited(network, capsys):
    path, genesis = network.paths("gw-a").path, network.load_genesis()
    code, out, err = run(capsys, path, "--genesis", genesis.digest.hex())
    assert (code, err) == (0, "")
    assert "audit passed: wide-area chain to block 2, 2 summaries, 2 signatures" in out
    assert "no region's chain is here" in out
    assert "--genesis HEX" not in out
    code, out, _ = run(capsys, path, "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["wide_height"], told["summaries"]) == (0, True, 2, 2)
    assert told["genesis"] == genesis.digest.hex()


def test_what_pruning_took_is_named(network, tmp_path, capsys):
    copy = shutil.copytree(network.paths("gw-a").path, tmp_path / "copy")
    app = RegionDirectory(copy).open_wide()
    assert app.prune(2) == 1
    app.close()
    code, out, _ = run(capsys, copy)
    assert code == 0
    assert "summaries whose bodies are not here: 1;" in out


def test_altered_chain_of_a_node_exits_with_one(network, tmp_path, capsys):
    copy = shutil.copytree(network.paths("gw-a").path, tmp_path / "copy")
    sql = sqlite3.connect(RegionDirectory(copy).wide)
    sql.execute("UPDATE blocks SET app_hash=zeroblob(32) WHERE height=1")
    sql.commit()
    sql.close()
    code, out, _ = run(capsys, copy)
    assert code == 1
    assert "audit FAILED: wide-area chain, block 1: the application hash" in out
    code, out, _ = run(capsys, copy, "--genesis", "00" * 32)
    assert code == 1
    assert "audit FAILED: wide-area chain: the genesis has digest" in out


def test_region_that_lost_its_genesis_is_not_taken_for_a_node(tmp_path, capsys):
    directory = RegionDirectory(tmp_path)
    directory.wide_genesis.write_bytes(WideGenesis("wide", 0, (REGION.entry,)).encode())
    directory.regional.parent.mkdir()
    directory.regional.touch()
    code, _, err = run(capsys, tmp_path)
    assert code == 2
    assert "genesis.cbor does not exist" in err


def test_network_says_to_name_a_node(network, tmp_path, capsys):
    region = create_regional(
        tmp_path / "region", "street", Parameters(), NetworkPlan(names=["gw-1"])
    )
    for folder in (network, region):
        code, out, err = run(capsys, folder.path)
        assert (code, out) == (2, "")
        assert f"name a node's folder, {folder.path}/nodes/NAME" in err


def test_node_of_a_region_is_audited_as_a_region(tmp_path: Path, capsys):
    made = create_regional(tmp_path / "region", "street", Parameters(), NetworkPlan(names=["gw-1"]))
    directory = RegionDirectory(made.paths("gw-1").path)
    directory.open_regional().close()
    code, out, _ = run(capsys, directory.path)
    assert code == 0
    assert "audit passed: 0 blocks, 0 records, witnessed to 0, 0 summaries" in out
