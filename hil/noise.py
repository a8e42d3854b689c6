"""Seeded noise of integers only, the same numbers on every machine and in every Python.

`random.gauss` takes logarithms from the machine's C library, and `random.randint` is not promised
to draw alike in all versions; `getrandbits` of a seeded generator is.
"""

import hashlib
import random


def stream(purpose: str) -> random.Random:
    """Give a generator of its own for each purpose, so that leaving one out changes no other."""
    digest = hashlib.sha256(purpose.encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))


def uniform(rng: random.Random, low: int, high: int) -> int:
    """Draw an integer in low..high."""
    return low + rng.getrandbits(64) * (high - low + 1) // (1 << 64)


def normal(rng: random.Random, sigma: int) -> int:
    """Draw about normally with mean 0: twelve uniform draws, so no tail beyond six sigma."""
    bits = rng.getrandbits(192)
    total = sum((bits >> shift) & 0xFFFF for shift in range(0, 192, 16))
    return rounded((total - 6 * 0xFFFF) * sigma, 0x10000)


def rounded(numerator: int, denominator: int) -> int:
    """Round numerator / denominator to the nearest integer, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)
