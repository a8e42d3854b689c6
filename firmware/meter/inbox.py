"""What the broker has delivered and waits to be checked: bounded, and the newest wins.

Checking a signature takes a board a third of a second, and messages come faster. So the client's
callback only sorts them in here, and one task takes them out in turn, the urgent first: a head, a
reading, a receipt, a members message, and again. So a flood of one kind holds up no other.

Left out: every check of content. All that is looked at is the topic and the length.
"""

from ledger.protocol import topics
from ledger.protocol.cose import MAX_RECORD_BYTES
from ledger.protocol.errors import MalformedRecord

try:
    from typing import Any, Container
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


HEAD = const(1)
READING = const(2)
RECEIPT = const(3)
MEMBERS = const(4)

_READINGS_EACH = const(3)
_RECEIPTS = const(6)


class Inbox:
    """Messages by kind; ``dropped`` counts those that came too fast, ``strangers`` the unasked."""

    def __init__(self, chain: bytes, cluster: str, own: bytes) -> None:
        self._cluster = cluster
        self._own = own
        self._head_topic = topics.head(chain)
        self._members_topic = topics.members(chain, cluster)
        self._receipt_topic = topics.meter(chain, cluster, own, topics.RECEIPT)
        self._head: "bytes | None" = None
        self._members: "bytes | None" = None
        self._receipts: "list[bytes]" = []
        self._readings: "list[tuple[bytes, bytes]]" = []
        self._turn = 0
        self.dropped = 0
        self.strangers = 0

    def put(self, topic: str, payload: "Any", neighbours: "Container[bytes]") -> None:
        """Take a message in; readings of other addresses than ``neighbours`` are counted only."""
        if topic == self._head_topic:
            if len(payload) <= MAX_RECORD_BYTES:
                self._head = bytes(payload)
        elif topic == self._members_topic:
            self._members = bytes(payload)
        elif topic == self._receipt_topic:
            self._receipts.append(bytes(payload))
            if len(self._receipts) > _RECEIPTS:
                self._receipts.pop(0)
                self.dropped += 1
        else:
            self._put_reading(topic, payload, neighbours)

    def _put_reading(self, topic: str, payload: "Any", neighbours: "Container[bytes]") -> None:
        try:
            cluster, address, kind = topics.split(topic)
        except MalformedRecord:
            self.strangers += 1
            return
        if address == self._own and kind == topics.READING:
            return
        if kind != topics.READING or cluster != self._cluster or address not in neighbours:
            self.strangers += 1
            return
        if len(payload) > MAX_RECORD_BYTES:
            self.dropped += 1
            return
        waiting = [at for at in range(len(self._readings)) if self._readings[at][0] == address]
        if len(waiting) >= _READINGS_EACH:
            self._readings.pop(waiting[0])
            self.dropped += 1
        self._readings.append((address, bytes(payload)))

    def get(self) -> "tuple[int, bytes, bytes] | None":
        """Give the next message as (kind, sender's address, payload), or None."""
        for _ in range(MEMBERS):
            self._turn = self._turn % MEMBERS + 1
            message = self._of(self._turn)
            if message is not None:
                return message
        self._turn = 0
        return None

    def _of(self, kind: int) -> "tuple[int, bytes, bytes] | None":
        """Take out the next message of a kind."""
        if kind == HEAD and self._head is not None:
            head, self._head = self._head, None
            return HEAD, b"", head
        if kind == READING and self._readings:
            address, raw = self._readings.pop(0)
            return READING, address, raw
        if kind == RECEIPT and self._receipts:
            return RECEIPT, b"", self._receipts.pop(0)
        if kind == MEMBERS and self._members is not None:
            members, self._members = self._members, None
            return MEMBERS, b"", members
        return None
