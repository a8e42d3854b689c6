"""What a regional snapshot holds, and checking one that a peer sent (SPEC 17.3).

Rows come in the order of their kinds:

    1  head         [payload], from height 1 on
    2  window       [to height, aggregate] of the window that ended last, if one did
    3  aggregate    [aggregate] of the open window, if there is one
    4  record       [envelope] that waits, in the order of delivery
    5  close        [envelope] that waits, by signer
    6  misbehaviour [bytes] that waits
    7  state        [key, value], by key
    8  kept         [id, envelope, path] of operators' and gateways' records of older blocks
    9  body         [id, envelope]: the records of the blocks that can hold evidence
    10 result       [id, height, outcome, drawn, accepts, rejects, abstains, digest or null]
                    of the same blocks; the digest where the reading is in an older one

After kind 6 everything that the application hash covers is there: heads hang together, and the
newest one with what waits and the windows gives that hash. From there on each row is checked
against a root in a head, and signatures against keys in the state or the genesis, so nothing is
taken on a peer's word. What else a store has is made again: indexes, the log, packed forms.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

from ledger.genesis import RegionGenesis, addresses
from ledger.merkle import Log
from ledger.protocol import cbor, merkle, records, rounds
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadProof, BadSignature, MalformedRecord
from ledger.regional import kinds
from ledger.regional.blocks import Blocks, place_of, record_id
from ledger.regional.closes import fold
from ledger.regional.compact import MOST_INDEX
from ledger.regional.kinds import Entry
from ledger.regional.prune import path_of
from ledger.regional.state import Member, State, member_key
from ledger.snapshot import BadSnapshot, Row, fields
from ledger.store import StoreError
from ledger.trie import Trie
from ledger.verify import Verifier

HEAD, WINDOW, AGGREGATE, WAITING, CLOSE, MISBEHAVIOUR, STATE, KEPT, BODY, RESULT = range(1, 11)

_NULL = type(None)
_TYPES: dict[int, tuple[type | tuple[type, ...], ...]] = {
    HEAD: (bytes,),
    WINDOW: (int, bytes),
    AGGREGATE: (bytes,),
    WAITING: (bytes,),
    CLOSE: (bytes,),
    MISBEHAVIOUR: (bytes,),
    STATE: (bytes, bytes),
    KEPT: (int, bytes, list),
    BODY: (int, bytes),
    RESULT: (int, int, int, int, int, int, int, (bytes, _NULL)),
}
_MOST_WAITING = 1 << 20
_MOST_COUNTED = 0xFFFFFFFF
_WORTH_A_POOL = 64


def horizon_height(blocks: Blocks, genesis: RegionGenesis, last_round: int) -> int:
    """Give the first block whose records can still be evidence (SPEC 11.4)."""
    depth = max(rounds.EPOCH_ROUNDS, genesis.parameters.open_rounds)
    return blocks.last_height_before(last_round - depth) + 1


def windows_digest(last: tuple[int, bytes] | None, own: bytes | None) -> bytes:
    """Give the digest of the window that ended last and of the open one (SPEC 11.8)."""
    return sha256(cbor.dumps([None if last is None else list(last), own])).digest()


# giving


def export(blocks: Blocks, genesis: RegionGenesis) -> Iterator[Row]:
    """Give the rows of a snapshot; raises StoreError for a region without validators.

    Nothing would vouch for its windows, and it has no peers.
    """
    if not genesis.validators:
        raise StoreError("a region that one node serves has no snapshots: it has no peers")
    height = blocks.height()
    for number in range(1, height + 1):
        yield [HEAD, blocks.head_payload(number)]
    yield from _export_waiting(blocks)
    for key, value in blocks.state_rows():
        yield [STATE, key, value]
    first = horizon_height(blocks, genesis, blocks.head(height).round) if height else 1
    for id_, raw in blocks.kept_records(1, first):
        yield [KEPT, id_, raw, path_of(blocks, place_of(id_)[0], id_)]
    for number in range(first, height + 1):
        for index, envelope in enumerate(blocks.envelopes_of(number)):
            yield [BODY, record_id(number, index), envelope.raw]
    yield from _export_results(blocks, first)


def _export_waiting(blocks: Blocks) -> Iterator[Row]:
    last, own = blocks.last_window_row(), blocks.meta("aggregate")
    if last is not None:
        yield [WINDOW, *last]
    if own is not None:
        yield [AGGREGATE, own]
    closes, convictions = blocks.waiting()
    for kind, values in (
        (WAITING, blocks.pending()),
        (CLOSE, closes),
        (MISBEHAVIOUR, convictions),
    ):
        yield from ([kind, value] for value in values)


def _export_results(blocks: Blocks, first: int) -> Iterator[Row]:
    for id_, *counts, stored in blocks.results_from(first):
        digest = None
        if id_ < record_id(first, 0):
            digest = stored or blocks.digest_of(id_)
        yield [RESULT, id_, *counts, digest]


# taking


class Restoring:
    """Rows of a peer on their way into an empty store; every method raises BadSnapshot.

    ``take`` each row, then ``end``. ``waiting`` is what waits for a close, which only the
    application itself can check: it belongs to the application hash by its digest alone.
    ``app_hash`` None takes the heads as they are: the audit of a pruned copy, which checks their
    signatures and names the first block that is whole.
    """

    def __init__(
        self,
        blocks: Blocks,
        genesis: RegionGenesis,
        app_hash: bytes | None,
        verifier: Verifier,
        *,
        first: int | None = None,
    ) -> None:
        self._blocks = blocks
        self._genesis = genesis
        self._app_hash = app_hash
        self._verifier = verifier
        self._kind = HEAD
        self._head: records.Head | None = None
        self._last = genesis.digest
        self._log = Log(blocks)
        self._window: tuple[int, bytes] | None = None
        self._aggregate: bytes | None = None
        self._accumulator = bytes(records.DIGEST_BYTES)
        self.waiting: list[tuple[int, bytes]] = []
        self._state = Trie()
        self._first = first or 1
        self._fixed = first is not None
        self._body: list[Entry] = []
        self._body_height = 0
        self._leaves: list[tuple[bytes, bytes]] = []
        self._results_height = 0
        self._result = -1
        self._approvals: dict[int, dict[bytes, set[bytes]]] = {}
        self._keys = {**addresses(genesis.operators), **addresses(genesis.gateways)}
        self.signatures = self.records = 0

    def take(self, row: Row) -> None:
        """Check a row as far as it goes, and write what it tells."""
        kind = row[0]
        if type(kind) is not int or kind not in _TYPES or kind < self._kind:
            raise BadSnapshot("a row of an unknown kind, or out of order")
        while self._kind < kind:
            self._end_kind()
        values = fields(row, *_TYPES[kind])
        try:
            getattr(self, _TAKE[kind])(*values)
        except (MalformedRecord, BadProof, BadSignature) as e:
            raise BadSnapshot(str(e)) from None

    def end(self) -> None:
        """Check what only the whole tells."""
        try:
            while self._kind <= RESULT:
                self._end_kind()
            self._check_registry()
        except (MalformedRecord, BadProof, BadSignature) as e:
            raise BadSnapshot(str(e)) from None

    def _end_kind(self) -> None:
        self._kind += 1
        if self._kind == STATE:
            self._check_app_hash()
        elif self._kind == KEPT:
            self._end_state()
        elif self._kind == RESULT:
            self._end_bodies()
        elif self._kind > RESULT:
            self._end_results()

    # up to the application hash

    def _take_head(self, payload: bytes) -> None:
        head = records.decode(payload)
        if not isinstance(head, records.Head):
            raise BadSnapshot("another record in a head's place")
        before, parameters = self._head, self._genesis.parameters
        follows = (
            head.chain == self._genesis.chain
            and head.height == self._log.size + 1
            and (before is None or head.round > before.round)
            and head.time == rounds.end_of(head.round, parameters.round_s)
            and head.previous == self._last
            and head.history_root == self._log.root()
        )
        if not follows:
            raise BadSnapshot(f"the head of block {self._log.size + 1} does not follow the last")
        self._blocks.append_head(head)
        self._last = payload_digest(payload)
        self._log.append(self._last)
        self._head = head

    def _take_window(self, to_height: int, aggregate: bytes) -> None:
        if self._window is not None or not 0 < to_height <= self._log.size:
            raise BadSnapshot("a window of no such block")
        self._window = to_height, aggregate
        self._blocks.put_window(to_height, aggregate)

    def _take_aggregate(self, aggregate: bytes) -> None:
        if self._aggregate is not None:
            raise BadSnapshot("two open windows")
        self._aggregate = aggregate
        self._blocks.set_meta("aggregate", aggregate)

    def _take_waiting(self, raw: bytes) -> None:
        if len(self.waiting) >= _MOST_WAITING:
            raise BadSnapshot("more waits than a region lets wait")
        bare = self._kind == MISBEHAVIOUR
        digest = sha256(raw).digest() if bare else Envelope.parse(raw).digest
        self._accumulator = fold(self._accumulator, [digest])
        self.waiting.append((self._kind, raw))

    def _check_app_hash(self) -> None:
        rest = self._accumulator + windows_digest(self._window, self._aggregate)
        if self._app_hash is not None and sha256(self._last + rest).digest() != self._app_hash:
            raise BadSnapshot("heads and what waits do not give the application hash")

    # under the roots of heads

    def _take_state(self, key: bytes, value: bytes) -> None:
        self._state.set(key, value)
        self._blocks.put_state([(key, value)])

    def _end_state(self) -> None:
        if self._head is None:
            expected = Trie()
            for key, value in State.genesis_rows(self._genesis):
                assert value is not None
                expected.set(key, value)
            root = expected.root()
        else:
            root = self._head.state_root
            horizon = horizon_height(self._blocks, self._genesis, self._head.round)
            self._first = min(self._first, horizon) if self._fixed else horizon
        if self._state.root() != root:
            raise BadSnapshot("the state is not that of the newest head")
        if self._first > 1:
            self._blocks.set_first_body(self._first)
        self._body_height = self._first

    def _take_kept(self, id_: int, raw: bytes, path: list[Any]) -> None:
        height, index = place_of(id_)
        if not 1 <= height < self._first or self._blocks.path(id_) is not None:
            raise BadSnapshot("a record is kept that belongs to no older block")
        envelope, record = self._open(raw)
        if isinstance(record, kinds.MemberRecord):
            raise BadSnapshot("a meter's record is kept of an older block")
        head = self._blocks.head(height)
        root, count = head.records_root, head.record_count
        merkle.verify_inclusion(root, envelope.digest, index, count, path)
        self._check_signatures([(envelope, record)])
        self._blocks.put_kept(id_, raw, cbor.dumps(path))
        self._note_approval(envelope, record)

    def _take_body(self, id_: int, raw: bytes) -> None:
        if not 0 <= id_ < record_id(self._log.size + 1, 0):
            raise BadSnapshot("a record of no such block")
        height, index = place_of(id_)
        while self._body_height < height:
            self._end_body()
        if height != self._body_height or index != len(self._body) or index > MOST_INDEX:
            raise BadSnapshot("a record is not in its place")
        self._body.append(self._open(raw))

    def _end_body(self) -> None:
        """Check the records of a block against its head, and write them."""
        head = self._blocks.head(self._body_height)
        digests = [envelope.digest for envelope, _ in self._body]
        if (len(digests), merkle.root(digests)) != (head.record_count, head.records_root):
            raise BadSnapshot(f"the records of block {self._body_height} are not its head's")
        self._check_signatures(self._body)
        self._blocks.append_records(self._body_height, self._body)
        for envelope, record in self._body:
            self._note_approval(envelope, record)
        self._body = []
        self._body_height += 1

    def _end_bodies(self) -> None:
        while self._body_height <= self._log.size:
            self._end_body()
        self._results_height = self._first

    def _take_result(self, id_: int, height: int, *counts: Any) -> None:
        *votes, digest = counts
        while self._results_height < min(height, self._log.size + 1):
            self._end_result()
        if height != self._results_height or not self._result < id_ < record_id(height + 1, 0):
            raise BadSnapshot("a result is not in its place")
        self._result = id_
        for count in votes:
            records.integer(count, 0, _MOST_COUNTED, "count")
        if (digest is None) != (id_ >= record_id(self._first, 0)):
            raise BadSnapshot("a result names its reading where it is here, or not where it is not")
        named = digest or self._blocks.digest_of(id_)
        self._leaves.append((named, cbor.dumps([named, *votes])))
        self._blocks.put_result([id_, height, *votes, digest])

    def _end_result(self) -> None:
        head = self._blocks.head(self._results_height)
        leaves = [leaf for _, leaf in sorted(self._leaves)]
        if merkle.root(leaves) != head.results_root:
            raise BadSnapshot(f"the results of block {self._results_height} are not its head's")
        self._leaves = []
        self._result = -1
        self._results_height += 1

    def _end_results(self) -> None:
        while self._results_height <= self._log.size:
            self._end_result()

    # signatures

    def _open(self, raw: bytes) -> Entry:
        envelope, record = self._verifier.open(raw, kinds.decode)
        if not isinstance(record, kinds.Record) or record.chain != self._genesis.chain:
            raise BadSnapshot("a record that no block of this region holds")
        return envelope, record

    def _check_signatures(self, entries: list[Entry]) -> None:
        """Check the signatures of a block on all cores: the digests in its root leave them out."""
        work = [(entry[0], self._verifier.key(self._key_of(*entry))) for entry in entries]
        if len(work) < _WORTH_A_POOL:
            for envelope, key in work:
                envelope.verify(key)
        else:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda pair: pair[0].verify(pair[1]), work))
        self.signatures += len(work)
        self.records += len(work)

    def _key_of(self, envelope: Envelope, record: kinds.Record) -> bytes:
        if isinstance(record, kinds.MemberRecord):
            value = self._state.get(member_key(envelope.kid))
            key = None if value is None else Member.decode(value).public_key
        else:
            key = self._keys.get(envelope.kid)
        if key is None:
            raise BadSnapshot("a record of nobody who may sign it")
        return key

    # nothing left out

    def _note_approval(self, envelope: Envelope, record: kinds.Record) -> None:
        if isinstance(record, records.RegistryChange):
            of_number = self._approvals.setdefault(record.number, {})
            of_number.setdefault(envelope.payload, set()).add(envelope.kid)

    def _check_registry(self) -> None:
        """Check that the approvals of every change are here: meters are told of them."""
        changes = State.registry_of(self._state.get(b"r")).changes
        for number in range(1, changes + 1):
            signers = self._approvals.get(number, {}).values()
            if not any(len(signed) >= self._genesis.threshold for signed in signers):
                raise BadSnapshot(f"the approvals of registry change {number} are missing")


_TAKE = {
    HEAD: "_take_head",
    WINDOW: "_take_window",
    AGGREGATE: "_take_aggregate",
    WAITING: "_take_waiting",
    CLOSE: "_take_waiting",
    MISBEHAVIOUR: "_take_waiting",
    STATE: "_take_state",
    KEPT: "_take_kept",
    BODY: "_take_body",
    RESULT: "_take_result",
}
