"""What this meter has to publish: readings of the journal and ballots, until they have receipts.

Everything leaves at once when it is made. After the link was rebuilt all that has no receipt
leaves again, for a broker's acknowledgement is not the chain's; and while receipts fail to come,
eight readings leave again every two, four, eight ... rounds. The same bytes leave each time, so a
copy too many is a duplicate and no harm.

Ballots are kept in memory for four rounds; a vote that comes later finds its round settled.
"""

import asyncio

from ledger.protocol import topics

try:
    from typing import Any, Iterator
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_BALLOT_ROUNDS = const(4)
_PATIENCE_ROUNDS = const(2)
_LONGEST_PATIENCE = const(32)
_AGAIN_AT_ONCE = const(8)
# A sample queue that overran and the link's own reconnecting never leave more than this unsent.
_MAX_FRESH = const(16)


class Outbox:
    """``journal`` holds the readings by digest; ``ready`` is set when there may be something."""

    def __init__(self, journal: "Any") -> None:
        self._journal = journal
        self._fresh: "list[tuple[str, bytes]]" = []
        self._ballots: "list[tuple[int, bytes, bytes]]" = []
        self._walk: "Iterator[tuple[bytes, bytes]] | None" = None
        self._budget = 0
        self._patience = _PATIENCE_ROUNDS
        self._waited = 0
        self.ready = asyncio.Event()

    def add_reading(self, raw: bytes) -> None:
        """Publish a reading that is in the journal already; one round has passed."""
        self._put(topics.READING, raw)
        self._waited += 1
        # the newest two may have receipts on their way
        if len(self._journal) > _PATIENCE_ROUNDS and self._waited >= self._patience:
            self._waited = 0
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
            self._budget = max(self._budget, _AGAIN_AT_ONCE)

    def add_ballot(self, round_: int, digest: bytes, raw: bytes) -> None:
        """Publish a ballot, and keep it for some rounds."""
        self._ballots = [b for b in self._ballots if b[0] > round_ - _BALLOT_ROUNDS]
        # the one before has had a round's time for its receipt
        for _, _, old in self._ballots[-2:-1]:
            self._put(topics.BALLOT, old)
        self._ballots.append((round_, digest, raw))
        self._put(topics.BALLOT, raw)

    def _put(self, kind: str, raw: bytes) -> None:
        if len(self._fresh) >= _MAX_FRESH:
            self._fresh.pop(0)  # it is kept, and leaves again later
        self._fresh.append((kind, raw))
        self.ready.set()

    def restart(self) -> None:
        """Begin anew after the link was rebuilt: everything without a receipt leaves again."""
        readings = [item for item in self._fresh if item[0] == topics.READING]
        self._fresh = readings[-1:] + [(topics.BALLOT, raw) for _, _, raw in self._ballots]
        self._walk = None
        self._budget = len(self._journal)
        self.ready.set()

    def take(self) -> "tuple[str, bytes] | None":
        """Give (kind of topic, envelope) of what is to leave next, or None."""
        if self._fresh:
            return self._fresh.pop(0)
        if self._budget <= 0:
            return None
        self._budget -= 1
        if self._walk is None:
            self._walk = iter(self._journal)
        for _, raw in self._walk:
            return topics.READING, raw
        self._walk = None
        self._budget = 0
        return None

    def receipted(self, digests: "list[bytes]") -> int:
        """Forget records whose receipt is there; gives how many were waiting."""
        found = 0
        for digest in digests:
            if self._journal.remove(digest):
                found += 1
        before = len(self._ballots)
        self._ballots = [ballot for ballot in self._ballots if ballot[1] not in digests]
        if found:
            self._patience = _PATIENCE_ROUNDS
            self._waited = 0
        return found + before - len(self._ballots)
