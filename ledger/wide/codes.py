"""Result codes of the wide-area chain (SPEC 13.3); those below 20 mean the same in a region."""

from ledger.engine import abci

OK = abci.OK
MALFORMED = 1
WRONG_CHAIN = 2
UNKNOWN_SIGNER = 3
BAD_SIGNATURE = 4
DUPLICATE = 6
WRONG_NUMBER = 9
IMPOSSIBLE = 13
UNKNOWN_REGION = 20
GAP = 21
CONFLICT = 22
BACKWARDS = 23
KNOWN_CONFLICT = 24
UNKNOWN_QUERY = 25
OFFERED = 28
TOO_MANY_OFFERS = 29
# of entries in the log; no transaction has them as its result
NETWORK_CHANGE = 26
MISBEHAVIOUR = 27

NAMES = {
    OK: "ok",
    MALFORMED: "malformed",
    WRONG_CHAIN: "wrong-chain",
    UNKNOWN_SIGNER: "unknown-signer",
    BAD_SIGNATURE: "bad-signature",
    DUPLICATE: "duplicate",
    WRONG_NUMBER: "wrong-number",
    IMPOSSIBLE: "impossible",
    UNKNOWN_REGION: "unknown-region",
    GAP: "gap",
    CONFLICT: "conflict",
    BACKWARDS: "backwards",
    KNOWN_CONFLICT: "known-conflict",
    UNKNOWN_QUERY: "unknown-query",
    NETWORK_CHANGE: "network-change",
    MISBEHAVIOUR: "misbehaviour",
    OFFERED: "offered",
    TOO_MANY_OFFERS: "too-many-offers",
}
