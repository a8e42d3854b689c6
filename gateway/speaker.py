"""What meters are told: heads, members' news and receipts, and who of several gateways tells it.

One gateway alone tells everything. Of several, the one whose node proposed the block tells of it at
once; the others listen to the broker, and where a block's head does not come within some seconds,
because the speaker died or has no link, the next one tells it instead. They wait differently long,
by their place in the genesis, so that mostly one does. Telling a thing twice is harmless.

A head heard that a registered gateway signed, and that is not ours at its height, is evidence.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from gateway.counters import Counters
from gateway.members import MembersNews
from gateway.receipts import Receipts
from gateway.roundbook import Instant
from ledger.protocol import records, rounds, topics
from ledger.protocol.cose import Envelope
from ledger.regional.application import RegionalApplication

_log = logging.getLogger("gateway.speaker")

STAND_IN_S = 3.0
STAND_IN_STEP_S = 1.0
_MOST_UNSPOKEN = 8  # blocks; of older ones the meters ask themselves, by sending again
_CHUNK = 64

Indices = Mapping[bytes, Sequence[int]]
"""Receipts to make of one block: address -> indices of records."""


class Publish(Protocol):
    """Where messages go."""

    def __call__(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Send a message; gives whether it went out."""


class Place(NamedTuple):
    """Where a record is: block, position in it, and its signer."""

    height: int
    position: int
    address: bytes


class _Unspoken(NamedTuple):
    height: int
    wanted: Indices
    due: float  # steady s
    ours: bool


class Speaker:
    """Publishes for one region. ``lock`` guards the application.

    ``place`` is this gateway's among several, from 0, or None for one alone. ``height`` is the
    newest block that was noted here: committed, with signed heads.
    """

    def __init__(
        self,
        application: RegionalApplication,
        lock: "threading.RLock",
        publish: Publish,
        counters: Counters,
        *,
        place: int | None = None,
    ) -> None:
        self._application = application
        self._chain = application.genesis.chain
        self._lock = lock
        self._publish = publish
        self._counters = counters
        self._patience_s = None if place is None else STAND_IN_S + place * STAND_IN_STEP_S
        self._receipts = Receipts(application)
        self._members = MembersNews(application)
        self._told: dict[str, bytes] = {}
        self._unspoken: list[_Unspoken] = []
        self._greet_due: float | None = None
        self._ahead: dict[bytes, tuple[Envelope, records.Head]] = {}
        self.heard = 0
        self._said = 0
        self.height = application.height

    # blocks

    def note(
        self, height: int, digests: list[bytes], wanted: Indices, now: Instant, *, ours: bool
    ) -> None:
        """Take note of a block: the digests of its records in order, and whose receipts to send."""
        with self._lock:
            self._receipts.keep(height, digests)
            self._members.read(height)
        self.height = height
        if height % rounds.TERM_ROUNDS == 0:
            self._told = {}  # whoever may publish can have overwritten what is retained
        wait_s = 0.0 if ours or self._patience_s is None else self._patience_s
        self._unspoken.append(_Unspoken(height, wanted, now.steady + wait_s, ours))
        del self._unspoken[:-_MOST_UNSPOKEN]

    def step(self, now: Instant) -> None:
        """Tell what is due."""
        due = [block for block in self._unspoken if block.due <= now.steady]
        self._unspoken = [block for block in self._unspoken if block.due > now.steady]
        for block in due:
            self._publish_members()
            if block.height > self.heard or self._patience_s is None:
                self._publish_head(block.height)
            self._send_receipts(block.height, block.wanted)
        if self._greet_due is not None and self._greet_due <= now.steady:
            self._greet_due = None
            # a head without its receipts would keep the others from telling of its block
            waits = any(block.height == self.height for block in self._unspoken)
            if max(self.heard, self._said) < self.height and not waits:
                self._counters.add("heads.stood_in")
                self._publish_members()
                self._publish_head(self.height)

    def announce(self, now: Instant) -> None:
        """Tell what a new connection needs: members and the newest head.

        Among several: only after it was quiet for a while, for this one may be behind.
        """
        self._told = {}
        if self._patience_s is not None:
            self.heard = self._said = 0  # what this broker keeps comes at once
            self._greet_due = now.steady + self._patience_s
            return
        self._publish_members()
        self._publish_head(self.height)

    def answer(self, places: Sequence[Place]) -> None:
        """Send the receipts of records that are in the chain already."""
        wanted: dict[int, dict[bytes, list[int]]] = {}
        for place in places:
            indices = wanted.setdefault(place.height, {}).setdefault(place.address, [])
            if place.position not in indices:
                indices.append(place.position)
        for height, of_block in wanted.items():
            self._send_receipts(height, of_block)

    # heads of others

    def hear(self, envelope: Envelope, head: records.Head) -> bool:
        """Take note of a head on the broker, its signature checked; False: it contradicts ours."""
        if head.height > self.height:
            self._ahead[envelope.kid] = envelope, head
            return True
        with self._lock:
            own = self._application.blocks.head_payload(head.height)
        if own != envelope.payload:
            return False
        self._counters.add("heads.heard")
        self.heard = max(self.heard, head.height)
        # of ours the receipts are still to be sent, whoever was quicker with the head
        self._unspoken = [
            block for block in self._unspoken if block.ours or block.height != head.height
        ]
        return True

    def take_ahead(self) -> list[tuple[Envelope, records.Head]]:
        """Give the heads heard before their blocks that have come since, to be heard again."""
        come = [pair for pair in self._ahead.values() if pair[1].height <= self.height]
        for envelope, _ in come:
            del self._ahead[envelope.kid]
        return come

    # working

    def _publish_members(self) -> None:
        with self._lock:
            messages = self._members.messages()
        for topic, message in messages:
            if self._told.get(topic) != message and self._publish(topic, message, retain=True):
                self._told[topic] = message

    def _publish_head(self, height: int) -> None:
        with self._lock:
            raw = self._application.blocks.head_envelope(height)
        if raw is not None and self._publish(topics.head(self._chain), raw, retain=True):
            self._said = height

    def _send_receipts(self, height: int, wanted: Indices) -> None:
        for topic, message in self._guarded(self._receipts.messages(height, wanted)):
            if self._publish(topic, message):
                self._counters.add("receipts.sent")

    def _guarded(self, messages: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """Give what is made under the lock, letting the engine in between."""
        while True:
            with self._lock:
                chunk = list(islice(messages, _CHUNK))
            if not chunk:
                return
            yield from chunk
