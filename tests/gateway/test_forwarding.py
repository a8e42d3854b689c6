"""Summaries reach the wide-area chain once each, in order, whatever goes down in between."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forwarding import Forwarder, LocalWideArea, RemoteWideArea, WideArea
from gateway.queue import QueueFull
from ledger.engine.abci import OK, Answer, TxResult
from ledger.genesis import WideGenesis
from ledger.light.types import LightBlock
from ledger.light.verify import Trusted
from ledger.protocol import cbor, merkle
from ledger.protocol.cose import Envelope, payload_digest
from ledger.store import Database
from ledger.trie import Trie
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication
from ledger.wide.entries import Entry
from ledger.wide.state import LOG_KEY, Region, offers_key, region_key
from ledger.wide.summary import Summary
from tests.gateway.region import FIRST, GATEWAY, signer
from tests.gateway.region import Region as Street
from tests.ledger.light.chain import Chain
from tests.ledger.light.proofs import FOUR, with_validators
from tests.ledger.wide.bench import summary as summary_of

WINDOW = 3


class Flaky:
    """A wide-area node that is away for a while, or takes a summary and never answers."""

    def __init__(self, inner: WideArea) -> None:
        self.inner = inner
        self.away = False
        self.mute = False
        self.asked = 0

    @property
    def height(self) -> int:
        return self.inner.height

    def submit(self, txs: Sequence[bytes]) -> list[TxResult]:
        self.asked += 1
        if self.away:
            raise ConnectionRefusedError("nobody there")
        results = self.inner.submit(txs)
        if self.mute:
            raise TimeoutError("no answer")
        return results


class Bench:
    def __init__(self, folder: Path) -> None:
        self.region = Street(folder=folder, window_rounds=WINDOW)
        chain, gateways = self.region.genesis.chain, self.region.genesis.gateways
        self.genesis = WideGenesis("wide", 0, ((chain, gateways),))
        self.wide = WideApplication(self.genesis, Database(None, TABLES), Verifier())
        self.node = Flaky(LocalWideArea(self.wide))
        self.round = FIRST - FIRST % WINDOW
        self.open()

    def open(self) -> None:
        self.forwarder = Forwarder(
            self.region.app,
            key=GATEWAY,
            queue=self.region.queue,
            wide=self.node,
            wide_chain=self.genesis.chain,
            counters=self.region.counters,
        )

    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            self.region.play(self.round)
            self.round += 1
        self.forwarder.collect()

    def step(self) -> int:
        return self.forwarder.step(self.region.now)

    def reported(self) -> int:
        return self.wide.state.region(self.region.genesis.chain).to_height


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.region.stop()
    bench.wide.close()


def test_every_window_goes_up_and_leaves_the_outbox(bench: Bench) -> None:
    bench.play(2 * WINDOW + 1)
    assert bench.region.queue.outgoing == 2
    assert bench.step() == 2
    assert bench.region.queue.outgoing == 0
    assert bench.reported() == 2 * WINDOW
    assert bench.forwarder.wide_height == 2


def test_summary_says_what_the_region_settled(bench: Bench) -> None:
    bench.play(WINDOW)
    (outgoing,) = bench.region.queue.oldest(1)
    summary = Summary.decode(Envelope.parse(outgoing.tx).payload)
    assert (summary.from_height, summary.to_height) == (0, WINDOW)
    assert summary.accepted == WINDOW * len(bench.region.meters)
    assert summary.log_root == bench.region.app.log.root(WINDOW)


def test_wide_area_that_is_away_is_tried_again_with_growing_pauses(bench: Bench) -> None:
    bench.node.away = True
    bench.play(WINDOW)
    for pause in (1, 2, 4):
        asked = bench.node.asked
        assert bench.step() == 0
        assert bench.node.asked == asked + 1
        bench.region.wait(pause - 0.5)
        assert bench.step() == 0
        assert bench.node.asked == asked + 1
        bench.region.wait(0.5)
    assert "nobody there" in bench.forwarder.last_error
    bench.node.away = False
    assert bench.step() == 1
    assert bench.forwarder.last_error == ""


def test_answer_that_got_lost_makes_no_second_summary(bench: Bench) -> None:
    bench.node.mute = True
    bench.play(WINDOW)
    assert bench.step() == 0
    assert bench.reported() == WINDOW
    bench.node.mute = False
    bench.region.wait(1)
    assert bench.step() == 1
    assert bench.wide.store.count() == 1


def test_outbox_survives_a_restart_and_nothing_is_collected_twice(bench: Bench) -> None:
    bench.node.away = True
    bench.play(2 * WINDOW)
    bench.step()
    bench.region.stop()
    bench.region.start()
    bench.open()
    assert bench.forwarder.collect() == 0
    assert bench.region.queue.outgoing == 2
    bench.node.away = False
    assert bench.step() == 2
    bench.play(WINDOW)
    assert bench.step() == 1
    assert bench.reported() == 3 * WINDOW


def test_refused_summary_stays_and_says_why(bench: Bench) -> None:
    bench.wide.close()
    genesis = WideGenesis("wide", 1, ((bench.region.genesis.chain, (bytes([2]) + b"\x11" * 32,)),))
    bench.wide = WideApplication(genesis, Database(None, TABLES), Verifier())
    bench.node.inner = LocalWideArea(bench.wide)
    bench.play(WINDOW)
    assert bench.step() == 0
    assert codes.NAMES[codes.WRONG_CHAIN] in bench.forwarder.last_error
    assert bench.region.queue.outgoing == 1


def test_full_outbox_stops_the_gateway_rather_than_losing_a_window(bench: Bench) -> None:
    bench.region.queue._outbox_rows = 1
    bench.node.away = True
    with pytest.raises(QueueFull):
        bench.play(2 * WINDOW)


# a node elsewhere


class FarNode:
    """The RPC of a node elsewhere: the real application, and a mempool as CometBFT's."""

    def __init__(self, genesis: WideGenesis) -> None:
        self.wide = WideApplication(genesis, Database(None, TABLES), Verifier())
        name = Trusted.start(genesis).chain_id
        self.chain = Chain(name, lambda height: FOUR, {0: self.wide.app_hash})
        self.headers = True
        self.ahead = 1  # the header that shows a state comes at once
        self.headers_asked = 0
        self.queries = 0
        self.lock = threading.RLock()  # a block comes between two calls
        self.pool: list[bytes] = []
        self.cache: set[bytes] = set()
        self.away = False
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.broadcasts = 0

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        self._meet()
        with self.lock:
            self.broadcasts += 1
            return [self._take(tx) for tx in txs]

    def _take(self, tx: bytes) -> TxResult:
        if tx in self.cache:
            return TxResult(OK, "tx already exists in cache")
        result = self.wide.check_tx(tx, new=True)
        if result.code == OK:
            self.pool.append(tx)
            self.cache.add(tx)
        return result

    def query(self, path: str, key: bytes) -> Answer:
        self._meet()
        with self.lock:
            self.queries += 1
            return self.wide.query(path, key)

    def light_block(self, height: int) -> LightBlock:
        self._meet()
        self.headers_asked += 1
        if not self.headers or height > self.wide.info().last_block_height + self.ahead:
            raise ConnectionError("no such block yet")
        return self.chain.light_block(height)

    def _meet(self) -> None:
        assert self.may_answer.wait(30)
        if self.away:
            raise ConnectionRefusedError("nobody there")

    def close(self) -> None:
        pass

    def block(self) -> None:
        with self.lock:
            height = self.wide.info().last_block_height + 1
            result = self.wide.finalize_block(height, self.pool)
            self.chain.app_hashes[height] = result.app_hash
            self.wide.commit()
            told = zip(self.pool, result.tx_results, strict=True)
            self.cache -= {tx for tx, given in told if given.code != OK}  # as CometBFT does
            self.pool = []


