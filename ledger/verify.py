"""Envelopes opened and checked once: keys, records and checks are remembered.

CometBFT shows a transaction again and again: for the mempool, after each block that left it there,
in proposals, in its block.

The gateway checks signatures in parallel before a block; the application would check them again.
Who has checked an envelope hands it to ``admit`` and the application's ``check`` takes that as
done. Only the process's own code can admit.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from ledger.protocol import p256, records
from ledger.protocol.cose import Envelope

_MOST_KEYS = 50_000
_MOST_ADMITTED = 200_000
_MOST_CHECKED = 50_000
_MOST_OPENED_BYTES = 4 << 20
"""Of raw envelopes; taken apart, they need some six times as much. Nobody's signature is checked
before they are kept, so this is what a stranger can fill."""


class Verifier:
    """Opens and checks envelopes; remembers keys and what was checked."""

    def __init__(self) -> None:
        self._keys: dict[bytes, p256.PublicKey] = {}
        self._admitted: dict[bytes, tuple[Envelope, Any]] = {}
        self._checked: set[bytes] = set()
        self._opened: dict[bytes, tuple[Envelope, Any]] = {}
        self._opened_bytes = 0

    def key(self, public_key: bytes) -> p256.PublicKey:
        """Give the loaded key of a 33-byte compressed point; raises InvalidKey."""
        key = self._keys.get(public_key)
        if key is None:
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            key = self._keys[public_key] = p256.PublicKey(public_key)
        return key

    def open(
        self, raw: bytes, decode: Callable[[bytes], Any] = records.decode
    ) -> tuple[Envelope, Any]:
        """Give envelope and decoded record; raises MalformedRecord, and what ``decode`` raises.

        No signature is checked. One Verifier is used with one ``decode``, for it is not asked again
        about what it has decoded.
        """
        known = self._admitted.get(raw) or self._opened.get(raw)
        if known is not None:
            return known
        envelope = Envelope.parse(raw)
        opened = envelope, decode(envelope.payload)
        if self._opened_bytes + len(raw) > _MOST_OPENED_BYTES:
            self._opened.clear()
            self._opened_bytes = 0
        self._opened[raw] = opened
        self._opened_bytes += len(raw)
        return opened

    def check(self, envelope: Envelope, public_key: bytes) -> None:
        """Check the signature unless it was admitted or checked before; raises BadSignature."""
        admitted = self._admitted.pop(envelope.raw, None) is not None
        name = sha256(public_key + envelope.raw).digest()
        if name in self._checked:
            return
        if not admitted:
            envelope.verify(self.key(public_key))
        if len(self._checked) >= _MOST_CHECKED:
            self._checked.clear()
        self._checked.add(name)

    def admit(self, envelope: Envelope, record: Any) -> None:
        """Note that this envelope's signature was checked with its signer's key."""
        if len(self._admitted) >= _MOST_ADMITTED:
            self._admitted.clear()
        self._admitted[envelope.raw] = (envelope, record)
