"""How votes become an outcome (SPEC section 9); pure arithmetic on counts."""

from ledger.protocol import committee, records

OPEN = 0
ACCEPTED = 1
REJECTED = 2
UNCONFIRMED = 3
EQUIVOCATED = 4

OUTCOME_NAMES = {
    OPEN: "open",
    ACCEPTED: "accepted",
    REJECTED: "rejected",
    UNCONFIRMED: "unconfirmed",
    EQUIVOCATED: "equivocated",
}


def outcome(drawn: int, accepts: int, rejects: int) -> int:
    """Give ACCEPTED, REJECTED or OPEN for a committee of ``drawn`` seats.

    More than half of the seats drawn, not of the votes cast, must agree; fewer than three seats
    settle nothing.
    """
    if drawn < committee.MIN_VOTERS:
        return OPEN
    if 2 * accepts > drawn:
        return ACCEPTED
    if 2 * rejects > drawn:
        return REJECTED
    return OPEN


def count(verdicts: "list[int]") -> "tuple[int, int, int]":
    """Give (accepts, rejects, abstentions) of a list of verdicts."""
    accepts = sum([1 for v in verdicts if v == records.ACCEPT])
    rejects = sum([1 for v in verdicts if records.is_reject(v)])
    return accepts, rejects, len(verdicts) - accepts - rejects