class FarBench(Bench):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.remote: RemoteWideArea | None = None
        self.begin(self.genesis)

    def begin(self, genesis: WideGenesis) -> None:
        """Report to a chain with this genesis, whose headers four validators sign."""
        self.genesis = with_validators(genesis)
        self.end()
        self.far = FarNode(self.genesis)
        self.wide = self.far.wide
        self.use(self.far)

    def use(self, node: FarNode) -> None:
        self.remote = RemoteWideArea(node, self.genesis)
        self.node = self.remote  # type: ignore[assignment]
        self.open()

    def end(self) -> None:
        if self.remote is not None:
            self.remote.close()
        self.wide.close()

    def until(self, done: Callable[[], bool]) -> int:
        """Step, with pauses of the gateway's clock, until something is so; gives what was taken."""
        taken = 0
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline
            taken += self.step()
            self.region.wait(0.5)
        return taken


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarBench]:
    bench = FarBench(tmp_path)
    yield bench
    bench.region.stop()
    bench.end()


def test_summary_leaves_the_outbox_when_the_far_chain_has_it(far: FarBench) -> None:
    far.play(WINDOW)
    assert far.until(lambda: bool(far.far.pool)) == 0
    assert far.region.queue.outgoing == 1
    far.far.block()
    assert far.until(lambda: far.region.queue.outgoing == 0) == 1
    assert far.reported() == WINDOW
    assert far.forwarder.wide_height == 1
    assert far.forwarder.last_error == ""


