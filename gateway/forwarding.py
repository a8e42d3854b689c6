"""Store and forward: summaries of finished windows go up to the wide-area chain, oldest first.

A summary is in the outbox before anything is sent, and leaves it when the wide area has it.
Repeats are harmless: a summary is identified by its region and heights. Several can be on their way
at once, each behind the one before. While the wide area cannot be reached, or refuses the oldest
one, that is tried again with growing pauses; nothing is skipped, for the wide area takes no gaps.
A refusal that no waiting mends is said loudly and tried seldom.

Several gateways of one region send the same summary, each with its own signature; to the wide area
it is the same one.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from gateway.counters import Counters
from gateway.queue import Outgoing, Queue
from gateway.roundbook import Instant
from ledger.engine.abci import Answer, TxResult
from ledger.engine.comet.gate import FIRST_CODE
from ledger.engine.solo import Solo
from ledger.genesis import WideGenesis
from ledger.keys import Signer
from ledger.light.client import Client
from ledger.light.types import LightBlock
from ledger.light.verify import Trusted
from ledger.proof import region_leaf
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import ProtocolError
from ledger.proving import Node, follow_state
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import RegionalApplication
from ledger.regional.summary import summarise
from ledger.wide import codes
from ledger.wide.application import WideApplication
from ledger.wide.proofs import verify_region, verify_summary
from ledger.wide.state import Offers, Region
from ledger.wide.summary import Summary

_log = logging.getLogger("gateway.forwarding")

_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 300.0
_MOST_A_STEP = 16
_LOOK_AGAIN_S = 0.5
_MOST_LOOKS = 60
"""What headers do not show after so many looks is an error; a busy chain's next one takes 1 s."""

# What waiting mends: GAP, when an earlier summary is on its way through another gateway, and the
# mempool's limits. The rest is for people: another region's history, a key that is not known.
_TRANSIENT = frozenset({codes.GAP})


class WideArea(Protocol):
    """A node of the wide-area chain, near or far."""

    @property
    def height(self) -> int:
        """The newest block that is known here."""

    def submit(self, txs: Sequence[bytes]) -> list[TxResult]:
        """Hand a region's summaries over, oldest first; gives what became of the first of them.

        OK: it is there, maybe since long ago. After the first that is refused there are no more
        results. What has none is on its way: ask again soon. Raises OSError.
        """


class LocalWideArea:
    """The wide-area chain kept in this process, as its only proposer."""

    def __init__(self, application: WideApplication) -> None:
        self._application = application
        self._node = Solo(application)

    @property
    def height(self) -> int:
        """The newest block."""
        return self._application.height

    def submit(self, txs: Sequence[bytes]) -> list[TxResult]:
        """Put each summary into a block of its own, unless it is in the chain.

        One that waits there for others of the region's gateways is on its way, and so is what
        follows it.
        """
        results: list[TxResult] = []
        for tx in txs:
            result = self._submit(tx)
            if result is None:
                break
            results.append(result)
            if result.code != codes.OK:
                break
        return results

    def _submit(self, tx: bytes) -> TxResult | None:
        result = self._node.check_tx(tx)
        if result.code == codes.OK:
            result = self._node.execute([tx]).tx_results[0]
        if result.code == codes.DUPLICATE:
            settled = self._application.is_settled(Envelope.parse(tx).payload)
            return TxResult(codes.OK, result.log) if settled else None
        return None if result.code == codes.OFFERED else result


class Rpc(Node, Protocol):
    """The part of ledger.engine.comet.rpc.Rpc that is needed here; raises OSError."""

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        """Give transactions to the mempool; gives what CheckTx said."""

    def close(self) -> None:
        """Let go of the connection."""


class _Interruptible:
    """A node that is not asked any more once its user wants to end."""

    def __init__(self, rpc: Rpc, ending: threading.Event) -> None:
        self._rpc = rpc
        self._ending = ending
        self.close = rpc.close

    def _open(self) -> Rpc:
        if self._ending.is_set():
            raise OSError("the gateway ends")
        return self._rpc

    def query(self, path: str, key: bytes) -> Answer:
        return self._open().query(path, key)

    def light_block(self, height: int) -> LightBlock:
        return self._open().light_block(height)

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        return self._open().broadcast(txs)


