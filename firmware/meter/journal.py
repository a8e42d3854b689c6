"""Records without a receipt, which survive a power cut.

Journal keeps records until remove(), oldest first, at most `capacity` and at most what its
segment files hold; then the oldest go and are counted in `lost`. RamJournal is the same without
a filesystem.

What is promised after a cut at any instant: a record whose append() returned is there; one whose
append() was cut is there whole or not at all; opening raises nothing. A removed record may come
back, and sending it again is a duplicate, which the chain passes over: remove() only notes it, and
the next append() writes the note, so that a receipt costs no flash erase.

Segment files NNNNNNNN.seg (hexadecimal, counting up) hold records one behind the other:

    kind, key length (1 byte each), data length (2), seq, floor, lost, carried (4 each), number of
    removals (2), removals (4 each), key, data, CRC-32 (4) over all that, begun with the CRC-32 of
    the segment's number; all big-endian

    kind 1  entry: seq is its own and counts up for ever
    kind 2  no entry: key and data are empty

Every record states, absolutely, that entries with a seq below `floor` are dead, as are those whose
seqs are its removals, and that `lost` is the count from here on. All this is under one checksum,
for a write may be torn anywhere. So reading a record twice or missing a dead one changes nothing.

`carried` is the count that the entry itself reports: it leaves `lost` with the very write that
stores the entry, and returns to it if that entry is dropped in its turn. A count is therefore
reported in exactly one of the records that are sent or still to be sent; where a dropped record
had arrived and only its receipt had not, the count is too high by it.

A torn or rotten record is passed over, and nothing is appended to such a segment again.

Left out: encryption, and several writers on one folder.
"""

from binascii import crc32
from struct import calcsize, pack, pack_into, unpack_from

from firmware.meter.storage import Files

try:
    from typing import Any, Iterator
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_ENTRY = const(1)
_NO_ENTRY = const(2)
_HEADER = ">BBHIIIIH"
_HEADER_BYTES = const(22)
_CRC_BYTES = const(4)
_MAX_KEY = const(255)

# Removals that wait for the next append; more of them are written at once.
_MAX_NOTED = const(64)

# A slot of the index: seq, CRC-32 of the key, segment, offset, carried, bytes in the file.
_SLOT = ">IIIIIH"
_SLOT_BYTES = calcsize(_SLOT)


def _salt(segment: int) -> int:
    return crc32(segment.to_bytes(4, "big"))


