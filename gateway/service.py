"""The running gateway: opens the files, connects, loops until it is told to end.

One thread does the work (queue, chain, book); paho's thread only receives and sends. The loop sees
within a second that another thread died, and ends the process rather than standing idle: the
service manager starts it again.

With CometBFT as its engine the process also serves the application to it, in the ABCI server's
thread; ``Chain.lock`` is held by whichever thread touches the application.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.chain import Chain, CometChain, SoloChain
from gateway.config import Config, read_password, read_validator
from gateway.core import Core
from gateway.counters import Counters
from gateway.forwarding import Forwarder, LocalWideArea, RemoteWideArea, WideArea
from gateway.ingest import Ingest
from gateway.metrics import Gauge, Page
from gateway.notify import Notifier
from gateway.queue import Queue
from gateway.roundbook import ClockPace, Instant, Pace, RoundBook, TracePace
from gateway.schema import ConfigError
from gateway.serving import address_below, check_validators, check_version, make_node
from ledger.engine.abci import Decision
from ledger.engine.comet.rpc import Rpc
from ledger.engine.comet.server import Server
from ledger.genesis import RegionGenesis
from ledger.keys import Signer
from ledger.protocol import rounds, topics
from ledger.protocol.errors import ProtocolError
from ledger.region import RegionDirectory

_log = logging.getLogger("gateway.service")

_LONGEST_WAIT_S = 0.5
_STATUS_EVERY_S = 0.5
_BATCH = 1000
_MONTH_S = 30 * 86_400
_MOST_PRUNED = 500  # blocks with each new one


def system_clock() -> Instant:
    """Read the clocks of this machine."""
    return Instant(time.time(), time.monotonic())


def read_key(path: Path, genesis: RegionGenesis) -> Signer:
    """Read the gateway's key, which the genesis must name; raises ConfigError."""
    try:
        key = Signer.load(path)
    except OSError as e:
        raise ConfigError(f"{path}: the gateway's key cannot be read: {e.strerror}") from e
    except ProtocolError as e:
        raise ConfigError(str(e)) from e
    if key.public_key not in genesis.gateways:
        raise ConfigError(f"{path}: the genesis names no gateway with this key")
    return key


