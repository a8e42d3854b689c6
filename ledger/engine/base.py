"""What the applications of both chains do alike at the engine's interface."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ledger.engine.abci import UpgradeNeeded
from ledger.store import Database, StoreError

Rows = Iterable[tuple[bytes, Any]]


class GenesisStore(Protocol):
    """Where a chain keeps its genesis and its first state."""

    def meta(self, name: str) -> bytes | None:
        """Give a small stored value, or None."""

    def set_meta(self, name: str, value: bytes) -> None:
        """Keep a small value."""

    def put_state(self, rows: Any) -> None:
        """Write state rows."""


def bind_genesis(
    store: GenesisStore, database: Database, genesis: bytes, state: Callable[[], Rows]
) -> None:
    """Begin a chain in an empty database with the rows of ``state``, or check whose chain it is.

    Raises StoreError where the database belongs to another genesis.
    """
    stored = store.meta("genesis")
    if stored is None:
        with database.transaction():
            store.set_meta("genesis", genesis)
            store.put_state(state())
    elif stored != genesis:
        raise StoreError(f"{database.path} holds the chain of another genesis")


def check_rules(height: int, version: int, known: Sequence[int]) -> None:
    """Check that a program that has the ``known`` versions of the rules has those of a block.

    Raises UpgradeNeeded.
    """
    if version not in known:
        raise UpgradeNeeded(
            f"block {height} comes under version {version} of the rules, and this program has "
            f"version {max(known)}: install one that has it, and start it again"
        )


def fitting(txs: Sequence[bytes], max_tx_bytes: int) -> list[bytes]:
    """Give, in their order, the transactions that a block of this size has room for.

    A transaction takes more than its bytes: CometBFT counts them as the repeated field ``txs`` of
    its ``Data`` message, with a tag and a length before each, and stops a proposer that has more.
    """
    chosen, room = [], max_tx_bytes
    for tx in txs:
        size = 1 + _varint_bytes(len(tx)) + len(tx)
        if size <= room:
            chosen.append(tx)
            room -= size
    return chosen


def _varint_bytes(n: int) -> int:
    return max(1, (n.bit_length() + 6) // 7)
