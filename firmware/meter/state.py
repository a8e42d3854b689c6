"""What a meter must not forget over a restart, in one cell on its flash.

It is written before a ballot leaves, once a round: with the head that the ballot names, so that no
later ballot names another branch; with the ballot's round, for two ballots of one round are
evidence; and with the newest reading's digest, which the next reading names. A reading signed since
then is found in the journal.

A cell whose newer file has rotted gives the value before: then the first round of this start gets
no ballot, for it may have had one.

Left out: the key and the count of starts (identity), readings without a receipt (journal).
"""

from ledger.protocol import cbor, records
from ledger.protocol.errors import MalformedRecord

try:
    from typing import Any
except ImportError:
    pass

_VERSION = 1
_NEVER = -1


class State:
    """``cell`` is a firmware.meter.storage.Cell, ``genesis`` names the region.

    ``previous`` is the digest of this meter's newest reading, ``reading_round`` its round; ``head``
    is (height, digest) or None, ``ballot_round`` the round of the newest ballot. Rounds are -1
    where there was none. What was kept for another region does not count: ``moved`` tells of it.
    """

    def __init__(self, cell: "Any", genesis: bytes) -> None:
        self._cell = cell
        self._genesis = genesis
        self.previous = records.NO_DIGEST
        self.reading_round = _NEVER
        self.head: "tuple[int, bytes] | None" = None
        self.ballot_round = _NEVER
        self.moved = False
        data = cell.read()
        self._unsure: bool = cell.damaged
        if data is not None:
            try:
                self._restore(data)
            except MalformedRecord:
                pass  # of another firmware; the chain shows the gap

    def _restore(self, data: bytes) -> None:
        f = records.array(cbor.loads(data), 7, 7, "state")
        self.moved = f[1] != self._genesis
        if f[0] != _VERSION or self.moved:
            return
        height = records.integer(f[4], 0, records.MAX_ROUND, "height")
        head = (height, records.octets(f[5], records.DIGEST_BYTES, "head"))
        reading_round = records.integer(f[3], _NEVER, 1 << 40, "round")
        ballot_round = records.integer(f[6], _NEVER, 1 << 40, "round")
        self.previous = records.octets(f[2], records.DIGEST_BYTES, "previous")
        self.reading_round = reading_round
        self.head = head if height else None
        self.ballot_round = ballot_round

    def may_vote(self, round_: int) -> bool:
        """Tell whether no ballot of this round or a later one can have left."""
        if self._unsure:
            self._unsure = False
            self.ballot_round = max(self.ballot_round, round_)
        return round_ > self.ballot_round

    def save(self) -> None:
        """Write everything; raises OSError where the flash refuses."""
        height, digest = self.head or (0, records.NO_DIGEST)
        fields = [_VERSION, self._genesis, self.previous, self.reading_round]
        self._cell.write(cbor.dumps(fields + [height, digest, self.ballot_round]))
