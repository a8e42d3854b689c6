"""Closing a round: waiting records become a block, votes become outcomes (SPEC 11.5).

``Closing.run`` changes the state's tables and reads the store, but does not write to it;
``make_block`` gives the block. Everything here follows from the sequence of transactions alone.
"""

from dataclasses import dataclass, field

from ledger.engine.abci import Misbehaviour, Refused
from ledger.genesis import RegionGenesis, addresses
from ledger.network import NetworkChange, NetworkRules
from ledger.protocol import cbor, committee, merkle, records, rounds, tally
from ledger.protocol.cose import Envelope, address_of, payload_digest
from ledger.regional.aggregate import Aggregate
from ledger.regional.blocks import Block, Blocks, Result, record_id
from ledger.regional.deliver import slot_is_free
from ledger.regional.kinds import Entry, SlotKey, slot_key, slot_of
from ledger.regional.state import Approval, Convicted, Member, OpenReading, Registry, State


def sort_key(entry: Entry) -> tuple[int, bytes, tuple[int, int], bytes]:
    """Give a record's place in its block: type, address, boot or round, seq; then digest."""
    envelope, record = entry
    return (*slot_key(envelope, record), envelope.digest)


def result_leaf(result: Result) -> bytes:
    """Give a leaf of the results root (SPEC 11.5)."""
    return cbor.dumps([result.digest, *result.counts])


