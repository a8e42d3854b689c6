"""One SQLite database: durable at commit, one owner, a version (SPEC leaves storage to the node).

WAL with ``synchronous=FULL``: a commit that returned survives a power cut. One process writes,
held by a lock file beside the database; readers open it read-only while it runs.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_SCHEMA_VERSION = 3


class StoreError(Exception):
    """The database cannot be used: another owner, another version, not a database, disk trouble."""


class Database:
    """An SQLite connection with explicit transactions.

    ``path`` None is a temporary database, gone when closed. ``tables`` is the schema (``CREATE
    TABLE IF NOT EXISTS`` statements) of whoever owns it. Raises StoreError, also from the methods
    where the disk fails; what goes over ``connection`` directly raises what sqlite3 does.
    """

    def __init__(self, path: Path | None, tables: str, *, read_only: bool = False) -> None:
        self.path = path
        self._lock: int | None = None
        if path is not None and not read_only:
            self._lock = _take_lock(path)
        try:
            self.connection = _connect(path, read_only)
        except BaseException:
            self._unlock()
            raise
        try:
            self._prepare(tables, read_only)
        except BaseException as e:
            self.connection.close()
            self._unlock()
            if isinstance(e, sqlite3.Error):
                raise StoreError(f"{path} cannot be used as a database: {e}") from e
            if isinstance(e, UnicodeDecodeError):  # SQLite quotes a schema that is not text
                raise StoreError(f"{path} cannot be used as a database: it is damaged") from e
            raise

    def _prepare(self, tables: str, read_only: bool) -> None:
        version, table_count = self.connection.execute(
            "SELECT (SELECT user_version FROM pragma_user_version), count(*) FROM sqlite_master"
        ).fetchone()
        if version == 0 and table_count:
            raise StoreError(f"{self.path} is another program's database")
        new = version == 0 and not read_only
        if not new:
            self._check_version(version)
        if not read_only:
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=FULL")
            # the version in the same transaction: a crash leaves a new file or a whole schema
            version_sql = f"PRAGMA user_version={_SCHEMA_VERSION}"
            self.connection.executescript(f"BEGIN IMMEDIATE; {tables}; {version_sql}; COMMIT")

    def _check_version(self, version: int) -> None:
        if version != _SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}, this program reads {_SCHEMA_VERSION}: "
                "use the program version that wrote it"
            )

    def begin(self) -> None:
        """Start a transaction."""
        self._execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction durable; it is dropped where this raises."""
        try:
            self._execute("COMMIT")
        except StoreError:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Drop the transaction, if there is one."""
        if self.connection.in_transaction:
            self._execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the body writes, or drop it when the body raises."""
        self.begin()
        try:
            yield
        except BaseException as e:
            self.rollback()
            if isinstance(e, sqlite3.Error):
                raise self._write_error(e) from e
            raise
        self.commit()

    def _execute(self, sql: str) -> None:
        try:
            self.connection.execute(sql)
        except sqlite3.Error as e:
            raise self._write_error(e) from e

    def _write_error(self, e: sqlite3.Error) -> StoreError:
        return StoreError(f"{self.path} cannot be written: {e}")

    def close(self) -> None:
        """Drop an open transaction and let go of file and lock."""
        self.rollback()
        if self._lock is not None:
            # A reader that is still there keeps SQLite from emptying the log at the end; then the
            # file without its log, as somebody may copy it, would lack the newest blocks.
            with suppress(sqlite3.Error):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _take_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise StoreError(f"{path} cannot be opened for writing: {e.strerror}") from e
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(fd)
        if isinstance(e, BlockingIOError):
            raise StoreError(f"{path} is in use: only one may own it") from None
        raise StoreError(f"{path} cannot be locked: {e.strerror}") from e
    return fd


def _connect(path: Path | None, read_only: bool) -> sqlite3.Connection:
    if path is None:
        name = ""  # in memory, and in a temporary file as far as it outgrows the page cache
    elif not read_only:
        name = path.absolute().as_uri()
    elif path.is_file():
        name = path.absolute().as_uri() + _read_only_options(path)
    else:
        raise StoreError(f"{path} does not exist")
    try:
        return sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as e:
        raise StoreError(f"{path} cannot be opened as a database: {e}") from e


def _read_only_options(path: Path) -> str:
    if os.access(path.parent, os.W_OK) or path.with_name(path.name + "-shm").exists():
        return "?mode=ro"
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{log} holds the newest of {path.name}, and is of use only in a folder that can be "
            "written: copy the region to one"
        )
    # a copy on a medium that cannot be written, where SQLite could not make its lock file
    return "?mode=ro&immutable=1"


class ChainStore:
    """What every chain keeps alike: its Merkle log (``ledger.merkle.Nodes``), state and odd values.

    The tables ``history``, ``state`` and ``meta`` are in the schema of whoever derives from it.
    """

    def __init__(self, database: Database) -> None:
        self._sql: sqlite3.Connection = database.connection

    def get(self, level: int, index: int) -> bytes:
        """Give a node of the log; raises LookupError."""
        row = self._sql.execute(
            "SELECT digest FROM history WHERE level=? AND place=?", (level, index)
        ).fetchone()
        if row is None:
            raise LookupError((level, index))
        return bytes(row[0])

    def put(self, level: int, index: int, digest: bytes) -> None:
        """Keep a node of the log."""
        self._sql.execute("INSERT OR REPLACE INTO history VALUES (?,?,?)", (level, index, digest))

    def state_rows(self) -> list[tuple[bytes, bytes]]:
        """Give the state as (key, value), by key."""
        rows = self._sql.execute("SELECT key, value FROM state ORDER BY key")
        return [(bytes(key), bytes(value)) for key, value in rows]

    def meta(self, name: str) -> bytes | None:
        """Give a small stored value, or None."""
        row = self._sql.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, name: str, value: bytes) -> None:
        """Keep a small value."""
        self._sql.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))
