"""The journal on a real littlefs whose flash loses power; runs under MicroPython only.

littlefs_cuts.py cuts STRIDE    cut at every STRIDE-th flash operation; prints how many cuts
littlefs_cuts.py wear           prints erases for 1,000 rounds: append, append, receipts, cell
"""

import sys

import vfs

from firmware.meter.journal import Journal
from firmware.meter.storage import Cell

# A Pico's flash: 4,096-byte sectors, programmed by 256.
SECTOR = 4096
PROGRAM = 256


class Flash:
    """NOR flash in memory; operation `cut_at` is torn, and those after it do nothing."""

    def __init__(self, sectors, data=None):
        self.sectors = sectors
        self.data = bytearray(data or bytes(sectors * SECTOR))
        self.operations = self.erases = self.cut_at = 0

    def _cut(self):
        self.operations += 1
        return self.cut_at and self.operations >= self.cut_at

    def readblocks(self, sector, buffer, offset=0):
        start = sector * SECTOR + offset
        buffer[:] = self.data[start : start + len(buffer)]

    def writeblocks(self, sector, buffer, offset=0):
        start = sector * SECTOR + offset
        if self._cut():
            if self.operations == self.cut_at:
                half = len(buffer) // 2
                self.data[start : start + half] = buffer[:half]
            return -5
        self.data[start : start + len(buffer)] = buffer
        return 0

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.sectors
        if operation == 5:
            return SECTOR
        if operation == 6:
            start = argument * SECTOR
            size = SECTOR
            if self._cut():
                if self.operations > self.cut_at:
                    return -5
                size = SECTOR // 2
            self.data[start : start + size] = b"\xff" * size
            self.erases += 1
            return 0 if size == SECTOR else -5
        return 0


def _mount(flash):
    vfs.mount(vfs.VfsLfs2(flash, progsize=PROGRAM), "/flash")


def _fresh(sectors):
    flash = Flash(sectors)
    vfs.VfsLfs2.mkfs(flash, progsize=PROGRAM)
    return flash.data


def _journal():
    return Journal("/flash/journal", 6, segment_bytes=1024, segments=3)


def _script(done):
    """Append and remove; `done` takes what has returned, so that it is known after a cut."""
    cell = Cell("/flash/head")
    journal = _journal()
    for n in range(60):
        done["trying"] = n
        journal.append(bytes((n,)), bytes((n,)) * 200, lost=journal.lost)
        done["stored"].append(n)
        done["trying"] = None
        if n % 3 == 0:
            old = done["stored"].pop(0)
            journal.remove(bytes((old,)))
            done["removed"].append(old)
        while len(done["stored"]) > 6:
            done["stored"].pop(0)
        cell.write(bytes((n,)))
        done["cell"] = n


def _check(done):
    journal = _journal()
    found = list(journal)
    for key, record in found:
        assert record == key * 200
    keys = [key[0] for key, _ in found]
    wanted = list(done["stored"])
    if done["trying"] in keys:
        wanted.append(done["trying"])
        wanted = wanted[-6:]
    extra = [key for key in keys if key not in wanted]
    missing = [key for key in wanted if key not in keys]
    assert not missing, (keys, done)
    assert all(key in done["removed"] for key in extra), (keys, done)
    value = Cell("/flash/head").read()
    number = value[0] if value else -1
    assert number in (done["cell"], done["cell"] + 1), number
    journal.append(b"after", b"the cut")
    assert list(_journal())[-1] == (b"after", b"the cut")


def cuts(stride):
    image = _fresh(24)
    cut_at = 1
    while True:
        flash = Flash(24, image)
        flash.cut_at = cut_at
        done = {"stored": [], "removed": [], "trying": None, "cell": -1}
        survived = False
        try:
            _mount(flash)
            _script(done)
            survived = True
        except OSError:
            pass
        try:
            vfs.umount("/flash")
        except OSError:
            pass
        flash.cut_at = 0
        _mount(flash)
        _check(done)
        vfs.umount("/flash")
        if survived:
            print(cut_at // stride)
            return
        cut_at += stride


def wear():
    flash = Flash(64, _fresh(64))
    _mount(flash)
    readings = Journal("/flash/readings", 64)
    ballots = Journal("/flash/ballots", 64)
    head = Cell("/flash/head")
    flash.erases = 0
    for n in range(1000):
        key = n.to_bytes(32, "big")
        readings.append(key, bytes(200))
        head.write(bytes(40))
        ballots.append(key, bytes(500))
        readings.remove(key)
        ballots.remove(key)
    print(flash.erases)
    vfs.umount("/flash")


if sys.argv[1] == "cuts":
    cuts(int(sys.argv[2]))
else:
    wear()
