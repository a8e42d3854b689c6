"""A session of the rig: broker, meters, gateway and both chains, fed with a recording.

Everything that runs is real: the firmware in MicroPython processes, a broker, the gateway's own
program. The session only feeds samples, waits for rounds to close, plays faults and, at the end,
reads the ledger. Whatever happens, ``run`` leaves no process behind.
"""

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from firmware.meter import rig_messages
from gateway import provision
from hil import enrich
from hil.broker import Broker, Tls
from hil.clusters import Cluster
from hil.faults import Fault, Outsider
from hil.meters import ProcessMeter
from hil.observer import Observer
from hil.ports import HOST
from hil.sites import RegionPlan, Sites, host_list, make_sites
from hil.status import GatewayStatus
from hil.traces import Recording
from ledger.genesis import Parameters
from ledger.protocol import quantities, records, rounds, topics
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory

_START_LIMIT_S = 60
_DRAIN_LIMIT_S = 40
_QUIET_S = 8  # longer than it takes the last of several gateways to speak for another
_CODES = {row.name: row.code for row in quantities.TABLE}
_FAST_ROUND_MS = 15_000  # how long a meter waits at most for its neighbours when nothing is paced
_TICK_S = 0.02


class SessionError(RuntimeError):
    """The session could not go on; the message says which part, why, and where its log is."""


@dataclass(frozen=True)
class Plan:
    """What a session plays.

    ``first`` is the first row of the recording, ``rounds`` how many follow, ``round_wall_s`` the
    wall time a round (None: as fast as it goes), ``folder`` the region's; the rig keeps its own
    things (the meters' flash, the broker's store, logs) in ``rig`` below it. ``script``
    is awaited before each round: what else happens (a meter joins, the broker dies). With ``tls``
    everybody speaks TLS with the broker and checks its certificate. ``settings`` are more values
    for gateway.toml; ``prepare`` is awaited when the region is made and its gateway not started.
    With more than one of ``gateways`` the region is served by as many sites (``hil.sites``).
    """

    recording: Recording
    clusters: tuple[Cluster, ...]
    rounds: int
    folder: Path
    first: int = 0
    round_wall_s: float | None = None
    seed: int = 1
    window_rounds: int = 15
    faults: Sequence[Fault] = ()
    broker: str = "nats"
    tls: Tls | None = None
    heap: str | None = None
    name: str = "region"
    script: "Script | None" = None
    settings: Mapping[str, object] = field(default_factory=dict)
    prepare: "Prepare | None" = None
    gateways: int = 1


@dataclass
class Progress:
    """Where a session is; a view draws it."""

    stage: str = ""
    index: int = 0
    round: int = 0
    time_s: int = 0
    height: int = 0
    status: GatewayStatus = field(default_factory=GatewayStatus)
    meters: dict[str, "MeterProgress"] = field(default_factory=dict)


@dataclass
class MeterProgress:
    """What a meter said of itself on the rig channel."""

    cluster: str
    online: bool = False
    head_round: int = -1
    unreceipted: int = 0


class View(Protocol):
    """Shows progress to a person."""

    def update(self, progress: Progress) -> None:
        """Draw what has changed."""


Script = Callable[[int, "Session"], Awaitable[None]]
Prepare = Callable[["Session"], Awaitable[None]]


