"""The wide-area chain's state; each entry a leaf of the state trie, whose root is the app hash.

Keys and values (SPEC 13.4):

    "g"              the genesis digest, 32 bytes
    "l"              [size, root]: the RFC 9162 log of the entries of everything kept, in order
    "n"              validators, versions, open approvals, see ``ledger.network.NetworkState``
    "k" || region    [gateway key, ...] that operators gave a region, in place of the genesis'
    "r" || region    one region, see ``Region``
    "p" || region    what its gateways offer and more than half have not yet, see ``Offers``

Values but the first are arrays of the CBOR profile. A region that has not reported has no leaf;
nor have others before they are written. A region that never had several gateways has no offers'.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ledger.protocol import cbor, records
from ledger.protocol.cose import ADDRESS_BYTES, payload_digest
from ledger.protocol.errors import MalformedRecord
from ledger.trie import Proof, Trie
from ledger.wide.summary import MAX_ENERGY, Summary

GENESIS_KEY = b"g"
LOG_KEY = b"l"
_REGION = b"r"
_GATEWAYS = b"k"
_OFFERS = b"p"
MAX_GATEWAYS = 16  # of a region: clauses 13.1, 16.3
MOST_OFFERS = 4
"""How many different summaries one gateway may offer before one takes effect."""


def gateways_key(region: bytes) -> bytes:
    """Give the trie key of the gateways that operators gave a region."""
    return _GATEWAYS + region


def region_key(region: bytes) -> bytes:
    """Give the trie key of a region."""
    return _REGION + region


def offers_key(region: bytes) -> bytes:
    """Give the trie key of the summaries that a region's gateways offer."""
    return _OFFERS + region


def majority(gateways: int) -> int:
    """Give how many of a region's gateways must hand in a summary: more than half."""
    return gateways // 2 + 1


@dataclass(frozen=True, slots=True)
class Offers:
    """What a region's gateways want to report next, each its newest offer.

    ``rows`` are (gateway's address, payload digest, how many different ones it has offered), rising
    by address. None outlives a summary that takes effect, or new gateways of the region.
    """

    rows: tuple[tuple[bytes, bytes, int], ...] = ()

    def of(self, gateway: bytes) -> tuple[bytes | None, int]:
        """Give a gateway's offer and how many it has made; (None, 0) without one."""
        return next(((row[1], row[2]) for row in self.rows if row[0] == gateway), (None, 0))

    def count(self, digest: bytes) -> int:
        """Give how many gateways offer a payload."""
        return sum(row[1] == digest for row in self.rows)

    def after(self, gateway: bytes, digest: bytes) -> "Offers":
        """Give the offers with a gateway's new one in place of its old one."""
        row = (gateway, digest, self.of(gateway)[1] + 1)
        return Offers(tuple(sorted([*(r for r in self.rows if r[0] != gateway), row])))

    def encode(self) -> bytes:
        """Give the leaf's value."""
        return cbor.dumps([list(row) for row in self.rows])

    @classmethod
    def decode(cls, value: bytes) -> "Offers":
        """Take a leaf apart; raises MalformedRecord."""
        rows = [_offer(row) for row in records.array(cbor.loads(value), 0, MAX_GATEWAYS, "offers")]
        if any(one[0] >= other[0] for one, other in pairwise(rows)):
            raise MalformedRecord("offers do not rise by the gateways' addresses")
        return cls(tuple(rows))


def _offer(row: object) -> tuple[bytes, bytes, int]:
    gateway, digest, times = records.array(row, 3, 3, "offer")
    return (
        records.octets(gateway, ADDRESS_BYTES, "gateway"),
        records.octets(digest, records.DIGEST_BYTES, "digest"),
        records.integer(times, 1, MOST_OFFERS, "times"),
    )


def _sum(a: int, b: int) -> int:
    # a total that stops counting is better than a chain that stops
    return min(MAX_ENERGY, a + b)


@dataclass(frozen=True, slots=True)
class Region:
    """A region as the wide area knows it: where its last summary ends, and totals since its start.

    ``last`` is the payload digest of the last summary, ``log_root`` the root that it gave for the
    log of ``to_height`` heads. Totals are energies in mWh and counts of readings, adjustments
    included. ``members`` are as of the last summary. ``conflict`` is None, or the payload digest
    of a summary that a gateway of the region signed and that contradicts one in effect; which
    gateway of several, its entry in the log says.
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

    def offers(self, region: bytes) -> Offers:
        """Give what a region's gateways offer."""
        value = self._trie.get(offers_key(region))
        return Offers() if value is None else Offers.decode(value)

    def put_offers(self, region: bytes, offers: Offers) -> None:
        """Write a region's offers; where there never were any, none make no leaf."""
        if offers != self.offers(region):
            self.put(offers_key(region), offers.encode())

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
