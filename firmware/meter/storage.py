"""Small values that survive a power cut, and the filesystem as the meter uses it.

Cell keeps one value, Counter a number that only goes up. After a cut at any instant a value whose
write() returned is there; one whose write() was cut is there whole, or the one before is.

Left out: encryption, and several writers on one file.
"""

import os
from binascii import crc32
from errno import EEXIST

try:
    from typing import Any
except ImportError:
    pass


class StorageDamaged(OSError):
    """A counter's files are there and none is whole: going on would give a number again."""


class Files:
    """The filesystem as Journal and Cell use it; what returned is durable, rename is atomic.

    On littlefs and FAT a file is durable when it is closed, under Linux after fsync().
    """

    def make_folder(self, path: str) -> None:
        """Make a folder unless it is there."""
        try:
            os.mkdir(path)
        except OSError:
            os.stat(path)  # not there either: this raises

    def names(self, path: str) -> "list[str]":
        """Give the names in a folder."""
        return list(os.listdir(path))

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Give the bytes from an offset on, fewer than size at the end of the file."""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def append(self, path: str, data: bytes) -> None:
        """Add bytes to a file, which this makes if need be."""
        self._put(path, "ab", data)

    def write(self, path: str, data: bytes) -> None:
        """Make the file's contents these bytes; not atomic."""
        self._put(path, "wb", data)

    def rename(self, old: str, new: str) -> None:
        """Put a file in another's place; on FAT, which has no such thing, in two steps."""
        try:
            os.rename(old, new)
        except OSError as error:
            if error.errno != EEXIST:
                raise
            os.remove(new)
            os.rename(old, new)
        self._sync_folder(new)

    def remove(self, path: str) -> None:
        """Delete a file."""
        os.remove(path)

    def _put(self, path: str, mode: str, data: bytes) -> None:
        with open(path, mode) as file:
            new = not file.tell()
            file.write(data)
            file.flush()  # on MicroPython's unix port this is fsync()
            if hasattr(os, "fsync"):
                os.fsync(file.fileno())
        if new:
            self._sync_folder(path)

    def _sync_folder(self, path: str) -> None:
        """Make a new name durable on CPython; MicroPython's unix port has no call for it."""
        if hasattr(os, "fsync"):
            host: "Any" = os
            folder = host.open(host.path.dirname(path) or ".", host.O_RDONLY)
            try:
                host.fsync(folder)
            finally:
                host.close(folder)


class Cell:
    """One small value in two files, <path>.0 and <path>.1, written in turn.

    A file is generation (4 bytes), length (2), data, CRC-32 (4), big-endian. It is written beside
    and renamed, so that both stay whole at every instant; the older one is there in case the
    newer rots. `damaged` says after read() that a file was there and not whole: the value is
    then the one before, or None.
    """

    def __init__(self, path: str, files: "Any" = None) -> None:
        self._files = files or Files()
        self._path = path
        self._generation = 0
        self.damaged = False

    def read(self) -> "bytes | None":
        """Give the value, None if there is none; raises nothing."""
        self.damaged = False
        self._generation = 0
        value = None
        for suffix in (".0", ".1"):
            try:
                data = self._files.read(self._path + suffix)
            except OSError:
                continue
            generation = int.from_bytes(data[:4], "big")
            body = data[6:-4]
            checked = crc32(data[:-4]) == int.from_bytes(data[-4:], "big")
            if not checked or len(data) < 10 or int.from_bytes(data[4:6], "big") != len(body):
                self.damaged = True
            elif generation > self._generation:
                self._generation = generation
                value = body
        return value

    def write(self, value: bytes) -> None:
        """Store a value; raises OSError, and then the value before is still there."""
        if len(value) > 0xFFFF:
            raise ValueError("value longer than 65,535 bytes")
        self.read()
        generation = self._generation + 1
        data = generation.to_bytes(4, "big") + len(value).to_bytes(2, "big") + value
        data += crc32(data).to_bytes(4, "big")
        self._files.write(self._path + ".new", data)
        self._files.rename(self._path + ".new", self._path + "." + str(generation & 1))


class Counter:
    """A number that goes up by every next() and never comes twice: the boot counter."""

    def __init__(self, path: str, files: "Any" = None) -> None:
        self._cell = Cell(path, files)

    def next(self) -> int:
        """Store and give the next number, 1 at first.

        After damage to the newer file the number it held may have been used, so one is left out.
        Raises StorageDamaged if no file is whole, OSError if it cannot be stored.
        """
        value = self._cell.read()
        if value is None and self._cell.damaged:
            raise StorageDamaged("no whole file of the counter")
        number = int.from_bytes(value or b"", "big") + (2 if self._cell.damaged else 1)
        self._cell.write(number.to_bytes(4, "big"))
        return number
