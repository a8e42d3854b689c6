"""Reading a region's ledger while its gateway goes on writing: readings, votes, outcomes, members.

Nothing here trusts what meters or gateway say of themselves; what is shown is what blocks hold.
That they are right is the audit's business, not this module's.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ledger.protocol import records, rounds, tally
from ledger.protocol.cose import Envelope
from ledger.regional import kinds
from ledger.regional.blocks import TABLES, Blocks, place_of, record_id
from ledger.regional.state import REGISTRY_KEY, State
from ledger.store import Database, StoreError


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
    """A read-only look at a region's blocks; ``round_s`` is the region's length of a round.

    Raises StoreError when there is no ledger, and where the ledger lacks what its blocks need;
    MalformedRecord for a stored record that is none.
    """

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
        for index, envelope in enumerate(self.blocks.envelopes_of(height)):
            found = self._settled(height, index, envelope)
            if found is not None:
                yield found

    def readings(self) -> Iterator[SettledReading]:
        """Give all readings that are here, oldest block first."""
        for height in range(self.blocks.first_body(), self.blocks.height() + 1):
            yield from self.block_readings(height)

    def readings_of(self, address: bytes, newest: int) -> list[SettledReading]:
        """Give the newest readings of a meter, newest first."""
        found: list[SettledReading] = []
        for height in range(self.blocks.height(), self.blocks.first_body() - 1, -1):
            own = [r for r in self.block_readings(height) if r.address == address]
            found += reversed(own)
            if len(found) >= newest:
                break
        return found[:newest]

    def reading_that_starts(self, digits: str) -> SettledReading | None:
        """Give the reading whose digest starts with 16 or more lower-case hex digits, or None.

        Raises ValueError for anything but hex digits.
        """
        for id_ in self.blocks.readings_of_prefix(bytes.fromhex(digits[:16])):
            envelope = self.blocks.envelope(id_)
            found = None if envelope is None else self._settled(*place_of(id_), envelope)
            if found is not None and found.digest.hex().startswith(digits):
                return found
        return None

    def ballots(self, height: int) -> Iterator[tuple[bytes, records.Ballot]]:
        """Give (voter, ballot) of a block's ballots."""
        for envelope in self.blocks.envelopes_of(height):
            ballot = kinds.decode(envelope.payload)
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
        """Give every verdict on a reading, from its block to the one that settled it.

        Also those that count nothing: of members outside of the committee, and repeated ones.
        """
        last = self._newest_result(settled.height, settled.index)[0]
        if settled.outcome == tally.OPEN:
            last = self.blocks.height()
        return [
            Vote(voter, verdict, height)
            for height in range(settled.height, last + 1)
            for voter, ballot in self.ballots(height)
            for digest, verdict in ballot.verdicts
            if digest == settled.digest
        ]

    def _settled(self, height: int, index: int, envelope: Envelope) -> SettledReading | None:
        reading = kinds.decode(envelope.payload)
        if not isinstance(reading, records.Reading):
            return None
        _, outcome, drawn, *counts = self._newest_result(height, index)
        round_ = rounds.round_of(reading.time, self._round_s)
        where = (height, index, envelope.kid, round_, envelope.digest, reading)
        return SettledReading(*where, outcome, drawn, *counts)

    def _newest_result(self, height: int, index: int) -> tuple[int, ...]:
        """Give (height, outcome, drawn, accepts, rejects, abstains) of a reading."""
        results = self.blocks.results_of(record_id(height, index))
        if not results:
            raise StoreError(f"record {index} of block {height} has no outcome: audit this ledger")
        return results[-1]
