"""``gridwitness network``: what one mistyped or repeated command must not do to a network."""

import json
import socket
from pathlib import Path

import pytest

from gateway import config, node
from gateway.network.folder import NetworkFolder
from hil.ports import free_ports
from ledger.genesis import WideGenesis
from ledger.region import RegionDirectory
from tests.cometbft import need_cometbft
from tests.tools.networks import Running
from tools import cli
from tools.network_change import read_state
from tools.network_run import of_this_machine

FAST = ("--commit-s", "0.1", "--empty-s", "600")


def run(capsys, *words: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as e:  # argparse ends so
        code = int(str(e.code))
    out, err = capsys.readouterr()
    return code, out, err


def make(capsys, path: Path, names: str, *words: object) -> NetworkFolder:
    options = ["--validators", names, "--base-port", free_ports(4 * (names.count(",") + 3))]
    code, _, err = run(capsys, "network", "init", path, *options, *FAST, *words)
    assert code == 0, err
    return NetworkFolder.load(path)


@pytest.fixture
def pair(tmp_path, capsys):
    return make(capsys, tmp_path / "net", "a,b")


def refused(capsys, *words: object) -> str:
    """Run a command that must be refused with one sentence; gives it."""
    code, out, err = run(capsys, "network", *words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    return err


# ------------------------------------------------------------------------------- without CometBFT


def test_address_given_twice_is_refused(tmp_path, capsys):
    words = ["--validators", "a,b", "--host", "a=10.0.0.1", "--host", "a=10.0.0.2"]
    assert "a has an address already, 10.0.0.1" in refused(capsys, "init", tmp_path / "n", *words)


@pytest.mark.parametrize("option", ["--round-s", "--committee", "--open-rounds", "--window-rounds"])
def test_settings_of_a_region_are_refused_for_a_wide_area_network(tmp_path, capsys, option):
    err = refused(capsys, "init", tmp_path / "n", "--validators", "a", option, "7")
    assert f"{option} is for a region: make it with --gateways" in err
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("option", ["--validators", "--gateways"])
def test_no_names_get_a_sentence(tmp_path, capsys, option):
    assert f"{option} is empty: name the nodes" in refused(
        capsys, "init", tmp_path / "n", option, ""
    )


def test_new_node_takes_no_port_of_another(pair, capsys):
    used = int(pair.node("b").rpc.rpartition(":")[2])
    err = refused(capsys, "add-node", pair.path, "c", "--base-port", used)
    assert "is of b" in err
    assert not pair.paths("c").path.exists()


def test_new_node_keeps_as_many_blocks_as_the_others(tmp_path, capsys):
    network = make(capsys, tmp_path / "net", "a", "--keep-blocks", "777")
    assert run(capsys, "network", "add-node", network.path, "b")[0] == 0
    assert node.load(network.paths("b").settings).keep.blocks == 777


def test_ports_of_a_region_of_several_gateways_are_left_to_it(tmp_path, capsys):
    street = tmp_path / "street"
    code, _, err = run(capsys, "network", "init", street, "--gateways", "g,h")
    assert code == 0, err
    words = ["init", tmp_path / "net", "--validators", "a", "--region", street]
    err = refused(capsys, *words, "--base-port", "26606")
    assert f"port 26606 is of a node of {street}: give another --base-port, 26608" in err
    assert not (tmp_path / "net").exists()
    code, _, err = run(capsys, "network", *words)
    assert code == 0, err
    assert NetworkFolder.load(tmp_path / "net").node("a").p2p == "127.0.0.1:26608"


def test_run_takes_no_node_whose_address_is_another_machines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tools.network_run.find_checked", lambda: Path("cometbft"))
    # 192.0.2.0/24 is for documentation: no machine has it
    words = [word for name in "ab" for word in ("--host", f"{name}=192.0.2.7")]
    code, out, _ = run(capsys, "network", "init", tmp_path / "n", "--validators", "a,b", *words)
    assert code == 0
    assert f"MOVE {tmp_path / 'n' / 'nodes' / 'a'} to 192.0.2.7" in out
    err = refused(capsys, "run", tmp_path / "n")
    assert "a is at 192.0.2.7, b is at 192.0.2.7" in err
    assert "--node" in err


def test_run_starts_of_several_homes_those_of_this_machine(tmp_path, capsys):
    words = ["--validators", "a,b", "--host", "b=192.0.2.7"]
    assert run(capsys, "network", "init", tmp_path / "n", *words)[0] == 0
    network = NetworkFolder.load(tmp_path / "n")
    assert [entry.name for entry in of_this_machine(network)] == ["a"]
    assert "not started" in capsys.readouterr().out


def test_run_names_a_taken_port_before_anything_starts(pair, capsys, monkeypatch):
    monkeypatch.setattr("tools.network_run.find_checked", lambda: Path("cometbft"))
    port = int(pair.node("b").rpc.rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        code, out, err = run(capsys, "network", "run", pair.path)
    assert (code, out) == (1, "")
    assert f"b: port {port}, for RPC, cannot be had" in err
    assert not pair.paths("a").lock.exists()


def test_change_is_signed_without_a_node_where_its_number_is_given(pair, tmp_path, capsys):
    words = ["validator-remove", pair.path, "b", "--out", tmp_path / "signed"]
    assert "to sign without one give --number N" in refused(capsys, *words)
    code, out, err = run(capsys, "network", *words, "--number", "3")
    assert code == 0, err
    assert [Path(line).name[:9] for line in out.split()] == ["change-3-"] * 2
    assert "--number N goes with --out" in refused(
        capsys, "validator-remove", pair.path, "b", "--number", "3"
    )


def test_file_that_is_no_approval_is_not_handed_in(pair, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"\x00")
    err = refused(capsys, "submit", pair.path, tmp_path / "file")
    assert "is not an approval of a network change" in err


def test_silent_node_is_told_in_words(pair, capsys):
    code, out, _ = run(capsys, "network", "status", pair.path)
    assert code == 1
    assert "nothing listens there: is it running?" in out
    assert "Errno" not in out


def test_unit_is_printed_for_where_the_folder_is(pair, tmp_path, capsys):
    moved = pair.path.rename(tmp_path / "moved")
    code, out, err = run(capsys, "network", "unit", moved, "b")
    assert (code, err) == (0, "")
    assert f"{moved}" in out
    assert "--node b" in out
    assert str(pair.path) not in out


# ---------------------------------------------------------------------------------- with CometBFT


def test_mistyped_upgrade_is_refused_and_the_chain_goes_on(tmp_path, capsys):
    need_cometbft()
    network = make(capsys, tmp_path / "net", "a", "--empty-s", "1")
    with Running(network.path) as running:
        running.until_height(1)
        err = refused(capsys, "upgrade", network.path, 2, 1)
        assert "the chain is at height" in err
        err = refused(capsys, "upgrade", network.path, 2, 5000)
        assert "this program has version 1 of the rules, and not 2: at height 5000" in err
        rpc = running.rpc("a")
        running.until_height(rpc.status().height + 1)
        assert read_state(rpc, network.load_genesis()).changes == 0
        rpc.close()
        assert running.end() == 0


def test_state_sync_without_any_snapshot_is_refused(tmp_path, capsys):
    need_cometbft()
    network = make(capsys, tmp_path / "net", "a")
    with Running(network.path) as running:
        running.until_height(1)
        err = refused(capsys, "add-node", network.path, "b", "--state-sync")
        assert "no node has a snapshot yet: the chain is at height" in err
        assert "made every 1000 blocks" in err
        assert not network.paths("b").path.exists()
        assert running.end() == 0


def test_region_is_told_of_the_network_that_it_joins_and_joins_once(tmp_path, capsys):
    need_cometbft()
    network = make(capsys, tmp_path / "net", "a")
    west = tmp_path / "west"
    assert run(capsys, "init", west)[0] == 0
    add = ["region-add", network.path, west]
    with Running(network.path) as running:
        running.until_height(1)
        keys = sorted(network.operators.glob("*.key"))
        code, out, err = run(capsys, "network", *add, "--key", keys[0])
        assert (code, err) == (0, "")
        assert "change 1: 1 of 2 approvals, not in effect yet" in out
        code, out, err = run(capsys, "network", *add, "--key", keys[1], "--out", tmp_path / "s")
        assert code == 0, err
        code, out, err = run(capsys, "network", "submit", network.path, out.strip())
        assert (code, err) == (0, "")
        assert "change 1 is in effect" in out
        directory = RegionDirectory(west)
        genesis = network.load_genesis()
        assert isinstance(genesis, WideGenesis)
        assert directory.load_wide_genesis() == genesis
        settings = config.load(directory.config)
        assert (settings.wide.forward, settings.wide.node) == (True, network.node("a").rpc)
        assert "is there with these gateways" in refused(capsys, *add)
        found = json.loads(run(capsys, "network", "status", network.path, "--json")[1])
        assert found["nodes"][0]["changes"] == 1
        assert running.end() == 0


def test_answer_of_another_node_is_not_taken_for_this_ones(tmp_path, capsys):
    need_cometbft()
    network = make(capsys, tmp_path / "net", "a")
    with Running(network.path) as running:
        running.until_height(1)
        file = network.path / "network.json"
        text = json.loads(file.read_text())
        text["nodes"][0]["id"] = "00" * 20
        file.write_text(json.dumps(text))
        code, out, _ = run(capsys, "network", "status", network.path)
        assert code == 1
        assert "another node answers here" in out
        assert running.end() == 0
