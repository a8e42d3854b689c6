"""Reading a database that is not trusted, and comparing its tables with recomputed ones.

Whatever the file holds, reading it gives rows or ``Wrong``. SQLite gives any type in any column,
so rows are checked for their types before use. The schema must be exactly our own: a view or a
trigger in place of a table could give each reader another answer, or none for ever.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from ledger.audit.report import Wrong, wrong
from ledger.store import Database

Row = tuple[object, ...]

_MOST_CELL_BYTES = 64 << 20
# the latter when SQLite's message quotes a schema that is not text any more
_DAMAGE = (sqlite3.Error, UnicodeDecodeError)
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"


class Stored:
    """One database as it was at one moment; raises StoreError when it cannot be opened."""

    def __init__(self, path: Path, tables: str, chain: str) -> None:
        self._path = path
        self._chain = chain
        self._database = Database(path, tables, read_only=True)
        try:
            self._prepare(tables)
        except BaseException:
            self._database.close()
            raise

    def _prepare(self, tables: str) -> None:
        sql = self._database.connection
        sql.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_CELL_BYTES)
        sql.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        self._rows("PRAGMA trusted_schema=OFF", ())
        self._rows("PRAGMA cell_size_check=ON", ())
        # one transaction: what a running gateway writes meanwhile is not seen
        self._rows("BEGIN", ())
        with Database(None, tables) as own:
            expected = own.connection.execute(_SCHEMA).fetchall()
        if list(self.rows(_SCHEMA)) != expected:
            raise wrong(self._chain, None, f"{self._path} has other tables than this program makes")

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """Give the rows of a query; raises Wrong where the file is damaged."""
        cursor = self._rows(sql, parameters)
        while True:
            try:
                row = cursor.fetchone()
            except _DAMAGE as e:
                raise self._damaged(e) from None
            if row is None:
                return
            yield row

    def _rows(self, sql: str, parameters: Sequence[object]) -> sqlite3.Cursor:
        try:
            return self._database.connection.execute(sql, tuple(parameters))
        except _DAMAGE as e:
            raise self._damaged(e) from None

    def _damaged(self, e: Exception) -> Wrong:
        said = f": {e}" if isinstance(e, sqlite3.Error) else ""
        return wrong(self._chain, None, f"the file {self._path} is damaged{said}")

    def count(self, table: str) -> int:
        """Give the number of rows of a table."""
        (row,) = self.rows(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names
        return int(str(row[0]))

    def meta(self, name: str) -> object:
        """Give a small stored value, or None."""
        return next(
            (row[0] for row in self.rows("SELECT value FROM meta WHERE name=?", [name])), None
        )

    def check_pages(self) -> None:
        """Check SQLite's own structures, indexes included; raises Wrong."""
        for (said,) in self.rows("PRAGMA integrity_check(1)"):
            if said != "ok":
                raise wrong(self._chain, None, f"the file {self._path} is damaged: {said}")


class Comparison:
    """Compares tables of a stored database, row by row, with those that were made anew."""

    def __init__(self, stored: Stored, own: Database, chain: str) -> None:
        self._stored = stored
        self._own = own.connection
        self._chain = chain

    def table(
        self,
        table: str,
        key: tuple[str, ...],
        name: Callable[[Row], str],
        where: str = "1",
    ) -> None:
        """Check that a table is as it was made anew; raises Wrong naming the first other row.

        ``key`` are the columns of its primary key, which come first; ``name`` tells people what
        the row with a key is.
        """
        sql = f"SELECT * FROM {table} WHERE {where} ORDER BY {', '.join(key)}"  # noqa: S608
        rows = zip_longest(self._own.execute(sql), self._stored.rows(sql))
        for expected, found in rows:
            if expected != found or _types(expected) != _types(found):
                raise self._other(table, key, name, expected, found)

    def _other(
        self,
        table: str,
        key: tuple[str, ...],
        name: Callable[[Row], str],
        expected: Row | None,
        found: Row | None,
    ) -> Wrong:
        size = len(key)
        if expected is None or (found is not None and self._holds(table, key, expected)):
            assert found is not None
            if expected is not None and found[:size] == expected[:size]:
                why = f"{name(found)} is stored other than the records make it"
            else:
                why = f"the table {table} holds a row that no record makes: {_show(found[:size])}"
        else:
            why = f"{name(expected)} is missing in the table {table}"
        return wrong(self._chain, None, why)

    def _holds(self, table: str, key: tuple[str, ...], row: Row) -> bool:
        where = " AND ".join(f"{column}=?" for column in key)
        sql = f"SELECT 1 FROM {table} WHERE {where}"  # noqa: S608 - our own names
        return next(self._stored.rows(sql, row[: len(key)]), None) is not None


def _types(row: Row | None) -> list[type] | None:
    # 1 == 1.0 in Python, and SQLite may hold either
    return None if row is None else [type(value) for value in row]


def _show(values: Row) -> str:
    return ", ".join(v.hex() if isinstance(v, bytes) else ascii(v)[:80] for v in values)
