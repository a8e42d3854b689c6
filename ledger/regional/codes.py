"""Result codes of regional transactions (SPEC 11.3). 0 is in; all others are refusals."""

from ledger.engine import abci

OK = abci.OK
MALFORMED = 1
WRONG_CHAIN = 2
UNKNOWN_SIGNER = 3
BAD_SIGNATURE = 4
NOT_ACTIVE = 5
DUPLICATE = 6
STALE = 7
UNKNOWN_PARENT = 8
WRONG_NUMBER = 9
WRONG_ROUND = 10
FULL = 11
UNEXPECTED_TYPE = 12
IMPOSSIBLE = 13
UNKNOWN_HEAD = 14
UNKNOWN_QUERY = 25

NAMES = {
    OK: "ok",
    MALFORMED: "malformed",
    WRONG_CHAIN: "wrong-chain",
    UNKNOWN_SIGNER: "unknown-signer",
    BAD_SIGNATURE: "bad-signature",
    NOT_ACTIVE: "not-active",
    DUPLICATE: "duplicate",
    STALE: "stale",
    UNKNOWN_PARENT: "unknown-parent",
    WRONG_NUMBER: "wrong-number",
    WRONG_ROUND: "wrong-round",
    FULL: "full",
    UNEXPECTED_TYPE: "unexpected-type",
    IMPOSSIBLE: "impossible",
    UNKNOWN_HEAD: "unknown-head",
    UNKNOWN_QUERY: "unknown-query",
}
