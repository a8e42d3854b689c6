"""Traffic for a wide-area chain: gateways of made-up regions that send real summaries.

Each ``Reporter`` does what a gateway does: it signs summaries in order, hands the oldest one to a
node, and takes it for delivered when the application says that the region's report reaches there;
until then it sends it again, to another node if one does not answer. What was delivered must be in
every node's chain for ever: ``delivered`` is what a test asks for afterwards.
"""

import contextlib
import random
import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from types import TracebackType
from typing import Self

from ledger.engine.comet.rpc import Rpc
from ledger.keys import Signer
from ledger.protocol.cose import Envelope
from ledger.wide.state import Region
from ledger.wide.summary import Summary

_WINDOW = 5
_PAUSE_S = 0.05
_AGAIN_S = 2.0  # an unconfirmed summary is sent once more after this long
_ASK_LIMIT_S = 2.0
_END_LIMIT_S = 20.0


class MadeRegion:
    """A region that exists as a gateway's key and a row of plausible figures, from a seed."""

    def __init__(self, name: str, seed: int = 1) -> None:
        secret = f"made region {name} {seed}".encode()
        self.name = name
        self.key = Signer(sha256(secret + b" gateway").digest())
        self.chain = sha256(secret).digest()[:8]
        self._seed = seed

    @property
    def entry(self) -> tuple[bytes, tuple[bytes, ...]]:
        """The region's line in a wide-area genesis."""
        return self.chain, (self.key.public_key,)

    def summary(self, wide: bytes, number: int) -> Summary:
        """Give the summary ``number``, counted from 0, for a wide-area chain."""
        rng = random.Random(f"{self._seed} {self.name} {number}")
        to_height = _WINDOW * (number + 1)
        members = 40
        accepted = members * _WINDOW - rng.randint(0, 5)
        return Summary(
            chain=wide,
            region=self.chain,
            from_height=to_height - _WINDOW,
            to_height=to_height,
            from_round=_WINDOW * number,
            to_round=_WINDOW * number + _WINDOW - 1,
            energy_in=rng.randint(10_000, 900_000),
            energy_out=rng.randint(0, 50_000),
            power=(rng.randint(0, 10_000), rng.randint(1_000_000, 9_000_000)),
            voltage=(rng.randint(222_000, 229_000), rng.randint(230_000, 238_000)),
            frequency=(49_980, 50_015),
            accepted=accepted,
            rejected=members * _WINDOW - accepted,
            unconfirmed=0,
            members=members,
            alarms=0,
            witnessed_height=to_height - 1,
            witnessed_digest=rng.randbytes(32),
            log_size=to_height,
            log_root=rng.randbytes(32),
        )

    def sealed(self, wide: bytes, number: int) -> Envelope:
        """Give the summary ``number`` with the gateway's signature."""
        return self.key.seal(self.summary(wide, number).payload())


class Reporter:
    """One region's gateway, which reports to one of some nodes at a time."""

    def __init__(self, region: MadeRegion, wide: bytes, nodes: Sequence[Rpc]) -> None:
        self.region = region
        self._wide = wide
        self._nodes = list(nodes)
        self._sent_at = -_AGAIN_S
        self._first_sent_at = 0.0
        self._number = 0
        self._not_before = 0.0
        self.every_s = 0.0
        self.refused = 0
        self.latencies_s: list[float] = []
        """From handing a summary over to reading it from the state, each; polled."""

    @property
    def delivered(self) -> int:
        """How many summaries, from the first on, a node has told to be in the chain."""
        return self._number

    def step(self) -> None:
        """Send what is due, see what is in; a node that fails is left for the next one."""
        try:
            self._step(self._nodes[0])
        except OSError:
            self._nodes.append(self._nodes.pop(0))
            self._sent_at = -_AGAIN_S

    def _step(self, node: Rpc) -> None:
        value = node.query("region", self.region.chain).value
        reached = 0 if value is None else Region.decode(value).to_height
        now = time.monotonic()
        if reached >= _WINDOW * (self._number + 1):
            self.latencies_s.append(now - self._first_sent_at)
            self._number += 1
            self._sent_at = -_AGAIN_S
            self._not_before = self._first_sent_at + self.every_s
        # a node that lies behind is one's own past, not a reason to send again
        due = max(self._not_before, self._sent_at + _AGAIN_S)
        if reached == _WINDOW * self._number and now >= due:
            if self._sent_at < 0:
                self._first_sent_at = now
            self._sent_at = now
            (result,) = node.broadcast([self.region.sealed(self._wide, self._number).raw])
            self.refused += result.code != 0


class Traffic:
    """Reporters at work, a thread each; a context manager.

    They look every ``pause_s`` and begin a summary at most every ``every_s``.
    """

    def __init__(
        self,
        regions: Sequence[MadeRegion],
        wide: bytes,
        urls: Sequence[str],
        *,
        pause_s: float = _PAUSE_S,
        every_s: float = 0.0,
    ) -> None:
        self._nodes = [[Rpc(url, _ASK_LIMIT_S) for url in urls] for _ in regions]
        self.reporters = [
            # each has a node of its own, as gateways have
            Reporter(region, wide, nodes[i % len(urls) :] + nodes[: i % len(urls)])
            for i, (region, nodes) in enumerate(zip(regions, self._nodes, strict=True))
        ]
        for reporter in self.reporters:
            reporter.every_s = every_s
        self._pause_s = pause_s
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(reporter,), daemon=True)
            for reporter in self.reporters
        ]

    @property
    def delivered(self) -> int:
        """How many summaries are in the chain, as nodes have told."""
        return sum(reporter.delivered for reporter in self.reporters)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send nothing any more; what was delivered stays to be read."""
        self._ending.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_END_LIMIT_S)
        for nodes in self._nodes:
            for node in nodes:
                with contextlib.suppress(OSError):
                    node.close()

    def _work(self, reporter: Reporter) -> None:
        while not self._ending.wait(self._pause_s):
            reporter.step()
