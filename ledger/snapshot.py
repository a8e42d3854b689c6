"""Snapshots of an application's state: taken, offered to peers, restored from peers (SPEC 17).

A snapshot is a sequence of rows, which the application gives and takes, cut into chunks: a chunk
is the zlib stream of whole rows, each with its length in four bytes before it, a row one array of
the CBOR profile. What a snapshot holds follows from the chain up to its height, so all nodes make
the same one and a new node fetches from several at once.

A chunk that comes from a peer is checked against the digests that were offered, everything
together against the application hash that the engine trusts. A restored application is whole or,
whatever is wrong and whenever the process dies, as empty as before.

Left out: when to take one, and asking peers (the engine's business).
"""

import logging
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from ledger.engine.abci import Applied, ApplyResult, Info, OfferResult, Snapshot
from ledger.protocol import cbor
from ledger.protocol.errors import MalformedRecord, ProtocolError
from ledger.store import Database, StoreError

FORMAT = 1
MAX_CHUNK_BYTES = 1 << 20
MAX_CHUNKS = 4096
MAX_ROW_BYTES = MAX_CHUNK_BYTES - 4096
"""Also what the rows of a chunk come to: zlib adds less than the rest to what it cannot press."""
_MOST_ITEMS = 128  # a path of 32 digests, and whatever else a row has
_MOST_LEAVES = 1 << 20
_MOST_STATE_BYTES = 1 << 28
_LENGTH_BYTES = 4
_DIGEST_BYTES = 32
_MANIFEST = "manifest"
_HIDDEN = "."  # what is not whole yet, or not any more, begins with it

_log = logging.getLogger("ledger.snapshot")

Row = list[Any]
"""Values of the CBOR profile; the first is a small number that tells which kind of row it is."""


class BadSnapshot(ProtocolError):
    """What a peer sent is no snapshot of this chain at this height."""


class Restorable(Protocol):
    """What an application gives and takes; ``Snapshots`` does the rest."""

    @property
    def path(self) -> Path | None:
        """The file of its database; None where it has none, and then there are no snapshots."""

    def info(self) -> Info:
        """Tell where the application stands."""

    def height_in(self, database: Database) -> int:
        """Give the engine's height in ``database``, a read-only connection to its own file."""

    def export(self, database: Database) -> Iterator[Row]:
        """Give everything that a new node needs, as read from ``database``.

        That is a read-only connection inside a transaction of its own, maybe in another thread:
        nothing of ``self`` that changes with blocks may be used. The rows follow from the chain
        alone, in a fixed order.
        """

    def restore(self, height: int, app_hash: bytes, rows: Iterator[Row]) -> None:
        """Become the application that committed block ``height``, from rows that a peer sent.

        The application is at height 0 before. Everything is checked, in the end against
        ``app_hash``, before anything is durable; raises BadSnapshot or another ProtocolError,
        after which the application is as it was.
        """


def fields(row: Row, *types: type | tuple[type, ...]) -> Row:
    """Give the fields of a row after its kind, of exactly these types; raises BadSnapshot.

    A tuple names the types of which one must fit; ``type(None)`` is None's.
    """
    values = row[1:]
    if len(values) != len(types):
        raise BadSnapshot("a row has not the fields of its kind")
    for value, wanted in zip(values, types, strict=True):
        # exactly: bool is an int in Python
        if type(value) not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            raise BadSnapshot("a field of a row is of another type")
    return values


class StateRoom:
    """How much of a state a peer may still send before its root tells whether it is the state.

    Until then it is held in memory. 2^20 leaves of 2^28 bytes together are the members of the
    largest region and ten open readings of each.
    """

    def __init__(self) -> None:
        self._leaves = self._bytes = 0

    def take(self, key: bytes, value: bytes, most_key: int, most_value: int) -> None:
        """Count a leaf; raises BadSnapshot where it is too long or there are too many."""
        self._leaves += 1
        self._bytes += len(key) + len(value)
        if len(key) > most_key or len(value) > most_value:
            raise BadSnapshot("a leaf of the state is longer than the rules can make it")
        if self._leaves > _MOST_LEAVES or self._bytes > _MOST_STATE_BYTES:
            raise BadSnapshot("the state is larger than a node takes")


# chunks


