"""The gateway's work without any network: messages in, rounds out to the engine, blocks back.

The order is what makes a crash harmless: a message is in the inbox before it is acknowledged, a
block is durable before its head and receipts go out, and inbox rows are deleted last. A crash
between any two steps repeats the later ones: records found in the chain are answered by their
receipt, all others go to the round book again.

One flow serves both engines (``gateway.chain``). When a round is due, its records and the order to
close it are submitted; what is submitted stays in inbox and book until it is seen in a block,
whichever gateway brought it there. What is not seen for a while is submitted again, or given up
where the chain's rules refuse it now. Another gateway's close may end a round that waits here: what
is left of it is late and goes with the next.

No record is judged by a state that is known to be old. While the engine is behind, rounds are not
closed here, and what the state does not let in waits in the inbox.

Left out: when to be called, and where messages come from (``gateway.service``).
"""

import logging
from collections.abc import Callable, Iterable, Sequence

from gateway import roundbook
from gateway.chain import Chain, News, SoloChain
from gateway.counters import Counters
from gateway.queue import Message, Queue
from gateway.roundbook import Entry, Instant, RoundBook
from gateway.speaker import Place, Publish, Speaker
from gateway.submitted import Submitted
from gateway.verification import (
    BAD_SIGNATURE,
    MALFORMED,
    UNEXPECTED_TYPE,
    UNKNOWN_SIGNER,
    WRONG_CHAIN,
    WRONG_TOPIC,
    Candidate,
    Record,
    Rejected,
    SignatureChecks,
    Signer,
    inspect,
)
from ledger.genesis import addresses
from ledger.keys import Signer as Key
from ledger.protocol import records, tally, topics
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadSignature, MalformedRecord
from ledger.regional import kinds
from ledger.regional.application import RegionalApplication
from ledger.regional.blocks import Block, place_of
from ledger.regional.deliver import slot_is_free, slot_key

_log = logging.getLogger("gateway.core")

_MOST_CONTRADICTING = 1000
_MOST_SEEN = 20_000
_MOST_UNJUDGED = 1000


class _Unjudged(Exception):
    """Whether a message may come in is to be asked when the engine is in step."""


