"""The wide-area chain in SQLite: what was kept, in order; blocks, log, state.

Writes happen inside the transaction that the application opened. A row of ``kept`` is a summary in
effect (code 0) or evidence of a conflict; its ``number`` from 0 is its place in the log.
"""

from collections.abc import Iterable

from ledger.store import ChainStore

TABLES = """
CREATE TABLE IF NOT EXISTS kept (
    number INTEGER PRIMARY KEY, block INTEGER NOT NULL, code INTEGER NOT NULL,
    envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS summaries (
    region BLOB, to_height INTEGER, number INTEGER NOT NULL,
    PRIMARY KEY (region, to_height)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (height INTEGER PRIMARY KEY, app_hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS history (
    level INTEGER, place INTEGER, digest BLOB NOT NULL, PRIMARY KEY (level, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class WideStore(ChainStore):
    """Reads and writes one wide-area chain."""

    # blocks and what they hold

    def height(self) -> int:
        """Give the newest block's height; 0 before the first."""
        return int(self._sql.execute("SELECT max(height) FROM blocks").fetchone()[0] or 0)

    def put_block(self, height: int, app_hash: bytes) -> None:
        """Keep the application hash after a block."""
        self._sql.execute("INSERT INTO blocks VALUES (?,?)", (height, app_hash))

    def count(self) -> int:
        """Give how many summaries and pieces of evidence are kept."""
        return int(self._sql.execute("SELECT count(*) FROM kept").fetchone()[0])

    def keep(self, number: int, block: int, code: int, envelope: bytes) -> None:
        """Keep a summary or a piece of evidence."""
        self._sql.execute("INSERT INTO kept VALUES (?,?,?,?)", (number, block, code, envelope))

    def put_summary(self, region: bytes, to_height: int, number: int) -> None:
        """Note where a region's summary is kept."""
        self._sql.execute("INSERT INTO summaries VALUES (?,?,?)", (region, to_height, number))

    def kept(self, number: int) -> bytes | None:
        """Give the envelope with a number, or None."""
        row = self._sql.execute("SELECT envelope FROM kept WHERE number=?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def find(self, region: bytes, to_height: int) -> int | None:
        """Give the number of a region's summary up to a height, or None."""
        row = self._sql.execute(
            "SELECT number FROM summaries WHERE region=? AND to_height=?", (region, to_height)
        ).fetchone()
        return None if row is None else int(row[0])

    def summaries_of(self, region: bytes, after_height: int = 0) -> list[tuple[int, bytes]]:
        """Give (to height, envelope) of a region's summaries that end after a height."""
        rows = self._sql.execute(
            "SELECT to_height, envelope FROM summaries JOIN kept USING (number)"
            " WHERE region=? AND to_height>? ORDER BY to_height",
            (region, after_height),
        )
        return [(to_height, bytes(envelope)) for to_height, envelope in rows]

    # state

    def put_state(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Write state rows."""
        self._sql.executemany("INSERT OR REPLACE INTO state VALUES (?,?)", rows)
