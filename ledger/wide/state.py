"""The wide-area chain's state; each entry a leaf of the state trie, whose root is the app hash.

Keys and values (SPEC 13.4):

    "g"              the genesis digest, 32 bytes
    "l"              [size, root]: the RFC 9162 log of the entries of everything kept, in order
    "n"              validators, versions, open approvals, see ``ledger.network.NetworkState``
    "k" || region    [gateway key, ...] that operators gave a region, in place of the genesis'
    "r" || region    one region, see ``Region``

Values but the first are arrays of the CBOR profile. A region that has not reported has no leaf;
nor have others before they are written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ledger.protocol import cbor, records
from ledger.protocol.cose import payload_digest
from ledger.trie import Proof, Trie
from ledger.wide.summary import MAX_ENERGY, Summary

GENESIS_KEY = b"g"
LOG_KEY = b"l"
_REGION = b"r"
_GATEWAYS = b"k"


def gateways_key(region: bytes) -> bytes:
    """Give the trie key of the gateways that operators gave a region."""
    return _GATEWAYS + region


def region_key(region: bytes) -> bytes:
    """Give the trie key of a region."""
    return _REGION + region


def _sum(a: int, b: int) -> int:
    # a total that stops counting is better than a chain that stops
    return min(MAX_ENERGY, a + b)


@dataclass(frozen=True, slots=True)
class Region:
    """A region as the wide area knows it: where its last summary ends, and totals since its start.

    ``last`` is the payload digest of the last summary, ``log_root`` the root that it gave for the
    log of ``to_height`` heads. Totals are energies in mWh and counts of readings, adjustments
    included. ``members`` are as of the last summary. ``conflict`` is None, or the payload digest
    of a summary that the region's gateway signed too and that contradicts one in effect.
    """

    summaries: int = 0
    to_height: int = 0
    to_round: int = -1
    last: bytes = records.NO_DIGEST
    log_root: bytes = records.NO_DIGEST
    witnessed_height: int = 0
    witnessed_digest: bytes = records.NO_DIGEST
    energy_in: int = 0
    energy_out: int = 0
    accepted: int = 0
    rejected: int = 0
    unconfirmed: int = 0
    alarms: int = 0
    members: int = 0
    conflict: bytes | None = None

    def after(self, payload: bytes, summary: Summary) -> "Region":
        """Give the region after a summary in effect."""
        late = summary.adjustments
        return Region(
            self.summaries + 1,
            summary.to_height,
            summary.to_round,
            payload_digest(payload),
            summary.log_root,
            summary.witnessed_height,
            summary.witnessed_digest,
            _sum(self.energy_in, summary.energy_in),
            _sum(self.energy_out, summary.energy_out),
            _sum(self.accepted, summary.accepted + sum(row[1] for row in late)),
            _sum(self.rejected, summary.rejected + sum(row[2] for row in late)),
            _sum(self.unconfirmed, summary.unconfirmed + sum(row[3] for row in late)),
            _sum(self.alarms, summary.alarms),
            summary.members,
            self.conflict,
        )

    def contradicted_by(self, payload: bytes) -> "Region":
        """Give the region with the mark of a conflict."""
        return replace(self, conflict=payload_digest(payload))

    def encode(self) -> bytes:
        """Give the leaf's value: the fields in the order above."""
        where: list[Any] = [self.summaries, self.to_height, self.to_round, self.last]
        where += [self.log_root, self.witnessed_height, self.witnessed_digest]
        totals = [self.energy_in, self.energy_out, self.accepted, self.rejected]
        totals += [self.unconfirmed, self.alarms, self.members]
        return cbor.dumps([*where, *totals, self.conflict])

    @classmethod
    def decode(cls, value: bytes) -> "Region":
        """Take a leaf of our own store, or a proved one, apart."""
        return cls(*cbor.loads(value))


class State:
    """The leaves with the trie over them; writes since ``settle`` can be undone."""

    def __init__(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._trie = Trie()
        for key, value in rows:
            self._trie.set(key, value)
        self._settled = self._trie.snapshot()
        self._changed: dict[bytes, bytes] = {}

    def region(self, region: bytes) -> Region:
        """Give a region; one that has not reported yet is empty."""
        value = self._trie.get(region_key(region))
        return Region() if value is None else Region.decode(value)

    def get(self, key: bytes) -> bytes | None:
        """Give a leaf's value, or None."""
        return self._trie.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Write a leaf."""
        self._trie.set(key, value)
        self._changed[key] = value

    def changes(self) -> list[tuple[bytes, bytes]]:
        """Give what was written since ``settle``, by key."""
        return sorted(self._changed.items())

    def given_regions(self) -> list[bytes]:
        """Give the ids of the regions whose gateways operators gave, rising."""
        return sorted(key[len(_GATEWAYS) :] for key, _ in self._trie if key[:1] == _GATEWAYS)

    def root(self) -> bytes:
        """Give the 32-byte root."""
        return self._trie.root()

    def prove(self, key: bytes) -> Proof:
        """Give the proof of a key's value or absence under ``root``."""
        return self._trie.prove(key)

    def settle(self) -> None:
        """Keep the writes."""
        self._settled = self._trie.snapshot()
        self._changed.clear()

    def rollback(self) -> None:
        """Undo the writes since ``settle``."""
        self._trie.rollback(self._settled)
        self._changed.clear()
