"""What a regional snapshot holds, and checking one that a peer sent (SPEC 17.3).

Rows come in the order of their kinds:

    1  newest       [payload] of the newest head, if there is one
    2  window       [to height, aggregate] of the window that ended last, if one did
    3  aggregate    [aggregate] of the open window, if there is one
    4  record       [envelope] that waits, in the order of delivery
    5  close        [envelope] that waits, by signer
    6  misbehaviour [bytes] that waits
    7  head         [payload], from height 1 on, the newest one again
    8  state        [key, value], by key
    9  kept         [id, envelope, path] of operators' and gateways' records of older blocks
    10 body         [id, envelope]: the records of the blocks that can hold evidence
    11 result       [id, height, outcome, drawn, accepts, rejects, abstains, digest or null]
                    of the same blocks; the digest where the reading is in an older one

After kind 6 everything that the application hash covers is there: the newest head with what waits
and the windows gives that hash. So how many heads there are is known before the first of them, and
from there on each row is checked against a root in a head, signatures against keys in the state or
the genesis. Nothing is taken on a peer's word, and of a forged part no more than the limits below
allow. What else a store has is made again: indexes, the log, packed forms.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

from ledger.genesis import RegionGenesis, addresses
from ledger.merkle import Log
from ledger.network import NETWORK_KEY, NetworkChange, NetworkState
from ledger.protocol import cbor, merkle, records, rounds
from ledger.protocol.cose import MAX_RECORD_BYTES, Envelope, payload_digest
from ledger.protocol.errors import BadProof, BadSignature, MalformedRecord
from ledger.regional import kinds
from ledger.regional.blocks import Blocks, place_of, record_id
from ledger.regional.closes import fold
from ledger.regional.compact import MOST_INDEX
from ledger.regional.kinds import Entry
from ledger.regional.prune import path_of
from ledger.regional.state import (
    GATEWAY_PREFIX,
    MOST_KEY_BYTES,
    REGISTRY_KEY,
    Convicted,
    Member,
    State,
    member_key,
    most_bytes,
)
from ledger.snapshot import BadSnapshot, Row, StateRoom, fields
from ledger.store import StoreError
from ledger.trie import Trie
from ledger.verify import Verifier

NEWEST, WINDOW, AGGREGATE, WAITING, CLOSE, MISBEHAVIOUR = range(1, 7)
HEAD, STATE, KEPT, BODY, RESULT = range(7, 12)

_NULL = type(None)
_TYPES: dict[int, tuple[type | tuple[type, ...], ...]] = {
    NEWEST: (bytes,),
    WINDOW: (int, bytes),
    AGGREGATE: (bytes,),
    WAITING: (bytes,),
    CLOSE: (bytes,),
    MISBEHAVIOUR: (bytes,),
    HEAD: (bytes,),
    STATE: (bytes, bytes),
    KEPT: (int, bytes, list),
    BODY: (int, bytes),
    RESULT: (int, int, int, int, int, int, int, (bytes, _NULL)),
}
_MOST_BYTES = {
    NEWEST: MAX_RECORD_BYTES,
    WAITING: MAX_RECORD_BYTES,
    CLOSE: MAX_RECORD_BYTES,
    MISBEHAVIOUR: 64,
    HEAD: MAX_RECORD_BYTES,
    KEPT: MAX_RECORD_BYTES,
    BODY: MAX_RECORD_BYTES,
}
"""Of the longest byte string in a row; a window's may fill its row, but there is one of each."""
_MOST_WAITING = 1 << 20
_MOST_WAITING_BYTES = 1 << 28  # held in memory until the application hash is checked
_MOST_CONVICTIONS = 1 << 16
_MOST_RESULTS = 1 << 20  # of a block
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
    if height:
        yield [NEWEST, blocks.head_payload(height)]
    yield from _export_waiting(blocks)
    for number in range(1, height + 1):
        yield [HEAD, blocks.head_payload(number)]
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
        (WAITING, [envelope for _, envelope in blocks.pending()]),
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
        self._kind = NEWEST
        self._newest: records.Head | None = None
        self._newest_digest = genesis.digest
        self._head: records.Head | None = None
        self._last = genesis.digest
        self._log = Log(blocks)
        self._window: tuple[int, bytes] | None = None
        self._aggregate: bytes | None = None
        self._accumulator = bytes(records.DIGEST_BYTES)
        self.waiting: list[tuple[int, bytes]] = []
        self._waiting_bytes = self._convictions = 0
        self._state = Trie()
        self._room = StateRoom()
        self._gateway_leaves: list[tuple[bytes, bytes]] = []
        self._other_heads: set[tuple[bytes, int, bytes]] = set()
        self._first = first or 1
        self._fixed = first is not None
        self._body: list[Entry] = []
        self._body_height = 0
        self._leaves: list[tuple[bytes, bytes]] = []
        self._results_height = 0
        self._result = -1
        self._approvals: dict[tuple[type, int], dict[bytes, set[bytes]]] = {}
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
        most = _MOST_BYTES.get(kind)
        if most and any(isinstance(value, bytes) and len(value) > most for value in values):
            raise BadSnapshot("a row is longer than the rules can make it")
        try:
            getattr(self, _TAKE[kind])(*values)
        except (MalformedRecord, BadProof, BadSignature) as e:
            raise BadSnapshot(str(e)) from None

    def end(self) -> None:
        """Check what only the whole tells."""
        try:
            while self._kind <= RESULT:
                self._end_kind()
            self._check_changes()
            self._check_convicted()
        except (MalformedRecord, BadProof, BadSignature) as e:
            raise BadSnapshot(str(e)) from None

    def _end_kind(self) -> None:
        self._kind += 1
        if self._kind == HEAD:
            self._check_app_hash()
        elif self._kind == STATE:
            self._end_heads()
        elif self._kind == KEPT:
            self._end_state()
        elif self._kind == RESULT:
            self._end_bodies()
        elif self._kind > RESULT:
            self._end_results()

    # up to the application hash

    def _take_newest(self, payload: bytes) -> None:
        if self._newest is not None:
            raise BadSnapshot("two newest heads")
        self._newest = self._open_head(payload)
        self._newest_digest = payload_digest(payload)

    @staticmethod
    def _open_head(payload: bytes) -> records.Head:
        head = records.decode(payload)
        if not isinstance(head, records.Head):
            raise BadSnapshot("another record in a head's place")
        return head

    def _take_window(self, to_height: int, aggregate: bytes) -> None:
        height = 0 if self._newest is None else self._newest.height
        if self._window is not None or not 0 < to_height <= height:
            raise BadSnapshot("a window of no such block")
        self._window = to_height, aggregate
        self._blocks.put_window(to_height, aggregate)

    def _take_aggregate(self, aggregate: bytes) -> None:
        if self._aggregate is not None:
            raise BadSnapshot("two open windows")
        self._aggregate = aggregate
        self._blocks.set_meta("aggregate", aggregate)

    def _take_waiting(self, raw: bytes) -> None:
        self._waiting_bytes += len(raw)
        if len(self.waiting) >= _MOST_WAITING or self._waiting_bytes > _MOST_WAITING_BYTES:
            raise BadSnapshot("more waits than a region lets wait")
        if self._kind == MISBEHAVIOUR:
            self._convictions += 1
            if self._convictions > _MOST_CONVICTIONS:
                raise BadSnapshot("more waits than a region lets wait")
            digest = sha256(raw).digest()
        else:
            digest = Envelope.parse(raw).digest
        self._accumulator = fold(self._accumulator, [digest])
        self.waiting.append((self._kind, raw))

    def _check_app_hash(self) -> None:
        """Check what the engine vouches for; an audit has no such hash, but signed heads."""
        if self._app_hash is None:
            return
        rest = self._accumulator + windows_digest(self._window, self._aggregate)
        if sha256(self._newest_digest + rest).digest() != self._app_hash:
            raise BadSnapshot("newest head and what waits do not give the application hash")

    # under the newest head

    def _take_head(self, payload: bytes) -> None:
        if self._app_hash is not None and (
            self._newest is None or self._log.size >= self._newest.height
        ):
            raise BadSnapshot("there are more heads than the newest one's height")
        head = self._open_head(payload)
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

    def _end_heads(self) -> None:
        if self._app_hash is not None and self._last != self._newest_digest:
            raise BadSnapshot("the heads do not lead to the newest one")

    def _take_state(self, key: bytes, value: bytes) -> None:
        self._room.take(key, value, MOST_KEY_BYTES, most_bytes(key))
        self._state.set(key, value)
        self._blocks.put_state([(key, value)])
        if key[:1] == GATEWAY_PREFIX:
            self._gateway_leaves.append((key[1:], value))

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
        self._note(height, envelope, record)

    def _take_body(self, id_: int, raw: bytes) -> None:
        if not 0 <= id_ < record_id(self._log.size + 1, 0):
            raise BadSnapshot("a record of no such block")
        height, index = place_of(id_)
        while self._body_height < height:
            self._end_body()
        if height != self._body_height or index != len(self._body) or index > MOST_INDEX:
            raise BadSnapshot("a record is not in its place")
        if index >= self._blocks.head(height).record_count:
            raise BadSnapshot(f"block {height} has not as many records")
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
            self._note(self._body_height, envelope, record)
        self._body = []
        self._body_height += 1

    def _end_bodies(self) -> None:
        while self._body_height <= self._log.size:
            self._end_body()
        self._results_height = self._first

    def _take_result(self, id_: int, height: int, *counts: Any) -> None:
        *votes, digest = counts
        if height > self._log.size:
            raise BadSnapshot("a result of no such block")
        while self._results_height < height:
            self._end_result()
        if height != self._results_height or not self._result < id_ < record_id(height + 1, 0):
            raise BadSnapshot("a result is not in its place")
        if len(self._leaves) >= _MOST_RESULTS:
            raise BadSnapshot("a block has more results than one can have")
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
        if self._leaves or self._body:
            raise BadSnapshot("there is more than the heads' roots hold")

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

    def _note(self, height: int, envelope: Envelope, record: kinds.Record) -> None:
        if isinstance(record, records.RegistryChange | NetworkChange):
            of_number = self._approvals.setdefault((type(record), record.number), {})
            of_number.setdefault(envelope.payload, set()).add(envelope.kid)
        elif isinstance(record, records.Head):
            self._other_heads.add((envelope.kid, height, payload_digest(envelope.payload)))

    def _check_changes(self) -> None:
        """Check that the approvals of every change are here: meters and operators ask for them."""
        registry = State.registry_of(self._state.get(REGISTRY_KEY))
        self._check_approvals(records.RegistryChange, registry.changes)
        network = self._state.get(NETWORK_KEY)
        if network is not None:
            self._check_approvals(NetworkChange, NetworkState.decode(network).changes)

    def _check_approvals(self, kind: type, changes: int) -> None:
        for number in range(1, changes + 1):
            signers = self._approvals.get((kind, number), {}).values()
            if not any(len(signed) >= self._genesis.threshold for signed in signers):
                raise BadSnapshot(f"the approvals of {kind.__name__} {number} are missing")

    def _check_convicted(self) -> None:
        """Check that the evidence against every gateway that the state convicts is here."""
        for gateway, value in self._gateway_leaves:
            found = Convicted.decode(value)
            if (gateway, found.height, found.head) not in self._other_heads:
                raise BadSnapshot("the evidence against a gateway is missing")


_TAKE = {
    NEWEST: "_take_newest",
    WINDOW: "_take_window",
    AGGREGATE: "_take_aggregate",
    WAITING: "_take_waiting",
    CLOSE: "_take_waiting",
    MISBEHAVIOUR: "_take_waiting",
    HEAD: "_take_head",
    STATE: "_take_state",
    KEPT: "_take_kept",
    BODY: "_take_body",
    RESULT: "_take_result",
}
