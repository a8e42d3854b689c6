"""The region's blocks in SQLite: heads, records, results, history log, state rows, aggregates.

Writes happen inside the transaction that the application opened; reads see it. Records are kept
packed (``ledger.regional.compact``). Readings are found by digest and by slot through 64-bit
prefixes (the few collisions are told apart by looking), ballots by slot: full digests in an index
would cost a fifth of the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from ledger.protocol import records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional import compact
from ledger.regional.compact import Compact, place_of, prefix_of, record_id
from ledger.store import ChainStore, Database

__all__ = ["TABLES", "Block", "Blocks", "Result", "place_of", "record_id", "slot_of"]

TABLES = (
    compact.TABLES
    + """
CREATE TABLE IF NOT EXISTS heads (
    height INTEGER PRIMARY KEY, round INTEGER NOT NULL, digest BLOB NOT NULL,
    payload BLOB NOT NULL, envelope BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS heads_digest ON heads (digest);
CREATE INDEX IF NOT EXISTS heads_round ON heads (round);
CREATE TABLE IF NOT EXISTS slots (
    slot INTEGER, id INTEGER, PRIMARY KEY (slot, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    id INTEGER, height INTEGER, outcome INTEGER NOT NULL, drawn INTEGER NOT NULL,
    accepts INTEGER NOT NULL, rejects INTEGER NOT NULL, abstains INTEGER NOT NULL,
    PRIMARY KEY (id, height)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
    level INTEGER, place INTEGER, digest BLOB NOT NULL, PRIMARY KEY (level, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending (position INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS windows (
    to_height INTEGER PRIMARY KEY, aggregate BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
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
    records: tuple[
        tuple[Envelope, "records.Reading | records.Ballot | records.RegistryChange"], ...
    ]
    results: tuple[Result, ...]


def _slot_prefix(kind: int, address: bytes, slot: tuple[int, int]) -> int:
    numbers = bytes([kind]) + slot[0].to_bytes(4, "big") + slot[1].to_bytes(4, "big")
    return prefix_of(sha256(address + numbers).digest())


def slot_of(record: "records.Reading | records.Ballot") -> tuple[int, int]:
    """Give (boot, seq) of a reading, (round, 0) of a ballot."""
    if isinstance(record, records.Reading):
        return record.boot, record.seq
    return record.round, 0


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

    def unsigned_heads(self) -> list[tuple[int, bytes]]:
        """Give (height, payload) of heads that this gateway has not signed yet."""
        rows = self._sql.execute(
            "SELECT height, payload FROM heads WHERE envelope IS NULL ORDER BY height"
        )
        return [(height, bytes(payload)) for height, payload in rows]

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

    def find_slot(self, kind: int, address: bytes, slot: tuple[int, int]) -> list[int]:
        """Give the ids of the records (two at an equivocation) in a slot, oldest first."""
        rows = self._sql.execute(
            "SELECT id FROM slots WHERE slot=? ORDER BY id", (_slot_prefix(kind, address, slot),)
        )
        found = []
        for (id_,) in rows.fetchall():
            envelope = self.envelope(id_)
            if envelope is None:
                continue
            record = records.decode(envelope.payload)
            if record.TYPE == kind and envelope.kid == address and slot_of(record) == slot:
                found.append(int(id_))
        return found

    def digests_in_slot(self, kind: int, address: bytes, slot: tuple[int, int]) -> list[bytes]:
        """Give the digests of the records in a slot, oldest first."""
        stored = [self.envelope(id_) for id_ in self.find_slot(kind, address, slot)]
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
        for row in self._sql.execute("SELECT * FROM results ORDER BY id, height"):
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

    def last_window(self) -> bytes | None:
        """Give the aggregate of the window that ended last, or None."""
        row = self._sql.execute(
            "SELECT aggregate FROM windows ORDER BY to_height DESC LIMIT 1"
        ).fetchone()
        return None if row is None else bytes(row[0])

    def pending(self) -> list[bytes]:
        """Give the records that wait for a close, in the order of delivery."""
        rows = self._sql.execute("SELECT envelope FROM pending ORDER BY position")
        return [bytes(row[0]) for row in rows]

    def drop_meta(self, name: str) -> None:
        """Forget a small value."""
        self._sql.execute("DELETE FROM meta WHERE name=?", (name,))

    # writing a block

    def append(self, block: Block) -> None:
        """Write head, records and results."""
        height = block.head.height
        payload = block.head.payload()
        self._sql.execute(
            "INSERT INTO heads VALUES (?,?,?,?,NULL)",
            (height, block.head.round, payload_digest(payload), payload),
        )
        self._append_records(height, block)
        self._sql.executemany(
            "INSERT INTO results VALUES (?,?,?,?,?,?,?)",
            [(r.record_id, height, *r.counts) for r in block.results],
        )

    def _append_records(self, height: int, block: Block) -> None:
        slots, digests = [], []
        for index, (envelope, record) in enumerate(block.records):
            id_ = record_id(height, index)
            if isinstance(record, records.RegistryChange):
                continue
            slots.append((_slot_prefix(record.TYPE, envelope.kid, slot_of(record)), id_))
            if isinstance(record, records.Reading):
                digests.append((prefix_of(envelope.digest), id_))
        packed = enumerate(self._compact.pack(height, block.records))
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

    def put_pending(self, envelopes: list[bytes]) -> None:
        """Replace the records that wait for a close."""
        self._sql.execute("DELETE FROM pending")
        self._sql.executemany(
            "INSERT INTO pending VALUES (?,?)", [(i, raw) for i, raw in enumerate(envelopes)]
        )
