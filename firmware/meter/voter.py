"""One meter's vote: gathers its neighbours' readings round by round and composes ballots.

Readings whose signature holds come in at any time; they are judged together when this meter's own
reading of the round is there and either every neighbour's has come or time is up. Waiting for all
gives the frequency rule the best median, and lets each neighbour's readings be judged in order.

Left out: time (the program decides when time is up), signing, and committees: a cluster of up to
twelve voters judges as a whole.
"""

from firmware.meter.history import ROUNDS, History, Own
from firmware.meter.judge import Judge, Profile
from ledger.protocol import quantities, records

try:
    from typing import Any
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


# Readings of one neighbour that wait: the round's, a late one or two, the next round's.
_WAITING_EACH = const(4)
_MAX_AHEAD = const(2)


class Neighbour:
    """What is known of a neighbour, and its readings that wait: [(digest, Reading), ...]."""

    def __init__(self) -> None:
        self.profile = Profile()
        self.waiting: "list[tuple[bytes, Any]]" = []


class Voter:
    """Composes this meter's ballots; ``round_s`` is the region's round.

    ``passed_over`` counts readings too old or too far ahead to be judged.
    """

    def __init__(self, chain: bytes, round_s: int, neighbours: "list[bytes]") -> None:
        self._chain = chain
        self._round_s = round_s
        self._judge = Judge(round_s)
        self._history = History()
        self._neighbours = {address: Neighbour() for address in neighbours}
        self._late: "list[tuple[bytes, int]]" = []
        self.round = -1
        self.passed_over = 0

    def change_neighbours(self, addresses: "list[bytes]") -> None:
        """Go on with other neighbours; what is known of those that stay is kept."""
        for address in [a for a in self._neighbours if a not in addresses]:
            del self._neighbours[address]
        for address in addresses:
            if address not in self._neighbours:
                self._neighbours[address] = Neighbour()

    def open_round(self, own: "records.Reading") -> None:
        """Begin the round of this meter's own reading."""
        self.round = own.time // self._round_s
        self._history.add(Own(self.round, own.time, own.values))

    def known(self, address: bytes, reading: "records.Reading", digest: bytes) -> bool:
        """Tell whether this very reading has been judged, so that its signature was checked."""
        neighbour = self._neighbours.get(address)
        if neighbour is None:
            return False
        memory = neighbour.profile.memory
        return memory.verdict(reading.boot, reading.seq, digest) is not None

    def take(self, address: bytes, reading: "records.Reading", digest: bytes) -> bool:
        """Take in a neighbour's reading whose signature holds; gives whether it will be judged."""
        round_ = reading.time // self._round_s
        neighbour = self._neighbours.get(address)
        late = self.round >= 0 and round_ <= self.round - ROUNDS
        if neighbour is None or late or (self.round >= 0 and round_ > self.round + _MAX_AHEAD):
            self.passed_over += 1
            return False
        waiting = neighbour.waiting
        if digest in [known for known, _ in waiting]:
            return False
        if len(waiting) >= _WAITING_EACH:
            waiting.pop(0)
            self.passed_over += 1
        waiting.append((digest, reading))
        return True

    def complete(self) -> bool:
        """Tell whether a reading of this round of every neighbour is there."""
        for neighbour in self._neighbours.values():
            if not [1 for _, reading in neighbour.waiting if self._is_current(reading)]:
                return False
        return True

    def _is_current(self, reading: "records.Reading") -> bool:
        return reading.time // self._round_s == self.round

    def vote(self, parent: bytes) -> "records.Ballot":
        """Judge what is due and give the round's ballot, which names the head ``parent``."""
        own = self._history.find(self.round)
        if own is not None:
            own.compare(self._frequencies())
        fresh: "list[tuple[bytes, int]]" = []
        for address in sorted(self._neighbours):
            self._judge_waiting(self._neighbours[address], fresh)
        verdicts = fresh[: records.MAX_VERDICTS]
        room = min(records.MAX_LATE_VERDICTS, records.MAX_VERDICTS - len(verdicts))
        verdicts += self._late[:room]
        self._late = self._late[room:][: records.MAX_LATE_VERDICTS]
        return records.Ballot(self._chain, self.round, parent, verdicts)

    def _frequencies(self) -> "list[int]":
        """Give one frequency of this round for each neighbour that has sent one."""
        out = []
        for neighbour in self._neighbours.values():
            for _, reading in neighbour.waiting:
                value = reading.value(quantities.FREQUENCY)
                if self._is_current(reading) and value is not None:
                    out.append(value)
                    break
        return out

    def _judge_waiting(self, neighbour: Neighbour, fresh: "list[tuple[bytes, int]]") -> None:
        """Judge a neighbour's readings up to this round.

        One of the round goes to ``fresh``; whoever sends more of them does not take others' places.
        """
        voted = False
        for digest, reading in self._due(neighbour):
            round_ = reading.time // self._round_s
            own = self._history.find(round_)
            verdict = self._judge.judge(neighbour.profile, reading, digest, own)
            if round_ == self.round and not voted:
                fresh.append((digest, verdict))
                voted = True
            elif verdict != records.ABSTAIN:
                # of a round that is over, an abstention tells nothing that silence does not
                self._late = [item for item in self._late if item[0] != digest]
                self._late.append((digest, verdict))

    def _due(self, neighbour: Neighbour) -> "list[tuple[bytes, Any]]":
        """Take out a neighbour's readings up to this round, by rising boot and seq."""
        due: "list[tuple[bytes, Any]]" = []
        ahead: "list[tuple[bytes, Any]]" = []
        for digest, reading in neighbour.waiting:
            if reading.time // self._round_s > self.round:
                ahead.append((digest, reading))
                continue
            # in its place, equal slots as they came: MicroPython's sort is not stable
            at = len(due)
            while at and _slot(due[at - 1][1]) > _slot(reading):
                at -= 1
            due.insert(at, (digest, reading))
        neighbour.waiting = ahead
        return due


def _slot(reading: "records.Reading") -> "tuple[int, int]":
    return reading.boot, reading.seq
