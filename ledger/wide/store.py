"""The wide-area chain in SQLite: what was kept, in order; blocks, log, state.

Writes happen inside the transaction that the application opened. A row of ``kept`` is an entry of
the log (``ledger.wide.entries``), ``number`` from 0 its place there, with the record that it speaks
of in ``envelope``: NULL where that was pruned. ``block`` is the engine's block that kept it, or the
one of the snapshot that it came with.

``blocks`` holds the blocks that kept something, and the newest one: a row moves on over empty
blocks, so they take no room. ``times`` is for pruning alone and differs from node to node.
"""

from collections.abc import Iterable, Iterator

from ledger.store import ChainStore
from ledger.wide.entries import Entry

TABLES = """
CREATE TABLE IF NOT EXISTS kept (
    number INTEGER PRIMARY KEY, block INTEGER NOT NULL, subject BLOB NOT NULL,
    place INTEGER NOT NULL, code INTEGER NOT NULL, digest BLOB NOT NULL, envelope BLOB);
CREATE INDEX IF NOT EXISTS kept_summaries ON kept (block)
    WHERE envelope IS NOT NULL AND code NOT IN (26, 27);
CREATE TABLE IF NOT EXISTS summaries (
    region BLOB, to_height INTEGER, number INTEGER NOT NULL,
    PRIMARY KEY (region, to_height)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (height INTEGER PRIMARY KEY, app_hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS times (height INTEGER PRIMARY KEY, time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS history (
    level INTEGER, place INTEGER, digest BLOB NOT NULL, PRIMARY KEY (level, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""

_ENTRY = "subject, place, code, digest"


class WideStore(ChainStore):
    """Reads and writes one wide-area chain."""

    # blocks and what they hold

    def height(self) -> int:
        """Give the engine's newest block; 0 before the first."""
        return int(self._sql.execute("SELECT max(height) FROM blocks").fetchone()[0] or 0)

    def put_block(self, height: int, app_hash: bytes, first: int) -> None:
        """Keep the application hash after a block whose entries begin at ``first``.

        The row of an empty block before it goes.
        """
        row = self._sql.execute("SELECT block FROM kept WHERE number=?", (first - 1,)).fetchone()
        self._sql.execute("DELETE FROM blocks WHERE height>?", (row[0] if row else 0,))
        self._sql.execute("INSERT INTO blocks VALUES (?,?)", (height, app_hash))

    def count(self) -> int:
        """Give how many entries there are."""
        return int(self._sql.execute("SELECT max(number) + 1 FROM kept").fetchone()[0] or 0)

    def keep(self, number: int, block: int, entry: Entry, body: bytes | None) -> None:
        """Keep an entry with what it speaks of."""
        self._sql.execute("INSERT INTO kept VALUES (?,?,?,?,?,?,?)", (number, block, *entry, body))

    def put_summary(self, region: bytes, to_height: int, number: int) -> None:
        """Note where a region's summary is kept."""
        self._sql.execute("INSERT INTO summaries VALUES (?,?,?)", (region, to_height, number))

    def entry(self, number: int) -> Entry | None:
        """Give the entry with a number, or None."""
        row = self._sql.execute(f"SELECT {_ENTRY} FROM kept WHERE number=?", (number,)).fetchone()  # noqa: S608
        return None if row is None else Entry(*row)

    def kept(self, number: int) -> bytes | None:
        """Give what an entry speaks of; None where there is none or it was pruned."""
        row = self._sql.execute("SELECT envelope FROM kept WHERE number=?", (number,)).fetchone()
        return None if row is None or row[0] is None else bytes(row[0])

    def entries(self) -> Iterator[tuple[Entry, bytes | None]]:
        """Give every entry and what it speaks of, in order."""
        for row in self._sql.execute(f"SELECT {_ENTRY}, envelope FROM kept ORDER BY number"):  # noqa: S608
            yield Entry(*row[:4]), row[4]

    def find(self, region: bytes, to_height: int) -> int | None:
        """Give the number of a region's summary up to a height, or None."""
        row = self._sql.execute(
            "SELECT number FROM summaries WHERE region=? AND to_height=?", (region, to_height)
        ).fetchone()
        return None if row is None else int(row[0])

    def summaries_of(self, region: bytes, after_height: int = 0) -> list[tuple[int, bytes]]:
        """Give (to height, envelope) of a region's summaries that end after a height.

        Pruned ones are left out.
        """
        rows = self._sql.execute(
            "SELECT to_height, envelope FROM summaries JOIN kept USING (number)"
            " WHERE region=? AND to_height>? AND envelope IS NOT NULL ORDER BY to_height",
            (region, after_height),
        )
        return [(to_height, bytes(envelope)) for to_height, envelope in rows]

    # pruning

    def prune(self, before_height: int, most: int) -> int:
        """Let go of at most ``most`` summaries kept before a block; gives how many."""
        cursor = self._sql.execute(
            "UPDATE kept SET envelope=NULL WHERE number IN (SELECT number FROM kept"
            " WHERE envelope IS NOT NULL AND code NOT IN (26, 27) AND block<? LIMIT ?)",
            (before_height, most),
        )
        return cursor.rowcount

    def put_time(self, height: int, time_s: int) -> None:
        """Note that a block was there at a time."""
        self._sql.execute("INSERT OR REPLACE INTO times VALUES (?,?)", (height, time_s))

    def newest_time(self) -> int | None:
        """Give the time that was noted last."""
        row = self._sql.execute("SELECT time FROM times ORDER BY height DESC LIMIT 1").fetchone()
        return None if row is None else int(row[0])

    def height_at(self, time_s: int) -> int:
        """Give the newest block that is known to have been there at a time; 0 for none."""
        row = self._sql.execute("SELECT max(height) FROM times WHERE time<=?", (time_s,))
        return int(row.fetchone()[0] or 0)

    # state

    def put_state(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Write state rows."""
        self._sql.executemany("INSERT OR REPLACE INTO state VALUES (?,?)", rows)
