"""Store and forward: summaries of finished windows go up to the wide-area chain, oldest first.

A summary is in the outbox before anything is sent, and leaves it when the wide area has it.
Repeats are harmless: a summary is identified by its region and heights. While the wide area cannot
be reached, or refuses, the oldest one is tried again with growing pauses; nothing is skipped, for
the wide area takes no gaps.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from gateway.counters import Counters
from gateway.queue import Queue
from gateway.roundbook import Instant
from ledger.engine.abci import OK, TxResult
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import RegionalApplication

_log = logging.getLogger("gateway.forwarding")

_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 300.0
_MOST_A_STEP = 16


class WideArea(Protocol):
    """A node of the wide-area chain, near or far."""

    def submit(self, tx: bytes) -> TxResult:
        """Hand a summary over; OK also for one that is there already. Raises OSError."""


MakeSummary = Callable[[int, int, Aggregate], bytes]
"""``make(first, last, aggregate)`` gives the signed summary of heights ``first`` to ``last``."""


class Forwarder:
    """Moves one region's windows into the outbox and from there to the wide area."""

    def __init__(
        self,
        application: RegionalApplication,
        *,
        queue: Queue,
        wide: WideArea,
        make: MakeSummary,
        counters: Counters,
    ) -> None:
        self._application = application
        self._chain = application.genesis.chain
        self._queue = queue
        self._wide = wide
        self._make = make
        self._counters = counters
        self._pause_s = _FIRST_PAUSE_S
        self._not_before = 0.0
        self.last_error = ""

    def collect(self) -> int:
        """Put the summaries of windows that have ended into the outbox; gives how many.

        Raises QueueFull.
        """
        windows = self._application.blocks.windows_after(self._queue.newest(self._chain))
        for last, blob in windows:
            aggregate = Aggregate.decode(blob)
            first = self._queue.newest(self._chain) + 1
            self._queue.put(self._chain, first, last, self._make(first, last, aggregate))
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
            _log.info("event=summary-sent first=%d last=%d", summary.first, summary.last)
            taken += 1
        return taken

    def _submit(self, tx: bytes, now: Instant) -> bool:
        try:
            result = self._wide.submit(tx)
        except OSError as e:
            self._wait(now, f"cannot be reached: {e}")
            return False
        if result.code != OK:
            self._wait(now, f"refused with code {result.code}: {result.log}")
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
