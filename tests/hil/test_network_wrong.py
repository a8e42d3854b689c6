"""Nodes that are wrong, damaged or full: the others go on, and what must be done is enough."""

import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hil import altered
from hil.network import APPLICATION
from hil.nodes import Member, Node, configure
from hil.ports import HOST, free_ports
from ledger.engine.abci import DUPLICATE_VOTE
from ledger.engine.comet.rpc import Rpc
from ledger.keys import Signer
from ledger.network import NetworkChange
from ledger.wide import codes
from ledger.wide.entries import decode_misbehaviour
from tests.cometbft import needs_cometbft
from tests.hil.wide_network import NAMES, Bench, seeds

pytestmark = needs_cometbft

every_seed = pytest.mark.parametrize("seed", seeds())
LATER = 6  # the block from which an altered application is wrong


def has_stopped(node: Node) -> bool:
    return not node.engine.running and node.application is not None and not node.application.running


@every_seed
@pytest.mark.parametrize("kind", ["dies-in-finalize", "dies-before-commit", "dies-after-commit"])
def test_application_killed_inside_a_block_goes_on_where_it_was(
    tmp_path: Path, seed: int, kind: str
) -> None:
    with Bench(tmp_path, seed, altered={"sub-1": altered.command(kind, LATER)}) as bench:
        node = bench.network.nodes["sub-1"]
        bench.network.wait(lambda: has_stopped(node), 20, "the node does not die, or half of it")
        bench.network.wait_blocks(2, bench.others("sub-1"))
        node.replace_application(APPLICATION)
        bench.network.start("sub-1")
        bench.network.wait_blocks(1)
        bench.settle()


@every_seed
def test_proposer_gets_no_invalid_block_through(tmp_path: Path, seed: int) -> None:
    with Bench(tmp_path, seed, altered={"gw-b": altered.command("forged-proposal")}) as bench:
        # each of four proposes in turn: it had its turns
        height = bench.network.wait_blocks(8)
        rounds = later_rounds(bench, height)
        assert rounds, "no proposal was refused"
        bench.settle()


def later_rounds(bench: Bench, top: int) -> dict[int, int]:
    """Give the heights whose block was not decided in the first round, with the round."""
    rounds = {}
    for height in range(1, top + 1):
        commit = bench.network.nodes["gw-a"].ask("commit", height=height)["signed_header"]["commit"]
        if commit["round"]:
            rounds[height] = commit["round"]
    return rounds


@every_seed
def test_application_that_computes_another_state_is_outvoted(tmp_path: Path, seed: int) -> None:
    wrong = "sub-2"
    with Bench(tmp_path, seed, altered={wrong: altered.command("other-state", LATER)}) as bench:
        node, right = bench.network.nodes[wrong], bench.others(wrong)
        top = bench.network.wait_blocks(LATER, right)
        # it holds the block that it computed wrongly, and takes no further one
        assert node.height() < top
        hashes = bench.network.app_hashes(node.height(), right)
        assert len(set(hashes.values())) == 1
        assert node.stand()[2] not in {hash_.lower() for hash_ in hashes.values()}
        # the operator's way back: the right program, an empty ledger, the blocks from the others
        node.stop()
        node.replace_application(APPLICATION)
        node.reset()
        bench.network.start(wrong)
        bench.network.wait_blocks(1)
        bench.settle()


@every_seed
def test_validator_that_signs_twice_loses_its_power(tmp_path: Path, seed: int) -> None:
    with Bench(tmp_path, seed) as bench:
        powers = bench.powers("gw-a")
        assert len(powers) == len(NAMES)
        with twin(bench, "sub-2") as node:
            node.start()
            bench.network.wait(
                lambda: len(bench.powers("gw-a")) == len(NAMES) - 1, 30, "it keeps its vote"
            )
            left = bench.powers("gw-a")
        bench.network.wait_blocks(2)
        restore(bench, "sub-2")
        bench.network.wait(
            lambda: bench.powers("gw-a") == powers, 20, "the operators do not restore it"
        )
        bench.settle()
        for name in NAMES:
            kept = [decode_misbehaviour(raw) for raw in bench.kept(name, codes.MISBEHAVIOUR)]
            assert {one.kind for one in kept} == {DUPLICATE_VOTE}
            assert {one.address.hex().upper() for one in kept} == set(powers) - set(left)


def restore(bench: Bench, name: str) -> None:
    """Have two operators, as many as must, give a validator its vote back."""
    (validator,) = (found for found in bench.genesis.validators if found.name == name)
    payload = NetworkChange(bench.genesis.chain, 1, validator).payload()
    node = Rpc(bench.network.nodes["gw-a"].member.url)
    for key in sorted(bench.folder.operators.iterdir())[:2]:
        (result,) = node.broadcast([Signer.load(key).seal(payload).raw])
        assert result.code == codes.OK, result.log
    node.close()


