"""The wide-area application: regions' summaries in, one order and proofs out (SPEC 13, 16).

A transaction is the envelope of a summary or of an operator's approval of a network change. What
the rules refuse leaves no trace, with one exception: a second, different summary for heights that a
region has reported already, validly signed by that region's gateway. It has no effect on the
figures, but it is evidence that the gateway told two stories, so the first one of each region is
kept in the log and marks the region's leaf. Its result is CONFLICT; ``check_tx`` lets it in, for
only a block can keep it. The engine's evidence against a validator is kept too.

Where a region has several gateways, a summary takes effect when more than half of them have handed
in the same payload. Until then each one's newest offer waits in the state, and is kept in the log
as what it is, so that whoever re-does the chain from the log finds every state again.

Left out: whether a summary is true. Its region's chain shows that (``ledger.audit``), and the log
root in it lets anybody ask for proofs of single readings.
"""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from ledger.engine import base
from ledger.engine.abci import (
    ALONE,
    Answer,
    Decision,
    FinalizeResult,
    Info,
    Misbehaviour,
    Refused,
    TxResult,
    Validator,
)
from ledger.genesis import WideGenesis, addresses
from ledger.merkle import Log
from ledger.network import (
    NETWORK_KEY,
    NetworkChange,
    NetworkRules,
    NetworkState,
    RegionGateways,
    check_ahead,
    timely,
    validator_updates,
)
from ledger.protocol import cbor
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadSignature, MalformedRecord
from ledger.snapshot import BadSnapshot, Row
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes, restore
from ledger.wide.entries import (
    SUMMARIES,
    Entry,
    encode_misbehaviour,
    entry_of_approval,
    entry_of_misbehaviour,
    entry_of_summary,
)
from ledger.wide.rules import check_new, decode, is_kept
from ledger.wide.state import (
    GENESIS_KEY,
    LOG_KEY,
    Offers,
    Region,
    State,
    gateways_key,
    majority,
    offers_key,
    region_key,
)
from ledger.wide.store import TABLES, WideStore
from ledger.wide.summary import Summary

__all__ = ["TABLES", "WideApplication"]

_PLACE_BYTES = 8
_NOTE_EVERY_S = 3600
_OF_REGION = {"region": region_key, "gateways": gateways_key, "offers": offers_key}


