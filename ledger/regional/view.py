"""Reading a region's ledger while its gateway goes on writing: readings, votes, outcomes, members.

Nothing here trusts what meters or gateway say of themselves; what is shown is what blocks hold.
That they are right is the audit's business, not this module's.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ledger.protocol import records, tally
from ledger.protocol.cose import Envelope
from ledger.regional.blocks import TABLES, Blocks, place_of, record_id
from ledger.regional.state import REGISTRY_KEY, State
from ledger.store import Database


@dataclass(frozen=True)
class SettledReading:
    """A reading in the chain with its newest outcome; the counts are of committee members."""

    height: int
    index: int
    address: bytes
    round: int
    digest: bytes
    reading: records.Reading
    outcome: int
    drawn: int
    accepts: int
    rejects: int
    abstains: int


@dataclass
class BallotCount:
    """How many ballots a block holds, and their verdicts by number."""

    ballots: int = 0
    verdicts: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class Vote:
    """One member's verdict on a reading, and the block that its ballot is in."""

    voter: bytes
    verdict: int
    height: int


class LedgerView:
    """A read-only look at a region's blocks. Raises StoreError when there is no ledger."""

    def __init__(self, path: Path, round_s: int) -> None:
        self._database = Database(path, TABLES, read_only=True)
        self._round_s = round_s
        self.blocks = Blocks(self._database)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def state(self) -> State:
        """Give the members and open readings as of now."""
        return State.load(self.blocks.state_rows())

    def witnessed(self) -> int:
        """Give the newest witnessed height."""
        return State.registry_of(self.blocks.state_value(REGISTRY_KEY)).witnessed

    def block_readings(self, height: int) -> Iterator[SettledReading]:
        """Give the readings of a block."""
        for index, raw in enumerate(self.blocks.records_of(height)):
            found = self._settled(height, index, raw)
            if found is not None:
                yield found

    def readings(self) -> Iterator[SettledReading]:
        """Give all readings, oldest block first."""
        for height in range(1, self.blocks.height() + 1):
            yield from self.block_readings(height)

    def readings_of(self, address: bytes, newest: int) -> list[SettledReading]:
        """Give the newest readings of a meter, newest first."""
        found: list[SettledReading] = []
        for height in range(self.blocks.height(), 0, -1):
            own = [r for r in self.block_readings(height) if r.address == address]
            found += reversed(own)
            if len(found) >= newest:
                break
        return found[:newest]

    def reading_that_starts(self, digits: str) -> SettledReading | None:
        """Give the reading whose digest starts with 16 or more hex digits, or None."""
        for id_ in self.blocks.readings_of_prefix(bytes.fromhex(digits[:16])):
            raw = self.blocks.record(id_)
            found = None if raw is None else self._settled(*place_of(id_), raw)
            if found is not None and found.digest.hex().startswith(digits):
                return found
        return None

    def ballots(self, height: int) -> Iterator[tuple[bytes, records.Ballot]]:
        """Give (voter, ballot) of a block's ballots."""
        for raw in self.blocks.records_of(height):
            envelope = Envelope.parse(raw)
            ballot = records.decode(envelope.payload)
            if isinstance(ballot, records.Ballot):
                yield envelope.kid, ballot

    def count_ballots(self, height: int) -> BallotCount:
        """Give how many ballots a block holds and what they say."""
        count = BallotCount()
        for _, ballot in self.ballots(height):
            count.ballots += 1
            count.verdicts.update(verdict for _, verdict in ballot.verdicts)
        return count

    def votes_on(self, settled: SettledReading) -> list[Vote]:
        """Give every verdict on a reading, from its block to the one that settled it."""
        id_ = record_id(settled.height, settled.index)
        last = self.blocks.results_of(id_)[-1][0]
        if settled.outcome == tally.OPEN:
            last = self.blocks.height()
        return [
            Vote(voter, verdict, height)
            for height in range(settled.height, last + 1)
            for voter, ballot in self.ballots(height)
            for digest, verdict in ballot.verdicts
            if digest == settled.digest
        ]

    def _settled(self, height: int, index: int, raw: bytes) -> SettledReading | None:
        envelope = Envelope.parse(raw)
        reading = records.decode(envelope.payload)
        if not isinstance(reading, records.Reading):
            return None
        _, outcome, drawn, *counts = self.blocks.results_of(record_id(height, index))[-1]
        round_ = reading.time // self._round_s
        where = (height, index, envelope.kid, round_, envelope.digest, reading)
        return SettledReading(*where, outcome, drawn, *counts)
