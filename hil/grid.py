"""Two regions with real meters, whose gateways report to a wide-area network of four nodes.

A ``Grid`` runs both regions' sessions and the network at once and plays a story on them: a
validator is killed and comes back, another one runs an altered application and is outvoted, a
gateway sends false summaries. What came of it is read from the nodes afterwards (``outcome``).
A third region exists as a key alone: the rig plays its gateway, and measures how long each of its
summaries takes until it is in a node's state. Whatever happens, ``run`` leaves no process behind.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from gateway.network.create import NetworkPlan, Tie, create_wide, tie_regions
from gateway.network.folder import NetworkFolder
from hil import altered
from hil.clusters import Cluster
from hil.network import APPLICATION, QUICK, Network, members_of
from hil.report import Attack
from hil.session import Plan, Session, View
from hil.traces import Recording
from hil.traffic import MadeRegion, Traffic
from ledger.engine.comet.rpc import Rpc
from ledger.genesis import WideGenesis
from ledger.keys import Signer
from ledger.protocol.cose import Envelope, payload_digest
from ledger.region import RegionDirectory
from ledger.wide import codes
from ledger.wide.state import Region
from ledger.wide.summary import Summary

VALIDATORS = ("gw-a", "gw-b", "sub-1", "sub-2")
KILLED, ALTERED = "sub-1", "sub-2"
_PROBE_EVERY_S = 1.0
_PROBE_PAUSE_S = 0.02
_BLOCKS = 3  # that the others go on by, before a fault is taken for borne
_LIMIT_S = 60.0
_TICK_S = 0.25
_WH = 1_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class GridPlan:
    """What a grid plays: a session's plan in short, for each of two regions.

    ``base_port`` is the first of 16 free TCP ports in a row.
    """

    recording: Recording
    regions: dict[str, tuple[Cluster, ...]]
    rounds: int
    folder: Path
    base_port: int
    first: int = 0
    seed: int = 1
    window_rounds: int = 5


@dataclass
class Outcome:
    """What the story came to."""

    heights: dict[str, int] = field(default_factory=dict)
    app_hashes: dict[str, str] = field(default_factory=dict)
    compared_blocks: int = 0
    caught_up_blocks: int = 0
    outvoted_at: int = 0
    summaries: dict[str, int] = field(default_factory=dict)
    """How many summaries of each region are in the wide-area chain."""
    finality_ms: list[float] = field(default_factory=list)
    attacks: list[Attack] = field(default_factory=list)

    @property
    def app_hashes_equal(self) -> bool:
        """Whether all validators stand at one height with one application hash."""
        return len(set(self.app_hashes.values())) == 1 == len(set(self.heights.values()))

    @property
    def finality_ms_median(self) -> float | None:
        """From handing a summary over until a node's state has it; the median."""
        return round(statistics.median(self.finality_ms), 1) if self.finality_ms else None


