"""Where the records that wait for a close stand in the store, so that only changes are written.

On a busy chain thousands of records wait, some of them over many closes. Each has a position, in
the order of delivery; one that goes leaves its position empty.
"""

from collections.abc import Sequence

from ledger.protocol.cose import Envelope
from ledger.regional.blocks import WAITING_CLOSES, Blocks
from ledger.regional.kinds import Entry


class Stored:
    """The envelopes that the store holds, each with its position, rising."""

    def __init__(self, rows: Sequence[tuple[int, Envelope]]) -> None:
        self._rows = list(rows)

    def write(self, blocks: Blocks, entries: Sequence[Entry]) -> None:
        """Make the store hold ``entries``.

        What of them is stored are the same objects, in the same order, before all others.
        """
        kept, gone = self._sort_out(entries)
        if gone:
            blocks.drop_pending(gone)
        fresh = [envelope for envelope, _ in entries[len(kept) :]]
        first = kept[-1][0] + 1 if kept else 0
        if first + len(fresh) > WAITING_CLOSES:  # positions are used up after years
            blocks.drop_pending([position for position, _ in kept])
            fresh, kept, first = [envelope for envelope, _ in entries], [], 0
        if fresh:
            blocks.put_pending([envelope.raw for envelope in fresh], first)
        self._rows = [*kept, *enumerate(fresh, first)]

    def _sort_out(self, entries: Sequence[Entry]) -> tuple[list[tuple[int, Envelope]], list[int]]:
        """Tell the rows that stay, and the positions of those that do not."""
        kept: list[tuple[int, Envelope]] = []
        gone = []
        for position, envelope in self._rows:
            if len(kept) < len(entries) and entries[len(kept)][0] is envelope:
                kept.append((position, envelope))
            else:
                gone.append(position)
        return kept, gone