@contextmanager
def twin(bench: Bench, name: str) -> Iterator[Node]:
    """A second node with a validator's key, as after a backup was restored on another machine.

    It knows nothing of what its original has signed, and its application finds every block wrong,
    so that it votes otherwise.
    """
    original = bench.network.nodes[name].member
    folder = original.folder.with_name("twin")
    rpc_port = free_ports(3)
    for part in ("comet/config", "application.toml", "wide-genesis.cbor"):
        copy = shutil.copytree if (original.folder / part).is_dir() else shutil.copy
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy(original.folder / part, folder / part)
    home = folder / "comet"
    (home / "data").mkdir()
    unsigned = {"height": "0", "round": 0, "step": 0}
    (home / "data" / "priv_validator_state.json").write_text(json.dumps(unsigned))
    (home / "config" / "node_key.json").unlink()  # CometBFT makes a new one
    settings = folder / "application.toml"
    settings.write_text(re.sub(r"(?m)^port = .*$", "port = 0", settings.read_text()))
    peers = [
        f"{node.member.node_id}@{HOST}:{node.member.p2p_port}"
        for node in bench.network.nodes.values()
    ]
    own = {
        "rpc.laddr": f"tcp://{HOST}:{rpc_port}",
        "p2p.laddr": f"tcp://{HOST}:{rpc_port + 1}",
        "p2p.persistent_peers": ",".join(peers),
        "instrumentation.prometheus_listen_addr": f"{HOST}:{rpc_port + 2}",
    }
    configure(home, {key: json.dumps(value) for key, value in own.items()})
    application = (*altered.command("contrary"), "--config", str(settings))
    member = Member("twin", folder, rpc_port, rpc_port + 1, application)
    node = Node(member, bench.network.nodes[name].engine.command[0])
    try:
        yield node
    finally:
        node.kill()


@every_seed
@pytest.mark.parametrize("where", ["application", "engine"])
def test_full_disk_stops_one_node_until_there_is_room(
    tmp_path: Path, seed: int, where: str
) -> None:
    with Bench(tmp_path, seed) as bench:
        full = bench.rng.choice(NAMES)
        node = bench.network.nodes[full]
        fill_up(node, where)
        top = bench.network.wait_blocks(5, bench.others(full))
        assert node.height() < top
        if where == "application":
            bench.network.wait(lambda: has_stopped(node), 20, "the node goes on without its ledger")
        node.stop()
        node.start()
        bench.network.wait_blocks(1)
        bench.settle()


def fill_up(node: Node, where: str) -> None:
    """Let no file of a process grow beyond the longest that there is: EFBIG instead of ENOSPC."""
    assert node.application is not None
    process, folder = {
        "application": (node.application, node.member.folder / "ledger"),
        "engine": (node.engine, node.member.home / "data"),
    }[where]
    longest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (longest + 1024, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a folder's content onto a file system of 4 MB for a while; skips who may not mount."""
    copy = folder.with_name(folder.name + ".copy")
    folder.rename(copy)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        copy.rename(folder)
        pytest.skip("only root, and not in every container, may mount a small disk")
    try:
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        yield
    finally:
        # what was in it may tell why a test failed
        shutil.copytree(folder, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
        subprocess.run(["umount", "-l", str(folder)], check=True)


@every_seed
def test_disk_without_room_stops_one_node_until_there_is_some(tmp_path: Path, seed: int) -> None:
    bench = Bench(tmp_path, seed)
    full = bench.rng.choice(NAMES)
    node = bench.network.nodes[full]
    with small_disk(node.member.folder), bench:
        ballast = node.member.folder / "ballast"
        fill(ballast)
        top = bench.network.wait_blocks(5, bench.others(full))
        assert node.height() < top
        ballast.unlink()
        node.stop()
        node.start()
        bench.network.wait_blocks(1)
        bench.settle()


def fill(path: Path) -> None:
    """Write until nothing goes in any more."""
    number = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(number, bytes(4096))
    except OSError:
        os.close(number)


@every_seed
@pytest.mark.parametrize("where", ["anywhere", "end"])
def test_damaged_write_ahead_log_costs_nothing(tmp_path: Path, seed: int, where: str) -> None:
    with Bench(tmp_path, seed) as bench:
        damaged = bench.rng.choice(NAMES)
        node = bench.network.nodes[damaged]
        node.kill()
        wal = node.member.home / "data" / "cs.wal" / "wal"
        data = bytearray(wal.read_bytes())
        first = len(data) - 200 if where == "end" else 0
        for _ in range(5):
            data[bench.rng.randrange(first, len(data))] ^= 1 << bench.rng.randrange(8)
        wal.write_bytes(data)
        bench.network.start(damaged)
        bench.network.wait_blocks(2)
        bench.settle()