def test_summaries_follow_each_other_without_waiting_for_blocks(far: FarBench) -> None:
    far.play(3 * WINDOW)
    far.until(lambda: len(far.far.pool) == 3)
    assert far.region.queue.outgoing == 3
    far.far.block()
    far.far.block()
    assert far.until(lambda: far.region.queue.outgoing == 0) == 3
    assert far.reported() == 3 * WINDOW


def test_what_a_mempool_has_lost_is_handed_over_again(far: FarBench) -> None:
    far.play(3 * WINDOW)
    far.until(lambda: len(far.far.pool) == 3)
    with far.far.lock:
        del far.far.pool[1:]  # the node was started anew after its peers had heard of the first
        far.far.cache.clear()
        far.far.block()
    far.until(lambda: len(far.far.pool) == 2)
    far.far.block()
    far.far.block()
    far.until(lambda: far.region.queue.outgoing == 0)
    assert far.reported() == 3 * WINDOW


def test_chain_that_is_busy_all_the_time_shows_a_summary_too(far: FarBench) -> None:
    other = signer(1102)
    own = (far.region.genesis.chain, far.region.genesis.gateways)
    far.begin(WideGenesis("wide", 0, (own, (REGION_ID, (other.public_key,)))))
    far.far.ahead = 0  # the header after a block comes with the next block, and another state
    far.play(WINDOW)
    far.until(lambda: bool(far.far.pool))
    for number in range(20):
        far.far.pool.append(
            other.seal(summary_of(number, REGION_ID, chain=far.genesis.chain).payload()).raw
        )
        far.far.block()
        looks = far.far.headers_asked
        far.until(
            lambda known=looks: far.far.headers_asked > known or far.region.queue.outgoing == 0
        )
    assert far.region.queue.outgoing == 0


def test_answers_of_two_states_settle_nothing_and_are_asked_again(far: FarBench) -> None:
    far.play(3 * WINDOW)
    far.until(lambda: len(far.far.pool) == 3)
    query = far.far.query

    def overtaken(path: str, key: bytes) -> Answer:
        """Answer for the second summary when a block more is out."""
        second = path == "summary" and key.endswith((2 * WINDOW).to_bytes(8, "big"))
        if second and far.far.pool:
            far.far.block()
        return query(path, key)

    with far.far.lock:
        last = far.far.pool.pop()
        far.far.block()
        far.far.block()
        far.far.pool.append(last)
        far.far.query = overtaken  # type: ignore[method-assign]
    assert far.until(lambda: far.region.queue.outgoing == 0) == 3
    assert far.forwarder.last_error == ""


@pytest.mark.parametrize("every", [4, 8])
def test_backlog_goes_up_though_the_chain_goes_on_while_it_is_asked_for(
    far: FarBench, every: int
) -> None:
    other = signer(1102)
    own = (far.region.genesis.chain, far.region.genesis.gateways)
    far.begin(WideGenesis("wide", 0, (own, (REGION_ID, (other.public_key,)))))
    far.play(10 * WINDOW)
    far.until(lambda: len(far.far.pool) == 10)
    query, asked, blocks = far.far.query, itertools.count(1), itertools.count()

    def slow(path: str, key: bytes) -> Answer:
        """Answer after a block of another region, each time so many questions were asked."""
        if next(asked) % every == 0:
            with far.far.lock:
                summary = summary_of(next(blocks), REGION_ID, chain=far.genesis.chain)
                far.far.pool.append(other.seal(summary.payload()).raw)
                far.far.block()
        return query(path, key)

    with far.far.lock:
        far.far.query = slow  # type: ignore[method-assign]
        far.far.block()
        far.far.block()
    assert far.until(lambda: far.region.queue.outgoing == 0) == 10
    assert far.forwarder.last_error == ""


