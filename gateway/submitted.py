"""What a gateway gave to its engine and has not seen in a block yet.

Nothing that is submitted is promised to get into a block, so it is kept until it is seen in one,
whichever gateway brought it there, and submitted again after a while. It is given up where the
chain's rules refuse it, but not by a state that is old: while the engine is behind nothing is given
up, and even in step a node may lack the newest block, so a refusal that a later state may lift
holds only when it still stands ``PATIENCE_S`` later.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.chain import Chain
from gateway.counters import Counters
from gateway.roundbook import Entry, Instant
from ledger.engine.abci import TxResult
from ledger.engine.comet.gate import FIRST_CODE
from ledger.protocol import records
from ledger.regional import codes
from ledger.regional.application import RegionalApplication

_log = logging.getLogger("gateway.submitted")

AGAIN_S = 5.0
PATIENCE_S = 60.0
_MOST_AGAIN = 1000

# what a later state may let in: a head, a member or a change comes that is not known yet
_OF_THE_STATE = {
    codes.UNKNOWN_SIGNER,
    codes.NOT_ACTIVE,
    codes.UNKNOWN_PARENT,
    codes.WRONG_NUMBER,
    codes.IMPOSSIBLE,
}


class ImpossibleState(Exception):
    """The chain refused what only this gateway does; going on would hide a fault."""


class _Sent(NamedTuple):
    """A record on its way: when it was submitted last, and refused first (steady s)."""

    entry: Entry
    since: float
    refused: float | None = None


class Submitted:
    """Records, and this gateway's own orders, which are closes and evidence.

    ``settled`` tells whether a record that the chain knows is in a block, and does not just wait
    in the chain for its round's end. ``given_up`` is told the record, the code and the reason.
    """

    def __init__(
        self,
        application: RegionalApplication,
        engine: Chain,
        counters: Counters,
        *,
        settled: Callable[[Entry], bool],
        given_up: Callable[[Entry, str, str], None],
    ) -> None:
        self._application = application
        self._engine = engine
        self._lock: threading.RLock = engine.lock
        self._counters = counters
        self._settled = settled
        self._given_up = given_up
        self._records: dict[bytes, _Sent] = {}
        self._orders: dict[bytes, tuple[records.Close | records.Head, float]] = {}

    def __len__(self) -> int:
        """Give the number of records."""
        return len(self._records)

    def close(
        self, entries: Sequence[Entry], order: bytes, close: records.Close, now: Instant
    ) -> None:
        """Submit a round's records and, behind them, the order to close it."""
        self._records.update((entry.raw, _Sent(entry, now.steady)) for entry in entries)
        self.drop_closes(close.round)
        self._orders[order] = close, now.steady
        self._engine.submit([*(entry.raw for entry in entries), order])

    def accuse(self, raw: bytes, head: records.Head, now: Instant) -> None:
        """Submit another gateway's head as evidence."""
        self._orders[raw] = head, now.steady
        self._engine.submit([raw])

    def seen(self, raw: bytes) -> None:
        """Forget a record that is in a block."""
        self._records.pop(raw, None)

    def drop_closes(self, last: int) -> None:
        """Forget the orders to close rounds up to ``last``."""
        gone = [
            raw
            for raw, (order, _) in self._orders.items()
            if isinstance(order, records.Close) and order.round <= last
        ]
        for raw in gone:
            del self._orders[raw]

    def refused(self, tx: bytes, result: TxResult, now: Instant) -> None:
        """Give up what the chain does not want, and keep what may only have come too early.

        Raises ImpossibleState where this gateway alone orders.
        """
        if tx in self._orders:
            order, _ = self._orders[tx]
            if not self._engine.several:
                raise ImpossibleState(f"an order of this gateway was refused: {result.log}")
            if not _may_pass(result.code):
                del self._orders[tx]
                _log.info("event=order-refused type=%d code=%s", order.TYPE, _name(result.code))
            return
        if tx not in self._records:
            return
        entry = self._records[tx].entry
        if self._engine.several:
            if _may_pass(result.code) or self._may_be_lifted(tx, result.code, now):
                return
            if result.code == codes.DUPLICATE and not self._settled(entry):
                return
        del self._records[tx]
        self._given_up(entry, _name(result.code), result.log)

    def _may_be_lifted(self, tx: bytes, code: int, now: Instant) -> bool:
        """Tell whether a refusal is one that a block may lift which this node has yet to see."""
        if code not in _OF_THE_STATE:
            return False
        refused = self._records[tx].refused
        if refused is None or self._engine.behind:
            self._records[tx] = self._records[tx]._replace(refused=now.steady)
            return True
        return now.steady < refused + PATIENCE_S

    def submit_again(self, now: Instant) -> None:
        """Submit once more what was not seen in a block for a while, if the rules let it in."""
        if not self._engine.several or not self._engine.idle or self._engine.behind:
            return
        before = now.steady - AGAIN_S
        overdue = [tx for tx, (_, since) in self._orders.items() if since <= before]
        overdue += [tx for tx, sent in self._records.items() if sent.since <= before]
        again = []
        for tx in overdue[:_MOST_AGAIN]:
            with self._lock:
                result = self._application.check_tx(tx)
            if result.code == codes.OK:
                again.append(tx)
            else:
                self.refused(tx, result, now)
            if tx in self._records:  # to the end: others have their turn first
                self._records[tx] = self._records.pop(tx)._replace(since=now.steady)
            elif tx in self._orders:
                self._orders[tx] = self._orders.pop(tx)[0], now.steady
        if again:
            self._counters.add("chain.submitted_again", len(again))
            self._engine.submit(again)


def _name(code: int) -> str:
    return codes.NAMES.get(code, str(code))


def _may_pass(code: int) -> bool:
    """Tell whether a refusal is of the moment: too much waits."""
    return code == codes.FULL or code >= FIRST_CODE
