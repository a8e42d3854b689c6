"""Public keys ready for checking: their tables come from flash, or are built piece by piece.

A table of 2 KB makes a check four times as fast and takes a board two seconds to build, so it is
built once, in pieces between which other tasks run, and kept in a file. The file is sealed with a
secret of this board: who can only write the flash cannot put in another key's table.
"""

import asyncio
import os
from binascii import hexlify

from ledger.protocol import p256
from ledger.protocol.cose import address_of
from ledger.protocol.errors import InvalidKey

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_TEETH = const(5)
_RARE_TEETH = const(3)  # 512 bytes, and the quickest to build


class KeyRing:
    """Keys by their compressed form; ``folder`` is made if need be, ``secret`` is 32 bytes."""

    def __init__(self, folder: str, secret: bytes) -> None:
        self._folder = folder
        self._secret = secret
        self._ready: "dict[bytes, p256.PublicKey]" = {}
        try:
            os.mkdir(folder)
        except OSError:
            pass  # it is there; if not, files below it fail and tables are built at each start

    async def get(self, sec1: bytes) -> "p256.PublicKey":
        """Give a key with its table; raises InvalidKey for bytes that are no key."""
        if sec1 not in self._ready:
            path = self._folder + "/" + hexlify(address_of(sec1)).decode()
            self._ready[sec1] = self._load(path, sec1) or await self._build(path, sec1)
        return self._ready[sec1]

    def keep_only(self, keys: "list[bytes]") -> None:
        """Forget keys that are not needed any more, here and on flash."""
        for sec1 in [sec1 for sec1 in self._ready if sec1 not in keys]:
            del self._ready[sec1]
        names = [hexlify(address_of(sec1)).decode() for sec1 in keys]
        try:
            for name in os.listdir(self._folder):
                if name not in names:
                    os.remove(self._folder + "/" + name)
        except OSError:
            pass  # a table too many does no harm

    def _load(self, path: str, sec1: bytes) -> "p256.PublicKey | None":
        try:
            with open(path, "rb") as file:
                return p256.PublicKey.from_table(sec1, file.read(), self._secret)
        except (OSError, InvalidKey):
            return None  # not there, or torn: build it

    async def _build(self, path: str, sec1: bytes) -> "p256.PublicKey":
        key = p256.PublicKey(sec1, _TEETH)
        while key.step():
            await asyncio.sleep(0)
        try:
            with open(path, "wb") as file:
                file.write(key.table(self._secret))
        except OSError:
            pass  # flash full or worn: the key works all the same
        return key


async def rare(sec1: bytes) -> "p256.PublicKey":
    """Give a key for one check or two, with a small table; raises InvalidKey."""
    key = p256.PublicKey(sec1, _RARE_TEETH)
    while key.step():
        await asyncio.sleep(0)
    return key
