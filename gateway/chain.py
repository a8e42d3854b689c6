"""The engine under the gateway: transactions go in, news of blocks come out.

``SoloChain`` makes a block at once, in this process. ``CometChain`` gives transactions to the
mempool of this node's CometBFT, which orders what all gateways of the region give it and drives
the application through the ABCI server: blocks come on the server's thread. What both promise:
a block in the news is durable, and its heads carry this gateway's signature.

Nothing that is submitted is promised to get into a block. Whoever submits looks for it in the news
and submits it again; the same transaction twice is harmless on both.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gateway.counters import Counters
from ledger.engine.abci import OK, Decision, TxResult
from ledger.engine.solo import Solo
from ledger.keys import Signer
from ledger.regional.application import RegionalApplication
from ledger.regional.blocks import Block

_log = logging.getLogger("gateway.chain")

_MOST_WAITING = 64  # submissions; what is too much is submitted again by who sees no block
_MOST_BLOCKS = 16
_ASK_S = 5.0  # where the node stands, while it is in step
_ASK_BEHIND_S = 0.25
_PAUSE_S = 1.0  # after the node did not answer


class News(NamedTuple):
    """A block of the region. ``block`` is None where many came at once: the store has it.

    ``ours``: this gateway is the one to tell the meters of it.
    """

    height: int
    block: Block | None
    ours: bool


class Refusal(NamedTuple):
    """A transaction that the engine did not take, and why."""

    tx: bytes
    result: TxResult


class Chain(Protocol):
    """What the gateway asks of an engine.

    ``lock`` is held by whoever touches the application. ``several``: other gateways write to this
    chain too. ``idle``: all that was submitted has been handed on. ``behind``: the engine does not
    follow the chain now, so what the application refuses may be right.
    """

    lock: "threading.RLock"
    several: bool

    @property
    def behind(self) -> bool:
        """Tell whether the state is known to be old, or nothing is known of it."""

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits to be handed on."""

    def submit(self, txs: Sequence[bytes]) -> None:
        """Give transactions to the engine, in this order; the lock must not be held."""

    def take_refused(self) -> list[Refusal]:
        """Give what was refused since this was asked last."""

    def take_news(self) -> list[News]:
        """Give the blocks made since this was asked last, in their order."""


class SoloChain:
    """The engine in this process: a block is there when ``submit`` returns."""

    several = False
    idle = True
    behind = False

    def __init__(self, application: RegionalApplication, key: Signer) -> None:
        self.lock = threading.RLock()
        self._application = application
        self._key = key
        self._node = Solo(application)
        self._refused: list[Refusal] = []
        self._news: list[News] = []

    def submit(self, txs: Sequence[bytes]) -> None:
        """Make a block of the transactions; raises StoreError."""
        results = self._node.execute(list(txs)).tx_results
        pairs = zip(txs, results, strict=True)
        self._refused += [Refusal(tx, result) for tx, result in pairs if result.code != OK]
        self._application.sign_heads(self._key)
        self._news += [News(block.head.height, block, True) for block in self._application.made()]

    def take_refused(self) -> list[Refusal]:
        """See Chain."""
        taken, self._refused = self._refused, []
        return taken

    def take_news(self) -> list[News]:
        """See Chain."""
        taken, self._news = self._news, []
        return taken


class Validator(Protocol):
    """A validator's key, as far as it is needed here."""

    @property
    def address(self) -> bytes:
        """The 20 bytes by which CometBFT names it."""


class NodeStatus(Protocol):
    """Where a CometBFT node stands, as far as it is needed here."""

    @property
    def validator(self) -> Validator:
        """The node's own validator key."""

    @property
    def catching_up(self) -> bool:
        """Tell whether the node fetches blocks that others have decided long ago."""


class Rpc(Protocol):
    """The part of ledger.engine.comet.rpc.Rpc that is needed here; raises OSError."""

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        """Give transactions to the mempool; gives what CheckTx said."""

    def status(self) -> NodeStatus:
        """Tell where the node stands."""

    def close(self) -> None:
        """Let go of the connection."""


