"""The regional application: transactions in, blocks and state out (SPEC 11).

Transactions are envelopes of readings, ballots, registry and network changes, and other heads of a
gateway, which wait, and of gateways' closes: where a majority of the gateways has given one, they
end a round and make a block. Heights of heads count rounds closed, not the engine's blocks.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from ledger.engine import base
from ledger.engine.abci import (
    ALONE,
    Answer,
    Decision,
    FinalizeResult,
    Info,
    Refused,
    TxResult,
    Validator,
)
from ledger.genesis import RegionGenesis
from ledger.keys import Signer
from ledger.merkle import Log
from ledger.network import FIRST_VERSION, check_ahead, timely, validator_updates
from ledger.protocol import records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional import codes, prune, queries, restore
from ledger.regional.aggregate import Aggregate
from ledger.regional.blocks import (
    TABLES,
    Block,
    Blocks,
    decode_misbehaviour,
    encode_misbehaviour,
)
from ledger.regional.close import Closing, make_block, sort_key
from ledger.regional.closes import Closes, fold
from ledger.regional.deliver import Delivery, Early, Pending
from ledger.regional.kinds import Entry, MemberRecord, Record
from ledger.regional.state import State
from ledger.regional.waiting import Stored
from ledger.snapshot import BadSnapshot, Row
from ledger.store import Database
from ledger.verify import Verifier

__all__ = ["TABLES", "RegionalApplication"]

SIGNED_AT_ONCE = 500


class RegionalApplication:
    """The rules, state and blocks of one region over one database (made with ``TABLES``).

    ``VERSIONS`` are the versions of the rules that this program has. May be used from any thread,
    by one at a time. Raises StoreError when the database belongs to another genesis. When
    ``finalize_block`` or ``commit`` raises, the application is where it was before the block.
    """

    VERSIONS = (FIRST_VERSION,)

    def __init__(self, genesis: RegionGenesis, database: Database, verifier: Verifier) -> None:
        self.genesis = genesis
        self.blocks = Blocks(database)
        self.verifier = verifier
        self._database = database
        self._made: list[Block] = []
        self._early = Early()
        base.bind_genesis(
            self.blocks, database, genesis.encode(), lambda: State.genesis_rows(genesis)
        )
        self._load()

    def _load(self) -> None:
        self.state = State.load(self.blocks.state_rows())
        self.delivery = Delivery(self.genesis, self.state, self.blocks, self.verifier)
        self._reload()

    def _reload(self) -> None:
        """Take the position from the store, after opening it and after a rollback."""
        self.blocks.forget()
        self.height = self.blocks.height()
        self.log = Log(self.blocks, self.height)
        self.last_round: int | None = None
        self.last_digest = self.genesis.digest
        if self.height:
            head = self.blocks.head(self.height)
            self.last_round, self.last_digest = head.round, payload_digest(head.payload())
        blob = self.blocks.meta("aggregate")
        self._aggregate = None if blob is None else Aggregate.decode(blob)
        self._note_windows()
        self._note_horizon()
        self._reload_waiting()
        height = self._stored_engine_height()
        self._committed = Info(height, self.app_hash, self._version_at(height + 1))

    def _reload_waiting(self) -> None:
        self._pending, self._closes = Pending(), Closes()
        stored = []
        for position, raw in self.blocks.pending():
            envelope, record = self.delivery.open(raw)
            assert not isinstance(record, records.Close)
            self._pending.add((envelope, record))
            stored.append((position, envelope))
        self._stored = Stored(stored)
        closes, convictions = self.blocks.waiting()
        for raw in closes:
            envelope, record = self.delivery.open(raw)
            assert isinstance(record, records.Close)
            self._closes.add(envelope, record)
        self._convictions = [decode_misbehaviour(found) for found in convictions]

    def _stored_engine_height(self) -> int:
        return int.from_bytes(self.blocks.meta("engine-height") or b"", "big")

    def _version_at(self, engine_height: int) -> int:
        return self.delivery.network.load(self.state.network).version_at(engine_height)

    @property
    def app_hash(self) -> bytes:
        """Give the application hash: over the newest head and all that waits (SPEC 11.8)."""
        return sha256(self.last_digest + self._rest()).digest()

    def _rest(self) -> bytes:
        """Give what the application hash covers beside the newest head."""
        waiting = [envelope.digest for envelope in self._closes.envelopes()]
        waiting += [sha256(encode_misbehaviour(found)).digest() for found in self._convictions]
        rest = fold(self._pending.accumulator, waiting)
        # a region that one node serves has no peers to start from, and its hashes were without
        return rest + self._windows if self.genesis.validators else rest

    # the application interface

    def info(self) -> Info:
        """See abci.Application."""
        return self._committed

    def genesis_bytes(self) -> bytes:
        """See abci.Application."""
        return self.genesis.encode()

    def validators(self) -> tuple[Validator, ...]:
        """See abci.Application."""
        return self.delivery.network.load(self.state.network).validators

    def query(self, path: str, key: bytes) -> Answer:
        """See abci.Application; what can be asked is in ``ledger.regional.queries``."""
        value, proof = queries.answer(self, self._rest(), path, key)
        height = self._stored_engine_height()  # of a block that is applied and not committed too
        return Answer(value, proof, self.app_hash, height)

    def check_tx(self, tx: bytes, *, new: bool = False) -> TxResult:
        """See abci.Application. A new ballot may name a head that this node has yet to make."""
        try:
            envelope, record = self.delivery.open(tx)
            self._check(envelope, record, self._early if new else None)
            check_ahead(record, self._committed.last_block_height + 1)
        except Refused as refused:
            return refused.result
        return TxResult(codes.OK)

    def _check(
        self, envelope: Envelope, record: Record | records.Close, early: Early | None = None
    ) -> None:
        if isinstance(record, records.Close):
            self.delivery.check_close(envelope, record, self.last_round)
            self._closes.check(envelope, record)
        else:
            self.delivery.check(envelope, record, self._pending, early)

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        """See abci.Application: what fits, without what the rules refuse; closes come last.

        Nothing where this program does not have the rules of the next block.
        """
        if self._committed.app_version not in self.VERSIONS:
            return []
        block = self._committed.last_block_height + 1
        in_time = timely(self.delivery.open, txs, block)
        chosen = base.fitting(sorted(in_time, key=self._is_close), max_tx_bytes)
        results = self._try(chosen)
        return [tx for tx, result in zip(chosen, results, strict=True) if result.code == codes.OK]

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:
        """See abci.Application: a block that holds anything that the rules refuse is wrong.

        So is one whose rules this program does not have.
        """
        known = self._version_at(height) in self.VERSIONS
        good = known and timely(self.delivery.open, txs, height) == txs
        return good and all(result.code == codes.OK for result in self._try(txs, whole=True))

    def finalize_block(
        self, height: int, txs: Sequence[bytes], decision: Decision = ALONE
    ) -> FinalizeResult:
        """See abci.Application. Leaves a transaction open that ``commit`` ends.

        A block that was never committed is dropped first: its engine went away in between.
        """
        if self._database.connection.in_transaction:
            self._undo()
        before = self.delivery.network.load(self.state.network)
        base.check_rules(height, before.version_at(height), self.VERSIONS)
        self._database.begin()
        try:
            self._made = []
            self._convictions += decision.misbehaviour
            results = tuple(self._deliver(tx) for tx in txs)
            self.blocks.put_state(self.state.flush())
            self._write_position(height)
        except BaseException:
            self._undo()
            raise
        after = self.delivery.network.load(self.state.network)
        told = self._finalized = Info(height, self.app_hash, after.version_at(height + 1))
        updates = validator_updates(before, after)
        return FinalizeResult(results, told.last_block_app_hash, updates, told.app_version)

    def commit(self) -> None:
        """See abci.Application."""
        try:
            self._database.commit()
        except BaseException:
            self._undo()
            raise
        self.state.settle()
        self._early.clear()
        self._committed = self._finalized

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    # what ledger.snapshot asks for

    @property
    def path(self) -> Path | None:
        """The file of the database."""
        return self._database.path

    def height_in(self, database: Database) -> int:
        """See snapshot.Restorable."""
        return int.from_bytes(Blocks(database).meta("engine-height") or b"", "big")

    def export(self, database: Database) -> Iterator[Row]:
        """See snapshot.Restorable; the rows are in ``ledger.regional.restore``."""
        return restore.export(Blocks(database), self.genesis)

    def restore(self, height: int, app_hash: bytes, rows: Iterator[Row]) -> None:
        """See snapshot.Restorable."""
        if self._database.connection.in_transaction:
            self._undo()
        self._database.begin()
        try:
            self._take_rows(height, app_hash, rows)
            self._database.commit()
        except BaseException:
            self._database.rollback()
            self._load()
            raise
        self._load()

    def _take_rows(self, height: int, app_hash: bytes, rows: Iterator[Row]) -> None:
        if self.height or self._committed.last_block_height or not self.genesis.validators:
            raise BadSnapshot("this region does not begin from a snapshot, or has begun already")
        self.blocks.put_state([(key, None) for key, _ in self.blocks.state_rows()])
        restoring = restore.Restoring(self.blocks, self.genesis, app_hash, self.verifier)
        for row in rows:
            restoring.take(row)
        restoring.end()
        self._write_engine_height(height)
        self._load()
        for kind, raw in restoring.waiting:
            self._take_waiting(kind, raw)
        self._write_waiting()
        if self.app_hash != app_hash:
            raise BadSnapshot("the state gives another application hash")

    def _take_waiting(self, kind: int, raw: bytes) -> None:
        """Let in what waits as if it were delivered: the application hash fixes no signatures."""
        if kind == restore.MISBEHAVIOUR:
            self._convictions.append(decode_misbehaviour(raw))
            return
        try:
            envelope, record = self.delivery.open(raw)
            self._check(envelope, record)
        except Refused as refused:
            raise BadSnapshot(f"a record waits that is refused: {refused}") from None
        if isinstance(record, records.Close):
            self._closes.add(envelope, record)
        else:
            self._pending.add((envelope, record))

    # working

    def made(self) -> list[Block]:
        """Give the blocks that the newest ``finalize_block`` made, for receipts."""
        return self._made

    def sign_heads(self, signer: Signer) -> list[int]:
        """Sign and keep the newest heads that this gateway has not signed; gives their heights.

        Not all at once: a node that began from a snapshot has years of them, and a chain that
        waits for it.
        """
        unsigned = self.blocks.unsigned_heads(SIGNED_AT_ONCE)
        if unsigned:
            with self._database.transaction():
                for height, payload in unsigned:
                    self.blocks.put_head_envelope(height, signer.seal(payload).raw)
        return [height for height, _ in unsigned]

    def bridge(self, held: int, height: int) -> list[bytes]:
        """Give the path that shows head ``held`` in the history of a later head (SPEC 10.2)."""
        return self.log.inclusion(held - 1, height - 1)

    def prune(self, before_height: int) -> int:
        """Drop the bodies of the blocks below a height, as far as no rule needs them.

        Heads, history and state stay. Gives the first height whose body is left. Call it between
        blocks.
        """
        if self._database.connection.in_transaction:
            self._undo()
        with self._database.transaction():
            return prune.prune(self.blocks, min(before_height, self.delivery.horizon_height))

    def _is_close(self, tx: bytes) -> bool:
        try:
            return isinstance(self.delivery.open(tx)[1], records.Close)
        except Refused:
            return False

    def _try(self, txs: list[bytes], *, whole: bool = False) -> list[TxResult]:
        """Give what a block would make of each; ``whole``: up to the first that is refused."""
        if self._database.connection.in_transaction:
            self._undo()
        made, height = self._made, self.height
        waiting, closes = len(self._pending.entries), self._closes.copy()
        self._database.begin()
        try:
            results: list[TxResult] = []
            for tx in txs:
                results.append(self._deliver(tx))
                if whole and results[-1].code != codes.OK:
                    break
        except BaseException:
            self._undo()
            raise
        if self.height == height:
            # nothing was written: thousands of records may wait, which need not be read again
            self._database.rollback()
            self._pending.rewind(waiting)
            self._closes = closes
        else:
            self._undo()
        self._made = made
        return results

    def _undo(self) -> None:
        self._database.rollback()
        if self._stored_engine_height() == self._committed.last_block_height:
            self.state.rollback()
        else:  # an interrupt came when the commit was done already
            self.state.settle()
        self._made = []
        self._reload()

    def _deliver(self, tx: bytes) -> TxResult:
        try:
            envelope, record = self.delivery.open(tx)
            self._check(envelope, record)
        except Refused as refused:
            return refused.result
        if isinstance(record, records.Close):
            self._closes.add(envelope, record)
            # a suspension can leave a majority for a later round
            while (round_ := self._closes.due(self.delivery.closers())) is not None:
                self._close(round_)
        else:
            self._pending.add((envelope, record))
        return TxResult(codes.OK)

    def _close(self, round_: int) -> None:
        due = [e for e in self._pending.entries if self._round_of(e[1]) <= round_]
        waiting = [e for e in self._pending.entries if self._round_of(e[1]) > round_]
        due.sort(key=sort_key)
        height = self.height + 1
        aggregate = self._window_of(round_, height)
        closing = Closing(
            self.genesis,
            self.state,
            self.blocks,
            self.delivery.network,
            height,
            round_,
            aggregate,
            self.delivery.horizon_height,
            tuple(self._convictions),
        )
        closing.run(due)
        self.blocks.put_state(self.state.flush())
        block = make_block(closing, due, self.last_digest, self.log.root())
        self._append(block)
        self._convictions = []
        self._closes.drop(round_, self.delivery.closers())
        self._note_horizon()
        self._pending = self._still_admissible(waiting)
        self._end_window(round_)
        self._note_windows()

    def _still_admissible(self, waiting: Iterable[Entry]) -> Pending:
        """Drop the waiting records that the state after a close refuses.

        So every record of a block follows the rules in the state before that block, whenever it
        was delivered, and a block can be checked without knowing that.
        """
        pending = Pending()
        for envelope, record in waiting:
            try:
                self.delivery.admissible(envelope, record, pending)
                pending.add((envelope, record))
            except Refused:
                continue
        return pending

    def _round_of(self, record: Record) -> int:
        return self.delivery.round_of(record) if isinstance(record, MemberRecord) else 0

    def _note_horizon(self) -> None:
        """Tell the rules which blocks are beyond evidence, and which rounds far (SPEC 11.4)."""
        self.delivery.last_round = self.last_round
        if self.last_round is not None:
            first = restore.horizon_height(self.blocks, self.genesis, self.last_round)
            self.delivery.horizon_height = first

    def _append(self, block: Block) -> None:
        self.blocks.append(block)
        self.height, self.last_round = block.head.height, block.head.round
        self.last_digest = payload_digest(block.head.payload())
        self.log.append(self.last_digest)
        self._made.append(block)

    # windows

    def _window_of(self, round_: int, height: int) -> Aggregate:
        """Give the aggregate that a round counts in; one of an earlier window ends first."""
        window = round_ // self.genesis.parameters.window_rounds
        if self._aggregate is not None and self._aggregate.window != window:
            self._put_window(height - 1)
        if self._aggregate is None:
            before = self.blocks.last_window()
            left = {} if before is None else Aggregate.decode(before).left_over()
            self._aggregate = Aggregate(window, height, adjustments=left)
        return self._aggregate

    def _end_window(self, round_: int) -> None:
        assert self._aggregate is not None
        self._aggregate.members = sum(1 for _ in self.state.active(round_))
        if (round_ + 1) % self.genesis.parameters.window_rounds == 0:
            self._put_window(self.height)

    def _put_window(self, to_height: int) -> None:
        assert self._aggregate is not None
        self._aggregate.witnessed = self.state.registry.witnessed
        self.blocks.put_window(to_height, self._aggregate.encode())
        self._aggregate = None

    def _note_windows(self) -> None:
        """Take the digest of what no head covers: the open window, and the last that ended."""
        if self.genesis.validators:
            own = None if self._aggregate is None else self._aggregate.encode()
            self._windows = restore.windows_digest(self.blocks.last_window_row(), own)

    def _write_engine_height(self, engine_height: int) -> None:
        size = (engine_height.bit_length() + 7) // 8
        self.blocks.set_meta("engine-height", engine_height.to_bytes(size, "big"))

    def _write_position(self, engine_height: int) -> None:
        self._write_engine_height(engine_height)
        if self._aggregate is None:
            self.blocks.drop_meta("aggregate")
        else:
            self.blocks.set_meta("aggregate", self._aggregate.encode())
        self._write_waiting()

    def _write_waiting(self) -> None:
        self._stored.write(self.blocks, self._pending.entries)
        closes = [envelope.raw for envelope in self._closes.envelopes()]
        found = [encode_misbehaviour(misbehaviour) for misbehaviour in self._convictions]
        self.blocks.put_waiting(closes, found)