class Journal:
    """Unreceipted records on a filesystem: a ring of at most `capacity` entries.

    Its folder holds at most `segments` + 1 files of `segment_bytes`; an entry takes 26 bytes more
    than key and record. The ring holds at least what fits into half of them, usually all. Memory:
    22 bytes for each of `capacity`, all taken at the start. A full erase block is rewritten by
    every append on littlefs, unless segment_bytes is so small that the files lie in the folder's
    own block (512 bytes on a Pico): fewer erases, more files.

    Raises OSError as the filesystem does; the next call then opens the folder anew.
    `damaged` counts segments that were not wholly readable at the last opening.
    """

    def __init__(
        self,
        directory: str,
        capacity: int,
        segment_bytes: int = 4096,
        segments: int = 16,
        files: "Any" = None,
    ) -> None:
        if capacity < 1 or segments < 2 or segment_bytes < 128:
            raise ValueError("capacity, segments or segment_bytes out of range")
        self._files = files or Files()
        self._folder = directory
        self._capacity = capacity
        self._segment_bytes = segment_bytes
        self._segments = segments
        self._index = bytearray(capacity * _SLOT_BYTES)
        self._view = memoryview(self._index)
        self._count = 0  # slots in use
        self._next = 1  # seq of the next entry
        self._lost = 0
        self._overflow = 0  # as lost, of entries that a smaller capacity has no room for
        self._first = self._active = 0  # the oldest segment and the one appended to
        self._used = 0  # bytes in the active segment
        self._noted: "list[int]" = []  # seqs removed, not yet written
        self._stale = True  # the files know better than the memory
        self.damaged = 0
        self._load()

    # ----------------------------------------------------------------------------- interface

    def __len__(self) -> int:
        self._ready()
        return self._count

    def __iter__(self) -> "Iterator[tuple[bytes, bytes]]":
        """Give (key, record), oldest first; appending and removing meanwhile is allowed."""
        at = 0
        last = -1
        while True:
            self._ready()
            while at and self._slot(at - 1)[0] > last:
                at -= 1  # entries before were removed
            if at >= self._count:
                return
            slot = self._slot(at)
            if slot[0] <= last:
                at += 1
                continue
            last = slot[0]
            entry = self._entry(slot)
            if entry is None:
                self._drop(at)
            else:
                yield entry

    @property
    def lost(self) -> int:
        """Entries that were dropped and that no stored entry reports yet."""
        self._ready()
        return self._lost

    def append(self, key: bytes, record: bytes, lost: int = 0) -> int:
        """Store an entry; gives how many old ones were dropped to make room.

        `lost` is the part of the count that this record reports. Raises ValueError if the entry
        is longer than half a segment or reports more than was lost, OSError if it is not stored.
        """
        self._ready()
        size = _HEADER_BYTES + len(key) + len(record) + _CRC_BYTES
        if not 0 < len(key) <= _MAX_KEY or size > self._segment_bytes // 2:
            raise ValueError("key or record too long")
        if not 0 <= lost <= self._lost:
            raise ValueError("reports more than was lost")
        before = self._count
        self._stale = True  # until all of it is done
        fresh = self._make_room(size)
        if fresh:
            self._reclaim()
        if self._count == self._capacity:
            self._drop(0)
        # Only now, so that no record but the entry itself says that the count is reported.
        self._lost -= lost
        self._store(self._next, key, record, lost)
        self._next += 1
        if fresh:
            self._delete_dead_segments()
        self._stale = False
        return before + 1 - self._count

    def remove(self, key: bytes) -> bool:
        """Forget the entries with this key, whose receipt is there; says if there was one."""
        self._ready()
        wanted = crc32(key)
        found = False
        at = 0
        while at < self._count:
            slot = self._slot(at)
            if slot[1] == wanted and self._key(slot) == key:
                self._noted.append(slot[0])
                self._close_gap(at)
                found = True
            else:
                at += 1
        if len(self._noted) > _MAX_NOTED:
            self.sync()
        return found

    def sync(self) -> None:
        """Write the removals that wait for the next append, before an orderly stop."""
        self._ready()
        # Never begins a segment: making room for that could drop entries.
        if self._noted and self._used:
            self._stale = True
            self._write(_NO_ENTRY, self._next, b"", b"", 0)
            self._stale = False

    # ------------------------------------------------------------------------ index in memory

    def _slot(self, at: int) -> "Any":
        return unpack_from(_SLOT, self._index, at * _SLOT_BYTES)

    def _close_gap(self, at: int) -> None:
        start, end = at * _SLOT_BYTES, self._count * _SLOT_BYTES
        self._view[start : end - _SLOT_BYTES] = self._view[start + _SLOT_BYTES : end]
        self._count -= 1

    def _drop(self, at: int) -> None:
        """Give up an entry without receipt, and take back the count that it reported."""
        self._lost += 1 + self._slot(at)[4]
        self._close_gap(at)

    def _insert(self, slot: "tuple[int, int, int, int, int, int]") -> None:
        """Put a slot in the order of seqs; a copy of the same seq takes its place."""
        at = self._count
        while at and self._slot(at - 1)[0] >= slot[0]:
            at -= 1
        if at == self._count or self._slot(at)[0] != slot[0]:
            if self._count == self._capacity:  # a smaller capacity than last time
                self._overflow += 1 + self._slot(0)[4]
                self._close_gap(0)
                at = max(0, at - 1)
            start, end = at * _SLOT_BYTES, self._count * _SLOT_BYTES
            self._view[start + _SLOT_BYTES : end + _SLOT_BYTES] = self._view[start:end]
            self._count += 1
        pack_into(_SLOT, self._index, at * _SLOT_BYTES, *slot)

    def _forget(self, seq: int) -> None:
        for at in range(self._count):
            if self._slot(at)[0] == seq:
                self._close_gap(at)
                return

    # ----------------------------------------------------------------------------- segments

    def _path(self, segment: int) -> str:
        return "%s/%08x.seg" % (self._folder, segment)

    def _entry(self, slot: "Any") -> "tuple[bytes, bytes] | None":
        """Give (key, record) of a slot, None if it has rotted."""
        try:
            data = self._files.read(self._path(slot[2]), slot[3], slot[5])
        except OSError:
            return None
        if _length_of_record(data, 0, _salt(slot[2])) != slot[5]:
            return None
        key_at = _HEADER_BYTES + 4 * (data[20] << 8 | data[21])
        record_at = key_at + data[1]
        return data[key_at:record_at], data[record_at:-_CRC_BYTES]

    def _key(self, slot: "Any") -> "bytes | None":
        entry = self._entry(slot)
        return entry[0] if entry else None

    def _make_room(self, size: int) -> bool:
        """Go on to a new segment if this one is full; says if the active segment is new."""
        if self._used + size + len(self._noted) * 4 > self._segment_bytes:
            self._active += 1
            self._used = 0
        return not self._used

    def _reclaim(self) -> None:
        """Free the oldest segments if there are too many: carry what lives forward, or drop it."""
        crowded = -1
        for segment in range(self._first, self._active - self._segments + 1):
            if self._live_bytes(segment) > self._segment_bytes // 2:
                crowded = segment
            else:
                self._carry_forward(segment)
        # The drops come last: the entry that they make room for is the first record to say so.
        last = -1
        for at in range(self._count):
            if self._slot(at)[2] <= crowded:
                last = at
        for _ in range(last + 1):
            self._drop(0)

    def _live_bytes(self, segment: int) -> int:
        live = 0
        for at in range(self._count):
            slot = self._slot(at)
            if slot[2] == segment:
                live += slot[5]
        return live

    def _carry_forward(self, segment: int) -> None:
        """Append the live entries of a segment once more, with the seqs that they have."""
        at = 0
        while at < self._count:
            slot = self._slot(at)
            entry = self._entry(slot) if slot[2] == segment else None
            if entry is not None:
                self._store(slot[0], entry[0], entry[1], slot[4])
            elif slot[2] == segment:
                self._drop(at)  # it has rotted
                continue
            at += 1

    def _delete_dead_segments(self) -> None:
        """Delete the oldest segments up to the first that holds a live entry."""
        first = self._active
        for at in range(self._count):
            first = min(first, self._slot(at)[2])
        while self._first < first:
            try:
                self._files.remove(self._path(self._first))
            except OSError:
                pass  # it was never made, or is gone already; what cannot be deleted is read again
            self._first += 1

    def _store(self, seq: int, key: bytes, record: bytes, carried: int) -> None:
        """Append an entry to the active segment and note where it is."""
        offset = self._used
        size = self._write(_ENTRY, seq, key, record, carried)
        self._insert((seq, crc32(key), self._active, offset, carried, size))

    def _write(self, kind: int, seq: int, key: bytes, data: bytes, carried: int) -> int:
        """Append a record with the noted removals; gives its length."""
        floor = min(seq, self._slot(0)[0]) if self._count else seq
        removed = [old for old in self._noted if old > floor]
        body = pack(
            _HEADER, kind, len(key), len(data), seq, floor, self._lost, carried, len(removed)
        )
        body += b"".join([old.to_bytes(4, "big") for old in removed]) + key + data
        body += crc32(body, _salt(self._active)).to_bytes(4, "big")
        self._files.append(self._path(self._active), body)
        self._used += len(body)
        self._noted = []
        return len(body)

    # ------------------------------------------------------------------------------ opening

    def _ready(self) -> None:
        if self._stale:  # the last call failed half way
            self._load()

    def _load(self) -> None:
        self._stale = True
        self._count = self._lost = self._overflow = self._used = self.damaged = 0
        self._next = 1
        self._noted = []
        self._files.make_folder(self._folder)
        segments = sorted(_numbers(self._files.names(self._folder)))
        self._first = segments[0] if segments else 0
        self._active = self._first
        for segment in segments:
            self._active = segment
            self._used = self._replay(segment)
        if self._used < 0:
            self._active += 1
            self._used = 0
        self._lost += self._overflow
        self._stale = False

    def _replay(self, segment: int) -> int:
        """Read a segment; gives its length, or -1 if nothing may be appended to it."""
        try:
            data = self._files.read(self._path(segment))
        except OSError:
            data = b"\x00"
        salt = _salt(segment)
        at = 0
        whole = True
        while at < len(data):
            size = _length_of_record(data, at, salt)
            if size:
                self._take(data, at, size, segment)
            else:
                whole = False  # look for the next whole record, byte by byte
            at += size or 1
        self.damaged += not whole
        return at if whole else -1

    def _take(self, data: bytes, at: int, size: int, segment: int) -> None:
        """Apply one record to the state."""
        header = unpack_from(_HEADER, data, at)
        kind, key_size, _, seq, floor, self._lost, carried, removed = header
        while self._count and self._slot(0)[0] < floor:
            self._close_gap(0)
        key_at = at + _HEADER_BYTES + 4 * removed
        for place in range(at + _HEADER_BYTES, key_at, 4):
            self._forget(int.from_bytes(data[place : place + 4], "big"))
        if kind == _ENTRY:
            key = data[key_at : key_at + key_size]
            self._insert((seq, crc32(key), segment, at, carried, size))
            seq += 1
        self._next = max(self._next, seq)


