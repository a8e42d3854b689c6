"""Who this meter's neighbours are: those it was given, and the changes that operators signed.

A change counts when as many operators as the region demands have signed the same content. Changes
are numbered through the region and applied once, in order; the newest number is kept over a
restart, so that an old message cannot bring back who has left.

Left out: when a change takes effect in the chain. A meter that judges somebody who is not a member
yet, or no longer, gives a verdict that nobody counts.
"""

from ledger.protocol import cbor, messages, records
from ledger.protocol.cose import address_of
from ledger.protocol.errors import MalformedRecord, ProtocolError

try:
    from typing import Any, Callable
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


# A check takes a board a second or more, and a stranger's message may hold 64 to no purpose.
_MOST_WRONG = const(4)


class Members:
    """The neighbours: ``keys`` maps address to compressed public key (33 bytes).

    ``own`` is this meter's address, ``operators`` compressed keys of which ``threshold`` must sign.
    ``await verify(envelope, public_key)`` checks a signature: raises BadSignature or InvalidKey.
    """

    def __init__(
        self,
        chain: bytes,
        cluster: str,
        own: bytes,
        neighbours: "list[bytes]",
        operators: "list[bytes]",
        threshold: int,
        verify: "Callable[[Any, bytes], Any]",
    ) -> None:
        self._chain = chain
        self._cluster = cluster
        self._own = own
        self._operators = {address_of(key): key for key in operators}
        self._threshold = threshold
        self._verify = verify
        self._wrong = 0
        self.number = 0
        self.keys = {address_of(key): key for key in neighbours}
        self.keys.pop(own, None)

    def export(self) -> bytes:
        """Give what restore() takes after a restart."""
        return cbor.dumps([self.number, sorted(self.keys.values())])

    def restore(self, data: bytes) -> None:
        """Take up what export() gave; raises MalformedRecord."""
        fields = records.array(cbor.loads(data), 2, 2, "members kept")
        number = records.integer(fields[0], 0, 0xFFFFFFFF, "number")
        keys = [records.octets(key, 33, "key") for key in records.array(fields[1], 0, 255, "keys")]
        self.number = number
        self.keys = {address_of(key): key for key in keys}

    async def take(self, data: bytes) -> bool:
        """Apply a members message; gives whether the neighbours changed.

        Raises MalformedRecord. Approvals that do not hold are passed over: others may suffice; but
        no gateway sends any, so after a few the rest of the message is not looked at.
        """
        approvals: "dict[tuple[int, bytes], tuple[Any, list[Any]]]" = {}
        for envelope in messages.decode_members(data):
            change = records.decode(envelope.payload)
            if not isinstance(change, records.RegistryChange) or change.chain != self._chain:
                raise MalformedRecord("not a registry change of this region")
            if change.number > self.number and envelope.kid in self._operators:
                key = (change.number, envelope.payload)
                approvals.setdefault(key, (change, []))[1].append(envelope)
        before = dict(self.keys)
        self._wrong = 0
        for key in sorted(approvals):
            change, envelopes = approvals[key]
            if change.number > self.number and await self._approved(envelopes):
                self.number = change.number
                self._apply(change)
        return before != self.keys

    async def _approved(self, envelopes: "list[Any]") -> bool:
        """Tell whether enough operators have signed; checks no more than it needs."""
        signers: "set[bytes]" = set()
        for envelope in envelopes:
            if len(signers) >= self._threshold or self._wrong >= _MOST_WRONG:
                break
            if envelope.kid in signers:
                continue
            try:
                await self._verify(envelope, self._operators[envelope.kid])
            except ProtocolError:
                self._wrong += 1
                continue
            signers.add(envelope.kid)
        return len(signers) >= self._threshold

    def _apply(self, change: "records.RegistryChange") -> None:
        address = address_of(change.public_key)
        if address == self._own:
            return
        if change.action == records.JOIN and change.cluster == self._cluster:
            self.keys[address] = change.public_key
        else:  # left, or joined another cluster
            self.keys.pop(address, None)