class _NotShownYet(Exception):
    """The node says something that headers to come must show."""


class _Told(NamedTuple):
    """What one state of the chain says became of the first summaries, and the answer of it."""

    answer: Answer
    results: list[TxResult]


class RemoteWideArea:
    """The wide-area chain on a node elsewhere, which CometBFT keeps.

    Summaries follow each other through the node's mempool, so that a chain that takes seconds a
    block holds no row of them up. The node's word that one is in the chain counts for nothing: a
    light client follows the chain from its genesis, and from then on from what it believed last, to
    a header that shows it. (Where the genesis names no validators there are no such headers, and
    the node is believed.) What a state says is kept until the header after it is out: asked again,
    a busy chain would tell of a newer state each time, and never show one.

    Calls are made in a thread, one at a time, and none of them waits for a block.
    """

    def __init__(self, rpc: Rpc, genesis: WideGenesis) -> None:
        self._closed = threading.Event()
        self._rpc = _Interruptible(rpc, self._closed)
        self._client = Client(Trusted.start(genesis)) if genesis.validators else None
        self._told: _Told | None = None
        self._unshown = 0
        self._height = 0
        self._one_by_one = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="wide")
        self._asked: Future[list[TxResult]] | None = None

    def close(self) -> None:
        """End the thread and let go of the connection."""
        self._closed.set()  # a look in progress ends with the question that it is at
        self._pool.shutdown(cancel_futures=True)
        self._rpc.close()

    @property
    def height(self) -> int:
        """The newest block that an answer told of."""
        return self._height

    def submit(self, txs: Sequence[bytes]) -> list[TxResult]:
        """Tell how handing over went, if it is over, and begin anew where nothing came of it.

        The first ones are the same until their results have been given.
        """
        if self._asked is not None:
            if not self._asked.done():
                return []
            asked, self._asked = self._asked, None
            results = asked.result()
            if results:
                return results
        self._asked = self._pool.submit(self._hand_over, list(txs))
        return []

    def _hand_over(self, txs: Sequence[bytes]) -> list[TxResult]:
        try:
            results = self._look([Envelope.parse(tx) for tx in txs])
        except _NotShownYet as e:
            self._unshown += 1
            if self._unshown >= _MOST_LOOKS:
                self._unshown, self._told = 0, None
                raise OSError(str(e)) from None
            return []
        self._unshown = 0
        if results:
            self._one_by_one = False
        return results

    def _look(self, envelopes: Sequence[Envelope]) -> list[TxResult]:
        """Give to the mempool what the region has not reported yet; tell what came of the rest."""
        told = self._told or self._ask(envelopes)
        self._told = told if told.results else None
        refused: list[TxResult] = []
        if all(result.code == codes.OK for result in told.results):
            try:
                refused = self._broadcast(envelopes[len(told.results) :])
            except _NotShownYet:  # of the rest; the state at hand shows the others
                if not told.results:
                    raise
        if told.results:
            self._believe(told.answer)
            self._told = None
        return told.results + refused

    def _ask(self, envelopes: Sequence[Envelope]) -> _Told:
        """Ask for what the region has reported, all of one state, which is not believed yet."""
        region = Summary.decode(envelopes[0].payload).region
        answer = self._rpc.query("region", region)
        self._height = max(self._height, answer.height)
        with _proving():
            verify_region(answer.app_hash, region, answer.value, answer.proof)
            leaf = Region() if answer.value is None else region_leaf(answer.value)
        results: list[TxResult] = []
        for envelope in envelopes:
            if Summary.decode(envelope.payload).to_height > leaf.to_height:
                break
            try:
                results.append(self._became(envelope, answer, leaf))
            except _NotShownYet:  # the chain went on: what is known by now is of one state
                if not results:
                    raise
                break
            if results[-1].code != codes.OK:
                break
        return _Told(answer, results)

    def _became(self, envelope: Envelope, answer: Answer, leaf: Region) -> TxResult:
        """Tell whether it is this summary that stands for heights that the region has reported."""
        digest = payload_digest(envelope.payload)
        if digest in (leaf.conflict, self._digest_there(envelope, answer.app_hash)):
            return TxResult(codes.OK)
        (result,) = self._rpc.broadcast([envelope.raw])
        if result.code != codes.OK:
            return result
        log = "other figures are in the chain for these heights: these go up as evidence"
        return TxResult(codes.CONFLICT, log)

    def _digest_there(self, envelope: Envelope, app_hash: bytes) -> bytes | None:
        """Give the payload digest of the summary in effect that ends where this one does.

        Whichever gateway of the region has signed it.
        """
        summary = Summary.decode(envelope.payload)
        key = summary.region + summary.to_height.to_bytes(8, "big")
        answer = self._rpc.query("summary", key)
        if answer.app_hash != app_hash:
            raise _NotShownYet("the wide-area node tells of another state at each question")
        if not answer.proof:
            return None
        with _proving():
            entry = verify_summary(
                app_hash, summary.region, summary.to_height, answer.value, answer.proof
            )
        return entry.digest

    def _broadcast(self, envelopes: Sequence[Envelope]) -> list[TxResult]:
        """Give summaries to the mempool; gives why the first is refused, if it is.

        Where another is refused, as behind one that waits for other gateways of the region, the
        first goes alone until it is there.
        """
        if not envelopes:
            return []
        sent = envelopes[:1] if self._one_by_one else envelopes
        first, *others = self._rpc.broadcast([envelope.raw for envelope in sent])
        self._one_by_one |= any(result.code != codes.OK for result in others)
        if first.code == codes.DUPLICATE:
            if not self._is_offered(envelopes[0]):
                raise _NotShownYet("the wide-area node does not show that the summary is in effect")
            return []  # it waits for more of the region's gateways
        return [] if first.code == codes.OK else [first]

    def _is_offered(self, envelope: Envelope) -> bool:
        """Tell whether the node says that a summary waits in the chain as its gateway's offer.

        Without proof: a node that wants to hold it up need only say that it has taken it.
        """
        answer = self._rpc.query("offers", Summary.decode(envelope.payload).region)
        if answer.value is None:
            return False
        with _proving():
            offered, _ = Offers.decode(answer.value).of(envelope.kid)
        return offered == payload_digest(envelope.payload)

    def _believe(self, answer: Answer) -> None:
        """Follow the chain to a header of this state; raises _NotShownYet, OSError."""
        if self._client is None:
            return
        with _proving():
            shown = follow_state(self._rpc, self._client, answer)
        del self._client.path[:-1]  # what led there is of no use any more
        if not shown:
            raise _NotShownYet(f"no header shows the wide area's state after block {answer.height}")