class WideApplication:
    """The rules, state and order of one wide-area chain over one database (made with ``TABLES``).

    Raises StoreError when the database belongs to another genesis. When ``finalize_block`` or
    ``commit`` raises, the application is where it was before the block.
    """

    VERSIONS = (1,)
    """The versions of the rules that this program has; see ``ledger.network.Upgrade``."""

    def __init__(self, genesis: WideGenesis, database: Database, verifier: Verifier) -> None:
        self.genesis = genesis
        self.store = WideStore(database)
        self.network_rules = NetworkRules.of(genesis)
        self._chain = genesis.chain
        self._database = database
        self._verifier = verifier
        self._gateways = {region: addresses(keys) for region, keys in genesis.regions}
        base.bind_genesis(
            self.store, database, genesis.encode(), lambda: [(GENESIS_KEY, genesis.digest)]
        )
        self.state = State(self.store.state_rows())
        # where summaries that are on their way into blocks end: (region, to height)
        self._coming: set[tuple[bytes, int]] = set()
        self._reload()

    def _reload(self) -> None:
        self.height = self.store.height()
        self.log = Log(self.store, self.store.count())
        self._fresh: list[bytes] = []  # entries of the block at work, not in the log yet
        self.network = self.network_rules.load(self.state.get(NETWORK_KEY))
        self._committed = self._position()

    def _position(self) -> Info:
        version = self.network.version_at(self.height + 1)
        return Info(self.height, self.app_hash, version)

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

    def genesis_bytes(self) -> bytes:
        """See abci.Application."""
        return self.genesis.encode()

    def validators(self) -> tuple[Validator, ...]:
        """See abci.Application."""
        return self.network.validators

    def check_tx(self, tx: bytes, *, new: bool = False) -> TxResult:  # noqa: ARG002
        """See abci.Application. Evidence of a conflict is let in.

        So is a summary that follows one which was let in since the last commit: several can be on
        their way at once, whether they are new or checked again.
        """
        try:
            _, record = self._check(tx, self._coming)
            check_ahead(record, self.height + 1)
        except Refused as refused:
            return refused.result
        if isinstance(record, Summary):
            self._coming.add((record.region, record.to_height))
        return TxResult(codes.OK)

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        """See abci.Application: what fits, without what the rules refuse.

        Nothing where this program does not have the rules of the next block.
        """
        if self._committed.app_version not in self.VERSIONS:
            return []
        chosen = base.fitting(timely(self._open, txs, self.height + 1), max_tx_bytes)
        return [tx for tx, kept in zip(chosen, self._try(chosen), strict=True) if kept]

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:
        """See abci.Application: a block that holds anything that leaves no trace is wrong.

        So is one whose rules this program does not have.
        """
        known = self.network.version_at(height) in self.VERSIONS
        good = known and timely(self._open, txs, height) == txs and all(self._try(txs, whole=True))
        if good:
            records_ = (self._open(tx)[1] for tx in txs)
            self._coming.update((r.region, r.to_height) for r in records_ if isinstance(r, Summary))
        return good

    def finalize_block(
        self, height: int, txs: Sequence[bytes], decision: Decision = ALONE
    ) -> FinalizeResult:
        """See abci.Application. Leaves a transaction open that ``commit`` ends.

        Misbehaviour comes before the transactions. A block that was never committed is dropped
        first: its engine went away in between.
        """
        return self.apply(height, [*decision.misbehaviour, *txs])

    def apply(self, height: int, steps: Sequence[Misbehaviour | bytes]) -> FinalizeResult:
        """Do what ``finalize_block`` does, with misbehaviour anywhere among the transactions."""
        if self._database.connection.in_transaction:
            self._undo()
        self._check_block(height)
        before, first = self.network, self.log.size
        self._database.begin()
        try:
            results = [self._step(step, height) for step in steps]
            self._grow_log()
            self.store.put_state(self.state.changes())
            self.store.put_block(height, self.app_hash, first)
            self.height = height
        except BaseException:
            self._undo()
            raise
        told = tuple(result for result in results if result is not None)
        updates = validator_updates(before, self.network)
        version = self.network.version_at(height + 1)
        return FinalizeResult(told, self.app_hash, updates, version)

    def commit(self) -> None:
        """See abci.Application."""
        try:
            self._database.commit()
        except BaseException:
            self._undo()
            raise
        self.state.settle()
        self._coming.clear()  # what still waits is checked anew now
        self._committed = self._position()

    def query(self, path: str, key: bytes) -> Answer:
        """Answer from the state, with a proof; raises Refused for an unknown path or key form.

        ``region``    key: a region's id; value: its leaf (``state.Region``), None if it has not
                      reported; proof: the trie's
        ``network``   key: empty; value: the leaf (``NetworkState``), None if it is the genesis';
                      proof: the trie's
        ``gateways``  key: a region's id; value: [gateway key, ...] that operators gave it, None if
                      they gave none and the genesis holds; proof: the trie's
        ``offers``    key: a region's id; value: what its gateways offer (``state.Offers``), None
                      where it never had several that did; proof: the trie's
        ``summary``   key: region id || to-height in 8 bytes, big-endian; value: the envelope of the
                      summary that ends there, None where it was pruned; proof: [leaf ``l``, its
                      trie proof, number, path, entry]; [] and no value where there is none
        ``kept``      key: a number in 8 bytes, big-endian; value and proof as of a summary, of
                      whatever is kept under that number
        ``regions``   key: empty; value: [region id, ...] of all regions, rising; no proof: a region
                      left out is found missing by no one who does not know of it
        """
        region = key[: len(self._chain)]
        if path in _OF_REGION and len(key) == len(self._chain):
            return self._leaf(_OF_REGION[path](key))
        if path == "network" and not key:
            return self._leaf(NETWORK_KEY)
        if path == "regions" and not key:
            return self._answer(cbor.dumps(list(self.regions())), [])
        if path == "summary" and len(key) == len(self._chain) + _PLACE_BYTES:
            to_height = int.from_bytes(key[len(self._chain) :], "big")
            # SQLite's integers end at 63 bits
            number = self.store.find(region, to_height) if to_height >> 63 == 0 else None
            return self._kept(number)
        if path == "kept" and len(key) == _PLACE_BYTES:
            wanted = int.from_bytes(key, "big")
            return self._kept(wanted if wanted < self.log.size else None)
        raise Refused(codes.UNKNOWN_QUERY, "the query's path or the length of its key is unknown")

    def regions(self) -> list[bytes]:
        """Give the ids of all regions that may report, rising."""
        return sorted({*self._gateways, *self.state.given_regions()})

    def gateways(self, region: bytes) -> dict[bytes, bytes] | None:
        """Give address -> key of a region's gateways; None for a region that is not known."""
        value = self.state.get(gateways_key(region))
        if value is None:
            return self._gateways.get(region)
        return addresses(tuple(cbor.loads(value)))

    def is_settled(self, payload: bytes) -> bool:
        """Tell whether a summary is in effect or its region's evidence; raises MalformedRecord."""
        return is_kept(self.state, self.store, payload, Summary.decode(payload))

    def _leaf(self, key: bytes) -> Answer:
        return self._answer(self.state.get(key), self.state.prove(key).encode())

    def _kept(self, number: int | None) -> Answer:
        entry = None if number is None else self.store.entry(number)
        if number is None or entry is None:
            return self._answer(None, [])
        log_proof = self.state.prove(LOG_KEY).encode()
        path = self.log.inclusion(number)
        leaf = self.state.get(LOG_KEY)
        return self._answer(
            self.store.kept(number), [leaf, log_proof, number, path, entry.encode()]
        )

    def _answer(self, value: bytes | None, proof: list[object]) -> Answer:
        return Answer(value, proof, self.app_hash, self.height)

    # pruning

    def prune(self, before_height: int, most: int = 10_000) -> int:
        """Let go of summaries that were kept before an engine's block; gives how many.

        At most ``most`` at once, so that the chain need not wait: call it again until it gives 0.
        Entries, network changes and misbehaviour stay, and with them every proof and decision.
        Call it between blocks.
        """
        with self._database.transaction():
            return self.store.prune(before_height, most)

    def prune_before(self, time_s: int, most: int = 10_000) -> int:
        """Let go of summaries of blocks that were there at a time (Unix s), as ``note_time`` tells.

        As ``prune`` otherwise.
        """
        return self.prune(self.store.height_at(time_s) + 1, most)

    def note_time(self, time_s: int) -> None:
        """Note, for pruning alone, that the newest block is there at a time (Unix s).

        The engine's block time is best, for this chain has none of its own; on solo the clock's
        must do. Once an hour is noted; a time that is not later than the one before is ignored, so
        a clock that is off makes nothing older than it is. Call it between blocks.
        """
        newest = self.store.newest_time()
        if newest is None or time_s >= newest + _NOTE_EVERY_S:
            with self._database.transaction():
                self.store.put_time(self.height, time_s)

    # snapshots (see ledger.snapshot.Restorable)

    @property
    def path(self) -> Path | None:
        """The file of the database."""
        return self._database.path

    def height_in(self, database: Database) -> int:
        """See ledger.snapshot.Restorable."""
        return WideStore(database).height()

    def export(self, database: Database) -> Iterator[Row]:
        """See ledger.snapshot.Restorable. Summaries that were pruned here are not in it."""
        return restore.export(WideStore(database))

    def restore(self, height: int, app_hash: bytes, rows: Iterator[Row]) -> None:
        """See ledger.snapshot.Restorable."""
        if self.height:
            raise BadSnapshot(f"this chain is at block {self.height} already")
        with self._database.transaction():
            restore.restore(self.genesis, self.store, self._verifier, (height, app_hash), rows)
        self.state = State(self.store.state_rows())
        self._reload()

    # working

    def _check_block(self, height: int) -> None:
        if height <= self.height:
            raise ValueError(f"block {height} comes after block {self.height}")
        base.check_rules(height, self.network.version_at(height), self.VERSIONS)

    def _try(self, txs: list[bytes], *, whole: bool = False) -> list[bool]:
        """Tell of each if a block would keep it; ``whole``: up to the first that it would not."""
        if self._database.connection.in_transaction:
            self._undo()
        self._database.begin()
        try:
            kept: list[bool] = []
            for tx in txs:
                code = self._deliver(tx, self.height + 1).code
                kept.append(code in SUMMARIES)
                if whole and not kept[-1]:
                    break
        finally:
            self._undo()
        return kept

    def _undo(self) -> None:
        self._database.rollback()
        if self.store.height() == self._committed.last_block_height:
            self.state.rollback()
        else:  # an interrupt came when the commit was done already
            self.state.settle()
        self._reload()

    def _step(self, step: Misbehaviour | bytes, block: int) -> TxResult | None:
        if isinstance(step, bytes):
            return self._deliver(step, block)
        self._set_network(self.network_rules.punish(self.network, step))
        self._keep(block, entry_of_misbehaviour(step), encode_misbehaviour(step))
        return None

    def _deliver(self, tx: bytes, block: int) -> TxResult:
        try:
            envelope, record = self._check(tx)
        except Refused as refused:
            return refused.result
        if isinstance(record, Summary):
            return self._take_summary(envelope, record, block)
        return self._take_approval(envelope, record, block)

    @property
    def _number(self) -> int:
        """The number of what is kept next."""
        return self.log.size + len(self._fresh)

    def _take_summary(self, envelope: Envelope, summary: Summary, block: int) -> TxResult:
        region = self.state.region(summary.region)
        count = len(self.gateways(summary.region) or ())
        if summary.from_height == region.to_height:
            code, log = self._settle_or_offer(envelope, summary, region, majority(count))
        else:
            code = codes.CONFLICT
            log = f"heights up to {region.to_height} are reported otherwise: kept as evidence"
            if count > 1:
                log += f" against gateway {envelope.kid.hex()}"
            region = region.contradicted_by(envelope.payload)
            self.state.put(region_key(summary.region), region.encode())
        entry = entry_of_summary(envelope, summary, code, several=count > 1)
        self._keep(block, entry, envelope.raw)
        return TxResult(code, log)

    def _settle_or_offer(
        self, envelope: Envelope, summary: Summary, region: Region, needed: int
    ) -> tuple[int, str]:
        """Put a summary in effect when ``needed`` gateways hand it in; gives its code and a log."""
        offers = self.state.offers(summary.region)
        digest = payload_digest(envelope.payload)
        offers = offers.after(envelope.kid, digest)
        if offers.count(digest) < needed:
            self.state.put_offers(summary.region, offers)
            return codes.OFFERED, f"{offers.count(digest)} of {needed} gateways offer this summary"
        self.state.put_offers(summary.region, Offers())
        self.state.put(region_key(summary.region), region.after(envelope.payload, summary).encode())
        self.store.put_summary(summary.region, summary.to_height, self._number)
        return codes.OK, ""

    def _take_approval(self, envelope: Envelope, change: NetworkChange, block: int) -> TxResult:
        network, in_force = self.network_rules.approve(self.network, envelope, change)
        self._set_network(network)
        if in_force is not None and isinstance(in_force.what, RegionGateways):
            given = in_force.what
            self.state.put(gateways_key(given.chain), cbor.dumps(list(given.gateways)))
            self.state.put_offers(given.chain, Offers())
        self._keep(block, entry_of_approval(envelope, change), envelope.raw)
        told = "is in force" if in_force is not None else "waits for more operators"
        return TxResult(codes.OK, f"network change {change.number} {told}")

    def _set_network(self, network: NetworkState) -> None:
        if network != self.network:
            self.network = network
            self.state.put(NETWORK_KEY, network.encode())

    def _keep(self, block: int, entry: Entry, body: bytes) -> None:
        self.store.keep(self._number, block, entry, body)
        self._fresh.append(entry.encode())

    def _grow_log(self) -> None:
        """Bring the block's entries into the log; a proposal that is only tried needs no root."""
        if self._fresh:
            for leaf in self._fresh:
                self.log.append(leaf)
            self._fresh = []
            self.state.put(LOG_KEY, cbor.dumps([self.log.size, self.log.root()]))

    # rules

    def _check(
        self, tx: bytes, coming: Container[tuple[bytes, int]] = ()
    ) -> tuple[Envelope, Summary | NetworkChange]:
        """Check every rule; gives the record, raises Refused.

        A summary that does not continue its region's is evidence of a conflict. One that continues
        another in ``coming`` passes as far as that can be said.
        """
        envelope, record = self._open(tx)
        if isinstance(record, Summary):
            key = self._check_summary(envelope, record, coming)
        else:
            key = self.network_rules.check(self.network, envelope, record)
        try:
            self._verifier.check(envelope, key)
        except BadSignature as e:
            raise Refused(codes.BAD_SIGNATURE, str(e)) from None
        return envelope, record

    def _open(self, tx: bytes) -> tuple[Envelope, Summary | NetworkChange]:
        """Take a transaction apart; raises Refused."""
        try:
            return self._verifier.open(tx, decode)
        except MalformedRecord as e:
            raise Refused(codes.MALFORMED, str(e)) from None

    def _check_summary(
        self, envelope: Envelope, summary: Summary, coming: Container[tuple[bytes, int]]
    ) -> bytes:
        """Check every rule but the signature; gives the signer's key, raises Refused."""
        if summary.chain != self._chain:
            raise Refused(codes.WRONG_CHAIN, "the summary belongs to another wide-area chain")
        gateways = self.gateways(summary.region)
        if gateways is None:
            raise Refused(codes.UNKNOWN_REGION, "the wide-area chain does not know this region")
        key = gateways.get(envelope.kid)
        if key is None:
            raise Refused(codes.UNKNOWN_SIGNER, "the signer is not a gateway of this region")
        region = self.state.region(summary.region)
        ahead = summary.from_height > region.to_height
        if not (ahead and (summary.region, summary.from_height) in coming):
            check_new(self.state, self.store, envelope, summary, several=len(gateways) > 1)
        return key
