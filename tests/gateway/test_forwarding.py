"""Summaries reach the wide-area chain once each, in order, whatever goes down in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.forwarding import Forwarder, LocalWideArea, WideArea
from gateway.queue import QueueFull
from ledger.engine.abci import TxResult
from ledger.genesis import WideGenesis
from ledger.protocol.cose import Envelope
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication
from ledger.wide.summary import Summary
from tests.gateway.region import FIRST, GATEWAY, Region

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

    def submit(self, tx: bytes) -> TxResult:
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
