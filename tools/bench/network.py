"""A network of four validators on this machine, beside CometBFT's own kvstore in the same network.

All run the same configuration, on the same wires, with transactions of the same size, given to all
four nodes at once. The peer's application is compiled into CometBFT; ours is a process behind a
socket that checks a signature of every transaction on every node. Where ``abci-cli`` is on the
path, kvstore runs as such a process too, so that what the socket takes is seen apart.
"""

import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gateway.network.create import PORTS, NetworkPlan, create_wide
from gateway.network.home import Tuning
from hil.network import Member, Network, NetworkError, configure, find_cometbft, members_of
from hil.nodes import Node
from hil.ports import free_ports
from hil.traffic import MadeRegion
from ledger.engine.comet.rpc import Rpc
from ledger.genesis import WideGenesis
from tools.bench.figure import BenchError, Figure, Skipped, cpu_s, limit, memory_mb

ABCI_CLI = "abci-cli"
"""CometBFT's program with kvstore as an application of its own; it is not part of `cometbft`."""

_NAMES = ("v-1", "v-2", "v-3", "v-4")
_FAST = Tuning(commit_s=0.05, propose_s=0.3, vote_s=0.1)
_BATCH = 100
_TICK_S = 0.02
_LIMIT_S = 180.0
_WINDOWS_A_DAY = 96
_REGIONS = 10
_EMPTY_A_DAY = 86_400 // Tuning().empty_s


def measure(txs: int, singles: int, windows: int, idle_s: float, behind: int) -> Iterator[Figure]:
    """Give the figures; raises Skipped where CometBFT is missing, BenchError.

    ``txs`` transactions are ordered at full speed and ``singles`` one by one, by both applications;
    ``windows`` times ten regions report; ``behind`` blocks are caught up by a node that was away.
    """
    try:
        find_cometbft()
    except NetworkError as e:
        raise Skipped(str(e)) from e
    regions = [MadeRegion(f"region {i}") for i in range(max(txs, _REGIONS))]
    with tempfile.TemporaryDirectory(prefix="gridwitness-bench-") as folder:
        try:
            yield from _race(Path(folder), regions[:txs], singles)
            yield from _idle(Path(folder), regions[:_REGIONS], windows, idle_s)
            yield _catch_up(Path(folder), regions[0], behind)
        except (NetworkError, OSError) as e:
            raise BenchError(str(e)) from e


# what is measured


class _Driven(NamedTuple):
    """What ordering came to; ``cpu_ms`` is a node's, both processes, for each transaction."""

    rate: float
    cpu_ms: float
    finality_s: float


def _race(folder: Path, regions: Sequence[MadeRegion], singles: int) -> Iterator[Figure]:
    """Race kvstore, kvstore behind a socket where it is to be had, and ours."""
    ours, genesis = _make(folder / "ours", regions)
    bulk = [region.sealed(genesis.chain, 0).raw for region in regions]
    alone = [region.sealed(genesis.chain, 1).raw for region in regions[:singles]]
    rng = random.Random(1)
    pairs = [_pair(rng, len(tx)) for tx in bulk]
    built_in = [_with_kvstore(member) for member in _make(folder / "kvstore", regions[:1])[0]]
    peers = {"kvstore": _drive(built_in, pairs, [_pair(rng, len(tx)) for tx in alone])}
    apart = _with_kvstore_apart(_make(folder / "apart", regions[:1])[0])
    if apart is not None:
        peers["kvstore behind a socket"] = _drive(apart, pairs, [])
    own = _drive(ours, bulk, alone)
    size = round(statistics.mean(map(len, bulk)))
    for against, peer in peers.items():
        yield Figure(
            name=f"network: committed by 4 validators, {size} B each",
            value=own.rate,
            unit="tx/s",
            peer=peer.rate,
            against=against,
            at_least=0.7 if against == "kvstore" else None,
        )
        yield Figure(
            name="network: CPU of a node, each transaction",
            value=own.cpu_ms,
            unit="ms",
            peer=peer.cpu_ms,
            against=against,
        )
    yield Figure(
        name="network: median finality",
        value=own.finality_s,
        unit="s",
        peer=peers["kvstore"].finality_s,
        against="kvstore",
    )


def _drive(members: Sequence[Member], bulk: Sequence[bytes], alone: Sequence[bytes]) -> _Driven:
    """Have ``bulk`` ordered at full speed, and then each of ``alone`` by itself."""
    with Network(members) as network:
        _start(network)
        pids = [process.pid for node in network.nodes.values() for process in node.processes]
        tally = _Tally(network)
        before, began = sum(map(cpu_s, pids)), time.monotonic()
        _hand_in(network, bulk)
        tally.wait(len(bulk))
        rate = len(bulk) / (time.monotonic() - began)
        cpu_ms = 1000 * (sum(map(cpu_s, pids)) - before) / len(bulk) / len(members)
        node = network.nodes[_NAMES[0]]
        times = []
        for tx in alone:
            began = time.monotonic()
            node.ask("broadcast_tx_commit", tx="0x" + tx.hex())
            times.append(time.monotonic() - began)
        return _Driven(rate, cpu_ms, statistics.median(times or [0.0]))


