"""The gateway's work without any network: messages in, blocks made, what to publish out.

The order is what makes a crash harmless: a message is in the inbox before it is acknowledged, a
block is durable before its head and receipts go out, and inbox rows are deleted last. A crash
between any two steps repeats the later ones: records found in the chain are answered by their
receipt, all others go to the round book again.

Left out: when to be called, and where messages come from (``gateway.service``).
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gateway import roundbook
from gateway.counters import Counters
from gateway.members import MembersNews
from gateway.queue import Message, Queue
from gateway.receipts import Receipts
from gateway.roundbook import Entry, Instant, RoundBook
from gateway.verification import (
    BAD_SIGNATURE,
    Candidate,
    Rejected,
    SignatureChecks,
    Signer,
    inspect,
)
from ledger.engine.solo import Solo
from ledger.genesis import addresses
from ledger.keys import Signer as Key
from ledger.protocol import records, rounds, tally, topics
from ledger.regional import codes
from ledger.regional.application import RegionalApplication
from ledger.regional.blocks import Block, place_of
from ledger.regional.deliver import slot_is_free, slot_key

_log = logging.getLogger("gateway.core")


class Publish(Protocol):
    """Where messages go."""

    def __call__(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Send a message; gives whether it went out."""


Wanted = dict[int, dict[bytes, list[int]]]
"""Receipts to make: height -> address -> indices of records."""


class ImpossibleState(Exception):
    """The chain refused what only this gateway does; going on would hide a fault."""


class Place(NamedTuple):
    """Where a record is: block, position in it, and its signer."""

    height: int
    position: int
    address: bytes


