"""The meter's key pair: made on the board, kept on its flash, shown to nobody.

Left out: protection of the key against who can read the flash; a secure element does that.
"""

from hashlib import sha256
from os import urandom

from firmware.meter.storage import Cell, Counter, StorageDamaged
from ledger.protocol import cose, p256, records
from ledger.protocol.errors import InvalidKey

try:
    from typing import Any
except ImportError:
    pass


class Identity:
    """A meter's key: ``public_key`` (33), ``address`` (16), and ``seal`` to sign with it."""

    def __init__(self, secret: bytes) -> None:
        """Take a 32-byte secret; raises InvalidKey for one that is out of range."""
        self._secret = secret
        self.public_key = p256.public_key(secret)
        self.address = cose.address_of(self.public_key)

    def seal(self, payload: bytes) -> cose.Envelope:
        """Sign a record's payload."""
        return cose.seal(self._secret, self.address, payload)

    def enrolment(self, chain: bytes, hardware: str) -> cose.Envelope:
        """Give the signed request to become a member; ``chain`` is zeros before provisioning."""
        return self.seal(records.Enrolment(chain, self.public_key, hardware).payload())

    def derive(self, purpose: bytes) -> bytes:
        """Give 32 secret bytes of this board for another purpose than signing records."""
        # never the input of a signature: those start with 0x84 (cose.signature_input)
        return sha256(b"gridwitness " + purpose + self._secret).digest()


def make_secret(random: "Any" = urandom) -> bytes:
    """Give a fresh secret; ``random(n)`` gives n random bytes."""
    while True:
        secret: bytes = random(32)
        try:
            p256.public_key(secret)
        except InvalidKey:
            continue  # 0 or not below the group's order: once in 2**32 times
        return secret


def start(folder: str) -> "tuple[Identity, int, bool]":
    """Give the meter's identity, the number of this start, and whether the key is a new one.

    A key whose count of starts is lost is given up and a new one made, to be enrolled anew:
    counting from one again would sign other readings for slots that were used. Raises OSError
    where the flash refuses.
    """
    key = Cell(folder + "/key")
    known = Cell(folder + "/boot").read() is not None
    try:
        number = Counter(folder + "/boot").next()
    except StorageDamaged:
        known = False
        number = 1
        Cell(folder + "/boot").write(number.to_bytes(4, "big"))
    secret = key.read()
    fresh = not known or secret is None or len(secret) != 32
    if fresh or secret is None:
        secret = make_secret()
        key.write(secret)
        key.write(secret)  # a cell keeps two files: both hold it
    return Identity(secret), number, fresh


def next_boot(folder: str) -> int:
    """Give the number of one more start, for a program that begins anew without a reset."""
    return Counter(folder + "/boot").next()
