"""A cluster's meters and its part of the chain without signatures, brokers or processes.

The meters judge with the firmware's own ``Voter``; committees are drawn and votes counted by
``ledger.protocol.committee`` and ``tally``, and readings wait, stay open and expire as SPEC 9.1,
9.3 and 11.2 say. So what comes out is what a region would decide, a hundred times faster.

Left out: signatures, equivocation, witnessing, registry changes and lost messages; a meter that is
offline neither shows a reading nor votes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from firmware.meter.voter import Voter
from hil.enrich import Sample
from ledger.protocol import committee, quantities, records, rounds, tally

_CODES = {row.name: row.code for row in quantities.TABLE}
CHAIN = bytes(records.CHAIN_BYTES)


@dataclass(frozen=True)
class Settled:
    """A reading's end: whose, of which round of play, its outcome and its votes by verdict."""

    meter: str
    played: int
    false: bool
    outcome: int
    verdicts: tuple[int, ...]
    seats: int


@dataclass
class _Open:
    meter: str
    played: int
    false: bool
    round: int
    opened: int
    drawn: frozenset[bytes]
    votes: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What a meter shows in a round; ``clock_rounds`` is how far its clock is off."""

    sample: Sample | None
    clock_rounds: int
    false: bool


def address_of(name: str) -> bytes:
    """Give a meter's address in the evaluation, where it has no key."""
    return sha256(b"meter " + name.encode()).digest()[:16]


class Neighbourhood:
    """The meters of one cluster; ``seats`` is the region's k, ``open_rounds`` its L.

    ``conspirators`` accept each other's readings whatever they are.
    """

    def __init__(
        self,
        names: Sequence[str],
        round_s: int,
        *,
        seats: int = 11,
        open_rounds: int = 8,
        seed: bytes = bytes(32),
        conspirators: Collection[str] = (),
    ) -> None:
        self.names = tuple(names)
        self._round_s, self._seats, self._open_rounds, self._seed = (
            round_s,
            seats,
            open_rounds,
            seed,
        )
        self.conspirators = frozenset(address_of(name) for name in conspirators)
        self._addresses = {name: address_of(name) for name in names}
        everyone = list(self._addresses.values())
        self._voters = {
            address: Voter(CHAIN, round_s, [a for a in everyone if a != address])
            for address in everyone
        }
        self._seq = dict.fromkeys(names, 0)
        self._previous = dict.fromkeys(names, records.NO_DIGEST)
        self._open: dict[bytes, _Open] = {}
        self._waiting: list[tuple[bytes, _Open]] = []
        self._drawn: dict[tuple[bytes, int], frozenset[bytes]] = {}
        self._theirs: set[bytes] = set()

    def conspire(self, names: Collection[str]) -> None:
        """Let some meters accept each other's readings from now on, whatever they are."""
        self.conspirators = frozenset(self._addresses[name] for name in names)

    def play(
        self, played: int, time_s: int, shown: Mapping[str, Shown | Sample | None]
    ) -> list[Settled]:
        """Play a round that begins at ``time_s``; gives the readings that it settles.

        ``shown`` has what each meter shows; who is missing in it is offline.
        """
        made: dict[bytes, tuple[bytes, records.Reading]] = {}
        true_round = rounds.round_of(time_s, self._round_s)
        for name in self.names:
            what = shown.get(name)
            if not isinstance(what, Shown):
                what = Shown(what, 0, false=False)
            if what.sample is not None:
                made[self._addresses[name]] = self._publish(name, played, time_s, true_round, what)
        ballots = self._vote(made)
        self._come_due(true_round)
        for voter, ballot in ballots:
            self._count(voter, ballot)
        return self._settle(true_round)

    def _publish(
        self, name: str, played: int, time_s: int, true_round: int, what: Shown
    ) -> tuple[bytes, records.Reading]:
        assert what.sample is not None
        time_s += what.clock_rounds * self._round_s
        self._seq[name] += 1
        reading = records.Reading(
            CHAIN,
            1,
            self._seq[name],
            time_s,
            self._round_s,
            0,
            0,
            self._previous[name],
            sorted((_CODES[quantity], value) for quantity, value in what.sample.items()),
        )
        address = self._addresses[name]
        digest = sha256(address + reading.payload()).digest()
        self._previous[name] = digest
        round_ = rounds.round_of(time_s, self._round_s)
        drawn = self._draw(address, round_)
        entry = _Open(name, played, what.false, round_, max(round_, true_round), drawn)
        self._waiting.append((digest, entry))
        if address in self.conspirators:
            self._theirs.add(digest)
        return digest, reading

    def _draw(self, meter: bytes, round_: int) -> frozenset[bytes]:
        key = (meter, rounds.term_of(round_))
        if key not in self._drawn:
            others = [a for a in self._addresses.values() if a != meter]
            self._drawn[key] = frozenset(
                committee.draw(self._seed, key[1], meter, others, self._seats)
            )
        return self._drawn[key]

    def _vote(
        self, made: Mapping[bytes, tuple[bytes, records.Reading]]
    ) -> list[tuple[bytes, Sequence[tuple[bytes, int]]]]:
        """Let every meter that is online judge what the others published."""
        found: list[tuple[bytes, Sequence[tuple[bytes, int]]]] = []
        for voter, (_, own) in made.items():
            meter = self._voters[voter]
            meter.open_round(own)
            for address, (digest, reading) in made.items():
                if address != voter:
                    meter.take(address, reading, digest)
            verdicts: Iterable[tuple[bytes, int]] = meter.vote(bytes(32)).verdicts
            if voter in self.conspirators:
                theirs = self._theirs
                verdicts = [(d, records.ACCEPT if d in theirs else v) for d, v in verdicts]
            found.append((voter, list(verdicts)))
        return found

    def _come_due(self, true_round: int) -> None:
        """Open the readings whose round is closed now; those of rounds to come wait (SPEC 11.2)."""
        rest = []
        for digest, entry in self._waiting:
            if entry.round <= true_round:
                self._open[digest] = entry
            else:
                rest.append((digest, entry))
        self._waiting = rest

    def _count(self, voter: bytes, verdicts: Iterable[tuple[bytes, int]]) -> None:
        for digest, verdict in verdicts:
            entry = self._open.get(digest)
            if entry is None or voter not in entry.drawn:
                continue
            if entry.votes.get(voter, records.ABSTAIN) == records.ABSTAIN:
                entry.votes[voter] = verdict

    def _settle(self, true_round: int) -> list[Settled]:
        found = []
        for digest, entry in list(self._open.items()):
            votes = tuple(entry.votes.values())
            accepts, rejects, _ = tally.count(list(votes))
            outcome = tally.outcome(len(entry.drawn), accepts, rejects)
            if outcome == tally.OPEN and entry.opened <= true_round - self._open_rounds:
                outcome = tally.UNCONFIRMED
            if outcome != tally.OPEN:
                del self._open[digest]
                self._theirs.discard(digest)
                seats = len(entry.drawn)
                found.append(Settled(entry.meter, entry.played, entry.false, outcome, votes, seats))
        return found