class Core:
    """One region's gateway between its queue, its chain and a ``publish`` function.

    ``chain`` None: the engine in this process, with no other gateway.
    """

    def __init__(
        self,
        application: RegionalApplication,
        *,
        key: Key,
        queue: Queue,
        book: RoundBook,
        publish: Publish,
        counters: Counters,
        chain: Chain | None = None,
    ) -> None:
        self._application = application
        self._engine: Chain = SoloChain(application, key) if chain is None else chain
        self._lock = self._engine.lock
        self._chain = application.genesis.chain
        self._key = key
        self._queue = queue
        self._book = book
        self._counters = counters
        self._checks = SignatureChecks(application.verifier)
        self._operators = addresses(application.genesis.operators)
        self._gateways = addresses(application.genesis.gateways)
        gateways = application.genesis.gateways
        place = gateways.index(key.public_key) if self._engine.several else None
        self._speaker = Speaker(application, self._lock, publish, counters, place=place)
        self._head_topic = topics.head(self._chain)
        self._owed: list[tuple[int, Place]] = []
        self._submitted = Submitted(
            application,
            self._engine,
            counters,
            settled=self._is_settled,
            given_up=self._give_up,
        )
        self._contradicting: set[bytes] = set()
        self._seen = _Seen()
        self._unjudged, self._put_off = list[tuple[int, Message]](), 0
        self._book.paused = self._engine.behind
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
        unjudged: list[Message] = []
        candidates: list[Candidate] = []
        found: list[Place] = []
        for message in messages:
            try:
                candidate = self._inspect(message, now)
            except _Unjudged:
                unjudged.append(message)
                continue
            if candidate is None:
                continue
            place = self._in_chain(candidate.envelope, candidate.record)
            again = self._seen.note(candidate.envelope.digest)
            if place is not None:
                self._counters.add("duplicate.in_chain")
                # A gateway that was away hears what the others have told of long ago: a meter
                # without its receipt will send once more.
                if again or not self._engine.several:
                    found.append(place)
            elif self._book.holds(candidate.envelope.kid, candidate.envelope.digest):
                self._counters.add("duplicate.waiting")
            else:
                kept.append(message)
                candidates.append(candidate)
        rows = self._queue.append(kept + unjudged) if kept or unjudged else []
        acknowledge()
        self._speaker.answer(found)
        self._unjudged += zip(rows[len(kept) :], unjudged, strict=True)
        self._admit(rows[: len(kept)], candidates, now)

    def replay(self, now: Instant) -> None:
        """Take up what a former run left in the inbox, before the engine makes blocks."""
        found = self._take_up(self._queue.inbox(), now)
        # the receipts go out with the first ``announce``
        self._owed += found
        with self._lock:
            self._application.sign_heads(self._key)
        waiting = len(self._book) + len(self._unjudged)
        _log.info("event=replayed records=%d owed=%d", waiting, len(found))

    def _take_up(
        self, messages: Iterable[tuple[int, Message]], now: Instant
    ) -> list[tuple[int, Place]]:
        """Judge messages of the inbox; gives those that are in the chain already."""
        rows: list[int] = []
        candidates: list[Candidate] = []
        gone: list[int] = []
        found: list[tuple[int, Place]] = []
        for row, message in messages:
            try:
                candidate = self._inspect(message, now)
            except _Unjudged:
                self._unjudged.append((row, message))
                continue
            if candidate is None:
                gone.append(row)
                continue
            place = self._in_chain(candidate.envelope, candidate.record)
            if place is not None:
                found.append((row, place))
            else:
                rows.append(row)
                candidates.append(candidate)
        self._queue.forget(gone)
        self._admit(rows, candidates, now)
        return found

    def _follow(self, now: Instant) -> None:
        """Take note of whether the engine is behind; take up what waited for that to end."""
        self._book.paused = self._engine.behind
        if self._unjudged and not self._book.paused:
            waited, self._unjudged, self._put_off = self._unjudged, [], 0
            # the gateways that were there have answered what is in the chain
            self._queue.forget(row for row, _ in self._take_up(waited, now))

    def _inspect(self, message: Message, now: Instant) -> Candidate | None:
        if message.topic.endswith("/" + topics.STATUS):
            self._note_status(message)
            return None
        try:
            if message.topic == self._head_topic:
                self._hear(message.payload, now)
                return None
            self._counters.add("records.received")
            with self._lock:
                return inspect(message, self._chain, self._member, self._operator)
        except Rejected as rejected:
            unknown = rejected.code in (UNKNOWN_SIGNER, WRONG_TOPIC)
            if unknown and self._engine.behind and message.topic != self._head_topic:
                self._put_off += 1
                if self._put_off <= _MOST_UNJUDGED:
                    raise _Unjudged from None
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

    def _in_chain(self, envelope: Envelope, record: Record) -> Place | None:
        """Give the place of this very record in the chain, or None.

        Blocks that have not been in the news yet do not count: their heads may not be signed.
        """
        if isinstance(record, records.RegistryChange):
            return None
        with self._lock:
            member = self._application.state.members.get(envelope.kid)
            if member is None or slot_is_free(member, record):
                return None
            blocks = self._application.blocks
            for id_ in blocks.find_slot(*slot_key(envelope, record)):
                height, position = place_of(id_)
                found = blocks.envelope(id_) if height <= self._speaker.height else None
                if found is not None and found.digest == envelope.digest:
                    return Place(height, position, envelope.kid)
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

    # heads of other gateways

    def _hear(self, raw: bytes, now: Instant) -> None:
        """Take note of a head on the broker; raises Rejected."""
        try:
            envelope = Envelope.parse(raw)
            head = records.decode(envelope.payload)
        except MalformedRecord as e:
            raise Rejected(MALFORMED, str(e)) from None
        if not isinstance(head, records.Head):
            raise Rejected(UNEXPECTED_TYPE, "only heads go to the head topic")
        if head.chain != self._chain:
            raise Rejected(WRONG_CHAIN, "the head belongs to another region")
        key = self._gateways.get(envelope.kid)
        if key is None:
            raise Rejected(UNKNOWN_SIGNER, f"{envelope.kid.hex()} is no gateway of this region")
        try:
            envelope.verify(self._application.verifier.key(key))
        except BadSignature as e:
            raise Rejected(BAD_SIGNATURE, str(e)) from None
        self._compare(envelope, head, now)

    def _compare(self, envelope: Envelope, head: records.Head, now: Instant) -> None:
        if self._speaker.hear(envelope, head) or envelope.digest in self._contradicting:
            return
        if len(self._contradicting) >= _MOST_CONTRADICTING:
            self._contradicting.clear()
        self._contradicting.add(envelope.digest)
        self._counters.add("heads.contradicting")
        _log.error("event=head-contradicts height=%d by=%s", head.height, envelope.kid.hex())
        self._submitted.accuse(envelope.raw, head, now)

    # rounds out to the engine

    def close_due(self, now: Instant) -> int:
        """Submit every round that is due; gives how many."""
        self._follow(now)
        closed = 0
        while (round_ := self._book.due(now)) is not None:
            self._close_round(round_, now)
            closed += 1
        return closed

    def _close_round(self, round_: int, now: Instant) -> None:
        entries = self._book.take(round_)
        close = records.Close(self._chain, round_)
        order = self._key.seal(close.payload()).raw
        self._submitted.close(entries, order, close, now)
        self.take(now)

    # the engine's answers

    def take(self, now: Instant) -> int:
        """Take what the engine has to tell; gives how many blocks there are more."""
        for tx, result in self._engine.take_refused():
            self._submitted.refused(tx, result, now)
        news = self._engine.take_news()
        for one in news:
            self._take_block(one, now)
        self._submitted.submit_again(now)
        self._speaker.step(now)
        return len(news)

    def _take_block(self, news: News, now: Instant) -> None:
        with self._lock:
            block = news.block or self._read_block(news.height)
            round_ = max(block.head.round, self._application.last_round or 0)
            active = [a for a, _ in self._application.state.active(round_ + 1)]
        wanted: dict[bytes, list[int]] = {}
        gone = []
        for index, (envelope, record) in enumerate(block.records):
            if isinstance(record, (records.Reading, records.Ballot)):
                wanted.setdefault(envelope.kid, []).append(index)
            entry = self._book.settle(envelope.kid, envelope.digest)
            if entry is not None:
                gone.append(entry.row)
                self._submitted.seen(entry.raw)
        self._count_block(block)
        self._book.closed(block.head.round, wanted)
        self._book.set_members(active, now)
        self._submitted.drop_closes(block.head.round)
        digests = [envelope.digest for envelope, _ in block.records]
        if self._engine.behind:
            wanted = {}  # the others have told of it
        self._speaker.note(news.height, digests, wanted, now, ours=news.ours)
        for envelope, head in self._speaker.take_ahead():
            self._compare(envelope, head, now)
        if news.ours:
            self._speaker.step(now)
        self._queue.forget(gone)

    def _read_block(self, height: int) -> Block:
        """Give a block from the store, its results left out."""
        blocks = self._application.blocks
        stored = blocks.envelopes_of(height)
        opened = tuple((envelope, kinds.decode(envelope.payload)) for envelope in stored)
        return Block(blocks.head(height), opened, ())

    def _count_block(self, block: Block) -> None:
        self._counters.add("blocks.made")
        self._counters.add("records.in_blocks", len(block.records))
        for result in block.results:
            self._counters.add("outcome." + tally.OUTCOME_NAMES[result.outcome])
        head = block.head
        numbers = (head.height, head.round, len(block.records), len(block.results))
        _log.info("event=closed height=%d round=%d records=%d results=%d", *numbers)

    def _give_up(self, entry: Entry, code: str, log: str) -> None:
        self._reject(code, entry.address.hex(), log)
        self._book.settle(entry.address, entry.digest)
        self._queue.forget([entry.row])

    def _is_settled(self, entry: Entry) -> bool:
        """Tell whether a record is in a block that was in the news; else it waits in the chain."""
        envelope = Envelope.parse(entry.raw)
        record = records.decode(envelope.payload)
        if isinstance(record, records.RegistryChange):
            with self._lock:
                approval = self._application.state.approvals.get(payload_digest(envelope.payload))
            return approval is not None and envelope.kid in approval.operators
        return self._in_chain(envelope, record) is not None

    # what goes out

    def announce(self, now: Instant) -> None:
        """Publish what a new connection needs: members, the newest head, receipts owed."""
        self._speaker.announce(now)
        self._speaker.answer([place for _, place in self._owed])
        self._queue.forget(row for row, _ in self._owed)
        self._owed = []

    @property
    def submitted(self) -> int:
        """The number of records that were submitted and not seen in a block yet."""
        return len(self._submitted)

    @property
    def heard(self) -> int:
        """The highest of our heads that was heard on the broker, among several gateways."""
        return self._speaker.heard


class _Seen:
    """The digests of the newest records that came, as many as two sets of ``_MOST_SEEN``."""

    def __init__(self) -> None:
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def note(self, digest: bytes) -> bool:
        """Take note of a digest; tells whether it was there."""
        prefix = digest[:8]
        known = prefix in self._young or prefix in self._old
        if len(self._young) >= _MOST_SEEN:
            self._old, self._young = self._young, set()
        self._young.add(prefix)
        return known