def pack(rows: Iterator[Row]) -> Iterator[bytes]:
    """Give the chunks that rows make."""
    gathered: list[bytes] = []
    size = 0
    for row in rows:
        data = cbor.dumps(row)
        if size + _LENGTH_BYTES + len(data) > MAX_ROW_BYTES:
            if not gathered:
                raise ValueError(f"a row of {len(data)} bytes fits in no chunk")
            yield zlib.compress(b"".join(gathered))
            gathered, size = [], 0
        if _LENGTH_BYTES + len(data) > MAX_ROW_BYTES:
            raise ValueError(f"a row of {len(data)} bytes fits in no chunk")
        gathered += (len(data).to_bytes(_LENGTH_BYTES, "big"), data)
        size += _LENGTH_BYTES + len(data)
    yield zlib.compress(b"".join(gathered))


def unpack(chunk: bytes) -> Iterator[Row]:
    """Give the rows of a chunk that a peer sent; raises BadSnapshot."""
    data = _inflate(chunk)
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data):
            raise BadSnapshot("a chunk ends within a row")
        try:
            row = cbor.loads(data[start:at], _MOST_ITEMS)
        except MalformedRecord as e:
            raise BadSnapshot(f"a row cannot be read: {e}") from None
        if not isinstance(row, list) or not row or type(row[0]) is not int:
            raise BadSnapshot("a row is no array that begins with its kind")
        yield row


def _inflate(chunk: bytes) -> bytes:
    if len(chunk) > MAX_CHUNK_BYTES:
        raise BadSnapshot("a chunk is too long")
    inflater = zlib.decompressobj()
    try:
        # bounded: a kilobyte of zlib can unfold into a megabyte
        data = inflater.decompress(chunk, MAX_ROW_BYTES)
    except zlib.error as e:
        raise BadSnapshot(f"a chunk cannot be unpacked: {e}") from None
    if not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
        raise BadSnapshot("a chunk is not one zlib stream of the length allowed")
    return data


class Snapshots:
    """The snapshots of one application, in a folder of their own, and the one being restored.

    The newest ``keep`` are kept. Raises StoreError where the folder cannot be used. ``list`` and
    ``load`` may be called from any thread; ``offer`` and ``apply`` belong to the application's.
    """

    def __init__(self, folder: Path, application: Restorable, *, keep: int = 2) -> None:
        self._folder = folder
        self._application = application
        self._keep = keep
        self._incoming: _Incoming | None = None
        with _disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path.name.startswith(_HIDDEN):
                    shutil.rmtree(path)

    # giving

    def take(self) -> Snapshot:
        """Write a snapshot of the newest committed block; gives it."""
        return self.begin().finish()

    def begin(self) -> "Taking":
        """Fix the moment of a snapshot, that of the newest committed block.

        It takes no longer than opening the database; ``finish`` does the work, in any thread,
        while the application goes on.
        """
        path = self._application.path
        if path is None:
            raise StoreError("a chain without a file has no snapshots")
        return Taking(self._folder, self._application, path, self._keep)

    def list(self) -> list[Snapshot]:
        """Give the snapshots that are whole, newest first; none where the disk fails."""
        try:
            return _list(self._folder)
        except StoreError as e:
            _log.warning("event=snapshots_unreadable reason=%s", e)
            return []

    def load(self, height: int, format_: int, index: int) -> bytes:
        """Give a chunk; empty where there is none."""
        try:
            return (self._folder / f"{height}-{format_}" / str(index)).read_bytes()
        except OSError:
            return b""

    # restoring

    def offer(self, snapshot: Snapshot, app_hash: bytes) -> OfferResult:
        """Begin to restore a snapshot; one begun before is dropped."""
        self._drop_incoming()
        height = self._application.info().last_block_height
        if height:
            _log.error(
                "event=snapshot_aborted reason='the application is at height %d already: remove "
                "its database to start from a snapshot'",
                height,
            )
            return OfferResult.ABORT
        if snapshot.format != FORMAT:
            return OfferResult.REJECT_FORMAT
        fits = len(snapshot.metadata) == snapshot.chunks * _DIGEST_BYTES
        if not (fits and 1 <= snapshot.chunks <= MAX_CHUNKS and 0 < snapshot.height < 1 << 63):
            return OfferResult.REJECT
        if snapshot != _describe(snapshot.height, snapshot.metadata):
            return OfferResult.REJECT
        self._incoming = _Incoming(self._folder / f"{_HIDDEN}incoming", snapshot, app_hash)
        return OfferResult.ACCEPT

    def apply(self, index: int, chunk: bytes, sender: str) -> Applied:
        """Take a chunk; the last one restores the application.

        Raises StoreError where the disk fails, which is no fault of the sender.
        """
        incoming = self._incoming
        if incoming is None or not 0 <= index < incoming.snapshot.chunks:
            return Applied(ApplyResult.ABORT)
        if not incoming.take(index, chunk, sender):
            _log.warning("event=chunk_refused index=%d from=%r", index, sender)
            return Applied(ApplyResult.RETRY, (index,), (sender,) if sender else ())
        if not incoming.complete:
            return Applied(ApplyResult.ACCEPT)
        try:
            self._application.restore(incoming.snapshot.height, incoming.app_hash, incoming.rows())
        except ProtocolError as e:
            _log.warning("event=snapshot_refused height=%d reason=%s", incoming.snapshot.height, e)
            return Applied(ApplyResult.REJECT_SNAPSHOT, (), incoming.senders)
        finally:
            self._drop_incoming()
        return Applied(ApplyResult.ACCEPT)

    def _drop_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.drop()
            self._incoming = None


