"""How the store keeps a record: exactly, but without what can be rebuilt (docs/adr/0006).

A packed record is a CBOR array:

    reading   [signer, signature, rest]       rest: the payload after type, version and chain
    ballot    [signer, signature, round, parent, [reading, verdict, reading, verdict, …]]

or the envelope itself, which begins with another byte: registry changes, and records of another
region. ``signer`` numbers the addresses in the order in which they first signed a record of a
block. ``parent`` is the height of the head, 0 the genesis. A ballot's ``reading`` is an index in
the ballot's own block, or [blocks back, index]. Digests stand there in full where no head has
them, and no reading of the last ``MOST_BACK`` blocks.

Only readings are referred to, and they refer to nothing, so taking a record apart ends.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from ledger.protocol import cbor, cose, records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import MalformedRecord

TABLES = """
CREATE TABLE IF NOT EXISTS signers (number INTEGER PRIMARY KEY, address BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, packed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS digests (
    digest INTEGER, id INTEGER, PRIMARY KEY (digest, id)) WITHOUT ROWID;
"""

MOST_BACK = 64
_INDEX_BITS = 20
MOST_INDEX = (1 << _INDEX_BITS) - 1
_ENVELOPE = b"\xd2"  # tag 18 of COSE_Sign1
_READING_FIELDS, _BALLOT_FIELDS = 3, 5
_READING = bytes((0x80 | _READING_FIELDS,))  # what a packed reading begins with
_MAX_ITEMS = 128  # a ballot of 24 readings in other blocks has 101
_MOST_KEPT = 100_000  # digests that are remembered

Rows = Callable[[str, Sequence[object]], Iterable[Sequence[Any]]]
"""Runs a query; what it gives may be of any type."""
Entries = Sequence[tuple[Envelope, Any]]
"""The records of a block: (envelope, decoded)."""


def record_id(height: int, index: int) -> int:
    """Give the id of a record by its place."""
    return height << _INDEX_BITS | index


def place_of(id_: int) -> tuple[int, int]:
    """Give (height, index) of a record id."""
    return id_ >> _INDEX_BITS, id_ & MOST_INDEX


def prefix_of(digest: bytes) -> int:
    """Give the number by which the store finds a digest: its first 64 bits."""
    return int.from_bytes(digest[:8], "big", signed=True)


class Compact:
    """Packs and unpacks the records of one store, which is read by ``rows``.

    ``genesis`` gives the 32-byte digest of the region's genesis. What was looked up is remembered;
    ``forget`` it when a transaction is dropped.
    """

    def __init__(self, rows: Rows, genesis: Callable[[], bytes]) -> None:
        self._rows = rows
        self._genesis_of = genesis
        self.forget()

    def forget(self) -> None:
        """Drop what was remembered."""
        self._addresses: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] | None = None
        self._digests: dict[int, bytes] = {}
        self._heads: dict[int, bytes] = {}
        self._heights: dict[bytes, int] = {}

    # packing

    def pack(self, height: int, entries: Entries) -> list[bytes]:
        """Give the records of a block as they are kept; numbers new signers in the store.

        The records must be as decoded from their envelopes: that there is one encoding only is
        what brings a ballot back byte for byte.
        """
        fresh = {
            envelope.digest: index
            for index, (envelope, record) in enumerate(entries)
            if isinstance(record, records.Reading) and record.chain == self._chain
        }
        return [self._pack(height, *entry, fresh) for entry in entries]

    def _pack(self, height: int, envelope: Envelope, record: Any, fresh: dict[bytes, int]) -> bytes:
        if record.chain != self._chain:
            return envelope.raw
        if isinstance(record, records.Reading):
            rest = envelope.payload[len(self._start) :]
            return cbor.dumps([self._number(envelope.kid), envelope.signature, rest])
        if not isinstance(record, records.Ballot):
            return envelope.raw
        verdicts: list[Any] = []
        for digest, verdict in record.verdicts:
            index = fresh.get(digest)
            verdicts += (self._earlier(height, digest) if index is None else index), verdict
        who = [self._number(envelope.kid), envelope.signature]
        return cbor.dumps([*who, record.round, self._height_of(record.parent), verdicts])

    def _earlier(self, height: int, digest: bytes) -> list[int] | bytes:
        """Give [blocks back, index] of a reading in an earlier block, or its digest."""
        query = "SELECT id FROM digests WHERE digest=? AND id>=? AND id<? ORDER BY id"
        first = record_id(max(0, height - MOST_BACK), 0)
        for (id_,) in self._rows(query, (prefix_of(digest), first, record_id(height, 0))):
            if self._digest_at(id_) == digest:
                found, index = place_of(id_)
                return [height - found, index]
        return digest

    def _height_of(self, parent: bytes) -> int | bytes:
        # most ballots of a round name the same head
        height = self._heights.get(parent)
        if height is None:
            if parent == self._genesis:
                height = 0
            else:
                rows = self._rows("SELECT height FROM heads WHERE digest=?", (parent,))
                height = next((row[0] for row in rows), None)
            if height is None:
                return parent
            self._heights[parent] = height
        return height

    def _number(self, address: bytes) -> int:
        if self._numbers is None:
            rows = self._rows("SELECT address, number FROM signers", ())
            self._numbers = {bytes(address): number for address, number in rows}
        number = self._numbers.get(address)
        if number is None:
            number = self._numbers[address] = len(self._numbers)
            self._rows("INSERT INTO signers VALUES (?,?)", (number, address))
        return number

    # unpacking

    def unpack(self, id_: int, packed: object) -> Envelope:
        """Give the record with an id as it was signed; raises MalformedRecord."""
        if not isinstance(packed, bytes):
            raise MalformedRecord("it is not bytes")
        if len(packed) > cose.MAX_RECORD_BYTES:
            raise MalformedRecord("it is longer than a record")
        if packed.startswith(_ENVELOPE):
            return Envelope.parse(packed)
        fields = cbor.loads(packed, _MAX_ITEMS)
        if not isinstance(fields, list) or len(fields) not in (_READING_FIELDS, _BALLOT_FIELDS):
            raise MalformedRecord("it is no packed record")
        if len(fields) == _READING_FIELDS:
            return self._reading(id_, fields)
        return _join(*self._signed(fields), self._ballot(id_, fields))

    def _reading(self, id_: int, fields: list[Any]) -> Envelope:
        if not isinstance(fields[2], bytes):
            raise MalformedRecord("the rest of a reading is not bytes")
        envelope = _join(*self._signed(fields), self._start + fields[2])
        if len(self._digests) >= _MOST_KEPT:
            self._digests.clear()
        self._digests[id_] = envelope.digest
        return envelope

    def _ballot(self, id_: int, fields: list[Any]) -> bytes:
        """Give the payload of a packed ballot."""
        height, _ = place_of(id_)
        items = records.array(fields[4], 0, 2 * records.MAX_VERDICTS, "verdicts")
        if len(items) % 2:
            raise MalformedRecord("a reading without a verdict")
        verdicts = [
            (self._judged(height, reading), records.integer(verdict, 0, 255, "verdict"))
            for reading, verdict in zip(items[::2], items[1::2], strict=True)
        ]
        round_ = records.integer(fields[2], 0, records.MAX_ROUND, "round")
        return records.Ballot(self._chain, round_, self._parent(fields[3]), verdicts).payload()

    def _judged(self, height: int, reading: object) -> bytes:
        """Give the digest of a reading that a ballot of a block refers to."""
        if isinstance(reading, bytes):
            return records.octets(reading, records.DIGEST_BYTES, "digest")
        back, index = 0, reading
        if isinstance(reading, list):
            records.array(reading, 2, 2, "reference")
            back, index = records.integer(reading[0], 1, MOST_BACK, "blocks back"), reading[1]
        index = records.integer(index, 0, MOST_INDEX, "index")
        digest = self._digest_at(record_id(height - back, index))
        if digest is None:
            raise MalformedRecord("a reading that it judges is missing")
        return digest

    def _digest_at(self, id_: int) -> bytes | None:
        """Give the digest of a packed reading; None where there is none, or another record."""
        if id_ not in self._digests:
            rows = self._rows("SELECT packed FROM records WHERE id=?", (id_,))
            packed = next((row[0] for row in rows), None)
            if not isinstance(packed, bytes) or not packed.startswith(_READING):
                return None
            self.unpack(id_, packed)
        return self._digests[id_]

    def _parent(self, parent: object) -> bytes:
        if isinstance(parent, bytes):
            return records.octets(parent, records.DIGEST_BYTES, "parent")
        height = records.integer(parent, 0, records.MAX_ROUND, "height of the parent")
        if height == 0:
            return self._genesis
        if height not in self._heads:
            rows = self._rows("SELECT digest FROM heads WHERE height=?", (height,))
            digest = next((row[0] for row in rows), None)
            self._heads[height] = records.octets(digest, records.DIGEST_BYTES, "parent's digest")
        return self._heads[height]

    def _signed(self, fields: list[Any]) -> tuple[bytes, bytes]:
        """Give (address, signature) of a packed record."""
        number = records.integer(fields[0], 0, (1 << 32) - 1, "signer")
        if number not in self._addresses:
            rows = self._rows("SELECT address FROM signers WHERE number=?", (number,))
            address = next((row[0] for row in rows), None)
            if address is None:
                raise MalformedRecord(f"its signer, number {number}, is missing")
            self._addresses[number] = records.octets(address, cose.ADDRESS_BYTES, "signer's entry")
        signature = records.octets(fields[1], cose.SIGNATURE_BYTES, "signature")
        return self._addresses[number], signature

    # what all records of the region share

    @cached_property
    def _genesis(self) -> bytes:
        return self._genesis_of()

    @cached_property
    def _chain(self) -> bytes:
        return self._genesis[: records.CHAIN_BYTES]

    @cached_property
    def _start(self) -> bytes:
        """What the payload of every reading begins with: array of 11, type, version, chain."""
        return bytes((0x8B, records.READING, records.VERSION, 0x48)) + self._chain


def _join(address: bytes, signature: bytes, payload: bytes) -> Envelope:
    envelope = cose.join(address, payload, signature)
    if len(envelope.raw) > cose.MAX_RECORD_BYTES:
        raise MalformedRecord("it unfolds into more than a record may hold")
    return envelope
