"""Rounds, terms and epochs (SPEC section 7): arithmetic of a region's time, nothing else."""

TERM_ROUNDS = 32
EPOCH_TERMS = 128
EPOCH_ROUNDS = TERM_ROUNDS * EPOCH_TERMS


def round_of(time_s: int, round_s: int) -> int:
    """Give the round that holds an instant (Unix s); round r is [r*T, (r+1)*T)."""
    return time_s // round_s


def end_of(round_: int, round_s: int) -> int:
    """Give the instant (Unix s) at which a round ends: the time of its head."""
    return (round_ + 1) * round_s


def term_of(round_: int) -> int:
    """Give the term of a round: the rounds that share one committee."""
    return round_ // TERM_ROUNDS


def epoch_of(round_: int) -> int:
    """Give the epoch of a round: the terms that are drawn from one seed."""
    return round_ // EPOCH_ROUNDS


def next_epoch_start(round_: int) -> int:
    """Give the first round of the epoch after a round's own."""
    return (epoch_of(round_) + 1) * EPOCH_ROUNDS
