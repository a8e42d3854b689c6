"""The wide-area application: regions' summaries in, one order and proofs out (SPEC 13).

A transaction is a summary's envelope. What the rules refuse leaves no trace, with one exception: a
second, different summary for heights that a region has reported already, validly signed by that
region's gateway. It has no effect on the figures, but it is evidence that the gateway told two
stories, so the first one of each region is kept in the log and marks the region's leaf. Its result
is CONFLICT; ``check_tx`` lets it in, for only a block can keep it.

Left out: whether a summary is true. Its region's chain shows that (``ledger.audit``), and the log
root in it lets anybody ask for proofs of single readings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.engine.abci import FinalizeResult, Info, Refused, TxResult
from ledger.genesis import WideGenesis, addresses
from ledger.merkle import Log
from ledger.protocol import cbor
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadSignature, MalformedRecord
from ledger.store import Database, StoreError
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.state import GENESIS_KEY, LOG_KEY, Region, State, region_key
from ledger.wide.store import TABLES, WideStore
from ledger.wide.summary import Summary

__all__ = ["TABLES", "Answer", "WideApplication"]

_TO_HEIGHT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``query`` gives: a value, None for an absent one, with its proof under ``app_hash``.

    ``proof`` is a value of the CBOR profile; ``ledger.wide.proofs`` checks it. ``height`` is the
    block after which the application hash was ``app_hash``.
    """

    value: bytes | None
    proof: list[object]
    app_hash: bytes
    height: int