class Grid:
    """One run of a plan. ``say`` gets a sentence whenever something happens in the story.

    ``at_end`` is called in a thread when all has come to rest and the network still answers.
    """

    def __init__(
        self, plan: GridPlan, say: Callable[[str], None], at_end: Callable[["Grid"], None]
    ) -> None:
        self.plan = plan
        self._at_end = at_end
        self.sessions = {
            name: Session(self._session_plan(name, clusters))
            for name, clusters in plan.regions.items()
        }
        self.outcome = Outcome()
        self.heights: dict[str, int] = {}
        self.folder: NetworkFolder
        self.network: Network
        self._say = say
        self._made = 0
        self._ready, self._back, self._outvoted = (asyncio.Event() for _ in range(3))
        self._probe = MadeRegion("probe", plan.seed)
        self._traffic: Traffic

    def _session_plan(self, name: str, clusters: tuple[Cluster, ...]) -> Plan:
        return Plan(
            self.plan.recording,
            clusters,
            self.plan.rounds,
            self.plan.folder / name,
            first=self.plan.first,
            seed=self.plan.seed,
            window_rounds=self.plan.window_rounds,
            name=name,
            prepare=self._prepare,
            script=self._pace,
        )

    async def _pace(self, index: int, _: Session) -> None:
        """Hold the regions back so that they report during every part of the story."""
        for share, part in ((0.6, self._back), (0.8, self._outvoted)):
            if index >= share * self.plan.rounds:
                await part.wait()

    async def run(self, views: dict[str, View]) -> None:
        """Play it all; raises SessionError, NetworkError, MeterError, BrokerError."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            try:
                async with asyncio.TaskGroup() as group:
                    watch = group.create_task(self._watch())
                    playing = [
                        group.create_task(session.run(views[name]))
                        for name, session in self.sessions.items()
                    ]
                    await self._play_story(playing)
                    watch.cancel()
            except ExceptionGroup as e:
                raise _first(e) from e

    async def _close(self) -> None:
        if hasattr(self, "_traffic"):
            await asyncio.to_thread(self._traffic.stop)
        if hasattr(self, "network"):
            await asyncio.to_thread(self.network.close)

    # the network begins when both regions are made

    async def _prepare(self, _: Session) -> None:
        self._made += 1
        if self._made == len(self.sessions):
            await self._start_network()
            self._ready.set()
        await self._ready.wait()

    async def _start_network(self) -> None:
        names = ", ".join(VALIDATORS)
        self._say(f"a wide-area network of four validators begins: {names}")
        geneses = {name: s.directory.load_genesis() for name, s in self.sessions.items()}
        plan = NetworkPlan(names=VALIDATORS, base_port=self.plan.base_port, tuning=QUICK)
        regions = [(genesis.chain, genesis.gateways) for genesis in geneses.values()]
        self.folder = create_wide(
            self.plan.folder / "network", "demo", plan, [*regions, self._probe.entry]
        )
        ties = [
            Tie(node, (RegionDirectory(session.directory.path),), geneses[name])
            for node, (name, session) in zip(VALIDATORS, self.sessions.items(), strict=False)
        ]
        tie_regions(self.folder, self.genesis, ties)
        self.network = Network(members_of(self.folder))
        await asyncio.to_thread(self._begin)

    def _begin(self) -> None:
        self.network.__enter__()
        self.network.start()
        self.network.wait_height(1)
        self.network.wait_peers()
        url = self.network.nodes[VALIDATORS[1]].member.url
        self._traffic = Traffic(
            [self._probe],
            self.genesis.chain,
            [url],
            pause_s=_PROBE_PAUSE_S,
            every_s=_PROBE_EVERY_S,
        )
        self._traffic.__enter__()

    @property
    def genesis(self) -> WideGenesis:
        """The genesis of the wide-area chain."""
        genesis = self.folder.load_genesis()
        assert isinstance(genesis, WideGenesis)
        return genesis

    async def _watch(self) -> None:
        """Ask for the nodes' heights, for whoever looks on."""
        await self._ready.wait()
        while True:
            for name, node in self.network.nodes.items():
                self.heights[name] = await asyncio.to_thread(node.height)
            await asyncio.sleep(_TICK_S)

    # the story

    async def _play_story(self, playing: Sequence[asyncio.Task[None]]) -> None:
        await self._ready.wait()
        await self._round(4)
        await self._kill_one()
        self._back.set()
        await self._alter_one()
        self._outvoted.set()
        await self._lie()
        await asyncio.wait(playing)
        for task in playing:
            task.result()
        await self._finish()

    async def _round(self, index: int) -> None:
        """Wait until every region has played so many rounds."""
        sessions = self.sessions.values()
        await _until(lambda: all(session.progress.index >= index for session in sessions))

    async def _kill_one(self) -> None:
        network, node = self.network, self.network.nodes[KILLED]
        before = await _thread(node.height)
        await _thread(node.kill)
        self._say(f"{KILLED} is killed (SIGKILL) at height {before}; the others go on")
        others = [name for name in VALIDATORS if name != KILLED]
        top = await _thread(lambda: network.wait_blocks(2 * _BLOCKS, others, _LIMIT_S))
        await _thread(lambda: network.start(KILLED))
        await _thread(lambda: network.wait_height(top, [KILLED], _LIMIT_S))
        await _thread(lambda: network.wait_blocks(1, limit_s=_LIMIT_S))
        self.outcome.caught_up_blocks = top - before
        self._say(f"{KILLED} is back and has caught up {top - before} blocks")

    async def _alter_one(self) -> None:
        """Run an altered application until its node stands still and the others do not."""
        network, node = self.network, self.network.nodes[ALTERED]
        others = [name for name in VALIDATORS if name != ALTERED]
        await _thread(node.stop)
        node.replace_application(altered.command("other-state"))
        await _thread(node.start)
        self._say(f"{ALTERED} runs an altered application: it adds 1 kWh to each report")

        def stands_alone() -> bool:
            height, own, app_hash = node.stand()
            if height < 1 or own != height or network.top(others) < height + _BLOCKS:
                return False
            hashes = network.app_hashes(height, others)
            self.outcome.outvoted_at = height
            return app_hash not in {hash_.lower() for hash_ in hashes.values()}

        await _thread(lambda: network.wait(stands_alone, _LIMIT_S, f"{ALTERED} is not outvoted"))
        at = self.outcome.outvoted_at
        sentence = f"{ALTERED} computed another state at block {at}: outvoted, the others went on"
        self.outcome.attacks.append(Attack("altered application", 1, 1, sentence))
        self._say(sentence)

    async def _lie(self) -> None:
        """Have a gateway's own key sign what is not true; the wide area must not take it."""
        liar, other = list(self.sessions)
        rpc = Rpc(self.network.nodes[VALIDATORS[0]].member.url)
        chain = self.sessions[liar].chain
        await _until(lambda: _region(rpc, chain).summaries > 0)
        key = chain + self.plan.window_rounds.to_bytes(8, "big")
        answer = await _thread(lambda: rpc.query("summary", key))
        assert answer.value is not None
        told = Summary.decode(Envelope.parse(answer.value).payload)
        own = Signer.load(self.sessions[liar].directory.gateway_key)
        false = replace(told, energy_in=told.energy_in + _WH)
        far = told.to_height + 1000
        gap = replace(false, from_height=far, to_height=far + 5, log_size=far + 5)
        foreign = replace(false, region=self.sessions[other].chain)
        for name, summary, code in (
            ("summary that leaves heights out", gap, codes.GAP),
            ("summary of another region", foreign, codes.UNKNOWN_SIGNER),
        ):
            tx = own.seal(summary.payload()).raw
            (result,) = await _thread(lambda tx=tx: rpc.broadcast([tx]))  # type: ignore[misc]
            sentence = f"the gateway of {liar} is refused: {codes.NAMES.get(result.code)}"
            self.outcome.attacks.append(Attack(name, 1, int(result.code == code), sentence))
            self._say(sentence)
        await self._contradict(rpc, own, false, liar)
        rpc.close()

    async def _contradict(self, rpc: Rpc, own: Signer, false: Summary, liar: str) -> None:
        """Send other figures for heights that are reported: the chain keeps both as evidence."""
        envelope = own.seal(false.payload())
        await _thread(lambda: rpc.broadcast([envelope.raw]))
        digest = payload_digest(envelope.payload)
        deadline = time.monotonic() + _LIMIT_S / 4

        def is_kept() -> bool:
            return _region(rpc, false.region).conflict == digest

        await _until(lambda: is_kept() or time.monotonic() > deadline)
        kept = await _thread(is_kept)
        sentence = f"the gateway of {liar} tells 1 kWh more for reported heights: kept as evidence"
        self.outcome.attacks.append(Attack("contradicting summary", 1, int(kept), sentence))
        self._say(sentence)

    # the end

    async def _finish(self) -> None:
        """Put the altered node right, let all come to rest and compare them."""
        network, node = self.network, self.network.nodes[ALTERED]
        await _thread(self._traffic.stop)
        (probe,) = self._traffic.reporters
        self.outcome.finality_ms = [1000 * latency for latency in probe.latencies_s]
        await _thread(node.stop)
        await _thread(node.reset)
        node.replace_application(APPLICATION)
        await _thread(node.start)
        await _thread(lambda: network.wait_quiet(limit_s=_LIMIT_S))
        self._say(f"{ALTERED} has the right program again and all blocks from the others")
        self.outcome.compared_blocks = await _thread(network.check_no_fork)
        for name, node in network.nodes.items():
            height, _, app_hash = await _thread(node.stand)
            self.outcome.heights[name], self.outcome.app_hashes[name] = height, app_hash
        rpc = Rpc(network.nodes[KILLED].member.url)
        for name, session in self.sessions.items():
            leaf = await asyncio.to_thread(_region, rpc, session.chain)
            self.outcome.summaries[name] = leaf.summaries
        rpc.close()
        await asyncio.to_thread(self._at_end, self)


def _region(rpc: Rpc, chain: bytes) -> Region:
    value = rpc.query("region", chain).value
    return Region() if value is None else Region.decode(value)


async def _thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Give the first error of a group; what the others say follows from it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


async def _until(done: Callable[[], bool]) -> None:
    """Look in a thread until it is so."""
    while True:
        if await asyncio.to_thread(done):
            return
        await asyncio.sleep(_TICK_S)