def test_summary_is_believed_though_the_next_one_came_in_another_way_meanwhile(
    far: FarBench,
) -> None:
    far.far.ahead = 0
    far.play(2 * WINDOW)
    far.until(lambda: len(far.far.pool) == 2)
    with far.far.lock:
        second = far.far.pool.pop()
        far.far.block()
    looks = far.far.headers_asked
    far.until(lambda: far.far.headers_asked > looks)
    with far.far.lock:  # another gateway's copy: this node's cache knows nothing of it
        far.far.cache.clear()
        far.far.pool = [second]
        far.far.block()
    far.until(lambda: far.region.queue.outgoing == 1)
    far.far.block()
    far.until(lambda: far.region.queue.outgoing == 0)
    assert far.forwarder.last_error == ""


def test_closing_waits_for_one_question_and_not_for_a_whole_look(far: FarBench) -> None:
    far.play(10 * WINDOW)
    far.until(lambda: len(far.far.pool) == 10)
    far.far.block()
    far.far.block()
    asked = threading.Event()
    query = far.far.query
    far.far.may_answer.clear()

    def noted(path: str, key: bytes) -> Answer:
        asked.set()
        return query(path, key)

    far.far.query = noted  # type: ignore[method-assign]
    while not asked.is_set():
        far.step()
        far.region.wait(0.5)
    assert far.remote is not None
    closing = threading.Thread(target=far.remote.close)
    closing.start()
    while not far.remote._closed.is_set():
        time.sleep(0.001)
    queries = far.far.queries
    far.far.may_answer.set()
    closing.join(30)
    assert not closing.is_alive()
    assert far.far.queries <= queries + 1
    far.use(far.far)  # for the fixture to close


def test_far_node_that_does_not_answer_holds_nothing_up(far: FarBench) -> None:
    far.play(WINDOW)
    far.far.may_answer.clear()
    began = time.monotonic()
    for _ in range(100):
        assert far.step() == 0
        far.region.wait(0.5)
    assert time.monotonic() - began < 5
    far.far.may_answer.set()
    far.until(lambda: bool(far.far.pool))


def test_far_node_that_is_away_is_said_and_tried_again(far: FarBench) -> None:
    far.far.away = True
    far.play(WINDOW)
    far.until(lambda: "nobody there" in far.forwarder.last_error)
    far.far.away = False
    far.until(lambda: bool(far.far.pool))
    far.far.block()
    far.until(lambda: far.region.queue.outgoing == 0)
    assert far.forwarder.last_error == ""


def test_summary_that_other_gateways_of_the_region_sent_is_there(far: FarBench) -> None:
    others = [signer(1102), signer(1103)]
    keys = (*far.region.genesis.gateways, *(other.public_key for other in others))
    far.begin(WideGenesis("wide", 0, ((far.region.genesis.chain, keys),)))
    far.play(WINDOW)
    (outgoing,) = far.region.queue.oldest(1)
    payload = Envelope.parse(outgoing.tx).payload
    far.far.pool += [other.seal(payload).raw for other in others]
    far.far.block()
    assert far.until(lambda: far.region.queue.outgoing == 0) == 1
    assert far.far.broadcasts == 0


def test_offer_waits_for_other_gateways_of_the_region_and_is_no_error(far: FarBench) -> None:
    others = [signer(1102), signer(1103)]
    keys = (*far.region.genesis.gateways, *(other.public_key for other in others))
    far.begin(WideGenesis("wide", 0, ((far.region.genesis.chain, keys),)))
    far.play(WINDOW)
    far.until(lambda: bool(far.far.pool))
    far.far.block()
    for _ in range(3):
        far.far.block()  # a header shows the offer
        broadcasts = far.far.broadcasts
        far.until(lambda known=broadcasts: far.far.broadcasts > known + 1)
    assert far.region.queue.outgoing == 1
    assert far.forwarder.last_error == ""
    (outgoing,) = far.region.queue.oldest(1)
    far.far.pool.append(others[0].seal(Envelope.parse(outgoing.tx).payload).raw)
    far.far.block()
    far.far.block()
    assert far.until(lambda: far.region.queue.outgoing == 0) == 1
    assert far.region.counters["summaries.refused"] == 0


