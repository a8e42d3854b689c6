"""One node: requests of ABCI 2.0 in, application calls out (CometBFT v0.38, spec/abci).

Every call is made under ``Node.lock``. Whoever else touches the application holds it too, and
writes to its database in ``committed`` only: from FinalizeBlock to Commit a transaction is open.

Three ends of a request: an answer; ``Mismatch``, where engine and node do not belong together,
which the engine is told; any other exception, which stops the node and is never answered, so that
the engine stops before a block it might take for done. Queries and snapshots that fail are
answered: they are for others, and the chain does not depend on them.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from ledger.engine import abci, base
from ledger.engine.abci import Application, Decision, Misbehaviour, Refused, SnapshotSource
from ledger.engine.comet import messages as m
from ledger.engine.comet.gate import Gate
from ledger.protobuf import Message
from ledger.protocol import cbor

_log = logging.getLogger(__name__)

ABCI_VERSION = "2.0.0"

# Result codes of queries; applications' own are below 100.
NOT_KEPT = 102
FAILED = 103


class Mismatch(Exception):
    """Engine and node do not belong together; says why and what to do."""


class OutOfOrder(Exception):
    """The engine calls in an order that cannot be, or for a height that is not the next."""


class _HasPower(Protocol):
    @property
    def public_key(self) -> bytes: ...

    @property
    def power(self) -> int: ...


class Node:
    """Answers CometBFT's requests by one application.

    ``chain_id`` and ``genesis_validators`` are what CometBFT's genesis file must say, beside the
    digest of the application's genesis. ``retain_blocks`` is how many blocks CometBFT keeps (0:
    all), and more where a snapshot is older. ``committed`` is called under the lock after each
    Commit, with the block's height and decision. ``tx_bytes`` is how long a transaction of a
    proposed block can be: what is not is refused before it is taken apart.
    """

    def __init__(
        self,
        application: Application,
        *,
        chain_id: str,
        genesis_validators: Iterable[_HasPower],
        snapshots: SnapshotSource | None = None,
        retain_blocks: int = 0,
        gate: Gate | None = None,
        committed: Callable[[int, Decision], None] | None = None,
        tx_bytes: range = m.TX_BYTES,
    ) -> None:
        self.application = application
        self.tx_bytes = tx_bytes
        self.lock = threading.RLock()
        self._chain_id = chain_id
        self._validators = {(v.public_key, v.power) for v in genesis_validators}
        self._snapshots = snapshots
        self._retain_blocks = retain_blocks
        self.gate = gate or Gate()
        self._committed = committed
        self._finalized: tuple[int, Decision] | None = None
        self._handlers: dict[type[Message], Callable[[Any], Message]] = {
            m.RequestEcho: lambda request: m.ResponseEcho(request.message),
            m.RequestFlush: lambda _: m.ResponseFlush(),
            m.RequestInfo: self._info,
            m.RequestInitChain: self._init_chain,
            m.RequestQuery: self._query,
            m.RequestCheckTx: self._check_tx,
            m.RequestPrepareProposal: self._prepare_proposal,
            m.RequestProcessProposal: self._process_proposal,
            m.HopelessProposal: self._reject_proposal,
            m.RequestExtendVote: lambda _: m.ResponseExtendVote(),
            m.RequestVerifyVoteExtension: self._verify_vote_extension,
            m.RequestFinalizeBlock: self._finalize_block,
            m.RequestCommit: self._commit,
            m.RequestListSnapshots: self._list_snapshots,
            m.RequestLoadSnapshotChunk: self._load_snapshot_chunk,
            m.RequestOfferSnapshot: self._offer_snapshot,
            m.RequestApplySnapshotChunk: self._apply_snapshot_chunk,
        }

    def answer(self, request: Message) -> Message:
        """Answer a request; raises Mismatch, or whatever stops the node."""
        with self.lock:
            return self._handlers[type(request)](request)

    # where both stand

    def _info(self, request: m.RequestInfo) -> Message:
        if request.abci_version != ABCI_VERSION:
            raise Mismatch(
                f"CometBFT {request.version} speaks ABCI {request.abci_version or '(none)'}, this "
                f"node {ABCI_VERSION}: run CometBFT v0.38 (gridwitness cometbft install)"
            )
        info = self.application.info()
        return m.ResponseInfo(
            data="gridwitness",
            app_version=info.app_version,
            last_block_height=info.last_block_height,
            last_block_app_hash=info.last_block_app_hash,
        )

    def _init_chain(self, request: m.RequestInitChain) -> Message:
        self._check_genesis(request)
        info = self.application.info()
        if info.last_block_height:
            raise Mismatch(
                f"CometBFT begins a chain, but this node has {info.last_block_height} blocks: give "
                "CometBFT its data folder back, or begin with an empty node"
            )
        version = m.VersionParams(info.app_version)
        return m.ResponseInitChain(m.ConsensusParams(version), info.last_block_app_hash)

    def _check_genesis(self, request: m.RequestInitChain) -> None:
        """Check that CometBFT's genesis file belongs to our genesis; raises Mismatch."""
        what = "CometBFT's genesis.json is of another network than this node's genesis: its "
        if request.chain_id != self._chain_id:
            raise Mismatch(f"{what}chain_id is {request.chain_id!r}, not {self._chain_id!r}")
        if {(v.pub_key.ed25519, v.power) for v in request.validators} != self._validators:
            raise Mismatch(f"{what}validators are others")
        if request.initial_height != 1:
            raise Mismatch(f"{what}initial_height is {request.initial_height}, not 1")
        digest = sha256(self.application.genesis_bytes()).hexdigest()
        try:
            app_state = json.loads(request.app_state_bytes)
        except (ValueError, RecursionError):
            app_state = None
        if app_state != {"genesis": digest}:
            raise Mismatch(f'{what}app_state is not {{"genesis": "{digest}"}}')

    # questions

    def _query(self, request: m.RequestQuery) -> Message:
        """Give the value as CBOR [value or null, proof, app hash]; only of the newest state."""
        try:
            answer = self.application.query(request.path.decode("utf-8", "replace"), request.data)
        except Refused as refused:
            return m.ResponseQuery(refused.code, refused.log)
        except Exception:  # noqa: BLE001 - whoever asks must not stop the chain
            _log.exception("a query of %r failed", request.path)
            return m.ResponseQuery(FAILED, "the node could not answer: see its log")
        if request.height not in (0, answer.height):
            log = f"only the state after the newest block, {answer.height}, is kept"
            return m.ResponseQuery(NOT_KEPT, log)
        value = cbor.dumps([answer.value, answer.proof, answer.app_hash])
        return m.ResponseQuery(value=value, height=answer.height)

    def _check_tx(self, request: m.RequestCheckTx) -> Message:
        if request.type == m.RECHECK:
            result = self.application.check_tx(request.tx)
        else:
            result = self.gate.check(request.tx, self._check_new)
        return m.ResponseCheckTx(result.code, result.log)

    def _check_new(self, tx: bytes) -> abci.TxResult:
        return self.application.check_tx(tx, new=True)

    # blocks

    def _prepare_proposal(self, request: m.RequestPrepareProposal) -> Message:
        self._check_settled("PrepareProposal")
        fitting = base.fitting(request.txs, request.max_tx_bytes)
        txs = self.application.prepare_proposal(fitting, request.max_tx_bytes)
        return m.ResponsePrepareProposal(tuple(txs))

    def _process_proposal(self, request: m.RequestProcessProposal) -> Message:
        self._check_settled("ProcessProposal")
        right = self.application.process_proposal(request.height, list(request.txs))
        if not right:
            _log.warning("the block proposed for height %d breaks the rules", request.height)
        return m.ResponseProcessProposal(m.ACCEPT if right else m.REJECT)

    def _reject_proposal(self, _: m.HopelessProposal) -> Message:
        self._check_settled("ProcessProposal")
        _log.warning("the proposed block holds a transaction that is too short or long for any")
        return m.ResponseProcessProposal(m.REJECT)

    def _check_settled(self, call: str) -> None:
        if self._finalized is not None:
            raise OutOfOrder(f"{call} between FinalizeBlock {self._finalized[0]} and its Commit")

    def _verify_vote_extension(self, request: m.RequestVerifyVoteExtension) -> Message:
        status = m.REJECT if request.vote_extension else m.ACCEPT
        return m.ResponseVerifyVoteExtension(status)

    def _finalize_block(self, request: m.RequestFinalizeBlock) -> Message:
        info = self.application.info()
        if request.height != info.last_block_height + 1:
            raise OutOfOrder(
                f"CometBFT decided block {request.height}, this node stands after block "
                f"{info.last_block_height}: one of them was restored from a backup"
            )
        misbehaviour = tuple(
            Misbehaviour(e.type, e.validator.address, e.height) for e in request.misbehavior
        )
        decision = Decision(request.proposer_address, misbehaviour, request.time.seconds)
        result = self.application.finalize_block(request.height, request.txs, decision)
        self._finalized = request.height, decision
        # CometBFT puts it into the headers from the next one on (state/execution.go, updateState),
        # and compares it with Info after a restored snapshot (statesync/syncer.go, verifyApp).
        version = m.VersionParams(result.app_version)
        changed = result.app_version != info.app_version
        return m.ResponseFinalizeBlock(
            tx_results=tuple(m.ExecTxResult(tx.code, tx.log) for tx in result.tx_results),
            validator_updates=tuple(
                m.ValidatorUpdate(m.PublicKey(v.public_key), v.power)
                for v in result.validator_updates
            ),
            consensus_param_updates=m.ConsensusParams(version) if changed else None,
            app_hash=result.app_hash,
        )

    def _commit(self, _: m.RequestCommit) -> Message:
        if self._finalized is None:
            raise OutOfOrder("Commit without FinalizeBlock")
        height, decision = self._finalized
        self.application.commit()
        self._finalized = None
        self.gate.committed()
        if self._committed is not None:
            self._committed(height, decision)
        return m.ResponseCommit(self._retain_height(height))

    def _retain_height(self, height: int) -> int:
        """Give the lowest block to keep: a node that starts from a snapshot asks for the next."""
        if not self._retain_blocks:
            return 0
        kept = [snapshot.height for snapshot in self._snapshots_there()]
        return max(min([height - self._retain_blocks + 1, *kept]), 0)

    # snapshots

    def _snapshots_there(self) -> Sequence[abci.Snapshot]:
        try:
            return self._snapshots.list() if self._snapshots else ()
        except OSError:
            _log.exception("snapshots cannot be listed")
            return ()

    def _list_snapshots(self, _: m.RequestListSnapshots) -> Message:
        there = self._snapshots_there()
        return m.ResponseListSnapshots(
            tuple(m.Snapshot(s.height, s.format, s.chunks, s.hash, s.metadata) for s in there)
        )

    def _load_snapshot_chunk(self, request: m.RequestLoadSnapshotChunk) -> Message:
        chunk = b""
        try:
            if self._snapshots:
                chunk = self._snapshots.load(request.height, request.format, request.chunk)
        except OSError:
            _log.exception("the snapshot of height %d cannot be read", request.height)
        return m.ResponseLoadSnapshotChunk(chunk)

    def _offer_snapshot(self, request: m.RequestOfferSnapshot) -> Message:
        if not self._snapshots or request.snapshot is None:
            return m.ResponseOfferSnapshot(abci.OfferResult.ABORT)
        s = request.snapshot
        offered = abci.Snapshot(s.height, s.format, s.chunks, s.hash, s.metadata)
        return m.ResponseOfferSnapshot(self._snapshots.offer(offered, request.app_hash))

    def _apply_snapshot_chunk(self, request: m.RequestApplySnapshotChunk) -> Message:
        if not self._snapshots:
            return m.ResponseApplySnapshotChunk(abci.ApplyResult.ABORT)
        applied = self._snapshots.apply(request.index, request.chunk, request.sender)
        return m.ResponseApplySnapshotChunk(applied.result, applied.refetch, applied.reject_senders)
