"""The region's blocks in SQLite: heads, records, results, history log, state rows, aggregates.

Writes happen inside the transaction that the application opened; reads see it. Records are kept
packed (``ledger.regional.compact``). Readings are found by digest and by slot through 64-bit
prefixes (the few collisions are told apart by looking), ballots by slot: full digests in an index
would cost a fifth of the store. ``convictions`` are what the engine convicted validators of, by the
block in which that took effect. ``paths``, and digests of results, are what pruning leaves
(``ledger.regional.prune``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ledger.engine.abci import Misbehaviour
from ledger.protocol import cbor, records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import MalformedRecord
from ledger.regional import compact, kinds
from ledger.regional.compact import Compact, place_of, prefix_of, record_id
from ledger.regional.kinds import Entry, slot_of
from ledger.store import ChainStore, Database

__all__ = [
    "TABLES",
    "Block",
    "Blocks",
    "Result",
    "decode_misbehaviour",
    "encode_misbehaviour",
    "place_of",
    "record_id",
    "slot_of",
]

TABLES = (
    compact.TABLES
    + """
CREATE TABLE IF NOT EXISTS heads (
    height INTEGER PRIMARY KEY, round INTEGER NOT NULL, digest BLOB NOT NULL,
    payload BLOB NOT NULL, envelope BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS heads_digest ON heads (digest);
CREATE INDEX IF NOT EXISTS heads_round ON heads (round);
CREATE INDEX IF NOT EXISTS heads_unsigned ON heads (height) WHERE envelope IS NULL;
CREATE TABLE IF NOT EXISTS slots (
    slot INTEGER, id INTEGER, PRIMARY KEY (slot, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    id INTEGER, height INTEGER, outcome INTEGER NOT NULL, drawn INTEGER NOT NULL,
    accepts INTEGER NOT NULL, rejects INTEGER NOT NULL, abstains INTEGER NOT NULL, digest BLOB,
    PRIMARY KEY (id, height)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paths (id INTEGER PRIMARY KEY, path BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS convictions (
    height INTEGER, place INTEGER, misbehaviour BLOB NOT NULL,
    PRIMARY KEY (height, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
    level INTEGER, place INTEGER, digest BLOB NOT NULL, PRIMARY KEY (level, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending (position INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS windows (
    to_height INTEGER PRIMARY KEY, aggregate BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
)


# positions in the table of what waits; records have those below
WAITING_CLOSES = 1 << 32
WAITING_MISBEHAVIOUR = 1 << 33
_END = 1 << 34
_VALIDATOR_ADDRESS_BYTES = 20
_WHOLE = "substr(packed, 1, 1) = x'd2'"  # kept as an envelope, see compact


def encode_misbehaviour(found: Misbehaviour) -> bytes:
    """Give the bytes that stand for a conviction: what is kept and what is hashed (SPEC 11.8)."""
    return cbor.dumps([found.kind, found.address, found.height])


def decode_misbehaviour(data: bytes) -> Misbehaviour:
    """Take such bytes apart; raises MalformedRecord."""
    kind, address, height = records.array(cbor.loads(data, 3), 3, 3, "misbehaviour")
    return Misbehaviour(
        records.integer(kind, 0, 0xFFFF, "kind"),
        records.octets(address, _VALIDATOR_ADDRESS_BYTES, "validator's address"),
        records.integer(height, 0, (1 << 63) - 1, "height"),
    )


@dataclass(frozen=True, slots=True)
class Result:
    """What the votes on one reading came to in one block; the counts are of committee members."""

    digest: bytes
    record_id: int
    outcome: int
    drawn: int
    accepts: int
    rejects: int
    abstains: int

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Give (outcome, drawn, accepts, rejects, abstains)."""
        return self.outcome, self.drawn, self.accepts, self.rejects, self.abstains


@dataclass(frozen=True, slots=True)
class Block:
    """One closed round: its head, its records in order, and the results that it settles."""

    head: records.Head
    records: tuple[Entry, ...]
    results: tuple[Result, ...]
    convictions: tuple[Misbehaviour, ...] = ()


def _slot_prefix(kind: int, address: bytes, slot: tuple[int, int]) -> int:
    numbers = bytes([kind]) + slot[0].to_bytes(4, "big") + slot[1].to_bytes(4, "big")
    return prefix_of(sha256(address + numbers).digest())


class Blocks(ChainStore):
    """Reads and writes the blocks of one region."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._compact = Compact(self._sql.execute, self._genesis)

    def _genesis(self) -> bytes:
        genesis = self.meta("genesis")
        assert genesis is not None, "a store with records has a genesis"
        return sha256(genesis).digest()

    def forget(self) -> None:
        """Drop what is remembered of a transaction that was rolled back."""
        self._compact.forget()

    # heads

    def height(self) -> int:
        """Give the newest height; 0 before the first close."""
        row = self._sql.execute("SELECT max(height) FROM heads").fetchone()
        return int(row[0] or 0)

    def head_payload(self, height: int) -> bytes | None:
        """Give the payload of a head, or None."""
        row = self._sql.execute("SELECT payload FROM heads WHERE height=?", (height,)).fetchone()
        return None if row is None else bytes(row[0])

    def head(self, height: int) -> records.Head:
        """Give a head; raises LookupError."""
        payload = self.head_payload(height)
        if payload is None:
            raise LookupError(f"no block {height}")
        head = records.decode(payload)
        assert isinstance(head, records.Head)
        return head

    def head_envelope(self, height: int) -> bytes | None:
        """Give a head as this gateway signed it, or None."""
        row = self._sql.execute("SELECT envelope FROM heads WHERE height=?", (height,)).fetchone()
        return None if row is None or row[0] is None else bytes(row[0])

    def unsigned_heads(self, most: int) -> list[tuple[int, bytes]]:
        """Give (height, payload) of the newest heads that this gateway has not signed, rising."""
        rows = self._sql.execute(
            "SELECT height, payload FROM heads WHERE envelope IS NULL ORDER BY height DESC LIMIT ?",
            (most,),
        )
        return [(height, bytes(payload)) for height, payload in rows][::-1]

    def put_head_envelope(self, height: int, envelope: bytes) -> None:
        """Keep a head's signature."""
        self._sql.execute("UPDATE heads SET envelope=? WHERE height=?", (envelope, height))

    def height_of(self, digest: bytes) -> int | None:
        """Give the height of the head with a digest, or None."""
        row = self._sql.execute("SELECT height FROM heads WHERE digest=?", (digest,)).fetchone()
        return None if row is None else int(row[0])

    def last_digest_before(self, round_: int) -> bytes | None:
        """Give the digest of the newest head of a round before ``round_``, or None."""
        row = self._sql.execute(
            "SELECT digest FROM heads WHERE round<? ORDER BY round DESC LIMIT 1", (round_,)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def last_height_before(self, round_: int) -> int:
        """Give the height of the newest head of a round before ``round_``, or 0."""
        row = self._sql.execute(
            "SELECT height FROM heads WHERE round<? ORDER BY round DESC LIMIT 1", (round_,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    # records

    def envelope(self, id_: int) -> Envelope | None:
        """Give a record, or None."""
        row = self._sql.execute("SELECT packed FROM records WHERE id=?", (id_,)).fetchone()
        return None if row is None else self._compact.unpack(id_, row[0])

    def digest_of(self, id_: int) -> bytes:
        """Give the digest of a record; raises MalformedRecord where it is not here."""
        envelope = self.envelope(id_)
        if envelope is None:
            raise MalformedRecord("a record is not here that a result is of")
        return envelope.digest

    def record(self, id_: int) -> bytes | None:
        """Give the bytes of a record's envelope, or None."""
        envelope = self.envelope(id_)
        return None if envelope is None else envelope.raw

    def envelopes_of(self, height: int) -> list[Envelope]:
        """Give the records of a block in order."""
        rows = self._sql.execute(
            "SELECT id, packed FROM records WHERE id>=? AND id<? ORDER BY id",
            (record_id(height, 0), record_id(height + 1, 0)),
        )
        return [self._compact.unpack(id_, packed) for id_, packed in rows.fetchall()]

    def records_of(self, height: int) -> list[bytes]:
        """Give the bytes of the envelopes of a block in order."""
        return [envelope.raw for envelope in self.envelopes_of(height)]

    def packed_of(self, height: int) -> list[bytes]:
        """Give the records of a block as they are kept."""
        rows = self._sql.execute(
            "SELECT packed FROM records WHERE id>=? AND id<? ORDER BY id",
            (record_id(height, 0), record_id(height + 1, 0)),
        )
        return [row[0] for row in rows]

    def find_reading(self, digest: bytes) -> int | None:
        """Give the id of a reading by digest, or None."""
        for id_ in self.readings_of_prefix(digest[:8]):
            envelope = self.envelope(id_)
            if envelope is not None and envelope.digest == digest:
                return id_
        return None

    def readings_of_prefix(self, prefix: bytes) -> list[int]:
        """Give the ids of readings whose digest starts with eight bytes."""
        rows = self._sql.execute("SELECT id FROM digests WHERE digest=?", (prefix_of(prefix),))
        return [int(id_) for (id_,) in rows]

    def find_slot(
        self, kind: int, address: bytes, slot: tuple[int, int], from_height: int = 0
    ) -> list[int]:
        """Give the ids of the records (two at an equivocation) in a slot, oldest first.

        Only those in blocks from a height on.
        """
        rows = self._sql.execute(
            "SELECT id FROM slots WHERE slot=? AND id>=? ORDER BY id",
            (_slot_prefix(kind, address, slot), record_id(from_height, 0)),
        )
        found = []
        for (id_,) in rows.fetchall():
            envelope = self.envelope(id_)
            if envelope is None:
                continue
            if kinds.slot_key(envelope, kinds.decode(envelope.payload)) == (kind, address, slot):
                found.append(int(id_))
        return found

    def digests_in_slot(
        self, kind: int, address: bytes, slot: tuple[int, int], from_height: int = 0
    ) -> list[bytes]:
        """Give the digests of the records in a slot, oldest first, of blocks from a height on."""
        ids = self.find_slot(kind, address, slot, from_height)
        stored = [self.envelope(id_) for id_ in ids]
        return [envelope.digest for envelope in stored if envelope is not None]

    # results, windows, state

    def results_of(self, id_: int) -> list[tuple[int, ...]]:
        """Give (height, outcome, drawn, accepts, rejects, abstains) of a reading, oldest first."""
        rows = self._sql.execute(
            "SELECT height, outcome, drawn, accepts, rejects, abstains FROM results"
            " WHERE id=? ORDER BY height",
            (id_,),
        )
        return [tuple(row) for row in rows]

    def all_results(self) -> Iterator[tuple[int, ...]]:
        """Give (id, height, outcome, drawn, accepts, rejects, abstains), by id then height."""
        for row in self._sql.execute(
            "SELECT id, height, outcome, drawn, accepts, rejects, abstains FROM results"
            " ORDER BY id, height"
        ):
            yield tuple(row)

    def state_value(self, key: bytes) -> bytes | None:
        """Give one value of the state, or None."""
        row = self._sql.execute("SELECT value FROM state WHERE key=?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def windows_after(self, height: int) -> list[tuple[int, bytes]]:
        """Give (to height, aggregate) of the windows that ended after a height."""
        rows = self._sql.execute(
            "SELECT to_height, aggregate FROM windows WHERE to_height>? ORDER BY to_height",
            (height,),
        )
        return [(to_height, bytes(blob)) for to_height, blob in rows]

    def last_window_row(self) -> tuple[int, bytes] | None:
        """Give (to height, aggregate) of the window that ended last, or None."""
        row = self._sql.execute(
            "SELECT to_height, aggregate FROM windows ORDER BY to_height DESC LIMIT 1"
        ).fetchone()
        return None if row is None else (int(row[0]), bytes(row[1]))

    def last_window(self) -> bytes | None:
        """Give the aggregate of the window that ended last, or None."""
        row = self.last_window_row()
        return None if row is None else row[1]

    def pending(self) -> list[tuple[int, bytes]]:
        """Give (position, envelope) of records that wait for a close, in the order of delivery."""
        rows = self._sql.execute(
            "SELECT position, envelope FROM pending WHERE position<? ORDER BY position",
            (WAITING_CLOSES,),
        )
        return [(int(position), bytes(envelope)) for position, envelope in rows]

    def waiting(self) -> tuple[list[bytes], list[bytes]]:
        """Give what else waits for a close: gateways' orders, and misbehaviour."""
        sql = "SELECT envelope FROM pending WHERE position>=? AND position<? ORDER BY position"
        closes = self._sql.execute(sql, (WAITING_CLOSES, WAITING_MISBEHAVIOUR)).fetchall()
        found = self._sql.execute(sql, (WAITING_MISBEHAVIOUR, _END)).fetchall()
        return [bytes(row[0]) for row in closes], [bytes(row[0]) for row in found]

    def drop_meta(self, name: str) -> None:
        """Forget a small value."""
        self._sql.execute("DELETE FROM meta WHERE name=?", (name,))

    # writing a block

    def append(self, block: Block) -> None:
        """Write head, records and results."""
        height = block.head.height
        self.append_head(block.head)
        self.append_records(height, block.records)
        self._sql.executemany(
            "INSERT INTO results VALUES (?,?,?,?,?,?,?,NULL)",
            [(r.record_id, height, *r.counts) for r in block.results],
        )
        rows = enumerate(block.convictions)
        self._sql.executemany(
            "INSERT INTO convictions VALUES (?,?,?)",
            [(height, place, encode_misbehaviour(found)) for place, found in rows],
        )

    def append_head(self, head: records.Head) -> None:
        """Write a head, not signed yet."""
        payload = head.payload()
        row = (head.height, head.round, payload_digest(payload), payload)
        self._sql.execute("INSERT INTO heads VALUES (?,?,?,?,NULL)", row)

    def append_records(self, height: int, entries: Sequence[Entry]) -> None:
        """Write the records of a block, and what finds them."""
        slots, digests = [], []
        for index, (envelope, record) in enumerate(entries):
            id_ = record_id(height, index)
            if not isinstance(record, (records.Reading, records.Ballot)):
                continue
            slots.append((_slot_prefix(record.TYPE, envelope.kid, slot_of(record)), id_))
            if isinstance(record, records.Reading):
                digests.append((prefix_of(envelope.digest), id_))
        packed = enumerate(self._compact.pack(height, entries))
        rows = [(record_id(height, index), record) for index, record in packed]
        self._sql.executemany("INSERT INTO records VALUES (?,?)", rows)
        self._sql.executemany("INSERT INTO slots VALUES (?,?)", sorted(slots))
        self._sql.executemany("INSERT INTO digests VALUES (?,?)", sorted(digests))

    def put_window(self, to_height: int, aggregate: bytes) -> None:
        """Keep the aggregate of a window that ended."""
        self._sql.execute("INSERT INTO windows VALUES (?,?)", (to_height, aggregate))

    def put_state(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        """Write state rows; None takes a row out."""
        gone = [(key,) for key, value in changes if value is None]
        self._sql.executemany("DELETE FROM state WHERE key=?", gone)
        kept = [(key, value) for key, value in changes if value is not None]
        self._sql.executemany("INSERT OR REPLACE INTO state VALUES (?,?)", kept)

    def put_pending(self, envelopes: list[bytes], first: int = 0) -> None:
        """Add records that wait for a close, from position ``first`` on."""
        self._put_at(first, envelopes)

    def drop_pending(self, positions: list[int]) -> None:
        """Take out records that wait for a close no more."""
        rows = [(position,) for position in positions]
        self._sql.executemany("DELETE FROM pending WHERE position=?", rows)

    def put_waiting(self, closes: list[bytes], misbehaviour: list[bytes]) -> None:
        """Replace what else waits for a close."""
        self._sql.execute("DELETE FROM pending WHERE position>=?", (WAITING_CLOSES,))
        self._put_at(WAITING_CLOSES, closes)
        self._put_at(WAITING_MISBEHAVIOUR, misbehaviour)

    def _put_at(self, first: int, values: list[bytes]) -> None:
        rows = [(first + i, value) for i, value in enumerate(values)]
        self._sql.executemany("INSERT INTO pending VALUES (?,?)", rows)

    # pruned blocks

    def first_body(self) -> int:
        """Give the first height whose records are all here."""
        return int.from_bytes(self.meta("pruned") or b"\1", "big")

    def set_first_body(self, height: int) -> None:
        """Note the first height whose records are all here."""
        self.set_meta("pruned", height.to_bytes(4, "big"))

    def kept_records(self, from_height: int, to_height: int) -> list[tuple[int, bytes]]:
        """Give (id, envelope) of operators' and gateways' records, which stay for ever.

        Those of blocks from a height on and below another one.
        """
        rows = self._sql.execute(
            f"SELECT id, packed FROM records WHERE id>=? AND id<? AND {_WHOLE} ORDER BY id",  # noqa: S608
            (record_id(from_height, 0), record_id(to_height, 0)),
        )
        return [(int(id_), bytes(packed)) for id_, packed in rows]

    def put_kept(self, id_: int, envelope: bytes, path: bytes) -> None:
        """Keep a record of a block whose other records are not here, with its path."""
        self._sql.execute("INSERT INTO records VALUES (?,?)", (id_, envelope))
        self.put_path(id_, path)

    def path(self, id_: int) -> bytes | None:
        """Give the path of a kept record to its block's records root, or None."""
        row = self._sql.execute("SELECT path FROM paths WHERE id=?", (id_,)).fetchone()
        return None if row is None else bytes(row[0])

    def put_path(self, id_: int, path: bytes) -> None:
        """Keep the path of a record to its block's records root."""
        self._sql.execute("INSERT INTO paths VALUES (?,?)", (id_, path))

    def results_from(self, height: int) -> Iterator[tuple[Any, ...]]:
        """Give (id, height, outcome, …, abstains, digest or None) of blocks from a height on.

        In the order of blocks.
        """
        sql = "SELECT * FROM results WHERE height>=? ORDER BY height, id"
        for row in self._sql.execute(sql, (height,)):
            yield tuple(row)

    def put_result(self, row: Sequence[object]) -> None:
        """Keep a result, as ``results_from`` gives it."""
        self._sql.execute("INSERT INTO results VALUES (?,?,?,?,?,?,?,?)", tuple(row))

    def name_results(self, before_height: int) -> None:
        """Give results from a height on the digests of readings below it."""
        border = record_id(before_height, 0)
        rows = self._sql.execute(
            "SELECT id, height FROM results WHERE id<? AND height>=? AND digest IS NULL",
            (border, before_height),
        )
        for id_, height in rows.fetchall():
            row = (self.digest_of(id_), id_, height)
            self._sql.execute("UPDATE results SET digest=? WHERE id=? AND height=?", row)

    def drop_bodies(self, before_height: int) -> None:
        """Take out meters' records and results of the blocks below a height."""
        border = record_id(before_height, 0)
        self._sql.execute(f"DELETE FROM records WHERE id<? AND NOT {_WHOLE}", (border,))  # noqa: S608
        self._sql.execute("DELETE FROM slots WHERE id<?", (border,))
        self._sql.execute("DELETE FROM digests WHERE id<?", (border,))
        self._sql.execute("DELETE FROM results WHERE id<? AND height<?", (border, before_height))
        self.set_first_body(before_height)
        self._compact.forget()

    def pack_again(self, height: int, entries: Sequence[Entry]) -> None:
        """Write the records of a block in the form that they would have now."""
        rows = [
            (packed, record_id(height, index))
            for index, packed in enumerate(self._compact.pack(height, entries))
        ]
        self._sql.executemany("UPDATE records SET packed=? WHERE id=?", rows)