def test_what_cannot_follow_an_offer_is_not_sent_again_and_again(far: FarBench) -> None:
    others = [signer(1102), signer(1103)]
    keys = (*far.region.genesis.gateways, *(other.public_key for other in others))
    far.begin(WideGenesis("wide", 0, ((far.region.genesis.chain, keys),)))
    far.play(3 * WINDOW)
    far.until(lambda: len(far.far.pool) == 3)
    first, second, third = far.far.pool
    given = list[Sequence[bytes]]()
    take = far.far.broadcast

    def noted(txs: Sequence[bytes]) -> list[TxResult]:
        given.append(txs)
        return take(txs)

    with far.far.lock:
        del far.far.pool[1:]  # a proposer leaves out what the rules refuse behind an offer
        far.far.cache -= {second, third}
        far.far.block()
        far.far.block()
        far.far.broadcast = noted  # type: ignore[method-assign]
    far.until(lambda: len(given) == 5)
    assert [second in txs for txs in given] == [True, False, False, False, False]
    assert far.forwarder.last_error == ""
    with far.far.lock:
        far.far.pool.append(others[0].seal(Envelope.parse(first).payload).raw)
        far.far.block()
        far.far.block()
    far.until(lambda: far.region.queue.outgoing == 2)
    far.until(lambda: far.far.pool == [second, third])  # together again


def test_offer_waits_in_a_chain_of_this_process_too(bench: Bench) -> None:
    other = signer(1102)
    keys = (*bench.region.genesis.gateways, other.public_key)
    bench.genesis = WideGenesis("wide", 0, ((bench.region.genesis.chain, keys),))
    with Database(None, TABLES) as database:
        wide = WideApplication(bench.genesis, database, Verifier())
        bench.node.inner = LocalWideArea(wide)
        bench.open()
        bench.play(WINDOW)
        (outgoing,) = bench.region.queue.oldest(1)
        for _ in range(3):
            assert bench.step() == 0
            bench.region.wait(0.5)
        assert (bench.region.queue.outgoing, bench.forwarder.last_error) == (1, "")
        wide.finalize_block(9, [other.seal(Envelope.parse(outgoing.tx).payload).raw])
        wide.commit()
        assert bench.step() == 1
        assert wide.store.count() == 2


def test_other_figures_for_the_same_heights_go_up_as_evidence_and_are_said(far: FarBench) -> None:
    far.play(WINDOW)
    (outgoing,) = far.region.queue.oldest(1)
    payload = Summary.decode(Envelope.parse(outgoing.tx).payload)
    false = Summary(**(vars_of(payload) | {"energy_in": payload.energy_in + 1}))
    far.far.pool.append(GATEWAY.seal(false.payload()).raw)
    far.far.block()
    far.until(lambda: "conflict" in far.forwarder.last_error)
    assert far.region.counters["summaries.refused"] == 1
    assert far.far.pool == [outgoing.tx]
    # said loudly, and tried seldom
    broadcasts = far.far.broadcasts
    for _ in range(100):
        far.step()
        far.region.wait(1)
    assert far.far.broadcasts == broadcasts
    far.far.block()
    region = far.wide.state.region(far.region.genesis.chain)
    assert region.conflict is not None
    far.region.wait(300)
    far.until(lambda: far.region.queue.outgoing == 0)


def vars_of(summary: Summary) -> dict[str, object]:
    return {name: getattr(summary, name) for name in summary.__dataclass_fields__}