@contextmanager
def _proving() -> Iterator[None]:
    """Make OSError of what a node's answer does not prove."""
    try:
        yield
    except ProtocolError as e:
        raise OSError(f"the wide-area node proves nothing: {e}") from None


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
        waiting = self._queue.oldest(_MOST_A_STEP) if now.steady >= self._not_before else []
        if not waiting:
            return 0
        try:
            results = self._wide.submit([summary.tx for summary in waiting])
        except OSError as e:
            self._wait(now, f"cannot be reached: {e}")
            return 0
        taken = 0
        for summary, result in zip(waiting, results, strict=False):
            if result.code != codes.OK:
                self._refused(result, now)
                return taken
            self._took(summary)
            taken += 1
        if taken < len(waiting):
            self._not_before = now.steady + _LOOK_AGAIN_S
        return taken

    def _took(self, summary: Outgoing) -> None:
        self._queue.done(summary)
        self._pause_s = _FIRST_PAUSE_S
        self.last_error = ""
        self._counters.add("summaries.sent")
        _log.info("event=summary-sent after=%d last=%d", summary.after, summary.last)

    def _refused(self, result: TxResult, now: Instant) -> None:
        why = f"refused as {codes.NAMES.get(result.code, result.code)}: {result.log}"
        if result.code not in _TRANSIENT and result.code < FIRST_CODE:
            self._pause_s = _LAST_PAUSE_S
            self._counters.add("summaries.refused")
            _log.error("event=summary-refused reason=%r", why)
        self._wait(now, why)

    def _wait(self, now: Instant, why: str) -> None:
        self._not_before = now.steady + self._pause_s
        self._counters.add("summaries.retried")
        _log.warning("event=summary-waits seconds=%g reason=%r", self._pause_s, why)
        self._pause_s = min(_LAST_PAUSE_S, 2 * self._pause_s)
        self.last_error = why
