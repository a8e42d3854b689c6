"""What a gateway and a wide-area node do alike to serve their application to CometBFT."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from gateway.counters import Counters
from gateway.schema import ConfigError
from ledger.engine import base
from ledger.engine.abci import Decision, UpgradeNeeded
from ledger.engine.comet import chain_id
from ledger.engine.comet import messages as m
from ledger.engine.comet.gate import Gate
from ledger.engine.comet.node import Node
from ledger.genesis import RegionGenesis, WideGenesis
from ledger.protobuf import Message
from ledger.regional.application import RegionalApplication
from ledger.snapshot import Snapshots, Taking
from ledger.store import StoreError
from ledger.wide.application import WideApplication

_log = logging.getLogger("gateway.serving")


def address_below(folder: Path, address: str) -> str:
    """Give the address to serve; the path of a Unix socket is absolute, or below a folder."""
    scheme, separator, name = address.partition("://")
    if scheme != "unix" or not separator:
        return address
    return f"unix://{(folder / name).absolute()}"


def check_validators(genesis: RegionGenesis | WideGenesis, path: Path) -> None:
    """Check that a genesis is one of a chain that CometBFT orders; raises ConfigError."""
    if not genesis.validators:
        raise ConfigError(f"{path} names no validators: gridwitness network init makes one")


def check_version(application: WideApplication | RegionalApplication) -> None:
    """Check that this program has the rules of the next block; raises UpgradeNeeded.

    After a commit too: who lacks them can only wait for that block, so the process is better ended
    at once, where somebody sees it.
    """
    info = application.info()
    base.check_rules(info.last_block_height + 1, info.app_version, application.VERSIONS)


class CountingNode(Node):
    """A Node that counts results by code: ``checked.CODE`` and ``result.CODE``."""

    def __init__(self, *args: Any, counters: Counters, **options: Any) -> None:
        super().__init__(*args, **options)
        self._counters = counters

    def answer(self, request: Message) -> Message:
        """Answer a request; raises what Node does."""
        response = super().answer(request)
        if isinstance(response, m.ResponseFinalizeBlock):
            for result in response.tx_results:
                self._counters.add(f"result.{result.code}")
        elif isinstance(response, m.ResponseCheckTx):
            self._counters.add(f"checked.{response.code}")
        return response


class SnapshotMaker:
    """Makes a snapshot each time ``every`` blocks are there, in a thread of its own.

    One at a time: while one is being written, others that come due are left out.
    """

    def __init__(self, snapshots: Snapshots, every: int, counters: Counters) -> None:
        self._snapshots = snapshots
        self._every = every
        self._counters = counters
        self._waiting: queue.Queue[Taking | None] = queue.Queue(maxsize=1)
        self._busy = False
        self.made: float | None = None
        self._thread = threading.Thread(target=self._work, name="snapshots")
        self._thread.start()

    def committed(self, height: int) -> None:
        """Begin a snapshot where one is due; called under the node's lock, after a commit."""
        if not self._every or height % self._every or self._busy:
            return
        try:
            taking = self._snapshots.begin()
        except StoreError as e:
            self._failed(e)
            return
        self._busy = True
        self._waiting.put(taking)

    def close(self) -> None:
        """Wait for the one being written, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (taking := self._waiting.get()) is not None:
            try:
                snapshot = taking.finish()
            except Exception as e:  # noqa: BLE001 - the thread's edge: counted, logged
                # a snapshot is for others; the chain goes on without it
                self._failed(e)
            else:
                self.made = time.time()
                self._counters.add("snapshot.made")
                _log.info("event=snapshot height=%d chunks=%d", snapshot.height, snapshot.chunks)
            self._busy = False

    def _failed(self, error: Exception) -> None:
        self._counters.add("snapshot.failed")
        _log.warning("event=snapshot-failed reason=%r", str(error))


class Keep(Protocol):
    """How much of a chain stays on a node's disk, as both kinds of settings name it."""

    @property
    def blocks(self) -> int:
        """Blocks that CometBFT keeps; 0: all."""

    @property
    def snapshot_every(self) -> int:
        """Blocks from snapshot to snapshot; 0: none is made."""

    @property
    def snapshots(self) -> int:
        """Snapshots that are kept."""


def make_node(
    application: WideApplication | RegionalApplication,
    folder: Path,
    keep: Keep,
    counters: Counters,
    *,
    committed: Callable[[int, Decision], None],
    failed: Callable[[BaseException], None],
    gate: Gate | None = None,
) -> tuple[CountingNode, SnapshotMaker]:
    """Give what answers CometBFT, and what makes snapshots below ``folder``: to be closed.

    ``committed`` is called after each commit, and ``failed`` when it was the last one whose rules
    this program has; under the node's lock.
    """
    snapshots = Snapshots(folder, application, keep=keep.snapshots)
    genesis = application.genesis

    def after_commit(height: int, decision: Decision) -> None:
        committed(height, decision)
        maker.committed(height)
        try:
            check_version(application)
        except UpgradeNeeded as e:
            # the next block can only be waited for: end where somebody sees it
            failed(e)

    node = CountingNode(
        application,
        chain_id=chain_id(genesis.chain),
        genesis_validators=genesis.validators,
        snapshots=snapshots,
        retain_blocks=keep.blocks,
        gate=gate,
        committed=after_commit,
        counters=counters,
    )
    # last: it has a thread, which whoever gets it ends
    maker = SnapshotMaker(snapshots, keep.snapshot_every, counters)
    return node, maker