@dataclass
class Closing:
    """One close at work.

    ``horizon_height`` is the first block whose records can be evidence, ``convictions`` what the
    engine convicted validators of since the last close.
    """

    genesis: RegionGenesis
    state: State
    blocks: Blocks
    network: NetworkRules
    height: int
    round: int
    aggregate: Aggregate
    horizon_height: int
    convictions: tuple[Misbehaviour, ...] = ()
    fresh: dict[bytes, tuple[OpenReading, records.Reading]] = field(default_factory=dict)
    touched: set[bytes] = field(default_factory=set)
    offenders: set[bytes] = field(default_factory=set)
    twins: set[bytes] = field(default_factory=set)
    results: list[Result] = field(default_factory=list)
    _candidates: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    _seeds: dict[int, bytes] = field(default_factory=dict)
    _heights: dict[bytes, int] = field(default_factory=dict)
    _drawn: dict[tuple[bytes, int], frozenset[bytes]] = field(default_factory=dict)

    def run(self, entries: list[Entry]) -> None:
        """Apply the block's records, sorted, to the state."""
        evidence = self._find_evidence(entries)
        for index, (envelope, record) in enumerate(entries):
            if isinstance(record, records.Reading):
                self._take_reading(index, envelope, record, envelope.digest in evidence)
        self._end_twins()
        for envelope, record in entries:
            if isinstance(record, records.Ballot):
                self._take_ballot(envelope, record, envelope.digest in evidence)
            elif isinstance(record, records.RegistryChange):
                self._take_approval(envelope, record)
        self._change_network(entries)
        self._settle()
        self._expire()
        self._suspend()
        self._suspend_gateways(entries)
        self._witness()
        self._apply_registry()

    # evidence

    def _find_evidence(self, entries: list[Entry]) -> set[bytes]:
        """Give the digests of records whose slot holds another payload, here or in the chain."""
        by_slot: dict[SlotKey, list[bytes]] = {}
        found = set()
        for envelope, record in entries:
            if not isinstance(record, (records.Reading, records.Ballot)):
                continue
            key = slot_key(envelope, record)
            by_slot.setdefault(key, []).append(envelope.digest)
            member = self.state.members.get(envelope.kid)
            assert member is not None, "a record of a stranger was let in"
            if not slot_is_free(member, record):
                found.add(envelope.digest)
                self.offenders.add(envelope.kid)
                self.twins.update(self.blocks.digests_in_slot(*key, self.horizon_height))
        for key, digests in by_slot.items():
            if len(digests) > 1:
                found.update(digests)
                self.offenders.add(key[1])
        return found

    # records

    def _take_reading(
        self, index: int, envelope: Envelope, reading: records.Reading, evidence: bool
    ) -> None:
        member = self.state.members.edit(envelope.kid)
        if member.may_fill(slot_of(reading)):
            member.fill(slot_of(reading))
        id_ = record_id(self.height, index)
        round_ = rounds.round_of(reading.time, self.genesis.parameters.round_s)
        entry = OpenReading(envelope.kid, round_, self.round, id_)
        if evidence:
            self._finish(envelope.digest, entry, tally.EQUIVOCATED, reading)
        else:
            self.fresh[envelope.digest] = (entry, reading)

    def _end_twins(self) -> None:
        """End open readings whose slot got a second payload: neither counts."""
        for digest in sorted(self.twins):
            entry = self.state.open.get(digest)
            if entry is not None:
                self._finish(digest, entry, tally.EQUIVOCATED, self._stored(entry))
                self.state.open.drop(digest)

    def _take_ballot(self, envelope: Envelope, ballot: records.Ballot, evidence: bool) -> None:
        member = self.state.members.edit(envelope.kid)
        if member.ballot_round is None or ballot.round > member.ballot_round:
            member.ballot_round = ballot.round
        if evidence:
            return
        member.named_height = max(member.named_height, self._height_of(ballot.parent))
        for digest, verdict in ballot.verdicts:
            self._take_vote(envelope.kid, digest, verdict)

    def _height_of(self, parent: bytes) -> int:
        # most ballots of a round name the same head
        if parent not in self._heights:
            self._heights[parent] = self.blocks.height_of(parent) or 0
        return self._heights[parent]

    def _take_vote(self, voter: bytes, digest: bytes, verdict: int) -> None:
        """Count a verdict if its reading is open and the voter sits in its committee."""
        fresh = self.fresh.get(digest)
        entry = self.state.open.get(digest) if fresh is None else fresh[0]
        if entry is None or voter not in self.committee_of(entry.meter, entry.round):
            return
        before = entry.votes.get(voter, records.ABSTAIN)
        if before == records.ABSTAIN:
            if fresh is None:
                entry = self.state.open.edit(digest)
                self.touched.add(digest)
            entry.votes[voter] = verdict
        elif verdict != records.ABSTAIN and (
            records.is_reject(before) != records.is_reject(verdict)
        ):
            self.offenders.add(voter)

    def _take_approval(self, envelope: Envelope, change: records.RegistryChange) -> None:
        digest = payload_digest(envelope.payload)
        self._take_back(envelope.kid, digest)
        if self.state.approvals.get(digest) is None:
            self.state.approvals.put(digest, Approval(envelope.payload))
        approval = self.state.approvals.edit(digest)
        approval.operators = (*approval.operators, envelope.kid)
        registry = self.state.registry
        if len(approval.operators) < self.genesis.threshold or change.number <= registry.changes:
            return
        approval.approved_height = self.height
        self.state.registry = Registry(change.number, registry.witnessed)

    def _take_back(self, operator: bytes, digest: bytes) -> None:
        """Drop an operator's approval of another change that is still short of the threshold.

        So an operator can think again, and cannot fill the state with changes that nobody wants.
        """
        for other, approval in list(self.state.approvals.items()):
            undecided = approval.approved_height is None
            if other == digest or not undecided or operator not in approval.operators:
                continue
            rest = tuple(o for o in approval.operators if o != operator)
            if rest:
                self.state.approvals.edit(other).operators = rest
            else:
                self.state.approvals.drop(other)

    def _change_network(self, entries: list[Entry]) -> None:
        """Take convicted validators' votes, then count the operators' approvals in order.

        An approval can have become impossible by a record before it; it is passed over then.
        """
        before = state = self.network.load(self.state.network)
        for found in self.convictions:
            state = self.network.punish(state, found)
        for envelope, record in entries:
            if not isinstance(record, NetworkChange):
                continue
            try:
                self.network.check(state, envelope, record)
            except Refused:
                continue
            state, _ = self.network.approve(state, envelope, record)
        if state != before:
            self.state.network = state.encode()

    # outcomes

    def committee_of(self, meter: bytes, round_: int) -> frozenset[bytes]:
        """Give who judges a meter's readings of a round."""
        drawn = self._drawn.get((meter, round_))
        if drawn is None:
            drawn = self._drawn[meter, round_] = frozenset(self._draw(meter, round_))
        return drawn

    def _draw(self, meter: bytes, round_: int) -> list[bytes]:
        member = self.state.members.get(meter)
        assert member is not None
        others = [a for a in self._voters(member.cluster, round_) if a != meter]
        if member.votes_from > round_:
            return others  # until it votes itself, the whole cluster judges a new member
        term, size = rounds.term_of(round_), self.genesis.parameters.committee
        return committee.draw(self.seed(round_), term, meter, others, size)

    def _voters(self, cluster: str, round_: int) -> list[bytes]:
        key = (cluster, round_)
        if key not in self._candidates:
            addresses = self.state.clusters.get(cluster, [])
            found = [(a, self.state.members.get(a)) for a in addresses]
            self._candidates[key] = [a for a, m in found if m is not None and m.votes_at(round_)]
        return self._candidates[key]

    def seed(self, round_: int) -> bytes:
        """Give the seed of a round's epoch: the newest head before it, or the genesis."""
        epoch = rounds.epoch_of(round_)
        if epoch not in self._seeds:
            digest = self.blocks.last_digest_before(epoch * rounds.EPOCH_ROUNDS)
            self._seeds[epoch] = digest or self.genesis.digest
        return self._seeds[epoch]

    def _settle(self) -> None:
        """Tally older readings first, so that a meter's registers are seen in their order."""
        for entry, digest in self._touched_entries():
            outcome = self._outcome(entry)
            if outcome != tally.OPEN:
                self._finish(digest, entry, outcome, self._stored(entry))
                self.state.open.drop(digest)
        for digest, (entry, reading) in self.fresh.items():
            outcome = self._outcome(entry)
            if outcome == tally.OPEN:
                self.state.open.put(digest, entry)
                self._add_result(digest, entry, outcome)
            else:
                self._finish(digest, entry, outcome, reading)

    def _touched_entries(self) -> list[tuple[OpenReading, bytes]]:
        entries = [(self.state.open.edit(digest), digest) for digest in self.touched]
        return sorted(entries, key=lambda pair: pair[0].record_id)

    def _expire(self) -> None:
        limit = self.round - self.genesis.parameters.open_rounds
        late = [d for d, e in self.state.open.items() if e.opened <= limit]
        for digest in sorted(late):
            entry = self.state.open.edit(digest)
            self._finish(digest, entry, tally.UNCONFIRMED, self._stored(entry))
            self.state.open.drop(digest)

    def _stored(self, entry: OpenReading) -> records.Reading:
        envelope = self.blocks.envelope(entry.record_id)
        assert envelope is not None, "an open reading is not in the store"
        reading = records.decode(envelope.payload)
        assert isinstance(reading, records.Reading)
        return reading

    def _outcome(self, entry: OpenReading) -> int:
        drawn = len(self.committee_of(entry.meter, entry.round))
        accepts, rejects, _ = tally.count(list(entry.votes.values()))
        return tally.outcome(drawn, accepts, rejects)

    def _add_result(self, digest: bytes, entry: OpenReading, outcome: int) -> None:
        drawn = len(self.committee_of(entry.meter, entry.round))
        counts = tally.count(list(entry.votes.values()))
        self.results.append(Result(digest, entry.record_id, outcome, drawn, *counts))

    def _finish(
        self, digest: bytes, entry: OpenReading, outcome: int, reading: records.Reading
    ) -> None:
        self._add_result(digest, entry, outcome)
        window = entry.round // self.genesis.parameters.window_rounds
        member = self.state.members.edit(entry.meter)
        self.aggregate.settle(outcome, window, reading, member)

    # members

    def _suspend(self) -> None:
        for address in sorted(self.offenders):
            member = self.state.members.edit(address)
            if not member.suspended:
                member.suspended = True
                # one that has left already does not come back for the rounds in between
                if member.active_until is None:
                    member.active_until = self.round + 1
                self.aggregate.alarms += 1

    def _suspend_gateways(self, entries: list[Entry]) -> None:
        """Suspend gateways that signed other heads, in the order of the evidence; never the last.

        So that somebody can close rounds.
        """
        for envelope, record in entries:
            if not isinstance(record, records.Head):
                continue
            gateways = addresses(self.genesis.gateways)
            others = [g for g in gateways if g != envelope.kid and not self.state.suspended(g)]
            head = payload_digest(envelope.payload)
            self.state.convicted.put(envelope.kid, Convicted(self.height, head, bool(others)))
            self.aggregate.alarms += 1

    def _witness(self) -> None:
        """Raise the witnessed height: more than 2/3 of the members named it or a descendant."""
        registry = self.state.registry
        for height in sorted(self._candidates_for_witness(registry.witnessed), reverse=True):
            if self._is_witnessed(height):
                self.state.registry = Registry(registry.changes, height)
                break

    def _candidates_for_witness(self, newest: int) -> set[int]:
        """Give the heights above ``newest`` of which the largest witnessed one must be one.

        While the members stay the same that is a height that somebody named. Members change
        between rounds, so the last head before each change is one too.
        """
        members = [member for _, member in self.state.members.items()]
        named = {member.named_height for member in members}
        since = self.blocks.head(newest).round if newest else -1
        changes = {m.active_from for m in members} | {m.active_until for m in members}
        ends = {self.blocks.last_height_before(r) for r in changes if r is not None and r > since}
        return {height for height in named | ends if height > newest}

    def _is_witnessed(self, height: int) -> bool:
        voters = [m for _, m in self.state.active(self.blocks.head(height).round)]
        return 3 * sum(m.named_height >= height for m in voters) > 2 * len(voters)

    def _apply_registry(self) -> None:
        """Let approved changes take effect once a head that contains them is witnessed."""
        changes = [(_decode_change(a), digest, a) for digest, a in self.state.approvals.items()]
        for change, digest, approval in sorted(changes, key=lambda c: (c[0].number, c[1])):
            height = approval.approved_height
            if height is None:
                if change.number <= self.state.registry.changes:
                    self.state.approvals.drop(digest)  # another change took its number
            elif height <= self.state.registry.witnessed or self._is_empty():
                self._apply(change)
                self.state.approvals.drop(digest)

    def _is_empty(self) -> bool:
        """Tell whether the region has no member from the next round on."""
        return next(self.state.active(self.round + 1), None) is None

    def _apply(self, change: records.RegistryChange) -> None:
        address = address_of(change.public_key)
        known = self.state.members.get(address)
        start = self.round + 1
        if change.action == records.JOIN:
            if known is None:
                member = Member(
                    change.public_key, change.cluster, start, rounds.next_epoch_start(start - 1)
                )
                self.state.members.put(address, member)
                self.state.index()
        elif known is not None and known.active_until is None:
            self.state.members.edit(address).active_until = start


def _decode_change(approval: Approval) -> records.RegistryChange:
    change = records.decode(approval.payload)
    assert isinstance(change, records.RegistryChange)
    return change


def make_block(closing: Closing, entries: list[Entry], previous: bytes, history: bytes) -> Block:
    """Give the block of a close that has run; the state must be flushed."""
    results = tuple(sorted(closing.results, key=lambda result: result.digest))
    head = records.Head(
        closing.genesis.chain,
        closing.height,
        closing.round,
        rounds.end_of(closing.round, closing.genesis.parameters.round_s),
        previous,
        merkle.root([envelope.digest for envelope, _ in entries]),
        len(entries),
        merkle.root([result_leaf(result) for result in results]),
        closing.state.root(),
        history,
    )
    return Block(head, tuple(entries), results, closing.convictions)
