"""A region for tests: genesis, keys, and meters that sign what a board would sign."""

from collections import Counter
from pathlib import Path

from gateway.core import Core
from gateway.counters import Counters
from gateway.queue import Message, Queue
from gateway.roundbook import ClockPace, Instant, Pace, RoundBook, TracePace
from ledger.genesis import Parameters, RegionGenesis
from ledger.keys import Signer
from ledger.protocol import messages, quantities, records, topics
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier

ROUND_S = 60
FIRST = 1_700_000_040 // ROUND_S


def signer(number: int) -> Signer:
    """Give the same key for the same number."""
    return Signer(number.to_bytes(32, "big"))


OPERATOR, GATEWAY, STRANGER = signer(1001), signer(1002), signer(1003)


def genesis_of(members: int, *, window_rounds: int = 15) -> RegionGenesis:
    keys = tuple((signer(i + 1).public_key, "street") for i in range(members))
    parameters = Parameters(round_s=ROUND_S, window_rounds=window_rounds)
    return RegionGenesis(
        "test", 1_700_000_000, parameters, (OPERATOR.public_key,), 1, (GATEWAY.public_key,), keys
    )


class Meter:
    """Signs readings and ballots of one member; believes every head it is shown."""

    def __init__(self, genesis: RegionGenesis, key: Signer) -> None:
        self.genesis = genesis
        self.key = key
        self.address = key.address
        self.seq = 0
        self.boot = 1
        self.previous = records.NO_DIGEST
        self.parent = genesis.digest

    def topic(self, kind: str) -> str:
        return topics.meter(self.genesis.chain, "street", self.address, kind)

    def reading(
        self, round_: int, *, power: int = 1_000_000, seq: int | None = None, late_s: int = 0
    ) -> Envelope:
        if seq is None:
            self.seq += 1
            seq = self.seq
        values = [
            (quantities.VOLTAGE, 230_000),
            (quantities.ACTIVE_POWER, power),
            (quantities.FREQUENCY, 50_000),
            (quantities.ENERGY_IMPORT, 1_000_000 + seq * 16_667),
        ]
        time = round_ * ROUND_S + late_s
        reading = records.Reading(
            self.genesis.chain, self.boot, seq, time, ROUND_S, 0, 0, self.previous, values
        )
        envelope = self.key.seal(reading.payload())
        self.previous = envelope.digest
        return envelope

    def ballot(
        self, round_: int, judged: list[Envelope], verdict: int = records.ACCEPT
    ) -> Envelope:
        verdicts = [(e.digest, verdict) for e in judged if e.kid != self.address]
        return self.key.seal(
            records.Ballot(self.genesis.chain, round_, self.parent, verdicts).payload()
        )

    def message(self, envelope: Envelope) -> Message:
        record = records.decode(envelope.payload)
        kind = topics.READING if isinstance(record, records.Reading) else topics.BALLOT
        return Message(self.topic(kind), envelope.raw)


class Region:
    """One gateway core over a real ledger, with a clock that the test moves."""

    def __init__(
        self,
        members: int = 5,
        *,
        folder: Path | None = None,
        pace: str = "trace",
        timeout_s: float = 10.0,
        per_member: int = 64,
        inbox_rows: int = 1000,
        window_rounds: int = 15,
    ) -> None:
        self.genesis = genesis_of(members, window_rounds=window_rounds)
        self.folder = folder
        self.meters = [Meter(self.genesis, signer(i + 1)) for i in range(members)]
        self.now = Instant(float(FIRST * ROUND_S), 1000.0)
        self.published: list[tuple[str, bytes, bool]] = []
        self.acknowledged = 0
        self._per_member, self._inbox_rows = per_member, inbox_rows
        self._pace: Pace = (
            TracePace(timeout_s, ROUND_S) if pace == "trace" else ClockPace(ROUND_S, grace_s=2.0)
        )
        self.start()

    def start(self) -> None:
        """Open the files and take up what they hold."""
        path = self.folder / "regional.sqlite" if self.folder else None
        self.database = Database(path, TABLES)
        self.app = RegionalApplication(self.genesis, self.database, Verifier())
        queue_path = self.folder / "queue.sqlite" if self.folder else None
        self.queue = Queue(queue_path, inbox_rows=self._inbox_rows, outbox_rows=100)
        self.counters = Counters()
        last = -1 if self.app.last_round is None else self.app.last_round
        active = [a for a, _ in self.app.state.active(last + 1)]
        self.book = RoundBook(self._pace, last, active, per_member=self._per_member, most=10_000)
        self.core = Core(
            self.app,
            key=GATEWAY,
            queue=self.queue,
            book=self.book,
            publish=self._publish,
            counters=self.counters,
        )
        self.core.replay(self.now)

    def stop(self) -> None:
        """Let go of everything, as at the end of the process."""
        self.core.close()
        self.queue.close()
        self.database.close()

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        self.published.append((topic, payload, retain))
        return True

    def wait(self, seconds: float) -> None:
        self.now = Instant(self.now.wall + seconds, self.now.steady + seconds)

    def send(self, *items: Message) -> None:
        def acknowledge() -> None:
            self.acknowledged += len(items)

        self.core.receive(items, acknowledge, self.now)
        self.core.close_due(self.now)

    def play(self, round_: int, meters: list[Meter] | None = None) -> list[Envelope]:
        """Let meters send a whole honest round; gives the readings."""
        meters = self.meters if meters is None else meters
        head = self.app.blocks.head_payload(self.app.height)
        readings = []
        for meter in meters:
            meter.parent = self.genesis.digest if head is None else payload_digest(head)
            readings.append(meter.reading(round_))
        self.send(*[m.message(e) for m, e in zip(meters, readings, strict=True)])
        self.send(*[m.message(m.ballot(round_, readings)) for m in meters])
        return readings

    def in_chain(self, envelope: Envelope) -> bool:
        return self.app.blocks.find_reading(envelope.digest) is not None

    def receipts(self, meter: Meter) -> list[messages.Receipt]:
        topic = meter.topic(topics.RECEIPT)
        return [messages.Receipt.decode(p) for t, p, _ in self.published if t == topic]

    def rejected(self) -> Counter[str]:
        """Give the counts of rejections by code."""
        counts = self.counters.snapshot()
        head = "rejected."
        return Counter({k.removeprefix(head): n for k, n in counts.items() if k.startswith(head)})