class WideApplication:
    """The rules, state and order of one wide-area chain over one database (made with ``TABLES``).

    Raises StoreError when the database belongs to another genesis. When ``finalize_block`` or
    ``commit`` raises, the application is where it was before the block.
    """

    def __init__(self, genesis: WideGenesis, database: Database, verifier: Verifier) -> None:
        self.genesis = genesis
        self.store = WideStore(database)
        self._chain = genesis.chain
        self._database = database
        self._verifier = verifier
        self._gateways = {region: addresses(keys) for region, keys in genesis.regions}
        self._bind_genesis()
        self.state = State(self.store.state_rows())
        self._reload()

    def _bind_genesis(self) -> None:
        stored = self.store.meta("genesis")
        if stored is None:
            with self._database.transaction():
                self.store.set_meta("genesis", self.genesis.encode())
                self.store.put_state([(GENESIS_KEY, self.genesis.digest)])
        elif stored != self.genesis.encode():
            raise StoreError(f"{self._database.path} holds the chain of another genesis")

    def _reload(self) -> None:
        self.height = self.store.height()
        self.log = Log(self.store, self.store.count())
        self._committed = Info(self.height, self.app_hash)

    @property
    def app_hash(self) -> bytes:
        """Give the application hash: the root of the state trie."""
        return self.state.root()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    # the application interface

    def info(self) -> Info:
        """See abci.Application."""
        return self._committed

    def check_tx(self, tx: bytes) -> TxResult:
        """See abci.Application. Evidence of a conflict is let in."""
        try:
            self._check(tx)
        except Refused as refused:
            return refused.result
        return TxResult(codes.OK)

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        """See abci.Application: what fits, without what the rules refuse."""
        chosen, room = [], max_tx_bytes
        for tx in txs:
            if len(tx) <= room:
                chosen.append(tx)
                room -= len(tx)
        return [tx for tx, kept in zip(chosen, self._try(chosen), strict=True) if kept]

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:  # noqa: ARG002
        """See abci.Application: a block that holds anything that leaves no trace is wrong."""
        return all(self._try(txs))

    def finalize_block(self, height: int, txs: Sequence[bytes]) -> FinalizeResult:
        """See abci.Application. Leaves a transaction open that ``commit`` ends.

        A block that was never committed is dropped first: its engine went away in between.
        """
        if self._database.connection.in_transaction:
            self._undo()
        self._database.begin()
        try:
            results = tuple(self._deliver(tx, height) for tx in txs)
            self.store.put_state(self.state.changes())
            self.store.put_block(height, self.app_hash)
            self.height = height
        except BaseException:
            self._undo()
            raise
        return FinalizeResult(results, self.app_hash)

    def commit(self) -> None:
        """See abci.Application."""
        try:
            self._database.commit()
        except BaseException:
            self._undo()
            raise
        self.state.settle()
        self._committed = Info(self.height, self.app_hash)

    def query(self, path: str, key: bytes) -> Answer:
        """Answer from the state, with a proof; raises Refused for an unknown path or key form.

        ``region``   key: a region's id; value: its leaf (``state.Region``), None if it has not
                     reported; proof: the trie's
        ``summary``  key: region id || to-height in 8 bytes, big-endian; value: the envelope of the
                     summary that ends there; proof: [log leaf, its trie proof, index, path], or []
                     with no value where there is none
        """
        if path == "region" and len(key) == len(self._chain):
            leaf = region_key(key)
            return self._answer(self.state.get(leaf), self.state.prove(leaf).encode())
        if path == "summary" and len(key) == len(self._chain) + _TO_HEIGHT_BYTES:
            return self._summary(key[: len(self._chain)], key[len(self._chain) :])
        raise Refused(codes.UNKNOWN_QUERY, "the query's path or the length of its key is unknown")

    def _summary(self, region: bytes, to_height: bytes) -> Answer:
        height = int.from_bytes(to_height, "big")
        # SQLite's integers end at 63 bits
        number = self.store.find(region, height) if height >> 63 == 0 else None
        if number is None:
            return self._answer(None, [])
        log_proof = self.state.prove(LOG_KEY).encode()
        path = self.log.inclusion(number)
        return self._answer(
            self.store.kept(number), [self.state.get(LOG_KEY), log_proof, number, path]
        )

    def _answer(self, value: bytes | None, proof: list[object]) -> Answer:
        return Answer(value, proof, self.app_hash, self.height)

    # working

    def _try(self, txs: list[bytes]) -> list[bool]:
        """Tell of each transaction whether a block would keep it."""
        self._database.begin()
        try:
            results = [self._deliver(tx, self.height + 1) for tx in txs]
        finally:
            self._undo()
        return [result.code in (codes.OK, codes.CONFLICT) for result in results]

    def _undo(self) -> None:
        self._database.rollback()
        if self.store.height() == self._committed.last_block_height:
            self.state.rollback()
        else:  # an interrupt came when the commit was done already
            self.state.settle()
        self._reload()

    def _deliver(self, tx: bytes, block: int) -> TxResult:
        try:
            envelope, summary, region = self._check(tx)
        except Refused as refused:
            return refused.result
        number = self.log.size
        if summary.from_height == region.to_height:
            result = TxResult(codes.OK)
            region = region.after(envelope.payload, summary)
            self.store.put_summary(summary.region, summary.to_height, number)
        else:
            log = f"heights up to {region.to_height} are reported otherwise: kept as evidence"
            result = TxResult(codes.CONFLICT, log)
            region = region.contradicted_by(envelope.payload)
        self.store.keep(number, block, result.code, envelope.raw)
        self.log.append(envelope.digest)
        self.state.put(region_key(summary.region), region.encode())
        self.state.put(LOG_KEY, cbor.dumps([self.log.size, self.log.root()]))
        return result

    def _check(self, tx: bytes) -> tuple[Envelope, Summary, Region]:
        """Check every rule; gives the summary and its region before it, raises Refused.

        A summary that does not continue its region's is evidence of a conflict.
        """
        try:
            envelope = Envelope.parse(tx)
            summary = Summary.decode(envelope.payload)
        except MalformedRecord as e:
            raise Refused(codes.MALFORMED, str(e)) from None
        if summary.chain != self._chain:
            raise Refused(codes.WRONG_CHAIN, "the summary belongs to another wide-area chain")
        gateways = self._gateways.get(summary.region)
        if gateways is None:
            raise Refused(codes.UNKNOWN_REGION, "the wide-area chain does not know this region")
        key = gateways.get(envelope.kid)
        if key is None:
            raise Refused(codes.UNKNOWN_SIGNER, "the signer is not a gateway of this region")
        region = self.state.region(summary.region)
        self._check_new(envelope, summary, region)
        try:
            self._verifier.check(envelope, key)
        except BadSignature as e:
            raise Refused(codes.BAD_SIGNATURE, str(e)) from None
        return envelope, summary, region

    def _check_new(self, envelope: Envelope, summary: Summary, region: Region) -> None:
        if summary.from_height > region.to_height:
            log = f"the next summary of this region starts after height {region.to_height}"
            raise Refused(codes.GAP, log)
        if summary.from_height == region.to_height:
            _check_forward(summary, region)
        elif self._is_kept(envelope.payload, summary, region):
            raise Refused(codes.DUPLICATE, "the summary is in the chain")
        elif region.conflict is not None:
            raise Refused(codes.KNOWN_CONFLICT, "this region has contradicted itself before")

    def _is_kept(self, payload: bytes, summary: Summary, region: Region) -> bool:
        if payload_digest(payload) == region.conflict:
            return True
        number = self.store.find(summary.region, summary.to_height)
        kept = None if number is None else self.store.kept(number)
        return kept is not None and Envelope.parse(kept).payload == payload


def _check_forward(summary: Summary, region: Region) -> None:
    """Refuse a summary that takes back what its region has reported; raises Refused.

    That the log does not shrink follows from its size being the to-height.
    """
    if summary.from_round <= region.to_round:
        raise Refused(codes.BACKWARDS, f"rounds up to {region.to_round} are reported")
    if summary.witnessed_height < region.witnessed_height:
        raise Refused(codes.BACKWARDS, "the witnessed height goes back")
    same_height = region.summaries and summary.witnessed_height == region.witnessed_height
    if same_height and summary.witnessed_digest != region.witnessed_digest:
        raise Refused(codes.BACKWARDS, "another head than before is witnessed at the same height")