class Service:
    """One gateway process. Raises ConfigError, RegionError, StoreError and UpgradeNeeded where it
    cannot start.

    ``status`` names a file that is replaced twice a second with a small JSON, for people to watch.
    """

    def __init__(
        self,
        config: Config,
        *,
        status: Path | None = None,
        clock: Callable[[], Instant] = system_clock,
    ) -> None:
        self._config = config
        self._status = status
        self._clock = clock
        self._stop = threading.Event()
        self._closers: list[Callable[[], None]] = []
        self._announced = 0
        self._said_ready = False
        self._status_due = 0.0
        self._failure: BaseException | None = None
        self._comet: CometChain | None = None
        self._server: Server | None = None
        self._notifier = Notifier()
        self._closers.append(self._notifier.close)
        self.counters = Counters()
        try:
            self._open()
        except BaseException:
            self._close()
            raise

    def _open(self) -> None:
        config = self._config
        directory = RegionDirectory(config.directory)
        genesis = directory.load_genesis()
        self._key = read_key(directory.gateway_key, genesis)
        self._application = directory.open_regional()
        self._closers.append(self._application.close)
        check_version(self._application)
        rows = {"inbox_rows": config.limits.inbox_rows, "outbox_rows": config.limits.outbox_rows}
        self._queue = Queue(directory.queue, **rows)
        self._closers.append(self._queue.close)
        self._book = self._make_book(genesis)
        self._ingest = self._make_ingest(genesis)
        self._chain = self._make_chain(directory, genesis)
        self._core = Core(
            self._application,
            key=self._key,
            queue=self._queue,
            book=self._book,
            publish=self._ingest.publish,
            counters=self.counters,
            chain=self._chain,
        )
        self._closers.append(self._core.close)
        self._forwarder = self._make_forwarder(directory) if config.wide.forward else None
        if config.metrics.port:
            self._closers.append(Page(config.metrics.port, self._gauges, self.counters).close)

    def _make_chain(self, directory: RegionDirectory, genesis: RegionGenesis) -> Chain:
        config = self._config
        if config.chain.engine == "solo":
            if len(genesis.gateways) > 1:
                raise ConfigError(
                    '[chain] engine = "solo": the genesis names several gateways, which only '
                    '"comet" keeps on one chain'
                )
            return SoloChain(self._application, self._key)
        check_validators(genesis, directory.genesis)
        node, maker = make_node(
            self._application,
            directory.snapshots,
            config.keep,
            self.counters,
            committed=self._committed,
            failed=self._fail,
        )
        self._closers.append(maker.close)
        address = address_below(config.directory, config.chain.abci)
        self._server = Server(node, address, failed=self._fail)
        self._comet = CometChain(
            self._application,
            self._key,
            _rpc(config.chain.rpc, "[chain] rpc"),
            self.counters,
            lock=node.lock,
            validator=read_validator(config),
            wake=self._ingest.wake,
        )
        return self._comet

    def _committed(self, height: int, decision: Decision) -> None:
        """Take note of a block of CometBFT's; called in the server's thread, under the lock."""
        assert self._comet is not None
        self._comet.committed(height, decision)
        if decision.time_s is not None:
            self._prune(decision.time_s)

    def _prune(self, now_s: int) -> None:
        """Let go of records older than wanted; a little with each block, for the chain waits.

        The time is the block's, which no single clock can move.
        """
        months = self._config.keep.months
        if not months or not self._application.made():
            return
        application = self._application
        oldest_s = max(0, now_s - months * _MONTH_S)
        round_ = rounds.round_of(oldest_s, application.genesis.parameters.round_s)
        first = application.blocks.first_body()
        before = min(application.blocks.last_height_before(round_) + 1, first + _MOST_PRUNED)
        if before > first:
            self.counters.add("blocks.pruned", application.prune(before) - first)

    def _fail(self, failure: BaseException) -> None:
        self._failure = failure
        self._ingest.wake()

    def _make_forwarder(self, directory: RegionDirectory) -> Forwarder:
        wide: WideArea
        if self._config.wide.node:
            genesis = directory.load_wide_genesis()
            wide_chain = genesis.chain
            remote = RemoteWideArea(_rpc(self._config.wide.node, "[wide] node"), genesis)
            self._closers.append(remote.close)
            wide = remote
        else:
            application = directory.open_wide()
            self._closers.append(application.close)
            wide_chain = application.genesis.chain
            wide = LocalWideArea(application)
        return Forwarder(
            self._application,
            key=self._key,
            queue=self._queue,
            wide=wide,
            wide_chain=wide_chain,
            counters=self.counters,
        )

    def _make_book(self, genesis: RegionGenesis) -> RoundBook:
        when = self._config.rounds
        pace: Pace = TracePace(when.timeout_s, genesis.parameters.round_s)
        if when.pace == "clock":
            pace = ClockPace(genesis.parameters.round_s, when.grace_s)
        last = self._application.last_round
        last = -1 if last is None else last
        members = [address for address, _ in self._application.state.active(last + 1)]
        limits = self._config.limits
        return RoundBook(
            pace, last, members, per_member=limits.held_per_member, most=limits.inbox_rows
        )

    def _make_ingest(self, genesis: RegionGenesis) -> Ingest:
        mqtt, chain = self._config.mqtt, genesis.chain
        kinds = (topics.READING, topics.BALLOT, topics.STATUS)
        filters = [*(topics.every(chain, kind) for kind in kinds), topics.registry(chain)]
        several = self._config.chain.engine == "comet"
        return Ingest(
            mqtt,
            mqtt.client_id or f"gateway-{self._key.address.hex()}",
            filters,
            self.counters,
            listen=[topics.head(chain)] if several else [],  # what the other gateways say
            password=read_password(self._config),
            ca_file=self._config.file(mqtt.ca_file) if mqtt.ca_file else None,
        )

    def stop(self) -> None:
        """Ask the loop to end; may be called from a signal handler or another thread."""
        self._stop.set()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait, in another thread than ``run``, until the broker has taken the subscriptions."""
        return self._ingest.ready.wait(timeout_s)

    def run(self) -> None:
        """Work until ``stop``; then everything taken in is durable.

        Raises StoreError, ServerError, or what stopped the node (Mismatch, UpgradeNeeded).
        """
        try:
            self._core.replay(self._clock())
            self._collect()
            self._write_status(running=True)
            self._start_engine()
            self._ingest.start()
            # ready to work; broker and CometBFT may come up later than this
            self._notifier.send("READY=1")
            while not self._stop.is_set():
                self._turn()
            self._close_due()
            self._ingest.flush(2.0)
        finally:
            self._ingest.stop()
            self._stop_engine()
            self._write_status(running=False)
            self._close()
        _log.info("event=stopped height=%d waiting=%d", self._application.height, len(self._book))

    def _start_engine(self) -> None:
        if self._server is not None and self._comet is not None:
            self._server.start()
            self._comet.start()
            _log.info("event=serving address=%s", self._server.address)

    def _stop_engine(self) -> None:
        if self._server is not None and self._comet is not None:
            self._comet.stop()
            self._server.stop()

    def _close(self) -> None:
        while self._closers:
            self._closers.pop()()

    def _turn(self) -> None:
        """Do one turn of the loop: messages, rounds, connection, wide area, status."""
        self._check_threads()
        self._greet()
        waits = [_LONGEST_WAIT_S, self._book.wait_s(self._clock())]
        wait_s = min(wait for wait in waits if wait is not None)
        most = min(_BATCH, self._queue.room())
        if most:
            deliveries = self._ingest.take(wait_s, most)
        else:
            # nothing more is taken until a close makes room
            self._stop.wait(wait_s)
            deliveries = []
        if deliveries:
            self._core.receive(
                [delivery.message for delivery in deliveries],
                lambda: self._ingest.acknowledge(deliveries),
                self._clock(),
            )
        self._close_due()
        if self._forwarder is not None:
            self._forwarder.step(self._clock())
        self._show_status()

    def _check_threads(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._ingest.alive:
            raise RuntimeError("the MQTT thread has died")
        if self._comet is not None and not self._comet.alive:
            raise RuntimeError("the thread that submits has died")

    def _close_due(self) -> None:
        closed = self._core.close_due(self._clock())
        if self._core.take(self._clock()) or closed:
            self._collect()

    def _collect(self) -> None:
        if self._forwarder is not None:
            with self._chain.lock:
                self._forwarder.collect()

    def _greet(self) -> None:
        """Publish head and members after each new connection."""
        if not self._ingest.ready.is_set() or self._announced == self._ingest.connections:
            return
        self._announced = self._ingest.connections
        self._core.announce(self._clock())
        if not self._said_ready:
            self._said_ready = True
            where = f"{self._config.mqtt.host}:{self._config.mqtt.port}"
            height, round_ = self._application.height, self._book.last
            _log.info("event=ready broker=%s height=%d round=%d", where, height, round_)

    # status

    def _show_status(self) -> None:
        now = self._clock().steady
        if now >= self._status_due:
            self._status_due = now + _STATUS_EVERY_S
            self._notifier.send("WATCHDOG=1")
            self._write_status(running=True)

    def _write_status(self, *, running: bool) -> None:
        if self._status is None:
            return
        partial = self._status.with_name(self._status.name + ".new")
        try:
            partial.write_text(json.dumps(self.status(running=running)), encoding="utf-8")
            partial.replace(self._status)
        except OSError as e:
            # the file is for people to look at; the chain goes on without it
            self.counters.add("status.failed")
            _log.warning("event=status-failed reason=%r", str(e))

    def status(self, *, running: bool) -> dict[str, object]:
        """Give heights, counts and the newest refusals, as in the status file."""
        with self._chain.lock:
            told = self._state_status()
        forwarder, comet = self._forwarder, self._comet
        return {
            "version": 1,
            "running": running,
            "process": os.getpid(),
            "time": self._clock().wall,
            "connected": self._ingest.ready.is_set(),
            **told,
            "online": sum(1 for text in self._core.online.values() if text == "online"),
            "held_records": len(self._book),
            "submitted": self._core.submitted,
            "engine": self._config.chain.engine,
            "engine_height": comet.engine_height if comet else 0,
            "engine_error": comet.last_error if comet else "",
            "heard_height": self._core.heard,
            "inbox": self._queue.waiting,
            "outbox": self._queue.outgoing,
            "wide_height": forwarder.wide_height if forwarder else 0,
            "wide_error": forwarder.last_error if forwarder else "",
            "last_rejections": self._core.last_rejections,
            "counters": self.counters.snapshot(),
        }

    def _state_status(self) -> dict[str, object]:
        state = self._application.state
        return {
            "region": self._application.genesis.chain.hex(),
            "height": self._application.height,
            "round": self._application.last_round,
            "witnessed": state.registry.witnessed,
            "members": sum(1 for _ in state.active(max(0, self._book.last))),
            "open_readings": len(state.open),
        }

    def _gauges(self) -> list[Gauge]:
        """Give the figures for Prometheus; called in the page's thread."""
        with self._chain.lock:
            height, open_readings = self._application.height, len(self._application.state.open)
        forwarder, comet = self._forwarder, self._comet
        return [
            Gauge("height", "The region's newest block.", height),
            Gauge("engine_height", "CometBFT's newest.", comet.engine_height if comet else 0),
            Gauge("open_readings", "Readings that no majority has settled.", open_readings),
            Gauge("held_records", "Records that wait for a block.", len(self._book)),
            Gauge("inbox_rows", "Messages between arrival and block.", self._queue.waiting),
            Gauge("outbox_rows", "Summaries on their way up.", self._queue.outgoing),
            Gauge("wide_height", "The wide area.", forwarder.wide_height if forwarder else 0),
            Gauge("connected", "1 with a broker.", float(self._ingest.ready.is_set())),
        ]


def _rpc(address: str, where: str) -> Rpc:
    try:
        return Rpc(address)
    except ValueError as e:
        raise ConfigError(f"{where} = {address!r}: {e}") from None
