"""Which head this meter holds and names: signed by a gateway, and an heir of the one before.

A meter that named a head names only its descendants. Two heads of one height are the proof that a
gateway rewrote history; the meter adopts neither the second nor what is built on it, and reports.

Left out: a signed head that is older than the eight kept here is not compared with anything; the
gateway's signature under it is what the meter holds then.
"""

from ledger.protocol import records
from ledger.protocol.cose import payload_digest
from ledger.protocol.errors import BadProof, BadSignature, MalformedRecord
from ledger.protocol.messages import verify_extends

try:
    from typing import Any

    from ledger.protocol.cose import Envelope
    from ledger.protocol.records import Head
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_KEPT = const(8)


class Fork(BadProof):
    """A gateway has signed two heads of one height, or one that does not follow the one held."""


class Heads:
    """The newest head held: ``height`` (0: the genesis) and ``digest`` (32 bytes).

    ``keys`` maps a gateway's address to its key (ledger.protocol.p256.PublicKey). ``held`` is what
    was held before the restart: (height, digest).
    """

    def __init__(
        self,
        chain: bytes,
        genesis: bytes,
        keys: "dict[bytes, Any]",
        held: "tuple[int, bytes] | None" = None,
    ) -> None:
        self._chain = chain
        self._keys = keys
        self.height, self.digest = held or (0, genesis)
        self._known: "list[tuple[int, bytes]]" = [(self.height, self.digest)]

    def check(self, envelope: "Envelope") -> "Head":
        """Give the head in an envelope that a gateway of this region has signed.

        Raises MalformedRecord, BadSignature, or Fork for a second head of a height.
        """
        head = records.decode(envelope.payload)
        if not isinstance(head, records.Head) or head.chain != self._chain:
            raise MalformedRecord("not a head of this region")
        digest = payload_digest(envelope.payload)
        if (head.height, digest) not in self._known:
            if envelope.kid not in self._keys:
                raise BadSignature("head is not signed by a gateway of this region")
            envelope.verify(self._keys[envelope.kid])
        for height, known in self._known:
            if height == head.height and known != digest:
                raise Fork("second head of height " + str(height))
        return head

    def adopt(
        self, envelope: "Envelope", head: "Head", bridge: "tuple[int, list[bytes]] | None" = None
    ) -> bool:
        """Hold a head that check() has passed; gives False for one that is not newer.

        Raises Fork for a next head that does not follow, BadProof where ``bridge`` is missing or
        leads elsewhere; what is held stays as it is.
        """
        if head.height <= self.height:
            return False
        try:
            verify_extends(head, self.height, self.digest, bridge)
        except BadProof as error:
            if head.height == self.height + 1:
                raise Fork(str(error))
            raise
        self.height = head.height
        self.digest = payload_digest(envelope.payload)
        self._known.append((self.height, self.digest))
        if len(self._known) > _KEPT:
            self._known.pop(0)
        return True