def _length_of_record(data: bytes, at: int, salt: int) -> int:
    """Give the length of the whole record at an offset, 0 if there is none."""
    if len(data) - at < _HEADER_BYTES + _CRC_BYTES or not _ENTRY <= data[at] <= _NO_ENTRY:
        return 0
    end = at + _HEADER_BYTES + 4 * (data[at + 20] << 8 | data[at + 21])
    end += data[at + 1] + (data[at + 2] << 8 | data[at + 3])
    if end + _CRC_BYTES > len(data):
        return 0
    if crc32(data[at:end], salt) != int.from_bytes(data[end : end + _CRC_BYTES], "big"):
        return 0
    return end + _CRC_BYTES - at


def _numbers(names: "list[str]") -> "list[int]":
    """Give the numbers of the segment files among names."""
    found = []
    for name in names:
        if len(name) == 12 and name.endswith(".seg"):
            try:
                found.append(int(name[:8], 16))
            except ValueError:
                pass
    return found


class RamJournal:
    """The same interface in memory alone: what it holds does not survive a reset."""

    damaged = 0

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: "list[tuple[int, bytes, bytes, int]]" = []
        self._next = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> "Iterator[tuple[bytes, bytes]]":
        """Give (key, record), oldest first; appending and removing meanwhile is allowed."""
        last = -1
        while True:
            younger = [entry for entry in self._entries if entry[0] > last][:1]
            if not younger:
                return
            last, key, record, _ = younger[0]
            yield key, record

    def append(self, key: bytes, record: bytes, lost: int = 0) -> int:
        """Keep an entry; as Journal.append, and nothing but ValueError comes."""
        if not 0 < len(key) <= _MAX_KEY:
            raise ValueError("key too long")
        if not 0 <= lost <= self.lost:
            raise ValueError("reports more than was lost")
        self.lost -= lost
        dropped = 0
        if len(self._entries) == self._capacity:
            self.lost += 1 + self._entries.pop(0)[3]
            dropped = 1
        self._entries.append((self._next, bytes(key), bytes(record), lost))
        self._next += 1
        return dropped

    def remove(self, key: bytes) -> bool:
        """Forget the entries with this key; says if there was one."""
        before = len(self._entries)
        self._entries = [entry for entry in self._entries if entry[1] != key]
        return len(self._entries) < before

    def sync(self) -> None:
        """Do nothing: nothing waits."""
