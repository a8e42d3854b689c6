"""Which records belong to which round, and when a round closes: pure logic, no I/O, no clock.

A record names its round. Records of rounds at or before the last closed one are *late* and go with
the next close, in the order of arrival; registry changes too. The rest is *held* by round. Rounds
close in rising order, and only rounds that have records.

Two paces say when:

``clock``   A round closes ``grace_s`` after its end by the gateway's clock. A record of a round
            beyond the next one is refused: its sender's clock is wrong.
``trace``   For replays, where the readings' time is not the wall's. A member *has reached* the
            highest round that it named. The *frontier* is the highest round that at least a third
            of the active members have reached: while fewer than a third are bad, an honest member
            is there. A held round up to the frontier closes as soon as every expected member's
            ballot and reading of that round are in; or, where readings are missing, ``SETTLE_S``
            after the last ballot, for brokers may deliver a ballot before the reading that was
            published first; or ``timeout_s`` after the frontier came to it. When one is due,
            every held round below it is due before.

So in trace pace no minority of less than a third can open a round, start its timeout or close it,
however far in the future the times are that it signs; what it sends ahead is held and comes in
when the others get there. An expected member is an active one that sent any record since
``PATIENCE`` closes ago: the first closes after a start wait for everybody, later ones do not wait
for the dead. The price: with less than a third of the members alive no round closes in trace pace.

Memory is bounded: one member holds at most ``per_member`` records and all together at most
``most``. When a member's share is full, what goes first is its furthest future, then its late
records, then the newcomer. What is refused here stays in the meter's journal, which offers it
again while it has no receipt.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple, Protocol

from ledger.protocol import records, rounds

PATIENCE = 3
SETTLE_S = 0.5
_MOST_LATE = 20_000  # late records in one block, which keeps its proofs and its commit small

HELD = "held"
DUPLICATE = "duplicate"
EARLY = "early"
BACKLOG = "backlog"


class Instant(NamedTuple):
    """A moment: ``wall`` in Unix seconds, ``steady`` in seconds of a clock that never jumps."""

    wall: float
    steady: float


class Entry(NamedTuple):
    """One verified record: its inbox row, type, round (None: registry change), signer, digest."""

    row: int
    kind: int
    round: int | None
    address: bytes
    digest: bytes
    raw: bytes


class Pace(Protocol):
    """When rounds close."""

    def refuses(self, round_: int, now: Instant) -> bool:
        """Tell whether a record of this round cannot be meant."""

    def due(self, book: "RoundBook", now: Instant) -> int | None:
        """Give the highest round that may close now, or None."""

    def wait_s(self, book: "RoundBook", now: Instant) -> float | None:
        """Give the seconds until a round may close if nothing more arrives, or None."""


class ClockPace:
    """A round closes ``grace_s`` after its end by the wall clock; ``round_s`` is its length."""

    def __init__(self, round_s: int, grace_s: float) -> None:
        self._round_s = round_s
        self._grace_s = grace_s

    def refuses(self, round_: int, now: Instant) -> bool:
        """Tell whether a record of this round cannot be meant."""
        return round_ > rounds.round_of(int(now.wall), self._round_s) + 1

    def due(self, book: "RoundBook", now: Instant) -> int | None:
        """Give the highest round that may close now, or None."""
        over = [r for r in book.open_rounds() if self._ends(r) <= now.wall]
        return max(over, default=None)

    def wait_s(self, book: "RoundBook", now: Instant) -> float | None:
        """Give the seconds until a round may close if nothing more arrives, or None."""
        ends = [self._ends(r) for r in book.open_rounds()]
        return max(0.0, min(ends) - now.wall) if ends else None

    def _ends(self, round_: int) -> float:
        return rounds.end_of(round_, self._round_s) + self._grace_s


class TracePace:
    """A round closes when its ballots are in, or ``timeout_s`` after the frontier reached it.

    The trace has any time, but a round of ``round_s`` whose end no head can say never closes.
    """

    def __init__(self, timeout_s: float, round_s: int) -> None:
        self._timeout_s = timeout_s
        self._last = min(records.MAX_ROUND, records.MAX_TIME // round_s - 1)

    def refuses(self, round_: int, now: Instant) -> bool:  # noqa: ARG002 - no clock in the trace
        """Tell whether a record of this round cannot be meant."""
        return round_ > self._last

    def due(self, book: "RoundBook", now: Instant) -> int | None:
        """Give the highest round that may close now, or None."""
        ready = [r for r in book.reached_rounds() if self._end(book, r, now) <= now.steady]
        return max(ready, default=None)

    def wait_s(self, book: "RoundBook", now: Instant) -> float | None:
        """Give the seconds until a round may close if nothing more arrives, or None."""
        ends = [self._end(book, r, now) for r in book.reached_rounds()]
        return max(0.0, min(ends) - now.steady) if ends else None

    def _end(self, book: "RoundBook", round_: int, now: Instant) -> float:
        end = book.reached_at(round_) + self._timeout_s
        complete_at = book.ballots_complete_at(round_, now)
        if complete_at is not None:
            settled = (
                now.steady if book.has_all(records.READING, round_) else complete_at + SETTLE_S
            )
            end = min(end, settled)
        return end


class RoundBook:
    """The verified records that wait for a block.

    ``last`` is the last closed round (-1 before the first). ``members`` are the addresses of the
    active members. While it is ``paused`` no round is due.
    """

    def __init__(
        self, pace: Pace, last: int, members: Collection[bytes], *, per_member: int, most: int
    ) -> None:
        self._pace = pace
        self.last = last
        self.paused = False
        self._per_member = per_member
        self._most = most
        self._closes = 0
        self._late: dict[bytes, Entry] = {}
        self._sent: dict[bytes, Entry] = {}
        self._held: dict[int, dict[bytes, Entry]] = {}
        self._of: dict[bytes, dict[bytes, Entry]] = {}
        self._size = 0
        self._mark: dict[bytes, int] = {}
        self._heard: dict[bytes, int] = {}
        self._frontier_at: list[tuple[int, float]] = []
        self.frontier = last
        self._complete_at: dict[int, float] = {}
        self._beyond: set[bytes] = set()
        self._members: frozenset[bytes] = frozenset()
        self.set_members(members, Instant(0, 0))

    def __len__(self) -> int:
        return self._size

    def set_members(self, members: Collection[bytes], now: Instant) -> None:
        """Say who is an active member from now on."""
        self._members = frozenset(members)
        self._heard = {a: self._heard.get(a, self._closes) for a in self._members}
        self._mark = {a: mark for a, mark in self._mark.items() if a in self._members}
        self._move_frontier(now)

    def holds(self, address: bytes, digest: bytes) -> bool:
        """Tell whether a signer's record waits here."""
        return digest in self._of.get(address, ())

    # what the paces ask

    def open_rounds(self) -> Iterator[int]:
        """Give the rounds after the last closed one that have records."""
        return iter(self._held)

    def reached_rounds(self) -> Iterator[int]:
        """Give those of the open rounds that a third of the members has reached."""
        return (r for r in self._held if r <= self.frontier)

    def reached_at(self, round_: int) -> float:
        """Give when (steady s) the frontier came to a round; it must have."""
        return next(at for frontier, at in self._frontier_at if frontier >= round_)

    def has_all(self, kind: int, round_: int) -> bool:
        """Tell whether every expected member's record of a type is here for a round."""
        expected = self.expected()
        here = {e.address for e in self._held[round_].values() if e.kind == kind}
        return bool(expected) and expected <= here

    def ballots_complete_at(self, round_: int, now: Instant) -> float | None:
        """Give when (steady s) a round was first seen with all its ballots, or None."""
        if round_ not in self._complete_at and self.has_all(records.BALLOT, round_):
            self._complete_at[round_] = now.steady
        return self._complete_at.get(round_)

    def expected(self) -> set[bytes]:
        """Give the members whose ballots are waited for."""
        return {a for a, heard in self._heard.items() if heard + PATIENCE >= self._closes}

    # records in

    def add(self, entry: Entry, now: Instant) -> tuple[str, list[Entry]]:
        """Take a record in; gives (HELD, DUPLICATE, EARLY or BACKLOG, records put out for it)."""
        own = self._of.setdefault(entry.address, {})
        if entry.digest in own:
            return DUPLICATE, []
        if entry.round is not None and self._pace.refuses(entry.round, now):
            return EARLY, []
        if self._size >= self._most and self._worth(entry) == 0:
            return BACKLOG, []
        out = []
        if len(own) >= self._per_member:
            least = min(own.values(), key=self._order)
            if self._order(entry) <= self._order(least):
                return BACKLOG, []
            self._drop(least)
            out.append(least)
        self._insert(entry)
        self._note(entry, now)
        return HELD, out

    def _worth(self, entry: Entry) -> int:
        """Rank a record: 3 when submitted, 2 for a round at hand, 1 for late, 0 for the future."""
        if entry.digest in self._sent:
            return 3
        if entry.round is None or self.last < entry.round <= max(self.frontier, self.last) + 1:
            return 2
        return 1 if entry.round <= self.last else 0

    def _order(self, entry: Entry) -> tuple[int, int, int]:
        # the furthest future and the newest row go first
        return self._worth(entry), -(entry.round or 0), -entry.row

    def _insert(self, entry: Entry) -> None:
        late = entry.round is None or entry.round <= self.last
        place = self._late if late else self._held.setdefault(entry.round or 0, {})
        place[entry.digest] = entry
        self._of.setdefault(entry.address, {})[entry.digest] = entry
        self._size += 1

    def _drop(self, entry: Entry) -> None:
        if not (self._sent.pop(entry.digest, None) or self._late.pop(entry.digest, None)):
            held = self._held[entry.round or 0]
            del held[entry.digest]
            if not held:
                del self._held[entry.round or 0]
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        own = self._of[entry.address]
        del own[entry.digest]
        if not own:
            del self._of[entry.address]
        self._size -= 1

    def _note(self, entry: Entry, now: Instant) -> None:
        address, round_ = entry.address, entry.round
        if address not in self._members:
            return
        self._heard[address] = self._closes
        if round_ is None or round_ <= self._mark.get(address, -1):
            return
        self._mark[address] = round_
        if round_ > self.frontier:
            self._beyond.add(address)
            if 3 * len(self._beyond) >= len(self._members):
                self._move_frontier(now)

    def _move_frontier(self, now: Instant) -> None:
        needed = (len(self._members) + 2) // 3
        marks = sorted(self._mark.values(), reverse=True)
        if needed and len(marks) >= needed and marks[needed - 1] > self.frontier:
            self.frontier = marks[needed - 1]
            self._frontier_at.append((self.frontier, now.steady))
        self._beyond = {a for a, mark in self._mark.items() if mark > self.frontier}

    # blocks out

    def due(self, now: Instant) -> int | None:
        """Give the round that must close now, or None: the lowest open one up to what is due."""
        highest = None if self.paused else self._pace.due(self, now)
        if highest is None:
            return None
        return min(r for r in self._held if r <= highest)

    def wait_s(self, now: Instant) -> float | None:
        """Give the seconds until a round is due if nothing more arrives, or None."""
        return None if self.paused else self._pace.wait_s(self, now)

    def take(self, round_: int) -> list[Entry]:
        """Give a round's records after late ones and registry changes, oldest first.

        They are counted, and known as duplicates, until ``settle``.
        """
        late = list(self._late.values())[:_MOST_LATE]
        for entry in late:
            del self._late[entry.digest]
        taken = late + list(self._held.pop(round_, {}).values())
        self._sent.update((entry.digest, entry) for entry in taken)
        self._pass(round_)
        return taken

    def closed(self, round_: int, heard: Iterable[bytes] = ()) -> None:
        """Take note that the chain has closed a round; what is left of it here is late.

        ``heard`` are the members with records in the block, maybe by way of another gateway.
        """
        for address in heard:
            if address in self._heard:
                self._heard[address] = self._closes
        self._closes += 1
        if round_ > self.last:
            self._pass(round_)

    def settle(self, address: bytes, digest: bytes) -> Entry | None:
        """Let go of a record: it is in a block, or refused. Gives it, or None if it is not here."""
        entry = self._of.get(address, {}).get(digest)
        if entry is not None:
            self._drop(entry)
        return entry

    def _pass(self, round_: int) -> None:
        """Go on to the round after this one."""
        self.last = round_
        self._complete_at = {}
        if round_ > self.frontier:
            self.frontier = round_
            self._beyond = {a for a, mark in self._mark.items() if mark > round_}
        self._frontier_at = [item for item in self._frontier_at if item[0] > round_]
        for below in [r for r in self._held if r <= round_]:
            for entry in self._held.pop(below).values():
                self._late[entry.digest] = entry
