"""``gridwitness network``: what init writes, and networks of real nodes run by the commands."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from gateway import config, node
from gateway.network.create import write_unit
from gateway.network.errors import NetworkFolderError
from gateway.network.folder import NetworkFolder, NodePaths
from hil.ports import free_ports
from ledger.engine import abci
from ledger.engine.comet import chain_id
from ledger.engine.comet.rpc import Rpc
from ledger.genesis import RegionGenesis, WideGenesis
from ledger.keys import Signer
from ledger.region import RegionDirectory
from ledger.wide import codes
from tests.cometbft import need_cometbft
from tests.ledger.wide.bench import summary
from tests.tools.networks import Running, broadcast
from tools import cli
from tools.registry import read_state

NAMES = ("gw-a", "gw-b", "sub-1", "sub-2")
FAST = ("--commit-s", "0.1", "--empty-s", "600")


def run(capsys, *words: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as e:  # argparse ends so
        code = int(str(e.code))
    out, err = capsys.readouterr()
    return code, out, err


def make_wide(capsys, path: Path, names=NAMES, *words: object) -> NetworkFolder:
    """Make a region beside the network and the network over it."""
    region = path.parent / "region"
    assert run(capsys, "init", region)[0] == 0
    ports = free_ports(4 * len(names) + 4)
    options = ["--base-port", ports, "--region", region, *FAST, *words]
    code, _, err = run(capsys, "network", "init", path, "--validators", ",".join(names), *options)
    assert code == 0, err
    return NetworkFolder.load(path)


def a_summary(network: NetworkFolder, number: int):
    """Give a summary of the region beside the network, signed by its gateway."""
    directory = RegionDirectory(network.path.parent / "region")
    chain = directory.load_genesis().chain
    record = summary(number, chain, chain=network.chain)
    return Signer.load(directory.gateway_key).seal(record.payload())


# ------------------------------------------------------------------------------- what init writes


@pytest.fixture
def wide(tmp_path, capsys):
    return make_wide(capsys, tmp_path / "net")


def test_every_node_has_the_same_genesis_for_both_programs(wide):
    genesis = wide.load_genesis()
    assert isinstance(genesis, WideGenesis)
    assert [v.name for v in genesis.validators] == list(NAMES)
    assert (len(genesis.operators), genesis.threshold) == (3, 2)
    for entry in wide.nodes:
        paths = wide.paths(entry.name)
        assert RegionDirectory(paths.path).load_wide_genesis() == genesis
        document = json.loads((paths.comet / "config" / "genesis.json").read_text())
        assert document["chain_id"] == chain_id(genesis.chain)
        assert document["app_state"] == {"genesis": sha256(genesis.encode()).hexdigest()}
        keys = [base64.b64decode(v["pub_key"]["value"]) for v in document["validators"]]
        assert keys == [v.public_key for v in genesis.validators]
        for key, validator in zip(keys, document["validators"], strict=True):
            assert validator["address"] == abci.Validator(key, 1).address.hex().upper()


def test_no_node_of_four_counts_as_one_that_blocks_the_chain(wide):
    """CometBFT's test, blocksync/reactor.go, rounds down; who meets it fetches no old blocks."""
    powers = [validator.power for validator in wide.load_genesis().validators]
    assert len(powers) == 4
    assert all(power < sum(powers) // 3 for power in powers)


def test_secret_files_are_their_owners_only(wide):
    secrets = [*wide.path.rglob("*_key.json"), *wide.path.rglob("*.key")]
    assert len(secrets) == 2 * 4 + 3
    secrets += wide.path.rglob("priv_validator_state.json")
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_configuration_spares_cards_and_stays_on_the_loopback(wide):
    for entry in wide.nodes:
        text = (wide.paths(entry.name).comet / "config" / "config.toml").read_text()
        settings = tomllib.loads(text)
        assert settings["rpc"]["laddr"].startswith("tcp://127.0.0.1:")
        assert settings["consensus"]["create_empty_blocks"] is False
        assert settings["consensus"]["create_empty_blocks_interval"] == "600s"
        assert settings["storage"]["discard_abci_responses"] is True
        assert settings["p2p"]["pex"] is False
        peers = settings["p2p"]["persistent_peers"].split(",")
        assert sorted(peers) == sorted(e.peer for e in wide.nodes if e != entry)
        application = node.load(wide.paths(entry.name).settings)
        assert application.keep.blocks == 20_000
        assert entry.application == f"http://127.0.0.1:{application.metrics.port}/metrics"


def test_no_port_is_given_twice(wide):
    addresses = [a for e in wide.nodes for a in (e.p2p, e.rpc, e.metrics, e.application)]
    ports = [re.findall(r":(\d+)", address)[-1] for address in addresses]
    assert len(set(ports)) == 4 * len(wide.nodes)


def test_cometbft_takes_keys_and_configuration(wide):
    program = need_cometbft()
    for entry in wide.nodes:
        home = wide.paths(entry.name).comet
        for command, wanted in (
            ("show-node-id", entry.id),
            (
                "show-validator",
                json.loads((home / "config" / "priv_validator_key.json").read_text())["pub_key"][
                    "value"
                ],
            ),
        ):
            done = subprocess.run(
                [program, command, "--home", home],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
            assert wanted in done.stdout


def test_region_is_told_of_its_node(wide):
    directory = RegionDirectory(wide.path.parent / "region")
    settings = config.load(directory.config)
    assert settings.wide.forward
    assert settings.wide.node == wide.node("gw-a").rpc
    assert directory.load_wide_genesis() == wide.load_genesis()


def test_nodes_elsewhere_listen_to_everybody_on_the_peers_port_alone(tmp_path, capsys):
    code, _, err = run(
        capsys, "network", "init", tmp_path / "n", "--validators", "a,b", "--host", "b=10.1.2.3"
    )
    assert code == 0, err
    network = NetworkFolder.load(tmp_path / "n")
    texts = {
        name: tomllib.loads((network.paths(name).comet / "config" / "config.toml").read_text())
        for name in "ab"
    }
    assert network.node("b").p2p == "10.1.2.3:26604"
    assert texts["b"]["p2p"]["laddr"] == "tcp://0.0.0.0:26604"
    assert texts["b"]["rpc"]["laddr"] == "tcp://127.0.0.1:26605"
    assert texts["a"]["p2p"]["persistent_peers"] == network.node("b").peer


def test_unit_runs_this_node_and_knows_no_other_folder_to_write(wide):
    text = wide.paths("sub-1").unit.read_text()
    assert f'network run "{wide.path}" --node sub-1\n' in text
    assert f'ReadWritePaths="{wide.path / "nodes" / "sub-1"}"\n' in text
    assert "Type=notify" in text


def test_unit_quotes_what_systemd_would_read_otherwise(tmp_path):
    paths = NodePaths(tmp_path / "sub-1")
    paths.path.mkdir()
    write_unit(paths, Path('/srv/100%h of $HOME\\a"b'))
    lines = paths.unit.read_text().splitlines()
    (command,) = [line for line in lines if line.startswith("ExecStart=")]
    assert '"/srv/100%%h of $$HOME\\\\a\\"b" --node sub-1' in command
    (writable,) = [line for line in lines if line.startswith("ReadWritePaths=")]
    assert writable == 'ReadWritePaths="/srv/100%%h of $HOME\\a"\'"\'"b/nodes/sub-1"'


def test_folder_whose_name_would_add_lines_to_a_unit_is_refused(tmp_path, capsys):
    name = "x\nExecStartPre=+/bin/true"
    code, out, err = run(capsys, "network", "init", tmp_path / name, "--validators", "a")
    assert (code, out) == (2, "")
    assert "has control characters" in err
    assert list(tmp_path.iterdir()) == []
    # the folder that one is in may have such a name as well
    with pytest.raises(NetworkFolderError, match="control characters"):
        write_unit(NodePaths(tmp_path / "sub-1"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def p2p_settings(network: NetworkFolder, name: str) -> dict[str, object]:
    text = (network.paths(name).comet / "config" / "config.toml").read_text()
    return tomllib.loads(text)["p2p"]


def test_strangers_who_fill_the_places_for_peers_keep_no_node_out(wide, capsys):
    for entry in wide.nodes:
        ids = p2p_settings(wide, entry.name)["unconditional_peer_ids"].split(",")
        assert sorted(ids) == sorted(other.id for other in wide.nodes if other != entry)
    # a node that joins is one of them everywhere, also where an older version made the home
    old = wide.paths("sub-2").comet / "config" / "config.toml"
    kept = [line for line in old.read_text().splitlines() if "unconditional" not in line]
    old.write_text("\n".join(kept) + "\n")
    assert run(capsys, "network", "add-node", wide.path, "sub-3")[0] == 0
    after = NetworkFolder.load(wide.path)
    for entry in after.nodes:
        ids = p2p_settings(after, entry.name)["unconditional_peer_ids"].split(",")
        assert sorted(ids) == sorted(other.id for other in after.nodes if other != entry)


def test_one_address_gets_one_place_unless_nodes_share_a_machine(wide, tmp_path, capsys):
    assert p2p_settings(wide, "gw-a")["allow_duplicate_ip"] is True
    hosts = ["--host", "a=10.1.2.3", "--host", "b=10.1.2.4"]
    words = ["network", "init", tmp_path / "far", "--validators", "a,b", *hosts]
    assert run(capsys, *words)[0] == 0
    far = NetworkFolder.load(tmp_path / "far")
    assert p2p_settings(far, "a")["allow_duplicate_ip"] is False
    assert run(capsys, "network", "add-node", far.path, "c", "--host", "10.1.2.5")[0] == 0
    assert p2p_settings(far, "a")["allow_duplicate_ip"] is False
    assert run(capsys, "network", "add-node", far.path, "d", "--host", "10.1.2.5")[0] == 0
    assert p2p_settings(far, "a")["allow_duplicate_ip"] is True


def test_region_of_several_gateways_gets_a_gateway_a_node(tmp_path, capsys):
    words = ["--gateways", "gw-1,gw-2,gw-3", "--round-s", "5", "--base-port", "25000"]
    code, _, err = run(capsys, "network", "init", tmp_path / "n", *words)
    assert code == 0, err
    network = NetworkFolder.load(tmp_path / "n")
    genesis = network.load_genesis()
    assert isinstance(genesis, RegionGenesis)
    assert genesis.parameters.round_s == 5
    keys = set()
    for entry, validator in zip(network.nodes, genesis.validators, strict=True):
        directory = RegionDirectory(network.paths(entry.name).path)
        assert directory.load_genesis() == genesis
        keys.add(Signer.load(directory.gateway_key).public_key)
        settings = config.load(directory.config)
        assert (settings.chain.engine, settings.chain.rpc) == ("comet", entry.rpc)
        address = abci.Validator(validator.public_key, 1).address
        assert config.read_validator(settings) == address
    assert keys == set(genesis.gateways)
    assert len(keys) == 3
    # and as one region of a wide-area network, all of its gateways are told
    code, _, err = run(
        capsys, "network", "init", tmp_path / "w", "--validators", "a", "--region", network.path
    )
    assert code == 0, err
    wide = NetworkFolder.load(tmp_path / "w").load_genesis()
    assert isinstance(wide, WideGenesis)
    assert wide.regions == ((genesis.chain, genesis.gateways),)
    for entry in network.nodes:
        directory = RegionDirectory(network.paths(entry.name).path)
        assert directory.load_wide_genesis() == wide
        assert config.load(directory.config).wide.forward


INIT = ("network", "init", "net")
AB = (*INIT, "--validators", "a,b")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (INIT, "one of the arguments --validators --gateways is required"),
        ((*INIT, "--validators", "a,a"), "give 1 to 100 names, none twice"),
        ((*INIT, "--validators", "a,../b"), "'../b' is not 1 to 32 letters"),
        ((*INIT, "--gateways", ","), "'' is not 1 to 32 letters"),
        ((*INIT, "--gateways", ",".join("abcdefghijklmnopq")), "give 1 to 16 names"),
        ((*INIT, "--validators", "a", "--gateways", "b"), "not allowed with argument"),
        ((*AB, "--base-port", "80"), "--base-port 80: give 1024 to 65528"),
        ((*AB, "--base-port", "65530"), "--base-port 65530: give 1024"),
        ((*AB, "--commit-s", "nan"), "--commit-s nan: give 0.02 to 60"),
        ((*AB, "--empty-s", "0"), "--empty-s 0: give 1 to 86400"),
        ((*AB, "--keep-blocks", "-1"), "--keep-blocks -1: give 0 to"),
        ((*AB, "--threshold", "4"), "--threshold 4: give 1 to 3"),
        ((*AB, "--host", "c=10.0.0.1"), "--host c=10.0.0.1: give NAME=ADDRESS of one of a,b"),
        ((*AB, "--host", 'a=x"\n'), "give NAME=ADDRESS"),
        ((*AB, "--region", "absent"), "genesis.cbor does not exist"),
        ((*AB, "--region", "c=absent"), "give NODE=DIR with one of a,b"),
        ((*INIT, "--gateways", "a", "--region", "absent"), "--region is for a wide-area network"),
        (("network", "status", "absent"), "gridwitness network init makes one"),
        (("network", "run", "absent"), "gridwitness network init makes one"),
        (("network", "upgrade", "absent", "2", "100"), "gridwitness network init makes one"),
        (("network", "add-node", "absent", "x"), "gridwitness network init makes one"),
    ],
)
def test_wrong_use_gets_a_sentence_and_writes_nothing(
    tmp_path, monkeypatch, capsys, words, complaint
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code == 2
    assert complaint in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").touch()
    code, _, err = run(capsys, "network", "init", tmp_path, "--validators", "a")
    assert code == 2
    assert "exists and is not empty; name a new folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_region_whose_summaries_are_in_a_chain_already_is_refused(tmp_path, capsys):
    assert run(capsys, "init", tmp_path / "region")[0] == 0
    application = RegionDirectory(tmp_path / "region").open_wide()
    application.finalize_block(1, [])
    application.commit()
    application.close()
    before = (tmp_path / "region" / "wide-genesis.cbor").read_bytes()
    words = ["--validators", "a", "--region", tmp_path / "region"]
    code, _, err = run(capsys, "network", "init", tmp_path / "net", *words)
    assert code == 2
    assert "has a wide-area chain of 1 blocks" in err
    assert not (tmp_path / "net").exists()
    assert (tmp_path / "region" / "wide-genesis.cbor").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', "[" * 100_000, '{"version":1,"kind":"wide"}', "\xff"]
)
def test_damaged_list_of_nodes_gets_a_sentence(tmp_path, capsys, text):
    (tmp_path / "network.json").write_text(text, encoding="latin-1")
    code, _, err = run(capsys, "network", "status", tmp_path)
    assert code == 2
    assert "is not what network init writes" in err


def test_new_node_is_known_to_the_others_and_has_ports_of_its_own(wide, capsys):
    code, out, err = run(capsys, "network", "add-node", wide.path, "sub-3")
    assert code == 0, err
    assert f"network validator-add {wide.path} sub-3" in out
    after = NetworkFolder.load(wide.path)
    assert [entry.name for entry in after.nodes] == [*NAMES, "sub-3"]
    assert after.paths("sub-3").comet.is_dir()
    for entry in wide.nodes:
        text = (after.paths(entry.name).comet / "config" / "config.toml").read_text()
        assert after.node("sub-3").peer in tomllib.loads(text)["p2p"]["persistent_peers"]
    genesis = [(after.paths(n).comet / "config" / "genesis.json").read_bytes() for n in NAMES]
    new = (after.paths("sub-3").comet / "config" / "genesis.json").read_bytes()
    assert set(genesis) == {new}
    assert run(capsys, "network", "add-node", wide.path, "sub-3")[0] == 2


# --------------------------------------------------------------------------- running, with CometBFT


def test_network_of_one_node_commits_a_summary(tmp_path, capsys):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["only"])
    with Running(network.path) as running:
        running.until_height(1)
        rpc = running.rpc("only")
        assert broadcast(rpc, a_summary(network, 0)) == codes.OK
        running.until(lambda: json.loads(status(network, capsys))["nodes"][0]["height"] >= 2)
        key = a_region_key(network)
        running.until(lambda: rpc.query("region", key).value is not None)
        rpc.close()
        assert running.end() == 0
    assert running.lines[-1] == "stopped"


def a_region_key(network: NetworkFolder) -> bytes:
    return RegionDirectory(network.path.parent / "region").load_genesis().chain


def report(network: NetworkFolder, running: Running, rpc: Rpc, count: int) -> None:
    """Have the region send so many summaries, each in a block of its own."""
    key = a_region_key(network)
    for number in range(count):
        before = rpc.query("region", key).value
        assert broadcast(rpc, a_summary(network, number)) == codes.OK
        running.until(lambda before=before: rpc.query("region", key).value != before)


def status(network: NetworkFolder, capsys) -> str:
    _, out, _ = run(capsys, "network", "status", network.path, "--json")
    return out


def test_four_nodes_agree_and_three_go_on_without_one(tmp_path, capsys):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net")
    with Running(network.path, NAMES[1:]) as rest, Running(network.path, NAMES[:1]) as first:
        rest.until_height(1, NAMES)
        rpc = first.rpc("gw-a")
        assert broadcast(rpc, a_summary(network, 0)) == codes.OK
        rpc.close()
        others = rest.rpc("sub-2")
        key = a_region_key(network)
        rest.until(lambda: others.query("region", key).value is not None)
        rest.until(lambda: len({n["app_hash"] for n in nodes(network, capsys)}) == 1)
        rest.until(lambda: [n["peers"] for n in nodes(network, capsys)] == [3, 3, 3, 3])
        assert first.end() == 0
        assert broadcast(others, a_summary(network, 1)) == codes.OK
        before = others.query("region", key).value
        rest.until(lambda: others.query("region", key).value != before)
        others.close()
        code, out, _ = run(capsys, "network", "status", network.path)
        assert code == 1
        assert re.search(r"gw-a +- +- .* silent", out)
        in_step = r"sub-1 +\d+ +[0-9a-f]{12} +2 +0 +10 +in step"
        rest.until(lambda: re.search(in_step, run(capsys, "network", "status", network.path)[1]))
        assert rest.end() == 0


def nodes(network: NetworkFolder, capsys) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(status(network, capsys))["nodes"]
    return found


@pytest.mark.parametrize("half", ["gateway.node", "start --home comet"])
def test_kill_of_either_half_stops_both_and_says_so(tmp_path, capsys, half):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["only"])
    with Running(network.path) as running:
        running.until_height(1)
        (pid,) = [p for p, words in children(running.process.pid) if half in words]
        os.kill(pid, signal.SIGKILL)
        assert running.ended() == 1
    what = "its application" if half == "gateway.node" else "CometBFT"
    assert any(f"only: {what} has ended (SIGKILL)" in line for line in running.lines)
    with Running(network.path) as again:
        again.until_height(1)
        assert again.end() == 0


