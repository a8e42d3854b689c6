"""Summaries reach the wide-area chain once each, in order, whatever goes down in between."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.forwarding import Forwarder, LocalWideArea, RemoteWideArea, WideArea
from gateway.queue import QueueFull
from ledger.engine.abci import OK, Answer, TxResult
from ledger.genesis import WideGenesis
from ledger.protocol.cose import Envelope
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication
from ledger.wide.summary import Summary
from tests.gateway.region import FIRST, GATEWAY, Region, signer

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

    def submit(self, tx: bytes) -> TxResult | None:
        self.asked += 1
        if self.away:
            raise ConnectionRefusedError("nobody there")
        result = self.inner.submit(tx)
        if self.mute:
            raise TimeoutError("no answer")
        return result


class Bench:
    def __init__(self, folder: Path) -> None:
        self.region = Region(folder=folder, window_rounds=WINDOW)
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
    outgoing = bench.region.queue.oldest()
    assert outgoing is not None
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

    def __init__(self, wide: WideApplication) -> None:
        self.wide = wide
        self.pool: list[bytes] = []
        self.cache: set[bytes] = set()
        self.away = False
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.broadcasts = 0

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        self._meet()
        self.broadcasts += 1
        return [self._take(tx) for tx in txs]

    def _take(self, tx: bytes) -> TxResult:
        if tx in self.cache:
            return TxResult(OK, "tx already exists in cache")
        result = self.wide.check_tx(tx)
        if result.code == OK:
            self.pool.append(tx)
            self.cache.add(tx)
        return result

    def query(self, path: str, key: bytes) -> Answer:
        self._meet()
        return self.wide.query(path, key)

    def _meet(self) -> None:
        assert self.may_answer.wait(30)
        if self.away:
            raise ConnectionRefusedError("nobody there")

    def close(self) -> None:
        pass

    def block(self) -> None:
        self.wide.finalize_block(self.wide.info().last_block_height + 1, self.pool)
        self.wide.commit()
        self.pool = []


class FarBench(Bench):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.far = FarNode(self.wide)
        self.remote = RemoteWideArea(self.far)
        self.node = self.remote  # type: ignore[assignment]
        self.open()

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
    bench.remote.close()
    bench.region.stop()
    bench.wide.close()


def test_summary_leaves_the_outbox_when_the_far_chain_has_it(far: FarBench) -> None:
    far.play(WINDOW)
    assert far.until(lambda: bool(far.far.pool)) == 0
    assert far.region.queue.outgoing == 1
    far.far.block()
    assert far.until(lambda: far.region.queue.outgoing == 0) == 1
    assert far.reported() == WINDOW
    assert far.forwarder.wide_height == 1
    assert far.forwarder.last_error == ""


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


def test_summary_that_another_gateway_of_the_region_sent_is_there(far: FarBench) -> None:
    other = signer(1102)
    far.wide.close()
    keys = (*far.region.genesis.gateways, other.public_key)
    genesis = WideGenesis("wide", 0, ((far.region.genesis.chain, keys),))
    far.genesis = genesis
    far.far.wide = far.wide = WideApplication(genesis, Database(None, TABLES), Verifier())
    far.open()
    far.play(WINDOW)
    outgoing = far.region.queue.oldest()
    assert outgoing is not None
    far.far.pool.append(other.seal(Envelope.parse(outgoing.tx).payload).raw)
    far.far.block()
    assert far.until(lambda: far.region.queue.outgoing == 0) == 1
    assert far.far.broadcasts == 0


def test_other_figures_for_the_same_heights_go_up_as_evidence_and_are_said(far: FarBench) -> None:
    far.play(WINDOW)
    outgoing = far.region.queue.oldest()
    assert outgoing is not None
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
    far.wide.close()
    stranger = (signer(1102).public_key,)
    far.genesis = WideGenesis("wide", 0, ((far.region.genesis.chain, stranger),))
    far.far.wide = far.wide = WideApplication(far.genesis, Database(None, TABLES), Verifier())
    far.open()
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
