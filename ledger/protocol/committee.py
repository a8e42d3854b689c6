"""Who judges whom: the draw of a committee (SPEC section 8)."""

from hashlib import sha256

MIN_VOTERS = 3


def seats(k: int, candidates: int) -> int:
    """Give the committee's size: all candidates while there are at most 12, else k."""
    return candidates if candidates <= 12 else min(k, candidates)


def draw(seed: bytes, term: int, meter: bytes, candidates: "list[bytes]", k: int) -> "list[bytes]":
    """Draw the committee of ``meter`` for a term: at most k addresses, in rising order.

    ``candidates`` are the addresses of the cluster's voting members without the meter; ``seed`` is
    the epoch's 32 bytes. The k with the smallest SHA-256(seed || term || meter || voter) sit, the
    term as 8 bytes big-endian; the whole cluster while it has at most 12 candidates.
    """
    size = seats(k, len(candidates))
    if size == len(candidates):
        return sorted(candidates)
    head = seed + term.to_bytes(8, "big") + meter
    tickets = [(sha256(head + voter).digest(), voter) for voter in candidates]
    tickets.sort()
    return sorted([voter for _, voter in tickets[:size]])