def children(parent: int) -> list[tuple[int, str]]:
    """Give (process id, command line) of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append((int(path.name), words))
    return found


def test_second_run_of_a_node_is_refused(tmp_path, capsys):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["only"])
    with Running(network.path) as running:
        running.until_height(1)
        with Running(network.path) as second:
            assert second.ended() == 2
        assert "only is running already" in second.lines[-1]
        assert running.end() == 0


def test_application_of_another_genesis_stops_the_node_with_a_sentence(tmp_path, capsys):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["only"])
    other = make_wide(capsys, tmp_path / "elsewhere" / "net", ["only"])
    genesis = other.genesis_file.read_bytes()
    RegionDirectory(network.paths("only").path).wide_genesis.write_bytes(genesis)
    with Running(network.path) as running:
        assert running.ended() == 2
    assert any("is of another network than this node's genesis" in line for line in running.lines)


def test_validator_joins_and_leaves_by_approvals(tmp_path, capsys):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["a"])
    with Running(network.path) as first:
        first.until_height(1)
        assert run(capsys, "network", "add-node", network.path, "b")[0] == 0
        with Running(network.path, ["b"]) as second:
            second.until_height(1, ["b"])
            # one operator on another machine, the other here
            keys = sorted(network.operators.glob("*.key"))
            words = ["network", "validator-add", network.path, "b"]
            code, out, err = run(capsys, *words, "--key", keys[0], "--out", tmp_path / "signed")
            assert code == 0, err
            assert run(capsys, "network", "submit", network.path, out.strip())[0] == 0
            second.until(lambda: approvals(network) == 1)
            code, out, err = run(capsys, *words, "--key", keys[1])
            assert (code, err) == (0, "")
            assert "change 1 is in effect" in out
            second.until(lambda: [n["power"] for n in nodes(second.network, capsys)] == [10, 10])
            code, out, err = run(capsys, "network", "validator-remove", network.path, "b")
            assert (code, err) == (0, "")
            assert "change 2 is in effect" in out
            second.until(lambda: [n["power"] for n in nodes(second.network, capsys)] == [10, 0])
            code, _, err = run(capsys, "network", "validator-remove", network.path, "a")
            assert code == 2
            assert "refused with code" in err
            assert second.end() == 0
        assert first.end() == 0


def test_new_node_begins_from_a_snapshot_that_light_verification_led_to(tmp_path, capsys):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["a"])
    settings = network.paths("a").settings
    text = settings.read_text().replace("snapshot_every = 1000", "snapshot_every = 2")
    settings.write_text(text)
    with Running(network.path) as first:
        first.until_height(1)
        rpc = first.rpc("a")
        key = a_region_key(network)
        report(network, first, rpc, 4)
        code, out, err = run(capsys, "network", "add-node", network.path, "b", "--state-sync")
        assert (code, err) == (0, "")
        assert re.search(r"it trusts block \d+, [0-9a-f]{64}", out)
        with Running(network.path, ["b"]) as second:
            second.until_height(rpc.status().height, ["b"])
            other = second.rpc("b")
            assert other.query("region", key).value == rpc.query("region", key).value
            assert other.status().earliest_height > 1
            other.close()
            assert second.end() == 0
        # the second start goes on from its own store
        with Running(network.path, ["b"]) as again:
            again.until_height(rpc.status().height, ["b"])
            assert again.end() == 0
        rpc.close()
        assert first.end() == 0


def test_node_killed_between_restore_and_cometbfts_note_of_it_is_emptied(tmp_path, capsys):
    program = need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["a"])
    settings = network.paths("a").settings
    settings.write_text(settings.read_text().replace("snapshot_every = 1000", "snapshot_every = 2"))
    with Running(network.path) as first:
        first.until_height(1)
        rpc = first.rpc("a")
        key = a_region_key(network)
        report(network, first, rpc, 3)
        assert run(capsys, "network", "add-node", network.path, "b", "--state-sync")[0] == 0
        paths = NetworkFolder.load(network.path).paths("b")
        with Running(network.path, ["b"]) as second:
            second.until_height(rpc.status().height, ["b"])
            assert second.end() == 0
        # as such a kill leaves it: the application stands somewhere, CometBFT at the beginning
        subprocess.run([program, "reset-state", "--home", paths.comet], check=True, timeout=20)
        with Running(network.path, ["b"]) as stuck:
            stuck.until(lambda: "snapshot_aborted" in paths.application_log.read_text())
            other = stuck.rpc("b")
            assert other.status().height == 0
            other.close()
            assert stuck.end() == 0
        for file in (paths.path / "ledger").glob("wide.sqlite*"):
            file.unlink()
        with Running(network.path, ["b"]) as again:
            again.until_height(rpc.status().height, ["b"])
            other = again.rpc("b")
            assert other.query("region", key).value == rpc.query("region", key).value
            other.close()
            assert again.end() == 0
        rpc.close()
        assert first.end() == 0


def approvals(network: NetworkFolder) -> int:
    rpc = Rpc(network.nodes[0].rpc)
    state = read_state(rpc, network.load_genesis())
    rpc.close()
    return max((len(approval.operators) for approval in state.approvals), default=0)


def test_newer_rules_end_a_node_with_2_and_its_program_starts_no_more(tmp_path, capsys):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["only"], "--empty-s", "1")
    with Running(network.path) as running:
        running.until_height(1)
        code, out, err = run(capsys, "network", "upgrade", network.path, 2, 14, "--force")
        assert (code, err) == (0, "")
        assert "change 1 is in effect" in out
        assert running.ended() == 2
    assert any("under version 2 of the rules" in line for line in running.lines)
    with Running(network.path) as again:
        assert again.ended() == 2


def test_systemd_hears_of_height_life_and_end(tmp_path, capsys, monkeypatch):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["only"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Running(network.path) as running:
            assert manager.recv(100) == b"READY=1"
            running.until(lambda: "only: answers, height" in "\n".join(running.lines))
            assert manager.recv(100) == b"WATCHDOG=1"
            # a second Ctrl-C while the first is being followed does no harm
            for _ in range(3):
                running.process.send_signal(signal.SIGINT)
            assert running.ended() == 0
        heard = b""
        while heard != b"STOPPING=1":
            heard = manager.recv(100)


def test_gateways_of_a_region_begin_one_chain_without_a_broker(tmp_path, capsys):
    need_cometbft()
    words = ["--gateways", "gw-1,gw-2,gw-3", "--base-port", free_ports(12), *FAST]
    code, _, err = run(capsys, "network", "init", tmp_path / "net", *words)
    assert code == 0, err
    with Running(tmp_path / "net") as running:
        running.until_height(1)
        found = nodes(running.network, capsys)
        assert len({entry["app_hash"] for entry in found}) == 1
        assert [entry["power"] for entry in found] == [10, 10, 10]
        assert running.end() == 0


def test_old_copy_of_cometbfts_data_is_refused_and_one_of_the_application_catches_up(
    tmp_path, capsys
):
    need_cometbft()
    network = make_wide(capsys, tmp_path / "net", ["only"])
    paths = network.paths("only")
    with Running(network.path) as running:
        running.until_height(1)
        assert running.end() == 0
    shutil.copytree(paths.path, tmp_path / "copy")
    with Running(network.path) as running:
        running.until_height(1)
        rpc = running.rpc("only")
        assert broadcast(rpc, a_summary(network, 0)) == codes.OK
        running.until(lambda: rpc.query("region", a_region_key(network)).value is not None)
        height = rpc.status().height
        rpc.close()
        assert running.end() == 0
    for file in (paths.path / "ledger").glob("wide.sqlite*"):
        file.unlink()
    shutil.copytree(tmp_path / "copy" / "ledger", paths.path / "ledger", dirs_exist_ok=True)
    with Running(network.path) as running:
        running.until_height(height)
        rpc = running.rpc("only")
        assert rpc.query("region", a_region_key(network)).value is not None
        rpc.close()
        assert running.end() == 0
    shutil.rmtree(paths.comet / "data")
    shutil.copytree(tmp_path / "copy" / "comet" / "data", paths.comet / "data")
    with Running(network.path) as running:
        assert running.ended() == 1
    assert any("is higher than core" in line for line in running.lines)
