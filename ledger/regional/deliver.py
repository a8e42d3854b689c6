"""What lets a record into the region, one rule after the other (SPEC 11.3, 11.4).

What ``Delivery.check`` passes may wait for the next close among the ``Pending``; it raises Refused.
A second payload for a slot is let in as evidence: the close suspends its signer. So is a head that
a gateway signed and that is not the chain's.
"""

from collections.abc import Sequence

from ledger import genesis as genesis_module
from ledger.engine.abci import Refused
from ledger.genesis import RegionGenesis
from ledger.network import NetworkRules, NetworkState
from ledger.protocol import p256, records, rounds
from ledger.protocol.cose import Envelope, address_of, payload_digest
from ledger.protocol.errors import BadSignature, InvalidKey, MalformedRecord
from ledger.regional import codes, kinds
from ledger.regional.blocks import Blocks
from ledger.regional.closes import fold
from ledger.regional.kinds import Entry, MemberRecord, Record, SlotKey, slot_key, slot_of
from ledger.regional.state import Member, State
from ledger.verify import Verifier

__all__ = ["Delivery", "Entry", "Pending", "Record", "SlotKey", "slot_is_free", "slot_key"]

MAX_PENDING_A_SIGNER = 128
MAX_FAR_A_SIGNER = 16
"""Records of a signer whose rounds are far ahead: they wait for as long as nobody goes there.

A replay that skips years brings a reading and a ballot of each round, and closes the first of them
soon; then the others are near.
"""
MAX_EARLY_A_SIGNER = 2
_EARLY_ROUNDS = 2  # after the last one closed: a node is a block behind its peers, or two
_MAX_PENDING = 1 << 20  # what a block's record ids can number


