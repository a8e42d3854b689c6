"""One SQLite database: durable at commit, one owner, a version (SPEC leaves storage to the node).

WAL with ``synchronous=FULL``: a commit that returned survives a power cut. One process writes,
held by a lock file beside the database; readers open it read-only while it runs.
"""

import fcntl
import os
import sqlite3
from pathlib import Path
from types import TracebackType

_SCHEMA_VERSION = 1


class StoreError(Exception):
    """The database cannot be used: another owner, another version, not a database, disk trouble."""


class Database:
    """An SQLite connection with explicit transactions.

    ``path`` None is a database in memory. ``tables`` is the schema (``CREATE TABLE IF NOT EXISTS``
    statements) of whoever owns it. Raises StoreError, also from the methods where the disk fails.
    """

    def __init__(self, path: Path | None, tables: str, *, read_only: bool = False) -> None:
        self.path = path
        self._lock: int | None = None
        if path is not None and not read_only:
            self._lock = _take_lock(path)
        try:
            self.connection = _connect(path, read_only)
            if not read_only:
                self._prepare(tables)
            self._check_version()
        except sqlite3.Error as e:
            self._unlock()
            raise StoreError(f"{path} cannot be used as a database: {e}") from e
        except StoreError:
            self.connection.close()
            self._unlock()
            raise

    def _prepare(self, tables: str) -> None:
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        version = self._version()
        self.connection.executescript(tables)
        if version == 0:
            self.connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def _version(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])

    def _check_version(self) -> None:
        version = self._version()
        if version != _SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}, this program reads {_SCHEMA_VERSION}: "
                "use the program version that wrote it"
            )

    def begin(self) -> None:
        """Start a transaction."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction durable."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Drop the transaction."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Drop an open transaction and let go of file and lock."""
        self.rollback()
        self.connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "Database":
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
    except OSError:
        os.close(fd)
        raise StoreError(f"{path} is in use by another process: only one may own it") from None
    return fd


def _connect(path: Path | None, read_only: bool) -> sqlite3.Connection:
    if path is None:
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if read_only:
        if not path.is_file():
            raise StoreError(f"{path} does not exist")
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)
