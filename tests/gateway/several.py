"""Several gateways of one region in one process: real cores, applications and stores.

Only two things are played: the order of transactions, which CometBFT would give (``Cluster``
proposes, judges and applies blocks through the real applications, as the ABCI node would), and the
broker (every gateway has a session that keeps what it has not acknowledged).
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.chain import CometChain
from gateway.core import Core
from gateway.counters import Counters
from gateway.queue import Message, Queue
from gateway.roundbook import Instant, RoundBook, TracePace
from ledger.engine.abci import OK, Decision, TxResult, Validator
from ledger.genesis import GenesisValidator, Parameters, RegionGenesis
from ledger.protocol import messages, records, topics
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from tests.gateway.region import FIRST, OPERATOR, ROUND_S, Meter, signer

_MOST_TURNS = 50


class Crash(BaseException):
    """The process ends here, as by a power cut."""


def gateway_key(number: int) -> Any:
    return signer(2001 + number)


def genesis_of(gateways: int, members: int) -> RegionGenesis:
    validators = tuple(GenesisValidator(f"pi-{i + 1}", bytes([i]) * 32, 1) for i in range(gateways))
    return RegionGenesis(
        "several",
        1_700_000_000,
        Parameters(round_s=ROUND_S, window_rounds=15),
        (OPERATOR.public_key,),
        1,
        tuple(gateway_key(i).public_key for i in range(gateways)),
        tuple((signer(i + 1).public_key, "street") for i in range(members)),
        validators,
    )


class Decided(NamedTuple):
    txs: tuple[bytes, ...]
    proposer: bytes


class _Status(NamedTuple):
    validator: Validator
    catching_up: bool


class Pool:
    """One node's mempool and RPC."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self.txs: list[bytes] = []
        self.cache: set[bytes] = set()
        self.offered: set[bytes] = set()
        self.away = False

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        if self.away:
            raise ConnectionRefusedError("nobody there")
        return [self.add(tx) for tx in txs]

    def status(self) -> _Status:
        return _Status(Validator(self._gateway.validator, 1), self._gateway.catching_up)

    def add(self, tx: bytes) -> TxResult:
        if tx in self.cache:
            return TxResult(OK, "tx already exists in cache")
        with self._gateway.chain.lock:
            result = self._gateway.app.check_tx(tx, new=True)
        if result.code == OK:
            self.txs.append(tx)
            self.cache.add(tx)
        return result

    def offer(self, tx: bytes) -> None:
        """Take what another node has; CometBFT's nodes tell each other of a transaction once."""
        if tx not in self.offered:
            self.offered.add(tx)
            self.add(tx)

    def close(self) -> None:
        pass

    def recheck(self, done: Sequence[bytes]) -> None:
        """Drop what a block took, and what the rules refuse after it."""
        kept = []
        for tx in self.txs:
            if tx in done:
                continue
            if self._gateway.app.check_tx(tx).code == OK:
                kept.append(tx)
            else:
                self.cache.discard(tx)
        self.cache.update(done)
        self.txs = kept


