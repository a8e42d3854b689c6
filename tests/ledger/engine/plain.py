"""An application without rules but a few, to drive servers by: what is asked is noted."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

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
from ledger.engine.comet.node import Node
from ledger.engine.comet.server import Server
from tests.ledger.engine.driver import Driver

VALIDATORS = (Validator(b"\x01" * 32, 10), Validator(b"\x02" * 32, 20))
CHAIN_ID = "gw-0102030405060708"
GENESIS = b"the genesis"
APP_STATE = b'{"genesis": "%s"}' % sha256(GENESIS).hexdigest().encode()


class Plain:
    """Keeps a hash over its transactions; b"no…" is refused, b"fail…" fails where it says."""

    def __init__(self) -> None:
        self.committed = Info(0, sha256(b"empty").digest())
        self.finalized = self.committed
        self.decisions: list[Decision] = []
        self.updates: tuple[Validator, ...] = ()
        self.version = 1

    def _fail(self, where: str, txs: Sequence[bytes]) -> None:
        if b"fail " + where.encode() in txs:
            raise RuntimeError(f"{where} failed")

    def info(self) -> Info:
        return self.committed

    def genesis_bytes(self) -> bytes:
        return GENESIS

    def validators(self) -> tuple[Validator, ...]:
        return VALIDATORS

    def query(self, path: str, key: bytes) -> Answer:
        self._fail("query", [key])
        if path != "there":
            raise Refused(25, "unknown path")
        height, app_hash = self.committed.last_block_height, self.committed.last_block_app_hash
        return Answer(key or None, [1, b"proof"], app_hash, height)

    def check_tx(self, tx: bytes, *, new: bool = False) -> TxResult:
        self._fail("check", [tx])
        return TxResult(7, "refused: é") if tx.startswith(b"no") else TxResult(0)

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        self._fail("prepare", txs)
        assert sum(map(len, txs)) <= max_tx_bytes
        return [tx for tx in txs if not tx.startswith(b"no")]

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:
        self._fail("process", txs)
        return not any(tx.startswith(b"no") for tx in txs)

    def finalize_block(
        self, height: int, txs: Sequence[bytes], decision: Decision = ALONE
    ) -> FinalizeResult:
        self._fail("finalize", txs)
        results = tuple(self.check_tx(tx) for tx in txs)
        app_hash = sha256(self.committed.last_block_app_hash + b"".join(txs)).digest()
        self.finalized = Info(height, app_hash, self.version)
        self.decisions.append(decision)
        self.pending = list(txs)
        return FinalizeResult(results, app_hash, self.updates, self.version)

    def commit(self) -> None:
        self._fail("commit", self.pending)
        self.committed = self.finalized


class Served(NamedTuple):
    """A served node, what stopped it if anything did, and how to connect."""

    node: Node
    server: Server
    failures: list[BaseException]
    connect: Callable[[], Driver]


@contextmanager
def served(node: Node, folder: Path, address: str = "", **options: Any):
    """Serve a node on a socket in a folder; hangs up and stops at the end."""
    failures: list[BaseException] = []
    drivers: list[Driver] = []
    server = Server(
        node, address or f"unix://{folder / 'app.sock'}", failed=failures.append, **options
    )
    server.start()

    def connect() -> Driver:
        drivers.append(Driver(server.address, height=node.application.info().last_block_height))
        return drivers[-1]

    try:
        yield Served(node, server, failures, connect)
    finally:
        for driver in drivers:
            driver.close()
        server.stop()


def plain_node(**options: Any) -> Node:
    """Give a node of a plain application, with the genesis of these tests; txs may be short."""
    options = {"tx_bytes": range(1025), **options}
    return Node(Plain(), chain_id=CHAIN_ID, genesis_validators=VALIDATORS, **options)