class Pending:
    """Records that wait for a close, in the order of delivery.

    ``accumulator`` is SHA-256 folded over their digests: it makes the application hash depend on
    what was delivered even before a close.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.slots: dict[SlotKey, list[bytes]] = {}
        self.accumulator = bytes(records.DIGEST_BYTES)
        self.accused: set[bytes] = set()
        """The gateways against whom evidence waits."""
        self._of_signer: dict[bytes, list[Record]] = {}
        self._accumulators: list[bytes] = []

    def add(self, entry: Entry) -> None:
        """Take a record in."""
        envelope, record = entry
        self._of_signer.setdefault(envelope.kid, []).append(record)
        self.entries.append(entry)
        if isinstance(record, records.Head):
            self.accused.add(envelope.kid)
        self.slots.setdefault(slot_key(envelope, record), []).append(envelope.digest)
        self._accumulators.append(self.accumulator)
        self.accumulator = fold(self.accumulator, [envelope.digest])

    def rewind(self, count: int) -> None:
        """Keep the first ``count`` records only, as if the others had never come."""
        while len(self.entries) > count:
            envelope, record = self.entries.pop()
            self._of_signer[envelope.kid].pop()
            self.slots[slot_key(envelope, record)].pop()
            if isinstance(record, records.Head):
                self.accused.discard(envelope.kid)
            self.accumulator = self._accumulators.pop()

    def of_signer(self, signer: bytes) -> Sequence[Record]:
        """Give the records of a signer that wait."""
        return self._of_signer.get(signer, ())

    def check_room(self, signer: bytes) -> None:
        """Check that one more record of a signer may wait; raises Refused."""
        if len(self.of_signer(signer)) >= MAX_PENDING_A_SIGNER:
            raise Refused(codes.FULL, "too many records of this signer wait for a close")
        if len(self.entries) >= _MAX_PENDING:
            raise Refused(codes.FULL, "too many records wait for a close")


class Early:
    """Ballots that went into the mempool before the head that they name was made here.

    Their signers' signatures were checked. A few of each signer between two blocks: an honest
    member sends one a round, and nothing else bounds what names no head at all.
    """

    def __init__(self) -> None:
        self._of_signer: dict[bytes, set[bytes]] = {}

    def has_room(self, envelope: Envelope) -> bool:
        """Tell whether one more of this signer may come in, or this one again."""
        there = self._of_signer.get(envelope.kid, set())
        return envelope.digest in there or len(there) < MAX_EARLY_A_SIGNER

    def add(self, envelope: Envelope) -> None:
        """Count a ballot."""
        self._of_signer.setdefault(envelope.kid, set()).add(envelope.digest)

    def clear(self) -> None:
        """Begin to count anew: a block is durable."""
        self._of_signer.clear()


def slot_is_free(member: Member, record: MemberRecord) -> bool:
    """Tell whether the chain has nothing in a record's slot yet, by the member's entry alone."""
    if isinstance(record, records.Reading):
        return member.may_fill(slot_of(record))
    return member.ballot_round is None or record.round > member.ballot_round


class Delivery:
    """The rules of delivery over one region's state, blocks and waiting records."""

    def __init__(
        self, genesis: RegionGenesis, state: State, blocks: Blocks, verifier: Verifier
    ) -> None:
        self._genesis = genesis
        self._chain = genesis.chain
        self._state = state
        self._blocks = blocks
        self._verifier = verifier
        self._operators = genesis_module.addresses(genesis.operators)
        self._gateways = genesis_module.addresses(genesis.gateways)
        self.network = NetworkRules.of(genesis)
        self.horizon_height = 0
        """The first block whose records can still be evidence (SPEC 11.4)."""
        self.last_round: int | None = None
        """The last round that was closed."""

    def closers(self) -> list[bytes]:
        """Give the addresses of the gateways whose orders count, in the genesis' order."""
        return [gateway for gateway in self._gateways if not self._state.suspended(gateway)]

    def open(self, tx: bytes) -> tuple[Envelope, "Record | records.Close"]:
        """Take a transaction apart; raises Refused."""
        try:
            envelope, record = self._verifier.open(tx, kinds.decode)
        except MalformedRecord as e:
            raise Refused(codes.MALFORMED, str(e)) from None
        if not isinstance(record, Record | records.Close):
            raise Refused(codes.UNEXPECTED_TYPE, f"a {type(record).__name__} is no transaction")
        if record.chain != self._chain:
            raise Refused(codes.WRONG_CHAIN, "the record belongs to another region")
        return envelope, record

    def check(
        self, envelope: Envelope, record: Record, pending: Pending, early: Early | None = None
    ) -> None:
        """Check every rule of delivery; raises Refused and changes nothing else.

        With ``early``, which counts them, the head that a ballot names may be one of a block to
        come.
        """
        key = self.admissible(envelope, record, pending, early)
        self._check_signature(envelope, key)
        if early is not None and self._names_no_head(record):
            early.add(envelope)

    def admissible(
        self, envelope: Envelope, record: Record, pending: Pending, early: Early | None = None
    ) -> bytes:
        """Check every rule of delivery but the signature; gives the signer's key.

        Raises Refused.
        """
        if isinstance(record, MemberRecord):
            key = self._member_record(envelope, record, pending, early)
        elif isinstance(record, records.RegistryChange):
            key = self._registry_change(envelope, record, pending)
        elif isinstance(record, records.Head):
            key = self._other_head(envelope, record, pending)
        else:
            key = self.network.check(self._network_state(), envelope, record)
            _check_waiting(envelope, record, pending)
        pending.check_room(envelope.kid)
        return key

    def _network_state(self) -> NetworkState:
        return self.network.load(self._state.network)

    def check_close(
        self, envelope: Envelope, record: records.Close, last_round: int | None
    ) -> None:
        """Check a gateway's order to close a round; raises Refused."""
        key = _known(self._gateways.get(envelope.kid))
        if self._state.suspended(envelope.kid):
            raise Refused(codes.NOT_ACTIVE, "the gateway is suspended")
        self._check_signature(envelope, key)
        if last_round is not None and record.round <= last_round:
            raise Refused(codes.WRONG_ROUND, f"round {record.round} is closed already")
        if rounds.end_of(record.round, self._genesis.parameters.round_s) > records.MAX_TIME:
            raise Refused(codes.WRONG_ROUND, f"round {record.round} ends after what a head can say")

    def _member_record(
        self, envelope: Envelope, record: MemberRecord, pending: Pending, early: Early | None
    ) -> bytes:
        member = self._state.members.get(envelope.kid)
        if member is None:
            raise Refused(codes.UNKNOWN_SIGNER, "the signer is not a member of the region")
        if member.suspended or not member.active_at(self.round_of(record)):
            raise Refused(codes.NOT_ACTIVE, "the signer is suspended or not a member in that round")
        if self._names_no_head(record) and not self._may_be_early(envelope, record, early):
            raise Refused(codes.UNKNOWN_PARENT, "the ballot names a head that is not in this chain")
        self._check_slot(envelope, record, member, pending)
        if self._is_far(record):
            far = sum(self._is_far(other) for other in pending.of_signer(envelope.kid))
            if far >= MAX_FAR_A_SIGNER:
                raise Refused(codes.FULL, "too many records of this signer wait for far rounds")
        return member.public_key

    def _is_far(self, record: Record) -> bool:
        """Tell whether a record's round is an epoch's length or more after the last one closed."""
        if self.last_round is None or not isinstance(record, MemberRecord):
            return False
        return self.round_of(record) > self.last_round + rounds.EPOCH_ROUNDS

    def round_of(self, record: MemberRecord) -> int:
        """Give the round that a record belongs to."""
        if isinstance(record, records.Ballot):
            return record.round
        return rounds.round_of(record.time, self._genesis.parameters.round_s)

    def named_height(self, ballot: records.Ballot) -> int | None:
        """Give the height of the head that a ballot names, 0 for the genesis, None if unknown."""
        if ballot.parent == self._genesis.digest:
            return 0
        return self._blocks.height_of(ballot.parent)

    def _names_no_head(self, record: Record) -> bool:
        return isinstance(record, records.Ballot) and self.named_height(record) is None

    def _may_be_early(self, envelope: Envelope, ballot: MemberRecord, early: Early | None) -> bool:
        """Tell whether the head that a ballot names may be that of a block to come."""
        if early is None or self.last_round is None:
            return False
        near = self.last_round < self.round_of(ballot) <= self.last_round + _EARLY_ROUNDS
        return near and early.has_room(envelope)

    def _check_slot(
        self,
        envelope: Envelope,
        record: MemberRecord,
        member: Member,
        pending: Pending,
    ) -> None:
        key = slot_key(envelope, record)
        digests = list(pending.slots.get(key, ()))
        if not slot_is_free(member, record):
            digests += self._blocks.digests_in_slot(*key, self.horizon_height)
            if not digests:
                raise Refused(
                    codes.STALE, "the slot is older than what the chain still tells apart"
                )
        if envelope.digest in digests:
            raise Refused(codes.DUPLICATE, "the record is in the chain or waits for it")
        if len(digests) > 1:
            raise Refused(codes.STALE, "two payloads for this slot are on record already")

    def _registry_change(
        self, envelope: Envelope, change: records.RegistryChange, pending: Pending
    ) -> bytes:
        key = _known(self._operators.get(envelope.kid))
        number = self._state.registry.changes + 1
        if change.number != number:
            raise Refused(codes.WRONG_NUMBER, f"the next registry change has number {number}")
        approval = self._state.approvals.get(payload_digest(envelope.payload))
        if approval is not None and envelope.kid in approval.operators:
            raise Refused(codes.DUPLICATE, "this operator has approved this change")
        _check_waiting(envelope, change, pending)
        self._check_possible(change)
        return key

    def _other_head(self, envelope: Envelope, head: records.Head, pending: Pending) -> bytes:
        """Check evidence against a gateway: a head of its own that is not the chain's."""
        key = _known(self._gateways.get(envelope.kid))
        own = self._blocks.head_payload(head.height)
        if own is None:
            raise Refused(codes.UNKNOWN_HEAD, "the head is above the newest one of this chain")
        if own == envelope.payload:
            raise Refused(codes.DUPLICATE, "the head is the chain's own")
        if self._state.convicted.get(envelope.kid) is not None or envelope.kid in pending.accused:
            raise Refused(codes.STALE, "another head of this gateway is evidence already")
        return key

    def _check_possible(self, change: records.RegistryChange) -> None:
        try:
            p256.PublicKey(change.public_key)
        except InvalidKey as e:
            raise Refused(codes.MALFORMED, str(e)) from None
        member = self._state.members.get(address_of(change.public_key))
        if change.action == records.JOIN and member is not None:
            raise Refused(codes.IMPOSSIBLE, "this key is or was a member: join with a new key")
        if change.action == records.LEAVE and (member is None or member.active_until is not None):
            raise Refused(codes.IMPOSSIBLE, "this key is not a member's that could leave")

    def _check_signature(self, envelope: Envelope, key: bytes) -> None:
        try:
            self._verifier.check(envelope, key)
        except BadSignature as e:
            raise Refused(codes.BAD_SIGNATURE, str(e)) from None


def _check_waiting(envelope: Envelope, record: Record, pending: Pending) -> None:
    if envelope.digest in pending.slots.get(slot_key(envelope, record), ()):
        raise Refused(codes.DUPLICATE, "the approval waits for a close")


def _known(key: bytes | None) -> bytes:
    if key is None:
        raise Refused(codes.UNKNOWN_SIGNER, "the signer has no right to this kind of record")
    return key