class Gateway:
    """One gateway with its node; ``crash_at`` counts the steps until it ends.

    A node that ``lags`` gets no blocks; one that is ``catching_up`` says so of itself.
    """

    def __init__(self, cluster: "Cluster", number: int, folder: Path) -> None:
        self.cluster = cluster
        self.number = number
        self.folder = folder
        self.key = gateway_key(number)
        self.validator = cluster.genesis.validators[number].public_key
        self.session: list[Message] = []
        self.alive = False
        self.link = True
        self.lags = False
        self.catching_up = False
        self.crash_at: int | None = None
        self.steps: list[str] = []
        self.acknowledged = 0
        self.start()

    def start(self) -> None:
        self.database = Database(self.folder / "regional.sqlite", TABLES)
        self.app = RegionalApplication(self.cluster.genesis, self.database, Verifier())
        self.queue = Queue(self.folder / "queue.sqlite", inbox_rows=5000, outbox_rows=100)
        self.counters = Counters()
        last = -1 if self.app.last_round is None else self.app.last_round
        active = [a for a, _ in self.app.state.active(last + 1)]
        pace = TracePace(10.0, ROUND_S)
        self.book = RoundBook(pace, last, active, per_member=64, most=10_000)
        self.pool = Pool(self)
        self.chain = CometChain(
            self.app,
            self.key,
            self.pool,
            self.counters,
            lock=threading.RLock(),
            validator=Validator(self.validator, 1).address,
        )
        self.core = Core(
            self.app,
            key=self.key,
            queue=self.queue,
            book=self.book,
            publish=self._publish,
            counters=self.counters,
            chain=self.chain,
        )
        self._instrument()
        self.alive = True
        self.core.replay(self.cluster.now)
        self.connect()

    def connect(self) -> None:
        """Come to the broker: what it kept, and what is retained, is delivered."""
        self.link = True
        self.core.announce(self.cluster.now)
        if self.cluster.head is not None:
            self.session.append(Message(topics.head(self.cluster.genesis.chain), self.cluster.head))

    def end(self) -> None:
        """Drop everything that is not on disk."""
        if self.alive:
            self.alive = False
            self.core.close()
            self.queue.close()
            self.database.close()

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if self.crash_at is not None and len(self.steps) > self.crash_at:
            self.crash_at = None
            raise Crash(name)

    def _instrument(self) -> None:
        """Let each step that something durable or visible hangs on be one to crash before."""
        for owner, names in (
            (self.queue, ("append", "forget")),
            (self.chain, ("submit",)),
            (self.app, ("finalize_block", "commit", "sign_heads")),
        ):
            for name in names:
                setattr(owner, name, self._stepping(name, getattr(owner, name)))

    def _stepping(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **options: Any) -> Any:
            self._step(name)
            return inner(*args, **options)

        return stepping

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        self._step("publish " + topic.rsplit("/", 1)[-1])
        if self.link:
            self.cluster.publish(self, topic, payload, retain)
        return self.link

    def turn(self) -> None:
        """Do what the service's loop does in a turn."""
        if not self.alive:
            return
        try:
            self.chain.look()
            taken = list(self.session) if self.link else []

            def acknowledge() -> None:
                self._step("acknowledge")
                del self.session[: len(taken)]
                self.acknowledged += len(taken)

            self.core.receive(taken, acknowledge, self.cluster.now)
            self.core.close_due(self.cluster.now)
            self.core.take(self.cluster.now)
            self.chain.hand_on_waiting()
        except Crash:
            self.end()

    def apply(self, height: int, decided: Decided) -> None:
        """Apply a decided block as the ABCI node does."""
        try:
            with self.chain.lock:
                decision = Decision(decided.proposer)
                result = self.app.finalize_block(height, decided.txs, decision)
                assert all(tx.code == OK for tx in result.tx_results)
                self.app.commit()
                self.chain.committed(height, decision)
                self.pool.recheck(decided.txs)
        except Crash:
            self.end()


