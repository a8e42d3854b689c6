"""The regional application: transactions in, blocks and state out (SPEC 11).

Transactions are envelopes of readings, ballots and registry changes, which wait, and of closes,
which end a round and make a block. Heights of heads count closes, not the engine's blocks.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from ledger.engine.abci import FinalizeResult, Info, Refused, TxResult
from ledger.genesis import RegionGenesis
from ledger.keys import Signer
from ledger.merkle import Log
from ledger.protocol import records
from ledger.protocol.cose import payload_digest
from ledger.regional import codes
from ledger.regional.aggregate import Aggregate
from ledger.regional.blocks import TABLES, Block, Blocks
from ledger.regional.close import Closing, make_block, sort_key
from ledger.regional.deliver import Delivery, Entry, Pending
from ledger.regional.state import State
from ledger.store import Database, StoreError
from ledger.verify import Verifier

__all__ = ["TABLES", "RegionalApplication"]


class RegionalApplication:
    """The rules, state and blocks of one region over one database (made with ``TABLES``).

    Raises StoreError when the database belongs to another genesis. When ``finalize_block`` or
    ``commit`` raises, the application is where it was before the block.
    """

    def __init__(self, genesis: RegionGenesis, database: Database, verifier: Verifier) -> None:
        self.genesis = genesis
        self.blocks = Blocks(database)
        self.verifier = verifier
        self._database = database
        self._made: list[Block] = []
        self._bind_genesis()
        self.state = State.load(self.blocks.state_rows())
        self.delivery = Delivery(genesis, self.state, self.blocks, verifier)
        self._reload()

    def _bind_genesis(self) -> None:
        stored = self.blocks.meta("genesis")
        if stored is None:
            with self._database.transaction():
                self.blocks.set_meta("genesis", self.genesis.encode())
                self.blocks.put_state(State.genesis_rows(self.genesis))
        elif stored != self.genesis.encode():
            raise StoreError(f"{self._database.path} holds the chain of another genesis")

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
        self._pending = Pending()
        for raw in self.blocks.pending():
            envelope, record = self.delivery.open(raw)
            assert not isinstance(record, records.Close)
            self._pending.add((envelope, record))
        self._committed = Info(self._stored_engine_height(), self.app_hash)

    def _stored_engine_height(self) -> int:
        return int.from_bytes(self.blocks.meta("engine-height") or b"", "big")

    @property
    def app_hash(self) -> bytes:
        """Give the application hash: over the newest head and the records that wait (SPEC 11.8)."""
        return sha256(self.last_digest + self._pending.accumulator).digest()

    # the application interface

    def info(self) -> Info:
        """See abci.Application."""
        return self._committed

    def check_tx(self, tx: bytes) -> TxResult:
        """See abci.Application."""
        try:
            envelope, record = self.delivery.open(tx)
            if isinstance(record, records.Close):
                self.delivery.check_close(envelope, record, self.last_round)
            else:
                self.delivery.check(envelope, record, self._pending)
        except Refused as refused:
            return refused.result
        return TxResult(codes.OK)

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        """See abci.Application: what fits, without what the rules refuse; closes come last."""
        chosen, room = [], max_tx_bytes
        for tx in sorted(txs, key=self._is_close):
            if len(tx) <= room:
                chosen.append(tx)
                room -= len(tx)
        results = self._try(chosen)
        return [tx for tx, result in zip(chosen, results, strict=True) if result.code == codes.OK]

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:  # noqa: ARG002
        """See abci.Application: a block that holds anything that the rules refuse is wrong."""
        return all(result.code == codes.OK for result in self._try(txs))

    def finalize_block(self, height: int, txs: Sequence[bytes]) -> FinalizeResult:
        """See abci.Application. Leaves a transaction open that ``commit`` ends.

        A block that was never committed is dropped first: its engine went away in between.
        """
        if self._database.connection.in_transaction:
            self._undo()
        self._database.begin()
        try:
            self._made = []
            results = tuple(self._deliver(tx) for tx in txs)
            self.blocks.put_state(self.state.flush())
            self._write_position(height)
        except BaseException:
            self._undo()
            raise
        self._finalized = Info(height, self.app_hash)
        return FinalizeResult(results, self.app_hash)

    def commit(self) -> None:
        """See abci.Application."""
        try:
            self._database.commit()
        except BaseException:
            self._undo()
            raise
        self.state.settle()
        self._committed = self._finalized

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    # working

    def made(self) -> list[Block]:
        """Give the blocks that the newest ``finalize_block`` made, for receipts."""
        return self._made

    def sign_heads(self, signer: Signer) -> list[int]:
        """Sign and keep the heads that this gateway has not signed yet; gives their heights."""
        unsigned = self.blocks.unsigned_heads()
        if unsigned:
            with self._database.transaction():
                for height, payload in unsigned:
                    self.blocks.put_head_envelope(height, signer.seal(payload).raw)
        return [height for height, _ in unsigned]

    def bridge(self, held: int, height: int) -> list[bytes]:
        """Give the path that shows head ``held`` in the history of a later head (SPEC 10.2)."""
        return self.log.inclusion(held - 1, height - 1)

    def _is_close(self, tx: bytes) -> bool:
        try:
            return isinstance(self.delivery.open(tx)[1], records.Close)
        except Refused:
            return False

    def _try(self, txs: list[bytes]) -> tuple[TxResult, ...]:
        made = self._made
        self._database.begin()
        try:
            return tuple(self._deliver(tx) for tx in txs)
        finally:
            self._undo()
            self._made = made

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
            if isinstance(record, records.Close):
                self.delivery.check_close(envelope, record, self.last_round)
                self._close(record.round)
            else:
                self.delivery.deliver(envelope, record, self._pending)
        except Refused as refused:
            return refused.result
        return TxResult(codes.OK)

    def _close(self, round_: int) -> None:
        due = [e for e in self._pending.entries if self._round_of(e[1]) <= round_]
        waiting = [e for e in self._pending.entries if self._round_of(e[1]) > round_]
        due.sort(key=sort_key)
        height = self.height + 1
        aggregate = self._window_of(round_, height)
        closing = Closing(self.genesis, self.state, self.blocks, height, round_, aggregate)
        closing.run(due)
        self.blocks.put_state(self.state.flush())
        block = make_block(closing, due, self.last_digest, self.log.root())
        self._append(block)
        self._pending = self._still_admissible(waiting)
        self._end_window(round_)

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

    def _round_of(self, record: "records.Reading | records.Ballot | records.RegistryChange") -> int:
        if isinstance(record, records.RegistryChange):
            return 0
        return self.delivery.round_of(record)

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

    def _write_position(self, engine_height: int) -> None:
        size = (engine_height.bit_length() + 7) // 8
        self.blocks.set_meta("engine-height", engine_height.to_bytes(size, "big"))
        if self._aggregate is None:
            self.blocks.drop_meta("aggregate")
        else:
            self.blocks.set_meta("aggregate", self._aggregate.encode())
        self.blocks.put_pending([envelope.raw for envelope, _ in self._pending.entries])