class Session:
    """One run of a plan. After ``run`` the region's folder holds everything to look at."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.directory = RegionDirectory(plan.folder)
        self.rig_folder = plan.folder / "rig"
        self.progress = Progress()
        self.published: dict[str, int] = {}
        self.round_s = plan.recording.step_s
        self._started = time.monotonic()
        self._view: View | None = None
        self._meters: dict[str, ProcessMeter] = {}
        self._changed = asyncio.Event()
        self._receipt_at = 0.0
        self._observer: Observer | None = None
        self.sites: Sites

    # what faults see (hil.faults.Scene)

    @property
    def chain(self) -> bytes:
        """The region's id."""
        return self.directory.load_genesis().chain

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish on the broker as an outsider."""
        assert self._observer is not None
        self._observer.publish(topic, payload)

    def captured(self, meter: str) -> list[Envelope]:
        """Give the readings of a meter that anybody on the broker has seen."""
        assert self._observer is not None
        return self._observer.readings.get(self._meters[meter].address, [])

    def topic(self, meter: str) -> str:
        """Give the topic of a meter's readings."""
        cluster = self.progress.meters[meter].cluster
        return topics.meter(self.chain, cluster, self._meters[meter].address, topics.READING)

    @property
    def first_round(self) -> int:
        """Give the number of the first round that is played."""
        return rounds.round_of(self.plan.recording.time_s(self.plan.first), self.round_s)

    @property
    def names(self) -> dict[bytes, str]:
        """Give the recording's name of each meter's address."""
        return {meter.address: name for name, meter in self._meters.items()}

    @property
    def broker(self) -> Broker:
        """The broker that the rig itself talks to; there once the session runs."""
        return self.sites.brokers[-1]

    # the run

    async def run(self, view: View) -> None:
        """Play the plan; raises SessionError, MeterError, BrokerError."""
        self._view = view
        plan = self.plan
        self.sites = make_sites(plan.folder, self.rig_folder, plan.gateways, plan.broker, plan.tls)
        self.directory = self.sites.directory
        async with contextlib.AsyncExitStack() as stack:
            self._stage("starting the broker")
            stack.enter_context(self.sites)
            stack.push_async_callback(self._stop_meters)
            await self._start_meters()
            self._create_region()
            if plan.prepare is not None:
                await plan.prepare(self)
            stack.push_async_callback(self.sites.stop)
            await self.start_gateway()
            await self._provision()
            stack.callback(self._stop_observer)
            await self._start_observer(self.broker.port)
            await self._play()
            await self._drain()
        self._read_status()  # the gateway's last word

    def _stage(self, text: str) -> None:
        self.progress.stage = text
        self._draw()

    def _draw(self) -> None:
        if self._view is not None:
            self._view.update(self.progress)

    async def _start_meters(self) -> None:
        total = sum(len(cluster.meters) for cluster in self.plan.clusters)
        self._stage(f"starting {total} meters, each makes its key")
        for cluster in self.plan.clusters:
            for name in cluster.meters:
                meter = ProcessMeter(name, self.rig_folder / "meters" / name, self._on_message)
                self._meters[name] = meter
                self.progress.meters[name] = MeterProgress(cluster.name)
        await _all(meter.start(self.plan.heap) for meter in self._meters.values())
        await _all(meter.enrolled(_START_LIMIT_S) for meter in self._meters.values())

    def _create_region(self) -> None:
        self._stage("making the region's genesis")
        members = [
            (self._meters[name].public_key, cluster.name)
            for cluster in self.plan.clusters
            for name in cluster.meters
        ]
        settings = {
            "mqtt.host": HOST,
            "mqtt.ca_file": str(self.plan.tls.ca) if self.plan.tls else "",
            "rounds.pace": "trace",
            "rounds.timeout_s": 20.0 if self.plan.round_wall_s is None else self._wall_s(),
            **self.plan.settings,
        }
        self.sites.create(
            RegionPlan(
                self.plan.name,
                Parameters(round_s=self.round_s, window_rounds=self.plan.window_rounds),
                members,
                self.plan.recording.time_s(self.plan.first),
                settings,
            )
        )

    def _wall_s(self) -> float:
        return self.plan.round_wall_s or 0.0

    async def start_gateway(self) -> None:
        """Start the gateway, or all of them, and wait until each is connected."""
        self._stage("starting the gateway")
        await self.sites.start()
        await self.until(
            lambda: self._read_status().ready, _START_LIMIT_S, "the gateway is not ready"
        )

    def _read_status(self) -> GatewayStatus:
        self.progress.status = self.sites.status
        return self.progress.status

    def _check_gateway(self) -> None:
        fallen = self.sites.fallen
        if fallen:
            raise SessionError(f"the gateway ended: {fallen}")

    async def add_meter(self, name: str, cluster: str) -> ProcessMeter:
        """Start one more meter and tell it of the region; operators must let it join."""
        meter = ProcessMeter(name, self.rig_folder / "meters" / name, self._on_message)
        self._meters[name] = meter
        self.progress.meters[name] = MeterProgress(cluster)
        await meter.start(self.plan.heap)
        await meter.enrolled(_START_LIMIT_S)
        self._tell_settings(meter, cluster)
        return meter

    async def restart_meter(self, name: str) -> None:
        """Cut a meter's power (SIGKILL) and start it again on the same flash."""
        meter = self._meters[name]
        await meter.kill()
        self.progress.meters[name].online = False
        await meter.start(self.plan.heap)
        await self.until(
            lambda: self.progress.meters[name].online, _START_LIMIT_S, f"{name} is not back"
        )

    def _tell_settings(self, meter: ProcessMeter, cluster: str) -> None:
        genesis = self.directory.load_genesis()
        ca = None
        if self.plan.tls is not None:
            ca = ssl.PEM_cert_to_DER_cert(self.plan.tls.ca.read_text("ascii"))
        settings = provision.meter_settings(
            genesis,
            meter.address,
            host_list(self.sites.brokers),
            self.broker.port,
            cluster=cluster,
            ca=ca,
        )
        meter.send(rig_messages.provision(settings.encode()))

    async def _provision(self) -> None:
        self._stage("provisioning the meters")
        for name, meter in self._meters.items():
            self._tell_settings(meter, self.progress.meters[name].cluster)
        await self.until(
            lambda: all(m.online for m in self.progress.meters.values()),
            _START_LIMIT_S,
            "not all meters came online",
        )

    async def _start_observer(self, port: int) -> None:
        ca = self.plan.tls.ca if self.plan.tls else None
        keep = any(isinstance(fault, Outsider) for fault in self.plan.faults)
        self._observer = Observer(HOST, port, self.directory.load_genesis(), ca, keep_readings=keep)
        try:
            await self._observer.start()
        except TimeoutError:
            raise SessionError(f"the broker at {HOST}:{port} takes no subscription") from None

    async def _play(self) -> None:
        first = self.plan.first
        source = enrich.samples(self.plan.recording, self.plan.seed)
        started = time.monotonic()
        for index, row in enumerate(itertools.islice(source, first, first + self.plan.rounds)):
            self.progress.index, self.progress.time_s = index + 1, row.time_s
            self.progress.round = rounds.round_of(row.time_s, self.round_s)
            self._stage("replaying")
            if self.plan.script is not None:
                await self.plan.script(index, self)
            self._feed(index, row)
            for fault in self.plan.faults:
                fault.act(index, self)
            await self._round_closed(self.progress.round)
            if self.plan.round_wall_s is not None:
                due = started + (index + 1) * self.plan.round_wall_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _feed(self, index: int, row: enrich.Round) -> None:
        wall_ms = round(1000 * self._wall_s()) or _FAST_ROUND_MS
        for name, meter in self._meters.items():
            sample = row.measured.get(name)
            if sample is None:
                continue
            for fault in self.plan.faults:
                if fault.meter == name:
                    sample = fault.change(index, sample)
            values = sorted((_CODES[quantity], value) for quantity, value in sample.items())
            flags = records.SIMULATED_INPUT
            meter.send(rig_messages.sample(row.time_s, row.interval_s, wall_ms, flags, values))
            self.published[name] = self.published.get(name, 0) + 1

    async def _round_closed(self, round_: int) -> None:
        """Wait until the round's head is out and every meter holds it."""
        assert self._observer is not None
        limit = 4 * (self.plan.round_wall_s or _FAST_ROUND_MS / 1000)
        try:
            await self._observer.wait_closed(round_, limit)
            self.progress.height = self._observer.height
        except TimeoutError:
            self._check_gateway()
            raise SessionError(
                f"round {round_} did not close: see the logs below {self.plan.folder}"
            ) from None
        # a meter may miss a head; it catches up later
        await self._wait(
            lambda: all(m.head_round >= round_ for m in self.progress.meters.values()), limit
        )
        self._read_status()
        self._draw()

    async def _drain(self) -> None:
        """Let receipts arrive and the last summary reach the wide-area chain.

        A meter that has left, or signed before it was let in, waits for receipts that never come.
        """
        self._stage("waiting for the last receipts and summaries")

        def is_over() -> bool:
            status = self._read_status()
            if status.outbox or status.height < self.progress.height:
                return False
            waits = any(meter.unreceipted for meter in self.progress.meters.values())
            return not waits or time.monotonic() >= self._receipt_at + _QUIET_S

        self._receipt_at = time.monotonic()
        await self._wait(is_over, _DRAIN_LIMIT_S)

    async def until(self, done: Callable[[], bool], limit_s: float, complaint: str) -> None:
        """Wait until ``done()``; raises SessionError with the complaint after ``limit_s``."""
        if not await self._wait(done, limit_s):
            raise SessionError(complaint)

    async def _wait(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Wait for at most ``limit_s`` until ``done()``; gives whether it came to that.

        Raises SessionError when the gateway ends meanwhile.
        """
        deadline = time.monotonic() + limit_s
        while not done():
            self._check_gateway()
            if time.monotonic() > deadline:
                return False
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.25):
                    await self._changed.wait()
        return True

    def _on_message(self, meter: ProcessMeter, message: list[Any]) -> None:
        own = self.progress.meters[meter.name]
        kind = message[0]
        if kind == rig_messages.LINK:
            own.online = message[1]
        elif kind == rig_messages.HEAD:
            own.head_round = message[2]
        elif kind == rig_messages.UNRECEIPTED:
            if message[1] != own.unreceipted:
                self._receipt_at = time.monotonic()
            own.unreceipted = message[1]
        elif kind == rig_messages.EVENT:
            self._note(f"{meter.name}: {message[1]}")
        self._changed.set()

    def _note(self, text: str) -> None:
        """Write a line for whoever looks for the cause of something later."""
        with (self.rig_folder / "events.log").open("a", encoding="utf-8") as log:
            since = time.monotonic() - self._started
            stage, index = self.progress.stage, self.progress.index
            log.write(f"{since:.1f} s, {stage}, round {index}: {text}\n")

    # the end

    async def _stop_meters(self) -> None:
        await _all(meter.stop() for meter in self._meters.values())
        for name, meter in self._meters.items():
            if meter.damaged:
                self._note(f"{name}: {meter.damaged} frames or messages could not be read")

    def _stop_observer(self) -> None:
        if self._observer is not None:
            self._observer.stop()


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Wait until all have ended, whatever becomes of some; then raise what the first raised."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome
