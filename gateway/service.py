"""The running gateway: opens the files, connects, loops until it is told to end.

One thread does the work (queue, chain, book); paho's thread only receives and sends. The loop sees
within a second that the other thread died, and ends the process rather than standing idle: the
service manager starts it again.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.config import Config, ConfigError, read_password
from gateway.core import Core
from gateway.counters import Counters
from gateway.forwarding import Forwarder, LocalWideArea
from gateway.ingest import Ingest
from gateway.notify import Notifier
from gateway.queue import Queue
from gateway.roundbook import ClockPace, Instant, Pace, RoundBook, TracePace
from ledger.genesis import RegionGenesis
from ledger.keys import Signer
from ledger.protocol import topics
from ledger.protocol.errors import ProtocolError
from ledger.region import RegionDirectory

_log = logging.getLogger("gateway.service")

_LONGEST_WAIT_S = 0.5
_STATUS_EVERY_S = 0.5
_BATCH = 1000


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
    """One gateway process. Raises ConfigError, RegionError and StoreError where it cannot
    start.

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
        rows = {"inbox_rows": config.limits.inbox_rows, "outbox_rows": config.limits.outbox_rows}
        self._queue = Queue(directory.queue, **rows)
        self._closers.append(self._queue.close)
        self._book = self._make_book(genesis)
        self._ingest = self._make_ingest(genesis)
        self._core = Core(
            self._application,
            key=self._key,
            queue=self._queue,
            book=self._book,
            publish=self._ingest.publish,
            counters=self.counters,
        )
        self._closers.append(self._core.close)
        self._forwarder = self._make_forwarder(directory) if config.wide.forward else None

    def _make_forwarder(self, directory: RegionDirectory) -> Forwarder:
        wide = directory.open_wide()
        self._closers.append(wide.close)
        return Forwarder(
            self._application,
            key=self._key,
            queue=self._queue,
            wide=LocalWideArea(wide),
            wide_chain=wide.genesis.chain,
            counters=self.counters,
        )

    def _make_book(self, genesis: RegionGenesis) -> RoundBook:
        rounds = self._config.rounds
        pace: Pace = TracePace(rounds.timeout_s, genesis.parameters.round_s)
        if rounds.pace == "clock":
            pace = ClockPace(genesis.parameters.round_s, rounds.grace_s)
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
        return Ingest(
            mqtt,
            mqtt.client_id or f"gateway-{self._key.address.hex()}",
            [*(topics.every(chain, kind) for kind in kinds), topics.registry(chain)],
            self.counters,
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
        """Work until ``stop``; then everything taken in is durable. Raises StoreError."""
        try:
            self._core.replay(self._clock())
            if self._forwarder is not None:
                self._forwarder.collect()
            self._write_status(running=True)
            self._ingest.start()
            # ready to work; the broker may come up later than this
            self._notifier.send("READY=1")
            while not self._stop.is_set():
                self._turn()
            self._close_due()
            self._ingest.flush(2.0)
        finally:
            self._ingest.stop()
            self._write_status(running=False)
            self._close()
        _log.info("event=stopped height=%d waiting=%d", self._application.height, len(self._book))

    def _close(self) -> None:
        while self._closers:
            self._closers.pop()()

    def _turn(self) -> None:
        """Do one turn of the loop: messages, rounds, connection, wide area, status."""
        if not self._ingest.alive:
            raise RuntimeError("the MQTT thread has died")
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

    def _close_due(self) -> None:
        if self._core.close_due(self._clock()) and self._forwarder is not None:
            self._forwarder.collect()

    def _greet(self) -> None:
        """Publish head and members after each new connection."""
        if not self._ingest.ready.is_set() or self._announced == self._ingest.connections:
            return
        self._announced = self._ingest.connections
        self._core.announce()
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
        state = self._application.state
        forwarder = self._forwarder
        return {
            "version": 1,
            "running": running,
            "process": os.getpid(),
            "time": self._clock().wall,
            "connected": self._ingest.ready.is_set(),
            "region": self._application.genesis.chain.hex(),
            "height": self._application.height,
            "round": self._application.last_round,
            "witnessed": state.registry.witnessed,
            "members": sum(1 for _ in state.active(max(0, self._book.last))),
            "online": sum(1 for text in self._core.online.values() if text == "online"),
            "open_readings": len(state.open),
            "held_records": len(self._book),
            "inbox": self._queue.waiting,
            "outbox": self._queue.outgoing,
            "wide_height": forwarder.wide_height if forwarder else 0,
            "wide_error": forwarder.last_error if forwarder else "",
            "last_rejections": self._core.last_rejections,
            "counters": self.counters.snapshot(),
        }