def _idle(
    folder: Path, regions: Sequence[MadeRegion], windows: int, idle_s: float
) -> Iterator[Figure]:
    members, genesis = _make(folder / "idle", regions)
    with Network(members) as network:
        _start(network)
        pids = [process.pid for process in network.nodes[_NAMES[0]].processes]
        tally = _Tally(network)
        before = sum(map(cpu_s, pids))
        time.sleep(idle_s)
        cpu = 100 * (sum(map(cpu_s, pids)) - before) / idle_s
        memory = sum(memory_mb(pid) for pid in pids)
        written, height = sum(map(_written, pids)), tally.height
        for window in range(windows):
            _hand_in(network, [region.sealed(genesis.chain, window).raw for region in regions])
            tally.wait(len(regions) * (window + 1))
        time.sleep(3 * Tuning().commit_s)  # the empty block that proves the last one's hash
        written = sum(map(_written, pids)) - written
        blocks = tally.look() - height
    yield limit("network: memory of an idle node, both processes", memory, "MB", 90)
    yield Figure(name="network: CPU of an idle node, both processes", value=cpu, unit="%")
    a_day = written * (_WINDOWS_A_DAY / windows + _EMPTY_A_DAY / blocks)
    yield Figure(
        name=f"network: written a day, {_REGIONS} regions, a summary each 15 minutes",
        value=a_day / 1e6,
        unit="MB",
    )


def _catch_up(folder: Path, region: MadeRegion, behind: int) -> Figure:
    members, genesis = _make(folder / "behind", [region], _FAST)
    with Network(members) as network:
        _start(network)
        tally = _Tally(network)
        away = network.nodes[_NAMES[-1]]
        away.stop()
        low, number = tally.height, 0
        rpc = Rpc(network.nodes[_NAMES[0]].member.url)
        while tally.height < low + behind:
            (result,) = rpc.broadcast([region.sealed(genesis.chain, number).raw])
            if result.code:  # the block before is out, and not yet in the application
                time.sleep(_TICK_S)
                continue
            number += 1
            tally.wait(number)
        rpc.close()
        away.start()
        network.wait(lambda: away.height() >= 0, _LIMIT_S, "the node does not come back")
        rate = _pace(away, tally.height - 1)  # the last one comes by a vote
    return Figure(name="network: catching up", value=rate, unit="blocks/s")


def _pace(node: Node, top: int) -> float:
    """Give blocks a second up to a height, without the wait for the first; raises BenchError."""
    low = height = node.height()
    if low >= top:
        raise BenchError("the node that was away was back before it was looked at")
    last_look = began = time.monotonic()
    while height < top:
        if last_look > began + _LIMIT_S:
            raise BenchError(f"a node that was away does not come above block {height}")
        if height == low:
            began = last_look
        time.sleep(_TICK_S)
        last_look, height = time.monotonic(), node.height()
    return (height - low) / (last_look - began)


# how


def _make(
    folder: Path, regions: Sequence[MadeRegion], tuning: Tuning | None = None
) -> tuple[list[Member], WideGenesis]:
    plan = NetworkPlan(
        names=_NAMES,
        base_port=free_ports(len(_NAMES) * PORTS),
        tuning=tuning or Tuning(),
    )
    made = create_wide(folder, "bench", plan, [region.entry for region in regions])
    genesis = made.load_genesis()
    assert isinstance(genesis, WideGenesis)
    return members_of(made), genesis


def _with_kvstore(member: Member) -> Member:
    configure(member.home, {"proxy_app": '"kvstore"'})
    return replace(member, application=None)


def _with_kvstore_apart(members: Sequence[Member]) -> list[Member] | None:
    """Give nodes with kvstore as a process of its own; None where there is no such program."""
    program = shutil.which(ABCI_CLI)
    if program is None:
        print(f"network: {ABCI_CLI} is not on the path: kvstore behind a socket is left out")
        return None
    kvstore = (program, "kvstore", "--log_level", "error", "--address")
    return [replace(m, application=(*kvstore, f"unix://{m.socket}")) for m in members]


def _pair(rng: random.Random, size: int) -> bytes:
    """Give a transaction of kvstore: key=value."""
    text = rng.randbytes(size).hex().encode()
    return text[:16] + b"=" + text[17:size]


def _start(network: Network) -> None:
    network.start()
    network.wait_peers()
    network.wait_height(1)


def _hand_in(network: Network, txs: Sequence[bytes]) -> None:
    """Give each node its share, all at once; raises BenchError when one is refused."""
    names = network.names
    refused: list[str] = []

    def work(url: str, share: Sequence[bytes]) -> None:
        rpc = Rpc(url, timeout_s=60)
        try:
            for first in range(0, len(share), _BATCH):
                results = rpc.broadcast(share[first : first + _BATCH])
                refused.extend(f"{r.code} {r.log}" for r in results if r.code)
        except OSError as e:
            refused.append(str(e))
        finally:
            rpc.close()

    threads = [
        threading.Thread(target=work, args=(network.nodes[name].member.url, txs[i :: len(names)]))
        for i, name in enumerate(names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise BenchError(f"{len(refused)} transactions were refused: {refused[0]}")


class _Tally:
    """Counts the transactions in the first node's blocks from now on."""

    def __init__(self, network: Network) -> None:
        self._node = network.nodes[_NAMES[0]]
        self._network = network
        self.height = self._node.height()
        self.txs = 0

    def look(self) -> int:
        """Count new blocks; gives the height."""
        top = self._node.height()
        while self.height < top:
            last = min(top, self.height + 20)  # what CometBFT gives in one answer
            metas = self._node.ask("blockchain", minHeight=self.height + 1, maxHeight=last)
            self.txs += sum(int(meta["num_txs"]) for meta in metas["block_metas"])
            self.height = last
        return self.height

    def wait(self, txs: int) -> None:
        """Wait until so many are in blocks; raises NetworkError."""

        def done() -> bool:
            self.look()
            return self.txs >= txs

        self._network.wait(done, _LIMIT_S, f"{txs} transactions are not in blocks")


def _written(pid: int) -> int:
    """Give the bytes that a process had the kernel write to disk (proc(5), io: write_bytes)."""
    for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise Skipped("this system tells not what a process writes")
