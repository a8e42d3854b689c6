"""The comb table of P-256's base point: 512 points, 32,768 bytes, made by ``tools/p256_tables.py``.

Row ``block * 128 + index`` is the affine point x ‖ y, 32 bytes each, big-endian, of
``2**(8 * block) * (2**224 ± 2**192 ± … ± 1) * G``; bit j of ``index`` is 1 where ``2**(32 * j)`` is
added and 0 where it is subtracted. There are no other signs: the mirror image is ``p - y``.

Where the table lives, by what is there:

- ``_p256_base_frozen`` (``tools/p256_tables.py --frozen``), for boards that are built with a
  manifest: a constant in flash, no RAM;
- ``_p256_base.bin`` beside this file on a ROM file system: mapped, no RAM;
- the same file on littlefs or FAT, which is the case of a stock board: rows are read one by one
  through one open file. A module with a bytes literal would take 32 KB of heap in one piece there.
  Measured on the unix port with littlefs 2 on a RAM disk: 640 bytes of heap for the open file and
  its buffers; a row costs 2.5 block reads of 178 bytes together, and a signature, which reads 32
  rows, took 7 % longer than with the table in RAM (the disk itself being written in Python).
- on CPython the file is read at once.

The table is compared with its SHA-256 when it is opened, once per start. Beyond installation
faults this protects the key: a wrong row would make the points of signatures tell bits of nonces.
"""

import sys
from hashlib import sha256

try:
    from typing import BinaryIO, Union

    AnyRows = Union["Rows", "FileRows"]
except ImportError:
    pass

TEETH = 8
BLOCKS = 4
COLUMNS = 8  # of one block; teeth x blocks x columns is 256
TABLE_BYTES = 32768
TABLE_SHA256 = "00a21de56a28ce79f9e4abdc821484c02245a1d40a1d52509d10fa5be53e9521"

_ROW_BYTES = 64
_CHUNK_BYTES = 512


class Rows:
    """Rows of x ‖ y in anything with the buffer protocol, which is not copied."""

    def __init__(self, table: "bytes | bytearray | memoryview | BinaryIO") -> None:
        self._table = memoryview(table)  # type: ignore[arg-type] # MicroPython's ROM files too

    def point(self, row: int) -> "tuple[int, int]":
        """Give a row as affine x and y."""
        at = row * _ROW_BYTES
        table = self._table
        return (
            int.from_bytes(table[at : at + 32], "big"),
            int.from_bytes(table[at + 32 : at + 64], "big"),
        )

    def digest(self) -> bytes:
        """Give SHA-256 over all rows."""
        return sha256(self._table).digest()


class FileRows:
    """Rows of x ‖ y in an open binary file, read one at a time into one buffer."""

    def __init__(self, file: "BinaryIO") -> None:
        self._file = file
        self._row = bytearray(_ROW_BYTES)
        self._x = memoryview(self._row)[:32]
        self._y = memoryview(self._row)[32:]

    def point(self, row: int) -> "tuple[int, int]":
        """Give a row as affine x and y; raises OSError if the file ends before it."""
        self._file.seek(row * _ROW_BYTES)
        if self._file.readinto(self._row) != _ROW_BYTES:  # type: ignore[attr-defined, unused-ignore]
            raise OSError("P-256 base table ends early")
        return int.from_bytes(self._x, "big"), int.from_bytes(self._y, "big")

    def digest(self) -> bytes:
        """Give SHA-256 over the file."""
        seen = sha256()
        self._file.seek(0)
        chunk = self._file.read(_CHUNK_BYTES)
        while chunk:
            seen.update(chunk)
            chunk = self._file.read(_CHUNK_BYTES)
        return seen.digest()


def _find() -> "AnyRows":
    try:
        from ledger.protocol._p256_base_frozen import TABLE  # type: ignore[import-not-found, unused-ignore]

        return Rows(TABLE)
    except ImportError:
        pass
    # No os.path on MicroPython; the suffix of __file__ is .py, .pyc or .mpy.
    file = open(__file__[: __file__.rfind("_p256_base")] + "_p256_base.bin", "rb")
    if sys.implementation.name != "micropython":
        with file:
            return Rows(file.read())
    try:
        return Rows(file)
    except TypeError:  # only files on a ROM file system can be mapped
        return FileRows(file)


def open_rows() -> "AnyRows":
    """Find the table and check it; raises OSError if it is missing or differs from TABLE_SHA256."""
    rows = _find()
    if rows.digest() != bytes.fromhex(TABLE_SHA256):
        raise OSError("P-256 base table is damaged")
    return rows