class CometChain:
    """A region ordered by CometBFT; the application is served to it by this process.

    ``committed`` is for the ABCI node (``ledger.engine.comet.node``) to call after each commit,
    under its ``lock``. ``validator`` is the address (20 bytes) of this node's validator: whose node
    proposed a block tells the meters of it. None: CometBFT is asked for it. ``wake`` is called from
    other threads when there is something to take.
    """

    several = True

    def __init__(
        self,
        application: RegionalApplication,
        key: Signer,
        rpc: Rpc,
        counters: Counters,
        *,
        lock: "threading.RLock",
        validator: bytes | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.lock = lock
        self.last_error = ""
        self.engine_height = application.info().last_block_height
        self._application = application
        self._key = key
        self._rpc = rpc
        self._counters = counters
        self._validator = validator
        self._wake = wake
        self._height = application.height
        self._in_step = False
        self._look_due = 0.0
        self._guard = threading.Lock()
        self._refused: list[Refusal] = []
        self._news: list[News] = []
        self._waiting: queue.Queue[Sequence[bytes] | None] = queue.Queue(_MOST_WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="submit", daemon=True)

    def start(self) -> None:
        """Begin to hand on what is submitted."""
        self._thread.start()

    def stop(self) -> None:
        """Hand nothing more on; what waits is given up."""
        self._stopping.set()
        with self._guard:
            self._wake = lambda: None
        if self._thread.ident is not None:
            self._thread.join(timeout=10)
        self._rpc.close()

    @property
    def alive(self) -> bool:
        """Tell whether the thread works; one that has died does not come back."""
        return self._thread.is_alive()

    @property
    def idle(self) -> bool:
        """See Chain."""
        return self._waiting.unfinished_tasks == 0

    @property
    def behind(self) -> bool:
        """See Chain: while CometBFT catches up with the others, or does not answer."""
        return not self._in_step

    def submit(self, txs: Sequence[bytes]) -> None:
        """See Chain; returns at once."""
        try:
            self._waiting.put_nowait(txs)
        except queue.Full:
            self._counters.add("chain.overrun")

    def take_refused(self) -> list[Refusal]:
        """See Chain."""
        with self._guard:
            taken, self._refused = self._refused, []
        return taken

    def take_news(self) -> list[News]:
        """See Chain."""
        with self._guard:
            taken, self._news = self._news, []
        return taken

    # on the ABCI server's thread

    def committed(self, height: int, decision: Decision) -> None:
        """Take note of a block of the engine: the application has just committed it."""
        # Here and nowhere else: between two blocks no transaction of the database is open.
        self._application.sign_heads(self._key)
        # of what it proposed long ago, and sees again while it catches up, the others have told
        ours = self._in_step and decision.proposer == self._validator
        self.engine_height = height
        made = self._application.made()
        begun = self._application.height - len(made)
        with self._guard:
            if begun > self._height:  # from a snapshot: of what went before, its end is enough
                self._news.append(News(begun, None, False))
            for block in made:
                room = len(self._news) < _MOST_BLOCKS
                self._news.append(News(block.head.height, block if room else None, ours))
            news = begun + len(made) > self._height
            self._height = begun + len(made)
            if news:
                self._wake()

    # on the thread that hands on

    def _work(self) -> None:
        while not self._stopping.is_set():
            if time.monotonic() >= self._look_due:
                self.look()
            try:
                txs = self._waiting.get(timeout=_ASK_BEHIND_S)
            except queue.Empty:
                continue
            try:
                if txs is not None:
                    self.hand_on(txs)
            finally:
                self._waiting.task_done()

    def hand_on_waiting(self) -> None:
        """Hand on what waits, on this thread: for who has not called ``start``."""
        while not self._waiting.empty():
            txs = self._waiting.get()
            if txs is not None:
                self.hand_on(txs)
            self._waiting.task_done()

    def hand_on(self, txs: Sequence[bytes]) -> None:
        """Broadcast transactions and note what the mempool refuses."""
        try:
            results = self._rpc.broadcast(txs)
        except OSError as e:
            self._fail(e)
            return
        self.last_error = ""
        self._counters.add("chain.submitted", len(txs))
        pairs = zip(txs, results, strict=True)
        refused = [Refusal(tx, result) for tx, result in pairs if result.code != OK]
        if refused:
            with self._guard:
                self._refused += refused
                self._wake()

    def look(self) -> None:
        """Ask CometBFT where it stands."""
        try:
            status = self._rpc.status()
        except OSError as e:
            self._fail(e)
            return
        self.last_error = ""
        if self._validator is None:
            self._validator = status.validator.address
            _log.info("event=validator address=%s", self._validator.hex())
        self._note_step(not status.catching_up)
        self._look_due = time.monotonic() + (_ASK_S if self._in_step else _ASK_BEHIND_S)

    def _note_step(self, in_step: bool) -> None:
        if in_step == self._in_step:
            return
        self._in_step = in_step
        _log.info("event=%s height=%d", "in-step" if in_step else "behind", self.engine_height)
        with self._guard:
            self._wake()

    def _fail(self, error: OSError) -> None:
        self.last_error = str(error)
        self._counters.add("chain.unreachable")
        _log.warning("event=chain-unreachable reason=%r", str(error))
        self._note_step(False)  # it may have been away for long when it answers again
        self._look_due = time.monotonic() + _PAUSE_S
