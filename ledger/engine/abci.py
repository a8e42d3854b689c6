"""The application interface of both chains, in CometBFT's words (ABCI 2.0, spec/abci).

An engine orders transactions and calls these methods; an application holds the rules and the
state. The same transactions in the same order give the same application hash, whatever the block
boundaries, on every engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Protocol

OK = 0


@dataclass(frozen=True)
class TxResult:
    """What became of one transaction. ``code`` 0 means that it is in; others are the application's.

    ``log`` is a sentence for people and is not part of any hash.
    """

    code: int
    log: str = ""


class Refused(Exception):
    """A rule refuses a transaction; the application turns it into a result."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(log)
        self.code = code
        self.log = log

    @property
    def result(self) -> TxResult:
        """What the engine is told."""
        return TxResult(self.code, self.log)


class UpgradeNeeded(Exception):
    """The chain goes on under rules that this program does not have; says which and from where."""


@dataclass(frozen=True)
class Validator:
    """A node that votes on blocks: its Ed25519 key (32 bytes) and its power; power 0 removes it."""

    public_key: bytes
    power: int

    @property
    def address(self) -> bytes:
        """The 20 bytes by which CometBFT names it: SHA-256 of the key, cut off."""
        return sha256(self.public_key).digest()[:20]


DUPLICATE_VOTE = 1
LIGHT_CLIENT_ATTACK = 2


@dataclass(frozen=True)
class Misbehaviour:
    """What a validator is convicted of by evidence in a block: which kind, who, at which height."""

    kind: int
    address: bytes
    height: int


@dataclass(frozen=True)
class Decision:
    """What the engine says of a decided block beside its height and transactions.

    ``proposer`` is the address (20 bytes) of the validator that proposed it; empty on solo.
    ``time_s`` is the block's time, on which validators agreed (Unix s, whole seconds of it); None
    on solo. It is for pruning alone: no rule and no hash may depend on it.
    """

    proposer: bytes = b""
    misbehaviour: tuple[Misbehaviour, ...] = ()
    time_s: int | None = None


ALONE = Decision()


@dataclass(frozen=True)
class FinalizeResult:
    """The results in the order of the transactions, and the application hash after them.

    ``validator_updates`` are the validators whose power changes. ``app_version`` numbers the rules
    of the next block.
    """

    tx_results: tuple[TxResult, ...]
    app_hash: bytes
    validator_updates: tuple[Validator, ...] = ()
    app_version: int = 1


@dataclass(frozen=True)
class Info:
    """Where the application stands: the last block that it committed and the hash after it.

    ``app_version`` numbers the rules of the next block.
    """

    last_block_height: int
    last_block_app_hash: bytes
    app_version: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``query`` gives: a value, None for an absent one, with its proof under ``app_hash``.

    ``proof`` is a value of the CBOR profile. ``height`` is the block after which the application
    hash was ``app_hash``.
    """

    value: bytes | None
    proof: list[object]
    app_hash: bytes
    height: int


class Application(Protocol):
    """What an engine drives. Heights are the engine's blocks.

    The calls of a block are ``finalize_block`` then ``commit``; nothing is durable before
    ``commit`` returns. An exception from either stops the node: it is a state that cannot be.
    """

    def info(self) -> Info:
        """Tell where the application stands."""

    def genesis_bytes(self) -> bytes:
        """Give the genesis, which every node of a chain must have alike."""

    def validators(self) -> tuple[Validator, ...]:
        """Give the validators in force; none on a chain that solo drives."""

    def query(self, path: str, key: bytes) -> Answer:
        """Answer from the state, with a proof; raises Refused for an unknown path or key form."""

    def check_tx(self, tx: bytes, *, new: bool = False) -> TxResult:
        """Tell whether a transaction may enter the mempool, or stay there; changes nothing.

        ``new``: it comes for the first time (CheckTxType_New). Nodes commit a block one after the
        other, and CometBFT offers a transaction to each of them once: what builds on a block that
        this node may be about to commit is let in, and has to be right when it is asked about it
        again, after the next commit (CheckTxType_Recheck).
        """

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        """Choose and order the transactions of a block to propose."""

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:
        """Tell whether a proposed block follows the rules; changes nothing."""

    def finalize_block(
        self, height: int, txs: Sequence[bytes], decision: Decision = ALONE
    ) -> FinalizeResult:
        """Apply a decided block; raises UpgradeNeeded where it comes under newer rules."""

    def commit(self) -> None:
        """Make the block applied last durable."""


# state sync


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state that others may start from: that after block ``height``, in ``chunks`` pieces.

    ``hash`` tells snapshots of one height and format apart; ``metadata`` is the application's.
    """

    height: int
    format: int
    chunks: int
    hash: bytes
    metadata: bytes


class OfferResult(IntEnum):
    """What becomes of an offered snapshot, in ABCI's numbers."""

    ACCEPT = 1
    ABORT = 2
    """Restore nothing at all."""
    REJECT = 3
    REJECT_FORMAT = 4
    REJECT_SENDER = 5


class ApplyResult(IntEnum):
    """What becomes of a chunk, in ABCI's numbers."""

    ACCEPT = 1
    ABORT = 2
    """Restore nothing at all."""
    RETRY = 3
    """Send this chunk once more."""
    RETRY_SNAPSHOT = 4
    REJECT_SNAPSHOT = 5


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to a chunk: which to fetch again, and from whom nothing more is taken."""

    result: ApplyResult
    refetch: tuple[int, ...] = ()
    reject_senders: tuple[str, ...] = ()


class SnapshotSource(Protocol):
    """Where an engine gets snapshots, and where it puts one that peers send (state sync)."""

    def list(self) -> Sequence[Snapshot]:
        """Give the snapshots that are whole, newest first."""

    def load(self, height: int, format_: int, index: int) -> bytes:
        """Give a chunk; empty where there is none."""

    def offer(self, snapshot: Snapshot, app_hash: bytes) -> OfferResult:
        """Take an offered snapshot up; ``app_hash`` is the one to trust at its height."""

    def apply(self, index: int, chunk: bytes, sender: str) -> Applied:
        """Take a chunk of the snapshot taken up; the last one restores and checks everything."""
