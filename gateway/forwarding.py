"""Store and forward: summaries of finished windows go up to the wide-area chain, oldest first.

A summary is in the outbox before anything is sent, and leaves it when the wide area has it.
Repeats are harmless: a summary is identified by its region and heights. While the wide area cannot
be reached, or refuses, the oldest one is tried again with growing pauses; nothing is skipped, for
the wide area takes no gaps.
"""

import logging
from typing import Protocol

from gateway.counters import Counters
from gateway.queue import Queue
from gateway.roundbook import Instant
from ledger.engine.abci import TxResult
from ledger.engine.solo import Solo
from ledger.keys import Signer
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import RegionalApplication
from ledger.regional.summary import summarise
from ledger.wide import codes
from ledger.wide.application import WideApplication

_log = logging.getLogger("gateway.forwarding")

_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 300.0
_MOST_A_STEP = 16


class WideArea(Protocol):
    """A node of the wide-area chain, near or far."""

    @property
    def height(self) -> int:
        """The newest block that is known here."""

    def submit(self, tx: bytes) -> TxResult:
        """Hand a summary over; OK also for one that is there already. Raises OSError."""


class LocalWideArea:
    """The wide-area chain kept in this process, as its only proposer."""

    def __init__(self, application: WideApplication) -> None:
        self._application = application
        self._node = Solo(application)

    @property
    def height(self) -> int:
        """The newest block."""
        return self._application.height

    def submit(self, tx: bytes) -> TxResult:
        """Put a summary into a block of its own, unless it is in the chain."""
        result = self._node.check_tx(tx)
        if result.code == codes.DUPLICATE:
            return TxResult(codes.OK, result.log)
        if result.code != codes.OK:
            return result
        return self._node.execute([tx]).tx_results[0]


class Forwarder:
    """Moves one region's windows into the outbox and from there to the wide area."""

    def __init__(
        self,
        application: RegionalApplication,
        *,
        key: Signer,
        queue: Queue,
        wide: WideArea,
        wide_chain: bytes,
        counters: Counters,
    ) -> None:
        self._application = application
        self._chain = application.genesis.chain
        self._queue = queue
        self._wide = wide
        self._key = key
        self._wide_chain = wide_chain
        self._counters = counters
        self._pause_s = _FIRST_PAUSE_S
        self._not_before = 0.0
        self.last_error = ""

    @property
    def wide_height(self) -> int:
        """The newest block of the wide-area chain that is known here."""
        return self._wide.height

    def collect(self) -> int:
        """Put the summaries of windows that have ended into the outbox; gives how many.

        Raises QueueFull.
        """
        windows = self._application.blocks.windows_after(self._queue.newest(self._chain))
        for last, blob in windows:
            aggregate = Aggregate.decode(blob)
            summary = summarise(self._application, last, aggregate, self._wide_chain)
            tx = self._key.seal(summary.payload()).raw
            self._queue.put(self._chain, summary.from_height, last, tx)
        return len(windows)

    def step(self, now: Instant) -> int:
        """Send what is due; gives how many summaries the wide area took."""
        taken = 0
        while now.steady >= self._not_before and taken < _MOST_A_STEP:
            summary = self._queue.oldest()
            if summary is None or not self._submit(summary.tx, now):
                break
            self._queue.done(summary)
            self._counters.add("summaries.sent")
            _log.info("event=summary-sent after=%d last=%d", summary.after, summary.last)
            taken += 1
        return taken

    def _submit(self, tx: bytes, now: Instant) -> bool:
        try:
            result = self._wide.submit(tx)
        except OSError as e:
            self._wait(now, f"cannot be reached: {e}")
            return False
        if result.code != codes.OK:
            self._wait(now, f"refused as {codes.NAMES.get(result.code, result.code)}: {result.log}")
            return False
        self._pause_s = _FIRST_PAUSE_S
        self.last_error = ""
        return True

    def _wait(self, now: Instant, why: str) -> None:
        self._not_before = now.steady + self._pause_s
        self._counters.add("summaries.retried")
        _log.warning("event=summary-waits seconds=%g reason=%r", self._pause_s, why)
        self._pause_s = min(_LAST_PAUSE_S, 2 * self._pause_s)
        self.last_error = why
