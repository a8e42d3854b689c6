"""Signature checks done once: keys cached, and envelopes that workers checked beforehand.

The gateway checks signatures in parallel before a block; the application would check them again.
Who has checked an envelope hands it to ``admit`` and the application's ``check`` takes that as
done. Only the process's own code can admit.
"""

from typing import Any

from ledger.protocol import p256, records
from ledger.protocol.cose import Envelope

_MOST_KEYS = 50_000
_MOST_ADMITTED = 200_000


class Verifier:
    """Opens and checks envelopes; remembers keys and what was checked."""

    def __init__(self) -> None:
        self._keys: dict[bytes, p256.PublicKey] = {}
        self._admitted: dict[bytes, tuple[Envelope, Any]] = {}

    def key(self, public_key: bytes) -> p256.PublicKey:
        """Give the loaded key of a 33-byte compressed point; raises InvalidKey."""
        key = self._keys.get(public_key)
        if key is None:
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            key = self._keys[public_key] = p256.PublicKey(public_key)
        return key

    def open(self, raw: bytes) -> tuple[Envelope, Any]:
        """Give envelope and decoded record; raises MalformedRecord. No signature is checked."""
        known = self._admitted.get(raw)
        if known is not None:
            return known
        envelope = Envelope.parse(raw)
        return envelope, records.decode(envelope.payload)

    def check(self, envelope: Envelope, public_key: bytes) -> None:
        """Check the signature unless it was admitted; raises BadSignature."""
        if self._admitted.pop(envelope.raw, None) is None:
            envelope.verify(self.key(public_key))

    def admit(self, envelope: Envelope, record: Any) -> None:
        """Note that this envelope's signature was checked with its signer's key."""
        if len(self._admitted) >= _MOST_ADMITTED:
            self._admitted.clear()
        self._admitted[envelope.raw] = (envelope, record)
