"""``python -m gateway.node --config application.toml``: the wide-area application of one node.

CometBFT drives it over a socket. Its exit codes are those of ``gateway.process``. What CometBFT was
told is committed is durable in every case.
"""

import argparse
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway import process
from gateway.config import Log, Metrics
from gateway.counters import Counters, start_log
from gateway.metrics import Gauge, Page
from gateway.notify import Notifier
from gateway.schema import Schema, Settings, setting
from gateway.serving import address_below, check_validators, check_version, make_node
from ledger.engine.abci import Decision
from ledger.engine.comet.gate import Gate
from ledger.engine.comet.server import Server
from ledger.region import RegionDirectory
from ledger.wide.application import WideApplication

_MONTH_S = 30 * 86_400
_MOST_PRUNED = 100

_log = logging.getLogger("gateway.node")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Where the node's files are, and where CometBFT finds the application."""

    directory: str = setting(
        ".", "Folder of the node (wide-genesis.cbor, ledger); relative to this file."
    )
    abci: str = setting(
        "unix://app.sock",
        "Where CometBFT connects: unix://PATH, or tcp://127.0.0.1:PORT. A relative path is below "
        "the node's folder.",
    )


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What stays on this node's disk."""

    months: int = setting(
        0,
        "Summaries are kept this long, 30 days a month; 0: for ever. What was in them and in which "
        "order stays provable.",
        unit="months",
        low=0,
        high=1200,
    )
    blocks: int = setting(
        0, "Blocks that CometBFT keeps; 0: all.", unit="blocks", low=0, high=1_000_000_000
    )
    snapshot_every: int = setting(
        1000,
        "A snapshot for new nodes is made each time so many blocks are there; 0: none.",
        unit="blocks",
        low=0,
        high=1_000_000_000,
    )
    snapshots: int = setting(2, "Snapshots that are kept.", unit="", low=1, high=100)


@dataclass(frozen=True, kw_only=True)
class NodeConfig(Settings):
    """The settings of a node's application."""

    chain: Chain = dataclasses.field(default_factory=Chain)
    keep: Keep = dataclasses.field(default_factory=Keep)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    log: Log = dataclasses.field(default_factory=Log)

    @property
    def directory(self) -> Path:
        """The node's folder."""
        return self.beside(self.chain.directory)

    @property
    def address(self) -> str:
        """Where to listen for CometBFT."""
        return address_below(self.directory, self.chain.abci)


SCHEMA = Schema(NodeConfig)
load, parse, render, table = SCHEMA.load, SCHEMA.parse, SCHEMA.render, SCHEMA.table


class NodeService:
    """One node's wide-area application; ``rules`` is its class.

    Raises ConfigError, RegionError, StoreError, or UpgradeNeeded where its rules have passed.
    """

    def __init__(self, config: NodeConfig, rules: type[WideApplication] = WideApplication) -> None:
        self.counters = Counters()
        self._config = config
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._closers: list[Callable[[], None]] = []
        try:
            self._open(rules)
        except BaseException:
            self._close()
            raise

    def _open(self, rules: type[WideApplication]) -> None:
        config = self._config
        directory = RegionDirectory(config.directory)
        genesis = directory.load_wide_genesis()
        check_validators(genesis, directory.wide_genesis)
        self._application = directory.open_wide(application=rules)
        self._closers.append(self._application.close)
        check_version(self._application)
        self._gate = Gate()
        self.node, self._maker = make_node(
            self._application,
            directory.snapshots,
            config.keep,
            self.counters,
            committed=self._committed,
            failed=self._failed,
            gate=self._gate,
        )
        self._closers.append(self._maker.close)
        self._height = self._application.info().last_block_height
        self._last_commit = 0.0
        if config.metrics.port:
            page = Page(config.metrics.port, self._gauges, self.counters)
            self._closers.append(page.close)
        self._server = Server(self.node, config.address, failed=self._failed)

    def stop(self) -> None:
        """Ask ``run`` to end; may be called from a signal handler or another thread."""
        self._stop.set()

    def run(self) -> None:
        """Serve until ``stop``; raises what stopped the node."""
        notifier = Notifier()
        try:
            self._server.start()
            _log.info("event=ready address=%s height=%d", self._server.address, self._height)
            notifier.send("READY=1")
            self._stop.wait()
        finally:
            self._server.stop()
            notifier.close()
            self._close()
        if self._failure is not None:
            raise self._failure
        _log.info("event=stopped height=%d", self._height)

    def _close(self) -> None:
        while self._closers:
            self._closers.pop()()

    def _failed(self, failure: BaseException) -> None:
        self._failure = failure
        self._stop.set()

    def _committed(self, height: int, decision: Decision) -> None:
        self._height = height
        self._last_commit = time.time()
        self.counters.add("block.committed")
        if decision.misbehaviour:
            self.counters.add("block.misbehaviour", len(decision.misbehaviour))
        if decision.time_s is not None:
            self._prune(decision.time_s)

    def _prune(self, now_s: int) -> None:
        """Let go of what is older than wanted; a little with each block, for the chain waits.

        The time is the block's, which no single clock can move.
        """
        self._application.note_time(now_s)
        if self._config.keep.months:
            gone = self._application.prune_before(
                now_s - self._config.keep.months * _MONTH_S, _MOST_PRUNED
            )
            self.counters.add("summary.pruned", gone)

    def _gauges(self) -> list[Gauge]:
        gauges = [
            Gauge("height", "The newest committed block.", self._height),
            Gauge(
                "last_commit_timestamp_seconds",
                "When it was committed, by this machine's clock; 0: not since the start.",
                self._last_commit,
            ),
        ]
        with self.node.lock:
            refused = sorted(self._gate.refused.items())
        gauges += [
            Gauge(f"mempool_refused_{code}", "Refused by the mempool's limits.", count)
            for code, count in refused
        ]
        if self._maker.made is not None:
            age_s = time.time() - self._maker.made
            gauges.append(Gauge("snapshot_age_seconds", "Age of the newest snapshot.", age_s))
        return gauges


def main(arguments: list[str] | None = None, rules: type[WideApplication] = WideApplication) -> int:
    """Run a node's application, of the class ``rules``; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway.node", description="Run a node's wide-area application."
    )
    parser.add_argument("--config", type=Path, required=True, help="the application.toml to use")
    options = parser.parse_args(arguments)

    def make() -> NodeService:
        config = load(options.config)
        start_log(config.log.level)
        return NodeService(config, rules)

    return process.run("gateway.node", make)


if __name__ == "__main__":
    sys.exit(main())