def test_far_refusal_for_good_is_tried_seldom(far: FarBench) -> None:
    stranger = (signer(1102).public_key,)
    far.begin(WideGenesis("wide", 0, ((far.region.genesis.chain, stranger),)))
    far.play(WINDOW)
    far.until(lambda: codes.NAMES[codes.UNKNOWN_SIGNER] in far.forwarder.last_error)
    broadcasts = far.far.broadcasts
    for _ in range(290):
        far.step()
        far.region.wait(1)
    assert far.far.broadcasts == broadcasts
    assert far.region.queue.outgoing == 1


def test_far_node_that_proves_nothing_is_not_believed(far: FarBench) -> None:
    far.play(WINDOW)
    far.until(lambda: bool(far.far.pool))
    far.far.block()
    query = far.far.query

    def lying(path: str, key: bytes) -> Answer:
        answer = query(path, key)
        return Answer(answer.value, answer.proof, bytes(32), answer.height)

    far.far.query = lying  # type: ignore[method-assign]
    far.until(lambda: "proves nothing" in far.forwarder.last_error)
    assert far.region.queue.outgoing == 1


class Liar(FarNode):
    """A node that has made up a state of its own, in which the answers are proved."""

    def __init__(self, genesis: WideGenesis) -> None:
        super().__init__(genesis)
        self.answers: dict[str, Answer] = {}

    def query(self, path: str, key: bytes) -> Answer:
        return self.answers.get(path) or super().query(path, key)


class MadeUp:
    """A state of one's own, in which everything can be proved: leaves, and one kept entry."""

    def __init__(self, entry: bytes, leaves: Mapping[bytes, bytes], log: object = None) -> None:
        log = [1, merkle.root([entry])] if log is None else log
        self._entry = entry
        self._leaves = {**leaves, LOG_KEY: cbor.dumps(log)}
        self._trie = Trie()
        for key, value in self._leaves.items():
            self._trie.set(key, value)

    def summary(self) -> Answer:
        log_proof = self._trie.prove(LOG_KEY).encode()
        proof = [self._leaves[LOG_KEY], log_proof, 0, [], self._entry]
        return Answer(None, proof, self._trie.root(), 5)

    def leaf(self, key: bytes) -> Answer:
        proof = self._trie.prove(key).encode()
        return Answer(self._leaves.get(key), proof, self._trie.root(), 5)


def lies_about(summary: Summary, entry: Entry, region: Region) -> dict[str, Answer]:
    """Give what a node answers that has made up a region's report and a summary of it."""
    key = region_key(summary.region)
    made_up = MadeUp(entry.encode(), {key: region.encode()})
    return {"summary": made_up.summary(), "region": made_up.leaf(key)}


def lied_to(far: FarBench) -> tuple[Liar, Summary, bytes]:
    """Have a summary ready for a node that lies; gives the node, the summary, and its digest."""
    liar = Liar(far.genesis)
    assert far.remote is not None
    far.remote.close()
    far.use(liar)
    far.play(WINDOW)
    (outgoing,) = far.region.queue.oldest(1)
    payload = Envelope.parse(outgoing.tx).payload
    return liar, Summary.decode(payload), payload_digest(payload)


@pytest.mark.parametrize("headers", [True, False])
def test_summary_that_no_header_shows_stays_in_the_outbox(far: FarBench, headers: bool) -> None:
    liar, summary, digest = lied_to(far)
    liar.headers = headers
    entry = Entry(summary.region, summary.to_height, codes.OK, digest)
    liar.answers |= lies_about(summary, entry, Region(1, summary.to_height))
    far.until(lambda: "no header shows the wide area's state" in far.forwarder.last_error)
    assert far.region.queue.outgoing == 1
    # the truth is enough
    liar.answers.clear()
    liar.headers = True
    far.region.wait(300)
    far.until(lambda: bool(liar.pool))
    liar.block()
    far.region.wait(300)
    assert far.until(lambda: far.region.queue.outgoing == 0) == 1
    liar.wide.close()


def test_header_of_too_few_validators_shows_no_summary(far: FarBench) -> None:
    far.play(WINDOW)
    far.until(lambda: bool(far.far.pool))
    far.far.block()

    def forged(height: int) -> LightBlock:
        return far.far.chain.block(height, ["a", "b"])

    far.far.light_block = forged  # type: ignore[method-assign]
    far.region.wait(300)
    far.until(lambda: "20 of 40" in far.forwarder.last_error)
    assert far.region.queue.outgoing == 1


