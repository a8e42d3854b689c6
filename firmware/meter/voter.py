"""One meter's vote: gathers its neighbours' readings round by round and composes ballots.

Readings whose signature holds come in at any time; they are judged together when this meter's own
reading of the round is there and either every neighbour's has come or time is up. Waiting for all
gives the medians of frequency and voltage their best, and lets each neighbour's readings be judged
in order.

Left out: time (the program decides when time is up), signing, and committees: the verdicts of who
is not drawn are counted by nobody.
"""

from firmware.meter.feeder import Feeder
from firmware.meter.history import ROUNDS, History, Own, Values
from firmware.meter.judge import Judge, Profile
from firmware.meter.punctual import Punctuality
from ledger.protocol import cbor, records
from ledger.protocol.errors import MalformedRecord

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
_ADDRESS = const(16)
_VERSION = const(1)


class Neighbour:
    """What is known of a neighbour, and its readings that wait: [(digest, Reading), ...]."""

    def __init__(self, feeder: Feeder, slot: int) -> None:
        self.profile = Profile(feeder, slot)
        self.punctual = Punctuality(self.profile.memory)
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
        self._neighbours: "dict[bytes, Neighbour]" = {}
        self._feeder = Feeder(1)
        self.change_neighbours(neighbours)
        self._late: "list[tuple[bytes, int]]" = []
        self.round = -1
        self.passed_over = 0

    def change_neighbours(self, addresses: "list[bytes]") -> None:
        """Go on with other neighbours; what is known of those that stay is kept."""
        before = self._neighbours
        self._neighbours = {}
        self._rearrange(addresses, {one: before[one].profile.slot for one in before})
        for slot, address in enumerate(sorted(addresses)):
            neighbour = before.get(address)
            if neighbour is None:
                neighbour = Neighbour(self._feeder, slot + 1)
            neighbour.profile.feeder = self._feeder
            neighbour.profile.slot = slot + 1
            self._neighbours[address] = neighbour

    def _rearrange(self, addresses: "list[bytes]", slots: "dict[bytes, int]") -> None:
        """Move what the feeder has learnt of meters in ``slots`` to the slots of ``addresses``."""
        former = [0] + [slots.get(address, -1) for address in sorted(addresses)]
        self._feeder = self._feeder.rearranged(former)

    def profile(self, address: bytes) -> Profile:
        """Give what is known of a neighbour; KeyError where it is none."""
        return self._neighbours[address].profile

    # ---------------------------------------------------------------------- over a restart

    def export(self) -> bytes:
        """Give what restore() takes after a restart: what was learnt of the feeder."""
        addresses = b"".join(sorted(self._neighbours))
        return cbor.dumps([_VERSION, addresses, self._feeder.export()])

    def restore(self, data: bytes) -> None:
        """Take up what export() gave, for the neighbours that are still there.

        Raises MalformedRecord; then everything is learnt anew.
        """
        fields = records.array(cbor.loads(data), 3, 3, "learnt")
        records.integer(fields[0], _VERSION, _VERSION, "version")
        joined, learnt = fields[1], fields[2]
        if not isinstance(joined, bytes) or len(joined) % _ADDRESS or not isinstance(learnt, bytes):
            raise MalformedRecord("learnt: not addresses and a feeder")
        kept = [joined[at : at + _ADDRESS] for at in range(0, len(joined), _ADDRESS)]
        feeder = Feeder(len(kept) + 1)
        feeder.restore(learnt)
        self._feeder = feeder
        addresses = sorted(self._neighbours)
        self._rearrange(addresses, {address: slot + 1 for slot, address in enumerate(kept)})
        for address in addresses:
            self._neighbours[address].profile.feeder = self._feeder

    # ----------------------------------------------------------------------------- a round

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
        early = self.round >= 0 and round_ > self.round + _MAX_AHEAD
        if neighbour is None or late or early:
            self.passed_over += 1
            if neighbour is not None and late:
                neighbour.punctual.old(reading, digest)
            elif neighbour is not None:
                neighbour.punctual.early(reading, digest, round_)
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
            if self._current(neighbour) is None:
                return False
        return True

    def _current(self, neighbour: Neighbour) -> "Any":
        """Give the neighbour's reading of this round, the first if there are several, or None."""
        for _, reading in neighbour.waiting:
            if reading.time // self._round_s == self.round:
                return reading
        return None

    def vote(self, parent: bytes) -> "records.Ballot":
        """Judge what is due and give the round's ballot, which names the head ``parent``."""
        present = self._compare()
        agreed = 2 * present > len(self._neighbours)
        fresh: "list[tuple[bytes, int]]" = []
        trusted = bytearray([1] * self._feeder.count)
        for address in sorted(self._neighbours):
            neighbour = self._neighbours[address]
            judged = bool(neighbour.waiting)
            if self._judge_waiting(neighbour, fresh):
                trusted[neighbour.profile.slot] = 0
            for digest, verdict in neighbour.punctual.judge(self.round, judged, agreed):
                self._add_late(digest, verdict)
        self._feeder.learn(self.round, trusted)
        verdicts = fresh[: records.MAX_VERDICTS]
        room = min(records.MAX_LATE_VERDICTS, records.MAX_VERDICTS - len(verdicts))
        verdicts += self._late[:room]
        self._late = self._late[room:][: records.MAX_LATE_VERDICTS]
        return records.Ballot(self._chain, self.round, parent, verdicts)

    def _compare(self) -> int:
        """Find what the round's readings say together; gives how many neighbours have one."""
        frequencies: "list[int]" = []
        present = 0
        self._feeder.begin()
        own = self._history.find(self.round)
        if own is not None and own.voltage is not None:
            self._feeder.put(0, own.voltage, own.current)
        for neighbour in self._neighbours.values():
            reading = self._current(neighbour)
            if reading is None:
                continue
            present += 1
            values = Values(reading.values)
            if values.voltage is not None:
                self._feeder.put(neighbour.profile.slot, values.voltage, values.current)
            if values.frequency is not None:
                frequencies.append(values.frequency)
        self._feeder.fit(self.round)
        if own is not None:
            own.compare(frequencies)
        return present

    def _judge_waiting(self, neighbour: Neighbour, fresh: "list[tuple[bytes, int]]") -> bool:
        """Judge a neighbour's readings up to this round; gives whether one of them was rejected.

        One of the round goes to ``fresh``; whoever sends more of them does not take others' places.
        """
        voted = rejected = False
        for digest, reading in self._due(neighbour):
            round_ = reading.time // self._round_s
            own = self._history.find(round_)
            verdict = self._judge.judge(neighbour.profile, reading, digest, own)
            rejected = rejected or records.is_reject(verdict)
            if round_ == self.round and not voted:
                fresh.append((digest, verdict))
                voted = True
            elif verdict != records.ABSTAIN:
                # of a round that is over, an abstention tells nothing that silence does not
                self._add_late(digest, verdict)
        return rejected

    def _add_late(self, digest: bytes, verdict: int) -> None:
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
