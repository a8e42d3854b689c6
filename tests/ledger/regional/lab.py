"""A small region on a node of its own, every record made from its arguments alone.

``generate.Play`` plays whole honest rounds; here a test delivers one record at a time and looks at
what became of it.
"""

from collections.abc import Iterable
from pathlib import Path

from ledger.engine.solo import Solo
from ledger.genesis import Parameters
from ledger.protocol import quantities, records
from ledger.protocol.cose import Envelope
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import TABLES, RegionalApplication
from ledger.regional.blocks import Block
from ledger.regional.state import Member
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import FIRST_ROUND, ROUND_S, Region

OPEN_ROUNDS = 8
WINDOW_ROUNDS = 5
FIRST = FIRST_ROUND

Vote = tuple[Envelope | bytes, int]


class Lab:
    """``size`` meters in clusters of ``cluster_size`` (all in one unless told otherwise)."""

    def __init__(
        self,
        size: int = 5,
        *,
        cluster_size: int | None = None,
        parameters: Parameters | None = None,
        path: Path | None = None,
        name: str = "lab",
        gateways: int = 1,
        validators: int = 0,
    ) -> None:
        parameters = parameters or Parameters(ROUND_S, 11, OPEN_ROUNDS, WINDOW_ROUNDS)
        self.region = Region(
            size,
            cluster_size=cluster_size or max(size, 1),
            parameters=parameters,
            name=name,
            gateways=gateways,
            validators=validators,
        )
        self.path = path
        self.open()

    def open(self) -> None:
        self.database = Database(self.path, TABLES)
        self._start()

    def _start(self) -> None:
        self.app = RegionalApplication(self.region.genesis, self.database, Verifier())
        self.node = Solo(self.app)

    def reopen(self) -> None:
        """Start again from what the database holds (one in memory is kept)."""
        if self.path is None:
            self.database.rollback()
            self._start()
        else:
            self.database.close()
            self.open()

    # records

    def reading(
        self,
        meter: int,
        round_: int,
        *,
        boot: int = 1,
        seq: int | None = None,
        time: int | None = None,
        flags: int = 0,
        power: int = 1000,
        energy: int | None = None,
        export: int | None = None,
        values: list[tuple[int, int]] | None = None,
    ) -> Envelope:
        """Sign a reading; by default its seq and its register follow from the round."""
        seq = round_ - FIRST + 1 if seq is None else seq
        if values is None:
            energy = round_ * 1000 if energy is None else energy
            values = [(quantities.ACTIVE_POWER, power), (quantities.ENERGY_IMPORT, energy)]
            if export is not None:
                values.append((quantities.ENERGY_EXPORT, export))
        time = round_ * self.region.parameters.round_s if time is None else time
        chain, previous = self.region.chain, records.NO_DIGEST
        reading = records.Reading(chain, boot, seq, time, ROUND_S, flags, 0, previous, values)
        return self.region.meters[meter].key.seal(reading.payload())

    def ballot(
        self, meter: int, round_: int, votes: Iterable[Vote] = (), *, parent: bytes | None = None
    ) -> Envelope:
        """Sign a ballot; it names the newest head unless told otherwise."""
        verdicts = [(e if isinstance(e, bytes) else e.digest, verdict) for e, verdict in votes]
        parent = self.app.last_digest if parent is None else parent
        return self.region.ballot(self.region.meters[meter], round_, parent, verdicts)

    def ballots(
        self,
        round_: int,
        judged: Iterable[Envelope],
        verdict: int = records.ACCEPT,
        voters: Iterable[int] | None = None,
    ) -> list[Envelope]:
        """Sign one ballot each of the voters (all meters) with one verdict on all of ``judged``."""
        judged = list(judged)
        numbers = range(len(self.region.meters)) if voters is None else voters
        return [self.ballot(i, round_, [(e, verdict) for e in judged]) for i in numbers]

    def join(self, operator: int, number: int, key: bytes, cluster: str = "c0") -> Envelope:
        return self.region.approve(operator, number, records.JOIN, key, cluster)

    def leave(self, operator: int, number: int, meter: int) -> Envelope:
        key = self.region.meters[meter].key.public_key
        return self.region.approve(operator, number, records.LEAVE, key)

    # driving

    def deliver(self, *envelopes: Envelope) -> list[int]:
        """Execute transactions as one block of the engine; gives their codes."""
        result = self.node.execute([envelope.raw for envelope in envelopes])
        return [tx.code for tx in result.tx_results]

    def close(self, round_: int, *envelopes: Envelope) -> Block:
        """Deliver records, all of which must be let in, and close the round."""
        closers = self.app.delivery.closers()
        numbers = [i for i, key in enumerate(self.region.gateways) if key.address in closers]
        orders = [self.region.close(round_, i) for i in numbers[: len(numbers) // 2 + 1]]
        codes = self.deliver(*envelopes, *orders)
        assert codes == [0] * len(codes), codes
        return self.app.made()[-1]

    def honest_round(self, round_: int) -> list[Envelope]:
        """Let all active meters read, vote on each other and name the newest head."""
        active = {address for address, _ in self.app.state.active(round_)}
        numbers = [i for i, m in enumerate(self.region.meters) if m.address in active]
        readings = [self.reading(i, round_) for i in numbers]
        self.close(round_, *readings, *self.ballots(round_, readings, voters=numbers))
        return readings

    # looking

    def member(self, meter: int) -> Member:
        member = self.app.state.members.get(self.region.meters[meter].address)
        assert member is not None
        return member

    def results(self, reading: Envelope) -> list[tuple[int, ...]]:
        """Give (height, outcome, drawn, accepts, rejects, abstains) of a reading, oldest first."""
        id_ = self.app.blocks.find_reading(reading.digest)
        return [] if id_ is None else self.app.blocks.results_of(id_)

    def outcome(self, reading: Envelope) -> int | None:
        """Give the newest outcome of a reading, None where the chain does not hold it."""
        results = self.results(reading)
        return results[-1][1] if results else None

    def windows(self) -> list[Aggregate]:
        """Give the windows that have ended."""
        return [Aggregate.decode(blob) for _, blob in self.app.blocks.windows_after(0)]

    def tables(self) -> list[tuple[str, list[tuple[object, ...]]]]:
        """Give the content of every table."""
        sql = self.database.connection
        names = [
            name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return [(name, sorted(sql.execute(f"SELECT * FROM {name}"), key=repr)) for name in names]

    def snapshot(self) -> tuple[object, ...]:
        """Give everything that a refused or undone block must leave as it was."""
        app = self.app
        position = (app.info(), app.app_hash, app.height, app.last_round, app.last_digest)
        return (*position, app.state.root(), app.log.root(), self.tables())