class Core:
    """One region's gateway between its queue, its chain and a ``publish`` function."""

    def __init__(
        self,
        application: RegionalApplication,
        *,
        key: Key,
        queue: Queue,
        book: RoundBook,
        publish: Publish,
        counters: Counters,
    ) -> None:
        self._application = application
        self._node = Solo(application)
        self._chain = application.genesis.chain
        self._key = key
        self._queue = queue
        self._book = book
        self._publish = publish
        self._counters = counters
        self._checks = SignatureChecks(application.verifier)
        self._receipts = Receipts(application)
        self._members = MembersNews(application)
        self._operators = addresses(application.genesis.operators)
        self._owed: list[tuple[int, Place]] = []
        self._told: dict[str, bytes] = {}
        self.online: dict[bytes, str] = {}
        self.last_rejections: list[str] = []

    def close(self) -> None:
        """End the threads of the signature checks."""
        self._checks.close()

    # messages in

    def receive(
        self, messages: Sequence[Message], acknowledge: Callable[[], None], now: Instant
    ) -> None:
        """Take a batch: durable, then acknowledged, then checked and in the book.

        Raises QueueFull, and acknowledges nothing, where the inbox has no room for the batch.
        """
        kept: list[Message] = []
        candidates: list[Candidate] = []
        found: list[Place] = []
        for message in messages:
            candidate = self._inspect(message)
            if candidate is None:
                continue
            place = self._in_chain(candidate)
            if place is not None:
                self._counters.add("duplicate.in_chain")
                found.append(place)
            elif self._book.holds(candidate.envelope.kid, candidate.envelope.digest):
                self._counters.add("duplicate.waiting")
            else:
                kept.append(message)
                candidates.append(candidate)
        rows = self._queue.append(kept) if kept else []
        acknowledge()
        self._answer(found)
        self._admit(rows, candidates, now)

    def replay(self, now: Instant) -> None:
        """Take up what a former run left in the inbox."""
        rows: list[int] = []
        candidates: list[Candidate] = []
        gone: list[int] = []
        for row, message in self._queue.inbox():
            candidate = self._inspect(message)
            if candidate is None:
                gone.append(row)
                continue
            place = self._in_chain(candidate)
            if place is not None:
                # the receipt goes out with the first ``announce``
                self._owed.append((row, place))
            else:
                rows.append(row)
                candidates.append(candidate)
        self._queue.forget(gone)
        self._application.sign_heads(self._key)
        self._admit(rows, candidates, now)
        _log.info("event=replayed records=%d owed=%d", len(rows), len(self._owed))

    def _inspect(self, message: Message) -> Candidate | None:
        if message.topic.endswith("/" + topics.STATUS):
            self._note_status(message)
            return None
        self._counters.add("records.received")
        try:
            return inspect(message, self._chain, self._member, self._operator)
        except Rejected as rejected:
            self._reject(rejected.code, message.topic, rejected.log)
            return None

    def _member(self, address: bytes) -> Signer | None:
        member = self._application.state.members.get(address)
        return None if member is None else Signer(member.public_key, member.cluster)

    def _operator(self, address: bytes) -> Signer | None:
        key = self._operators.get(address)
        return None if key is None else Signer(key, "")

    def _note_status(self, message: Message) -> None:
        try:
            _, address, _ = topics.split(message.topic)
        except ValueError:
            return
        if self._member(address) is not None:
            self.online[address] = message.payload[:32].decode("ascii", "replace")

    def _reject(self, code: str, who: str, log: str) -> None:
        self._counters.add("rejected." + code)
        _log.warning("event=rejected code=%s from=%r reason=%r", code, who, log)
        self.last_rejections = [*self.last_rejections[-9:], f"{code}: {log}"]

    def _in_chain(self, candidate: Candidate) -> Place | None:
        """Give the place of this very record in the chain, or None."""
        record, envelope = candidate.record, candidate.envelope
        if isinstance(record, records.RegistryChange):
            return None
        member = self._application.state.members.get(envelope.kid)
        if member is None or slot_is_free(member, record):
            return None
        blocks = self._application.blocks
        for id_ in blocks.find_slot(*slot_key(envelope, record)):
            found = blocks.envelope(id_)
            if found is not None and found.digest == envelope.digest:
                return Place(*place_of(id_), envelope.kid)
        return None

    def _admit(self, rows: Sequence[int], candidates: Sequence[Candidate], now: Instant) -> None:
        """Check signatures and put what passes into the book; delete what does not."""
        gone = []
        verdicts = self._checks.check(candidates)
        for row, candidate, good in zip(rows, candidates, verdicts, strict=True):
            entry = self._entry(row, candidate)
            if not good:
                self._reject(BAD_SIGNATURE, entry.address.hex(), "the signature does not fit")
                gone.append(row)
                continue
            placed, put_out = self._book.add(entry, now)
            if placed == roundbook.DUPLICATE:
                self._counters.add("duplicate.waiting")
            elif placed != roundbook.HELD:
                self._reject(placed, entry.address.hex(), f"record of round {entry.round}")
            if placed != roundbook.HELD:
                gone.append(row)
            for old in put_out:
                self._reject(roundbook.BACKLOG, old.address.hex(), f"record of round {old.round}")
                gone.append(old.row)
        self._queue.forget(gone)

    def _entry(self, row: int, candidate: Candidate) -> Entry:
        record, envelope = candidate.record, candidate.envelope
        round_ = None
        if not isinstance(record, records.RegistryChange):
            round_ = self._application.delivery.round_of(record)
        return Entry(row, record.TYPE, round_, envelope.kid, envelope.digest, envelope.raw)

    # blocks out

    def close_due(self, now: Instant) -> int:
        """Close every round that is due; gives how many."""
        closed = 0
        while (round_ := self._book.due(now)) is not None:
            self._close_round(round_, now)
            closed += 1
        return closed

    def _close_round(self, round_: int, now: Instant) -> None:
        entries = self._book.take(round_)
        order = self._key.seal(records.Close(self._chain, round_).payload())
        results = self._node.execute([*(entry.raw for entry in entries), order.raw]).tx_results
        if results[-1].code != codes.OK:
            raise ImpossibleState(f"the close of round {round_} was refused: {results[-1].log}")
        for entry, result in zip(entries, results, strict=False):
            if result.code != codes.OK:
                self._reject(codes.NAMES[result.code], entry.address.hex(), result.log)
        self._application.sign_heads(self._key)
        wanted = self._read_blocks()
        self._book.set_members([a for a, _ in self._application.state.active(round_ + 1)], now)
        if self._application.height % rounds.TERM_ROUNDS == 0:
            self._told = {}  # whoever may publish can have overwritten what is retained
        self._publish_members()
        self._publish_head()
        self._send_receipts(wanted)
        self._queue.forget(entry.row for entry in entries)

    def _read_blocks(self) -> Wanted:
        """Take note of the blocks just made; gives the receipts to send."""
        wanted: Wanted = {}
        for block in self._application.made():
            height = block.head.height
            of_block = wanted.setdefault(height, {})
            for index, (envelope, record) in enumerate(block.records):
                if not isinstance(record, records.RegistryChange):
                    of_block.setdefault(envelope.kid, []).append(index)
            self._receipts.keep(height, [envelope.digest for envelope, _ in block.records])
            self._members.read(height)
            self._count_block(block)
        return wanted

    def _count_block(self, block: Block) -> None:
        self._counters.add("blocks.made")
        self._counters.add("records.in_blocks", len(block.records))
        for result in block.results:
            self._counters.add("outcome." + tally.OUTCOME_NAMES[result.outcome])
        head = block.head
        numbers = (head.height, head.round, len(block.records), len(block.results))
        _log.info("event=closed height=%d round=%d records=%d results=%d", *numbers)

    # what goes out

    def announce(self) -> None:
        """Publish what a new connection needs: members, the newest head, receipts owed."""
        self._told = {}
        self._publish_members()
        self._publish_head()
        self._answer([place for _, place in self._owed])
        self._queue.forget(row for row, _ in self._owed)
        self._owed = []

    def _publish_members(self) -> None:
        for topic, message in self._members.messages():
            if self._told.get(topic) != message and self._publish(topic, message, retain=True):
                self._told[topic] = message

    def _publish_head(self) -> None:
        raw = self._application.blocks.head_envelope(self._application.height)
        if raw is not None:
            self._publish(topics.head(self._chain), raw, retain=True)

    def _send_receipts(self, wanted: Wanted) -> None:
        for height, of_block in wanted.items():
            for topic, message in self._receipts.messages(height, of_block):
                if self._publish(topic, message):
                    self._counters.add("receipts.sent")

    def _answer(self, places: Sequence[Place]) -> None:
        """Send the receipts of records that are in the chain already."""
        wanted: Wanted = {}
        for place in places:
            indices = wanted.setdefault(place.height, {}).setdefault(place.address, [])
            if place.position not in indices:
                indices.append(place.position)
        self._send_receipts(wanted)
