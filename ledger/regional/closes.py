"""Gateways' orders to close a round, which wait until more than half have given one (SPEC 11.2).

A round closes when a majority of the gateways that are not suspended want it or a later one closed:
the round is the largest for which that holds. So no minority, whatever it asks for, closes a round
early or keeps one open.
"""

from collections.abc import Collection, Iterable
from hashlib import sha256

from ledger.engine.abci import Refused
from ledger.protocol import records
from ledger.protocol.cose import Envelope
from ledger.regional import codes


class Closes:
    """The newest order of each gateway, as far as its round is not closed yet."""

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[int, Envelope]] = {}

    def copy(self) -> "Closes":
        """Give another one with the same orders."""
        other = Closes()
        other._newest = dict(self._newest)
        return other

    def check(self, envelope: Envelope, close: records.Close) -> None:
        """Check that a gateway's order is later than its last one; raises Refused."""
        waiting = self._newest.get(envelope.kid)
        if waiting is not None and close.round == waiting[0]:
            raise Refused(codes.DUPLICATE, "this gateway's order to close that round waits")
        if waiting is not None and close.round < waiting[0]:
            raise Refused(
                codes.WRONG_ROUND, f"this gateway has asked for round {waiting[0]} already"
            )

    def add(self, envelope: Envelope, close: records.Close) -> None:
        """Take a gateway's order in, in place of its last one."""
        self._newest[envelope.kid] = close.round, envelope

    def due(self, gateways: Collection[bytes]) -> int | None:
        """Give the round to close by the orders of ``gateways``, those that count, or None."""
        asked = sorted((self._newest[g][0] for g in gateways if g in self._newest), reverse=True)
        majority = len(gateways) // 2 + 1
        return asked[majority - 1] if len(asked) >= majority else None

    def drop(self, round_: int, gateways: Collection[bytes]) -> None:
        """Forget the orders up to a closed round, and those of others than ``gateways``."""
        self._newest = {
            gateway: (asked, envelope)
            for gateway, (asked, envelope) in self._newest.items()
            if asked > round_ and gateway in gateways
        }

    def envelopes(self) -> list[Envelope]:
        """Give the orders that wait, by their signers' addresses."""
        return [self._newest[gateway][1] for gateway in sorted(self._newest)]


def fold(accumulator: bytes, digests: Iterable[bytes]) -> bytes:
    """Give SHA-256(accumulator || digest), one digest after the other (SPEC 11.8)."""
    for digest in digests:
        accumulator = sha256(accumulator + digest).digest()
    return accumulator