class Taking:
    """A snapshot of one moment that is being written."""

    def __init__(self, folder: Path, application: Restorable, path: Path, keep: int) -> None:
        self._folder = folder
        self._application = application
        self._keep = keep
        self._database = Database(path, "", read_only=True)
        try:
            self._database.connection.execute("BEGIN")
            self.height = application.height_in(self._database)
        except BaseException:
            self._database.close()
            raise

    def finish(self) -> Snapshot:
        """Write the snapshot; older ones than the newest go. Raises StoreError."""
        try:
            with _disk(self._folder):
                return self._write()
        finally:
            self._database.close()

    def _write(self) -> Snapshot:
        name = f"{self.height}-{FORMAT}"
        whole, part = self._folder / name, self._folder / f"{_HIDDEN}{name}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        digests = []
        for index, chunk in enumerate(pack(self._application.export(self._database))):
            _write_durably(part / str(index), chunk)
            digests.append(sha256(chunk).digest())
        if len(digests) > MAX_CHUNKS:
            shutil.rmtree(part)
            raise StoreError(f"the snapshot has {len(digests)} chunks, more than peers take")
        _write_durably(part / _MANIFEST, b"".join(digests))
        _sync(part)
        _remove(whole)
        # the one step by which it is there, with all of it durable before
        part.rename(whole)
        _sync(self._folder)
        for old in _list(self._folder)[self._keep :]:
            _remove(self._folder / f"{old.height}-{old.format}")
        return _describe(self.height, b"".join(digests))


class _Incoming:
    """The chunks of a snapshot that peers send, until all are there."""

    def __init__(self, folder: Path, snapshot: Snapshot, app_hash: bytes) -> None:
        self.snapshot = snapshot
        self.app_hash = app_hash
        self._folder = folder
        self._senders: dict[int, str] = {}
        with _disk(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def take(self, index: int, chunk: bytes, sender: str) -> bool:
        """Keep a chunk; tells whether it is the one that was offered."""
        start = index * _DIGEST_BYTES
        offered = self.snapshot.metadata[start : start + _DIGEST_BYTES]
        if len(chunk) > MAX_CHUNK_BYTES or sha256(chunk).digest() != offered:
            return False
        with _disk(self._folder):
            (self._folder / str(index)).write_bytes(chunk)
        self._senders[index] = sender
        return True

    @property
    def complete(self) -> bool:
        return len(self._senders) == self.snapshot.chunks

    @property
    def senders(self) -> tuple[str, ...]:
        """Give who sent the chunks, each once."""
        return tuple(sorted({sender for sender in self._senders.values() if sender}))

    def rows(self) -> Iterator[Row]:
        """Give the rows of all chunks; raises BadSnapshot."""
        for index in range(self.snapshot.chunks):
            with _disk(self._folder):
                chunk = (self._folder / str(index)).read_bytes()
            yield from unpack(chunk)

    def drop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _describe(height: int, metadata: bytes) -> Snapshot:
    digest = sha256(cbor.dumps([height, FORMAT, metadata])).digest()
    return Snapshot(height, FORMAT, len(metadata) // _DIGEST_BYTES, digest, metadata)


def _list(folder: Path) -> list[Snapshot]:
    found = []
    with _disk(folder):
        for path in folder.iterdir():
            height, _, format_ = path.name.partition("-")
            if height.isdecimal() and format_ == str(FORMAT):
                try:
                    found.append(_describe(int(height), (path / _MANIFEST).read_bytes()))
                except OSError:
                    continue  # it is being removed
    return sorted(found, key=lambda snapshot: -snapshot.height)


def _remove(path: Path) -> None:
    if path.exists():
        # out of sight in one step: what is offered is always whole
        hidden = path.with_name(f"{_HIDDEN}gone-{path.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        path.rename(hidden)
        shutil.rmtree(hidden)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as e:
        raise StoreError(f"snapshots in {folder}: {e}") from e
