"""Applications that are wrong on purpose: what a network must outvote, and where it may be cut.

    python -m hil.altered KIND[@HEIGHT] --config …/application.toml

runs a wide-area node's program with one of ``KINDS`` in place of the right application, from a
block height on (1 where none is given). For tests, the demo and whoever wants to see it.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from gateway import node
from ledger.engine.abci import ALONE, Decision, FinalizeResult, TxResult
from ledger.protocol import cose
from ledger.protocol.cose import Envelope
from ledger.wide import codes
from ledger.wide.application import WideApplication
from ledger.wide.state import region_key
from ledger.wide.summary import Summary

STOLEN_MWH = 1_000_000


class Altered(WideApplication):
    """The right application; its subclasses go wrong from ``first`` on, an engine height."""

    first = 1

    @property
    def wrong(self) -> bool:
        """Whether the block in work, or the next one, is late enough to be wrong in."""
        return self.height + 1 >= self.first


class OtherState(Altered):
    """Adds 1 kWh to a region's energy whenever the region reports: another state, another hash."""

    def _deliver(self, tx: bytes, block: int) -> TxResult:
        result = super()._deliver(tx, block)
        if result.code == codes.OK and block >= self.first:
            chain = Summary.decode(Envelope.parse(tx).payload).region
            leaf = self.state.region(chain)
            more = dataclasses.replace(leaf, energy_in=leaf.energy_in + STOLEN_MWH)
            self.state.put(region_key(chain), more.encode())
        return result


class ForgedProposal(Altered):
    """Proposes, beside what is right, a summary with a signature that does not fit, and rubbish."""

    def prepare_proposal(self, txs: list[bytes], max_tx_bytes: int) -> list[bytes]:
        """See abci.Application."""
        right = super().prepare_proposal(txs, max_tx_bytes)
        return [*right, *self._forged(right)] if self.wrong else right

    def _forged(self, right: list[bytes]) -> list[bytes]:
        forged = [b"not a transaction"]
        for tx in right[:1]:
            envelope = Envelope.parse(tx)
            flipped = bytes([*envelope.signature[:-1], envelope.signature[-1] ^ 1])
            forged.append(cose.join(envelope.kid, envelope.payload, flipped).raw)
        return forged

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:
        """See abci.Application: finds its own proposals right."""
        return self.wrong or super().process_proposal(height, txs)


class Contrary(Altered):
    """Finds every proposal wrong: its node votes against each block."""

    def process_proposal(self, height: int, txs: list[bytes]) -> bool:
        """See abci.Application."""
        return not self.wrong and super().process_proposal(height, txs)


class DiesInFinalize(Altered):
    """Kills its process (SIGKILL) when a block is applied and nothing of it is durable."""

    def finalize_block(
        self, height: int, txs: Sequence[bytes], decision: Decision = ALONE
    ) -> FinalizeResult:
        """See abci.Application."""
        result = super().finalize_block(height, txs, decision)
        if height >= self.first:
            _die()
        return result


class DiesBeforeCommit(Altered):
    """Kills its process when it is asked to make a block durable, before it does."""

    def commit(self) -> None:
        """See abci.Application."""
        if self.height >= self.first:
            _die()
        super().commit()


class DiesAfterCommit(Altered):
    """Kills its process when a block is durable and the engine has not been told."""

    def commit(self) -> None:
        """See abci.Application."""
        super().commit()
        if self.height >= self.first:
            _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL came back")


KINDS: dict[str, type[Altered]] = {
    "other-state": OtherState,
    "forged-proposal": ForgedProposal,
    "contrary": Contrary,
    "dies-in-finalize": DiesInFinalize,
    "dies-before-commit": DiesBeforeCommit,
    "dies-after-commit": DiesAfterCommit,
}


def command(kind: str, first: int = 1) -> tuple[str, ...]:
    """Give the command of an altered application, for ``hil.network``."""
    assert kind in KINDS
    return (sys.executable, "-m", "hil.altered", f"{kind}@{first}")


def application_class(name: str) -> type[Altered]:
    """Give the class that ``KIND[@HEIGHT]`` names; raises SystemExit."""
    kind, _, first = name.partition("@")
    if kind not in KINDS or not (first or "1").isdecimal():
        raise SystemExit(f"{name} is none of {', '.join(KINDS)}, with @HEIGHT or without")
    return type(KINDS[kind].__name__, (KINDS[kind],), {"first": int(first or 1)})


def main(arguments: list[str]) -> int:
    """Run a node's program around an altered application; gives the exit code."""
    return node.main(arguments[1:], application_class(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
