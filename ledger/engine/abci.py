"""The application interface of both chains, in CometBFT's words (ABCI 2.0, spec/abci).

An engine orders transactions and calls these methods; an application holds the rules and the
state. The same transactions in the same order give the same application hash, whatever the block
boundaries, on every engine.
"""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class FinalizeResult:
    """The results in the order of the transactions, and the application hash after them."""

    tx_results: tuple[TxResult, ...]
    app_hash: bytes


@dataclass(frozen=True)
class Info:
    """Where the application stands: the last block that it committed and the hash after it."""

    last_block_height: int
    last_block_app_hash: bytes


class Application(Protocol):
    """What an engine drives. Heights are the engine's blocks.

    The calls of a block are ``finalize_block`` then ``commit``; nothing is durable before
    ``commit`` returns. An exception from either stops the node: it is a state that cannot be.
    """

    def info(self) -> Info:
        """Tell where the application stands."""

    def check_tx(self, tx: bytes) -> TxResult:
        """Tell whether a transaction may enter the mempool; changes nothing."""

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        """Choose and order the transactions of a block to propose."""

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:
        """Tell whether a proposed block follows the rules; changes nothing."""

    def finalize_block(self, height: int, txs: list[bytes]) -> FinalizeResult:
        """Apply a decided block."""

    def commit(self) -> None:
        """Make the block applied last durable."""
