"""What stands before the application's CheckTx: limits, so that nobody fills the mempool alone.

A transaction that is longer than any record never reaches the application. Of one signer at most
so many transactions enter between two blocks, by role, which the type of the record tells. Only
those count that the application let in, and thus whose signature it checked, and each once: nobody
uses up another's allowance. What the limit refuses may come again after the next block.

Left out: the mempool's own size, which CometBFT limits (config.toml, ``[mempool]``), and a memory
of what was refused: who wants to waste a signature check changes a bit each time.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from ledger.engine.abci import OK, TxResult
from ledger.protocol import records
from ledger.protocol.cose import MAX_RECORD_BYTES, Envelope
from ledger.protocol.errors import MalformedRecord

FIRST_CODE = 100
"""Result codes from here on are of the gate, or of the node's queries; applications' are below."""
TOO_LONG = FIRST_CODE
TOO_MANY = 101

MEMBER, GATEWAY, OPERATOR = "member", "gateway", "operator"

LIMITS: Mapping[str, int] = {MEMBER: 128, GATEWAY: 256, OPERATOR: 32}
"""Transactions of one signer between two blocks.

A member: as many as may wait for a close (SPEC 11.3). A gateway: two and a half days of summaries
after an outage. An operator: changes are numbered, so hardly more than one can be right.
"""

_ROLES = {
    records.READING: MEMBER,
    records.BALLOT: MEMBER,
    records.CLOSE: GATEWAY,
    records.HEAD: GATEWAY,
    records.SUMMARY: GATEWAY,
    records.REGISTRY_CHANGE: OPERATOR,
    records.NETWORK_CHANGE: OPERATOR,
}


class Gate:
    """Limits of one node's CheckTx. ``refused`` counts by code, for metrics."""

    def __init__(
        self, *, max_tx_bytes: int = MAX_RECORD_BYTES, limits: Mapping[str, int] = LIMITS
    ) -> None:
        self._max_tx_bytes = max_tx_bytes
        self._limits = dict(limits)
        self._let_in: defaultdict[tuple[bytes, str], set[bytes]] = defaultdict(set)
        self.refused: Counter[int] = Counter()

    def check(self, tx: bytes, check_tx: Callable[[bytes], TxResult]) -> TxResult:
        """Ask ``check_tx`` of a new transaction, within the limits."""
        if len(tx) > self._max_tx_bytes:
            return self._refuse(TOO_LONG, f"a transaction has at most {self._max_tx_bytes} bytes")
        sender = _sender(tx)
        if sender is None:
            return check_tx(tx)  # it knows what is wrong with it, without checking a signature
        limit, let_in = self._limits[sender[1]], self._let_in.get(sender, ())
        # with the signature: one record signed twice is two transactions
        if len(let_in) >= limit and tx not in let_in:
            log = f"{limit} transactions of this {sender[1]} are on their way: after the next block"
            return self._refuse(TOO_MANY, log)
        result = check_tx(tx)
        if result.code == OK:
            self._let_in[sender].add(tx)
        return result

    def committed(self) -> None:
        """Begin to count anew: a block is durable."""
        self._let_in.clear()

    def _refuse(self, code: int, log: str) -> TxResult:
        self.refused[code] += 1
        return TxResult(code, log)


def _sender(tx: bytes) -> tuple[bytes, str] | None:
    """Give who claims to have signed a transaction, and in which role; None if it is no record."""
    try:
        envelope = Envelope.parse(tx)
    except MalformedRecord:
        return None
    # a payload is an array of less than 24 items, the first of them the type: a byte each
    # (SPEC 2, 4)
    payload = envelope.payload
    role = _ROLES.get(payload[1]) if len(payload) > 1 else None
    return None if role is None else (envelope.kid, role)
