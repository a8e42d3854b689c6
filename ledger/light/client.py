"""Following a chain over nodes that nobody trusts, and comparing what two of them tell.

Heights in between are asked for only where the validators have changed too much to skip them.
"""

from typing import Protocol

from ledger.light.types import LightBlock
from ledger.light.verify import Clock, TooFewKnown, Trusted, UntrustedHeader, verify


class Provider(Protocol):
    """Where light blocks come from; ``ledger.engine.comet.rpc.Rpc`` is one."""

    def light_block(self, height: int) -> LightBlock:
        """Give the light block at a height; raises OSError where there is none to be had."""


class Divergence(UntrustedHeader):
    """Two nodes tell different headers for one height: one of them, or the validators, lie."""


class Client:
    """Trust that moves on with the chain. ``path`` holds the light blocks that led here, rising.

    Raises UntrustedHeader for what is not to be believed, and the provider's OSError. What was
    trusted before an error still is.
    """

    def __init__(self, root: Trusted, clock: Clock | None = None) -> None:
        self.trusted = root
        self.path: list[LightBlock] = []
        self._root = root
        self._clock = clock

    def follow(self, provider: Provider, height: int) -> LightBlock:
        """Give the light block of a height above the trusted one, believed."""
        waiting = [_fetch(provider, height)]
        while waiting:
            try:
                self._believe(waiting[-1])
                waiting.pop()
            except TooFewKnown:
                between = (self.trusted.height + waiting[-1].header.height) // 2
                waiting.append(_fetch(provider, between))
        return self.path[-1]

    def _believe(self, block: LightBlock) -> None:
        self.trusted = verify(self.trusted, block, self._clock)
        self.path.append(block)

    def compare(self, witness: Provider) -> None:
        """Ask a second node for the header trusted last; raises Divergence for another one."""
        mine = self.trusted
        other = _fetch(witness, mine.height)
        if other.header.hash == mine.hash:
            return
        try:
            Client(self._root, self._clock).follow(witness, mine.height)
            verdict = "both are signed by enough validators: validators have signed two chains"
        except (UntrustedHeader, OSError) as e:
            verdict = f"the second one cannot be believed ({e})"
        raise Divergence(
            f"two headers at height {mine.height}: {mine.hash.hex()} and"
            f" {other.header.hash.hex()}; {verdict}"
        )


def _fetch(provider: Provider, height: int) -> LightBlock:
    block = provider.light_block(height)
    if block.header.height != height:
        raise UntrustedHeader(f"a header of height {block.header.height}, not {height}")
    return block