def test_refusal_as_a_repeat_that_is_not_shown_is_not_believed(far: FarBench) -> None:
    far.far.broadcast = lambda txs: [TxResult(codes.DUPLICATE)]  # type: ignore[method-assign]
    far.play(WINDOW)
    far.until(lambda: "does not show that" in far.forwarder.last_error)
    assert far.region.queue.outgoing == 1


def test_chain_is_followed_on_from_what_was_believed_last(far: FarBench) -> None:
    for _ in range(3):
        far.play(WINDOW)
        far.until(lambda: bool(far.far.pool))
        far.far.block()
        far.until(lambda: far.region.queue.outgoing == 0)
    assert far.remote is not None
    client = far.remote._client
    assert client is not None
    assert client.trusted.height == 4
    assert len(client.path) == 1
    assert 1 not in far.far.chain.asked[3:]


def test_conflict_that_no_header_shows_is_no_reason_to_forget_a_summary(far: FarBench) -> None:
    liar, summary, digest = lied_to(far)
    liar.block()
    entry = Entry(summary.region, summary.to_height, codes.OK, ZERO)
    region = Region(1, summary.to_height, conflict=digest)
    liar.answers |= lies_about(summary, entry, region)
    for _ in range(200):
        assert far.step() == 0
        far.region.wait(0.5)
    far.until(lambda: far.forwarder.last_error != "")
    assert far.region.queue.outgoing == 1
    assert digest != ZERO
    liar.wide.close()


ZERO = bytes(32)
REGION_ID = b"a region"
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)


class Odd:
    """A node that answers whatever the RPC client lets pass."""

    def __init__(self, answers: dict[str, Answer], results: list[TxResult]) -> None:
        self.answers, self.results = answers, results

    def query(self, path: str, key: bytes) -> Answer:
        return self.answers[path]

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        return self.results

    def light_block(self, height: int) -> LightBlock:
        raise ConnectionError("none")

    def close(self) -> None:
        pass


VALIDATORS = with_validators(WideGenesis("wide", 0, ((REGION_ID, (GATEWAY.public_key,)),)))
TX = GATEWAY.seal(summary_of(0, REGION_ID, chain=VALIDATORS.chain).payload()).raw
SUMMARY = Summary.decode(Envelope.parse(TX).payload)


@settings(max_examples=300)
@given(data=st.data())
def test_any_answer_of_a_node_is_a_result_or_an_oserror(data: st.DataObject) -> None:
    entries = ANY.map(cbor.dumps) | st.builds(
        lambda code: Entry(REGION_ID, SUMMARY.to_height, code, ZERO).encode(),
        st.sampled_from([codes.OK, codes.CONFLICT]),
    )
    reports = st.builds(
        lambda height, conflict: Region(1, height, conflict=conflict).encode(),
        st.sampled_from([0, SUMMARY.to_height, 1 << 40]),
        st.sampled_from([None, ZERO, payload_digest(SUMMARY.payload())]),
    )
    values = ANY.map(cbor.dumps) | st.binary(max_size=9)
    leaves = st.fixed_dictionaries(
        {}, optional={region_key(REGION_ID): reports | values, offers_key(REGION_ID): values}
    )
    state = data.draw(st.builds(MadeUp, entries, leaves, st.none() | ANY))
    odd = st.builds(Answer, st.none() | st.binary(max_size=9), st.lists(ANY, max_size=6))
    answers = {
        "summary": data.draw(st.just(state.summary()) | odd),
        "region": data.draw(st.just(state.leaf(region_key(REGION_ID))) | odd),
        "offers": data.draw(st.just(state.leaf(offers_key(REGION_ID))) | odd),
    }
    code = data.draw(st.sampled_from([0, codes.DUPLICATE, codes.GAP, 999]))
    genesis = data.draw(st.sampled_from([VALIDATORS, replace(VALIDATORS, validators=())]))
    remote = RemoteWideArea(Odd(answers, [TxResult(code)]), genesis)
    try:
        results = remote._hand_over([TX])
    except OSError:
        return
    finally:
        remote.close()
    assert all(isinstance(result, TxResult) for result in results)
    assert all(result.code != codes.OK for result in results) or not genesis.validators
