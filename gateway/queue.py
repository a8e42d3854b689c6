"""The gateway's durable queues: an inbox before the block, an outbox after it.

The inbox holds what the broker was told is safe: a message is acknowledged after the transaction
that holds it, and deleted after the block that holds it. The outbox holds summaries until the
wide-area chain has them. Both are tables of one SQLite database (WAL, ``synchronous=FULL``).

Full inbox: nothing more is taken in and nothing acknowledged, so the broker keeps the messages and
delivers them again; closing rounds makes room. A message is never dropped to make room.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ledger.store import Database, StoreError

_TABLES = """
CREATE TABLE IF NOT EXISTS inbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    region BLOB NOT NULL,
    after INTEGER NOT NULL,
    last INTEGER NOT NULL,
    tx BLOB NOT NULL,
    UNIQUE (region, after, last)
);
CREATE TABLE IF NOT EXISTS sent_up (region BLOB PRIMARY KEY, last INTEGER NOT NULL);
"""


class QueueFull(Exception):
    """The queue holds as many rows as it may."""


class Message(NamedTuple):
    """One message as it came: MQTT topic and payload."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A summary on its way up; it covers heights (``after``, ``last``] of a region."""

    row: int
    region: bytes
    after: int
    last: int
    tx: bytes


class Queue:
    """Inbox and outbox. Raises StoreError where the file cannot be used or the disk fails."""

    def __init__(self, path: Path | None, *, inbox_rows: int, outbox_rows: int) -> None:
        self._database = Database(path, _TABLES)
        self._connection = self._database.connection
        self._inbox_rows = inbox_rows
        self._outbox_rows = outbox_rows
        self.waiting = self._count("inbox")
        self.outgoing = self._count("outbox")
        # the sequence outlives the rows, so no row is given twice
        sequence = self._read("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'")
        self._next_row = int(sequence[0][0]) + 1 if sequence else 1

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def room(self) -> int:
        """Give how many more messages the inbox takes."""
        return max(0, self._inbox_rows - self.waiting)

    def append(self, messages: Sequence[Message]) -> list[int]:
        """Put messages into the inbox; durable when this returns. Gives their rows.

        All or none: raises QueueFull where they do not fit.
        """
        if len(messages) > self.room():
            raise QueueFull(f"the inbox holds {self.waiting} messages")
        rows = range(self._next_row, self._next_row + len(messages))
        values = [(row, *message) for row, message in zip(rows, messages, strict=True)]
        with self._writing():
            self._connection.executemany("INSERT INTO inbox VALUES (?, ?, ?)", values)
        self._next_row += len(messages)
        self.waiting += len(messages)
        return list(rows)

    def inbox(self) -> list[tuple[int, Message]]:
        """Give every message that waits, with its row, oldest first."""
        rows = self._read("SELECT row, topic, payload FROM inbox ORDER BY row")
        return [(row, Message(topic, payload)) for row, topic, payload in rows]

    def forget(self, rows: Iterable[int]) -> None:
        """Delete messages from the inbox: their block is durable, or they were refused."""
        runs = _runs(rows)
        if not runs:
            return
        with self._writing():
            gone = self._connection.executemany(
                "DELETE FROM inbox WHERE row BETWEEN ? AND ?", runs
            ).rowcount
        self.waiting -= gone

    def put(self, region: bytes, after: int, last: int, tx: bytes) -> None:
        """Put a summary into the outbox; the same region and heights again change nothing.

        Raises QueueFull.
        """
        if self.outgoing >= self._outbox_rows:
            raise QueueFull(f"the outbox holds {self.outgoing} summaries")
        with self._writing():
            self._connection.execute(
                "INSERT OR IGNORE INTO outbox (region, after, last, tx) VALUES (?, ?, ?, ?)",
                (region, after, last, tx),
            )
            self._connection.execute(
                "INSERT INTO sent_up VALUES (?, ?)"
                " ON CONFLICT (region) DO UPDATE SET last = max(last, excluded.last)",
                (region, last),
            )
        self.outgoing = self._count("outbox")

    def newest(self, region: bytes) -> int:
        """Give the last height of a region that was ever put into the outbox, or 0."""
        query = "SELECT last FROM sent_up WHERE region = ?"
        rows = self._read(query, (region,))
        return int(rows[0][0]) if rows else 0

    def oldest(self, most: int) -> list[Outgoing]:
        """Give the summaries that must go next, oldest first."""
        query = "SELECT row, region, after, last, tx FROM outbox ORDER BY row LIMIT ?"
        return [Outgoing(*row) for row in self._read(query, (most,))]

    def done(self, summary: Outgoing) -> None:
        """Delete a summary that the wide-area chain has, or refused for good."""
        with self._writing():
            self._connection.execute("DELETE FROM outbox WHERE row = ?", (summary.row,))
        self.outgoing = self._count("outbox")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._database.transaction():
                yield
        except sqlite3.Error as e:
            raise StoreError(f"{self._database.path} cannot be written: {e}") from e

    def _count(self, table: str) -> int:
        return int(self._read(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - our own names

    def _read(self, query: str, values: tuple[bytes | int, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as e:
            raise StoreError(f"{self._database.path} cannot be read: {e}") from e


def _runs(rows: Iterable[int]) -> list[tuple[int, int]]:
    """Give the rows as runs (first, last) without gaps: most of a block came in one piece."""
    runs: list[tuple[int, int]] = []
    for row in sorted(rows):
        if runs and row <= runs[-1][1] + 1:
            runs[-1] = runs[-1][0], row
        else:
            runs.append((row, row))
    return runs
