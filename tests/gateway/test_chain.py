"""What the engines promise to the gateway: news of blocks, refusals, nothing that holds it up."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway.chain import CometChain, SoloChain
from gateway.counters import Counters
from ledger.engine.abci import OK, Decision, TxResult, Validator
from ledger.protocol import records
from ledger.protocol.cose import Envelope
from ledger.regional import codes
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from tests.gateway.region import FIRST, GATEWAY, Meter, genesis_of, signer
from tests.gateway.several import Cluster

LIMIT_S = 30.0
OWN = Validator(bytes(32), 1)


class Answers:
    """An RPC that answers when it may."""

    def __init__(self) -> None:
        self.given: list[list[bytes]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()
        self.result = TxResult(OK)
        self.away = False
        self.catching_up = False

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        self.given.append(list(txs))
        self.asked.set()
        assert self.may_answer.wait(LIMIT_S)
        if self.away:
            raise ConnectionRefusedError("nobody there")
        return [self.result for _ in txs]

    def status(self) -> "Answers":
        if self.away:
            raise ConnectionRefusedError("nobody there")
        return self

    def close(self) -> None:
        pass

    @property
    def validator(self) -> Validator:
        return OWN


@pytest.fixture
def application() -> Iterator[RegionalApplication]:
    application = RegionalApplication(genesis_of(3), Database(None, TABLES), Verifier())
    yield application
    application.close()


def comet(application: RegionalApplication, rpc: Answers, **options: object) -> CometChain:
    given = {"lock": threading.RLock(), "validator": OWN.address} | options
    return CometChain(application, GATEWAY, rpc, Counters(), **given)  # type: ignore[arg-type]


def close_of(application: RegionalApplication, round_: int) -> bytes:
    return GATEWAY.seal(records.Close(application.genesis.chain, round_).payload()).raw


def block(
    application: RegionalApplication, chain: CometChain, round_: int, proposer: bytes = OWN.address
) -> None:
    height = application.info().last_block_height + 1
    decision = Decision(proposer)
    with chain.lock:
        application.finalize_block(height, [close_of(application, round_)], decision)
        application.commit()
        chain.committed(height, decision)


def test_solo_block_is_in_the_news_when_submit_returns(application: RegionalApplication) -> None:
    chain = SoloChain(application, GATEWAY)
    meter = Meter(application.genesis, signer(1))
    good, bad = meter.reading(FIRST), Meter(application.genesis, signer(77)).reading(FIRST)
    chain.submit([good.raw, bad.raw, close_of(application, FIRST)])
    ((height, made, ours),) = chain.take_news()
    assert (height, ours) == (1, True)
    assert made is not None and [e.digest for e, _ in made.records] == [good.digest]
    ((tx, result),) = chain.take_refused()
    assert (tx, result.code) == (bad.raw, codes.UNKNOWN_SIGNER)
    assert chain.take_news() == []
    assert chain.take_refused() == []


def test_block_of_this_nodes_validator_is_ours_and_signed(application: RegionalApplication) -> None:
    chain = comet(application, Answers())
    chain.look()
    block(application, chain, FIRST)
    block(application, chain, FIRST + 1, proposer=bytes(20))
    assert [(news.height, news.ours) for news in chain.take_news()] == [(1, True), (2, False)]
    for height in (1, 2):
        raw = application.blocks.head_envelope(height)
        assert raw is not None and Envelope.parse(raw).kid == GATEWAY.address
    assert chain.engine_height == 2


def test_block_that_closes_no_round_is_no_news(application: RegionalApplication) -> None:
    chain = comet(application, Answers())
    with chain.lock:
        application.finalize_block(1, [], Decision(OWN.address))
        application.commit()
        chain.committed(1, Decision(OWN.address))
    assert chain.take_news() == []
    assert chain.engine_height == 1


def test_many_blocks_at_once_do_not_fill_the_memory(application: RegionalApplication) -> None:
    chain = comet(application, Answers())
    for round_ in range(FIRST, FIRST + 40):
        block(application, chain, round_)
    news = chain.take_news()
    assert [one.height for one in news] == list(range(1, 41))
    assert 0 < sum(one.block is not None for one in news) < 40


def test_gateway_that_missed_many_blocks_settles_what_they_hold(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, count=4)
    away = cluster.gateways[3]
    sent = []
    for round_ in range(FIRST, FIRST + 20):
        readings = [meter.reading(round_) for meter in cluster.meters]
        away.session += [m.message(e) for m, e in zip(cluster.meters, readings, strict=True)]
        away.turn()
        if round_ == FIRST:
            away.end()
        for gateway in cluster.gateways[:3]:
            gateway.session += [m.message(e) for m, e in zip(cluster.meters, readings, strict=True)]
        cluster.run()
        ballots = [m.ballot(round_, readings) for m in cluster.meters]
        cluster.say(*[m.message(e) for m, e in zip(cluster.meters, ballots, strict=True)])
        cluster.run()
        sent += readings + ballots
    assert away.app.info().last_block_height == 0
    cluster.restart(away)
    cluster.run()
    cluster.wait(20)
    cluster.run()
    assert [gateway.app.height for gateway in cluster.gateways] == [20] * 4
    assert (away.queue.waiting, len(away.book), away.core.submitted) == (0, 0, 0)
    cluster.close()


def test_node_that_hangs_holds_nothing_up(application: RegionalApplication) -> None:
    rpc = Answers()
    rpc.may_answer.clear()
    chain = comet(application, rpc)
    chain.start()
    for number in range(1000):
        chain.submit([b"%d" % number])
    assert rpc.asked.wait(LIMIT_S)
    assert not chain.idle
    assert chain._counters["chain.overrun"] > 900
    rpc.may_answer.set()
    chain.stop()
    assert not chain.alive


def test_refusals_and_trouble_are_told(application: RegionalApplication) -> None:
    rpc = Answers()
    chain = comet(application, rpc)
    rpc.result = TxResult(codes.STALE, "too old")
    chain.submit([b"a", b"b"])
    chain.hand_on_waiting()
    assert [refusal.tx for refusal in chain.take_refused()] == [b"a", b"b"]
    rpc.away = True
    chain.submit([b"c"])
    chain.hand_on_waiting()
    assert "nobody there" in chain.last_error
    assert chain.idle
    rpc.away = False
    chain.submit([b"c"])
    chain.hand_on_waiting()
    assert chain.last_error == ""


def test_gateway_that_began_from_a_snapshot_is_told_where_it_ends(
    application: RegionalApplication,
) -> None:
    chain = comet(application, Answers())
    for round_ in range(FIRST, FIRST + 3):  # as a snapshot: without a word
        height = application.info().last_block_height + 1
        application.finalize_block(height, [close_of(application, round_)], Decision())
        application.commit()
    with chain.lock:  # the engine's next block closes no round
        application.finalize_block(4, [], Decision(OWN.address))
        application.commit()
        chain.committed(4, Decision(OWN.address))
    block(application, chain, FIRST + 3)
    assert [(news.height, news.ours) for news in chain.take_news()] == [(3, False), (4, False)]
    assert application.blocks.unsigned_heads(1) == []


def test_chain_is_behind_until_its_node_says_that_it_is_in_step(
    application: RegionalApplication,
) -> None:
    rpc = Answers()
    woken: list[bool] = []
    chain = comet(application, rpc, wake=lambda: woken.append(chain.behind))
    assert chain.behind
    rpc.catching_up = True
    chain.look()
    assert chain.behind
    # what it proposed before it went away is told by the others long ago
    block(application, chain, FIRST)
    assert [news.ours for news in chain.take_news()] == [False]
    rpc.catching_up = False
    woken.clear()
    chain.look()
    assert woken == [False]
    # a node that does not answer may have been away for long when it does
    rpc.away = True
    chain.submit([b"a"])
    chain.hand_on_waiting()
    assert chain.behind


def test_validator_that_was_not_set_is_asked_for_until_it_is_known(
    application: RegionalApplication,
) -> None:
    rpc = Answers()
    rpc.away = True
    told = threading.Event()
    chain = comet(application, rpc, validator=None, wake=told.set)
    block(application, chain, FIRST)
    assert [news.ours for news in chain.take_news()] == [False]
    rpc.away = False
    chain.start()
    deadline = threading.Event()
    for _ in range(300):
        if chain._validator is not None:
            break
        deadline.wait(0.1)
    chain.stop()
    assert chain._validator == OWN.address
    block(application, chain, FIRST + 1)
    assert [news.ours for news in chain.take_news()] == [True]