class Cluster:
    """The region: ``count`` gateways, their meters, the blocks decided, and what the broker saw."""

    def __init__(self, folder: Path, *, count: int = 3, members: int = 4) -> None:
        self.genesis = genesis_of(count, members)
        self.now = Instant(float(FIRST * ROUND_S), 1000.0)
        self.meters = [Meter(self.genesis, signer(i + 1)) for i in range(members)]
        self.decided: list[Decided] = []
        self.head: bytes | None = None
        self.published: list[tuple[int, str, bytes]] = []
        self.proposer = 0
        self.gateways: list[Gateway] = []
        for number in range(count):
            place = folder / f"pi-{number + 1}"
            place.mkdir()
            self.gateways.append(Gateway(self, number, place))

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.end()

    @property
    def alive(self) -> list[Gateway]:
        return [gateway for gateway in self.gateways if gateway.alive]

    @property
    def voting(self) -> list[Gateway]:
        return [gateway for gateway in self.alive if not gateway.lags]

    @property
    def newest(self) -> bytes:
        """The payload of the head that the broker keeps."""
        assert self.head is not None
        return Envelope.parse(self.head).payload

    # the broker

    def publish(self, by: Gateway, topic: str, payload: bytes, retain: bool) -> None:
        self.published.append((by.number, topic, payload))
        if topic == topics.head(self.genesis.chain):
            if retain:
                self.head = payload
            for gateway in self.gateways:
                gateway.session.append(Message(topic, payload))
            for meter in self.meters:
                meter.parent = payload_digest(Envelope.parse(payload).payload)

    def say(self, *items: Message) -> None:
        """Publish as a meter does."""
        for gateway in self.gateways:
            gateway.session += items

    # consensus

    def block(self) -> bool:
        """Let the next node propose; gives whether a block was made. Two thirds must be there."""
        alive = self.voting
        if 3 * len(alive) <= 2 * len(self.gateways):
            return False
        self.gossip()
        self.proposer = (self.proposer + 1) % len(self.gateways)
        proposer = self.gateways[self.proposer]
        if proposer not in alive:
            return self.block()
        height = len(self.decided) + 1
        txs = proposer.app.prepare_proposal(list(proposer.pool.txs), 1 << 20)
        if not txs:
            return False
        assert all(gateway.app.process_proposal(height, txs) for gateway in alive)
        address = Validator(proposer.validator, 1).address
        self.decided.append(Decided(tuple(txs), address))
        for gateway in alive:
            gateway.apply(height, self.decided[-1])
        return True

    def gossip(self) -> None:
        """Tell every mempool what the others have; none is open while its node catches up."""
        there = [gateway for gateway in self.alive if not gateway.catching_up]
        pooled = {tx: None for gateway in there for tx in gateway.pool.txs}
        for gateway in there:
            for tx in pooled:
                gateway.pool.offer(tx)

    def catch_up(self, gateway: Gateway) -> None:
        """Give a node the blocks that it missed."""
        gateway.lags = gateway.catching_up = False
        while gateway.alive and (at := gateway.app.info().last_block_height) < len(self.decided):
            gateway.apply(at + 1, self.decided[at])

    def restart(self, gateway: Gateway, *, behind: bool = False) -> None:
        """Start a gateway; ``behind``: it does not get the blocks that it missed yet."""
        gateway.end()
        gateway.lags = gateway.catching_up = behind
        gateway.start()
        if not behind:
            self.catch_up(gateway)

    # playing

    def wait(self, seconds: float) -> None:
        self.now = Instant(self.now.wall + seconds, self.now.steady + seconds)

    def run(self) -> None:
        """Let everybody work until nothing moves."""
        for _ in range(_MOST_TURNS):
            before = len(self.published), len(self.decided)
            for gateway in self.gateways:
                gateway.turn()
            moved = self.block()
            waiting = any(g.session for g in self.alive if g.link)
            if not moved and not waiting and before == (len(self.published), len(self.decided)):
                return
        raise AssertionError("it never comes to rest")

    def play(self, round_: int) -> list[Envelope]:
        """Let all meters send an honest round; gives its records."""
        readings = [meter.reading(round_) for meter in self.meters]
        self.say(*[m.message(e) for m, e in zip(self.meters, readings, strict=True)])
        self.run()
        ballots = [meter.ballot(round_, readings) for meter in self.meters]
        self.say(*[m.message(e) for m, e in zip(self.meters, ballots, strict=True)])
        self.run()
        return readings + ballots

    # what came of it

    def speakers(self, kind: str) -> list[int]:
        """Give who published messages of a kind (the topic's last level), in their order."""
        return [by for by, topic, _ in self.published if topic.endswith("/" + kind)]

    def receipted(self) -> set[bytes]:
        """Give the digests that published receipts prove."""
        proved: set[bytes] = set()
        for _, topic, payload in self.published:
            if topic.endswith("/" + topics.RECEIPT):
                receipt = messages.Receipt.decode(payload)
                proved.update(receipt.proved(records.decode(receipt.head.payload)))
        return proved

    def heads(self, gateway: Gateway) -> list[bytes]:
        blocks = gateway.app.blocks
        payloads = [blocks.head_payload(h + 1) for h in range(gateway.app.height)]
        return [payload for payload in payloads if payload is not None]
