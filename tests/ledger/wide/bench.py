"""A small wide-area chain for tests: three regions, three operators, four validators.

The east has five gateways, the others one each.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ledger.engine.abci import Decision, Misbehaviour, Validator
from ledger.engine.solo import Solo
from ledger.genesis import GenesisValidator, WideGenesis
from ledger.network import NetworkChange, What
from ledger.protocol.cose import Envelope
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import TABLES, WideApplication
from ledger.wide.summary import Summary
from tests.ledger.keys_of import ed25519, signer

NORTH, SOUTH, EAST, NOWHERE = b"north...", b"south...", b"east....", b"nowhere."
NORTH_KEY, SECOND_KEY, SOUTH_KEY = signer("north"), signer("north, second"), signer("south")
EAST_KEYS = [signer(f"east {i}") for i in range(5)]
GENESIS = WideGenesis(
    "wide",
    0,
    (
        (NORTH, (NORTH_KEY.public_key,)),
        (SOUTH, (SOUTH_KEY.public_key,)),
        (EAST, tuple(key.public_key for key in EAST_KEYS)),
    ),
)
CHAIN = GENESIS.chain


def summary(number: int, region: bytes = NORTH, **changes: object) -> Summary:
    """Give a region's summary ``number`` from 0: ten heights each."""
    to_height = 10 * (number + 1)
    plain = Summary(
        chain=CHAIN,
        region=region,
        from_height=to_height - 10,
        to_height=to_height,
        from_round=10 * number,
        to_round=10 * number + 9,
        energy_in=1000 + number,
        energy_out=number,
        power=(0, 5),
        voltage=None,
        frequency=None,
        accepted=100,
        rejected=3,
        unconfirmed=2,
        members=11,
        alarms=1,
        witnessed_height=to_height - 1,
        witnessed_digest=bytes([number]) * 32,
        log_size=to_height,
        log_root=bytes([number + 100]) * 32,
        adjustments=((0, 4, 1, 0),) if number else (),
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def sealed(number: int, region: bytes = NORTH, **changes: object) -> Envelope:
    key = NORTH_KEY if region == NORTH else SOUTH_KEY
    return key.seal(summary(number, region, **changes).payload())


def offer(number: int, gateway: int, **changes: object) -> Envelope:
    """Give a summary of the east by one of its gateways."""
    return EAST_KEYS[gateway].seal(summary(number, EAST, **changes).payload())


class Node:
    def __init__(self, path: Path | None = None) -> None:
        self.app = WideApplication(GENESIS, Database(path, TABLES), Verifier())
        self.solo = Solo(self.app)

    def send(self, *envelopes: Envelope) -> list[int]:
        result = self.solo.execute([envelope.raw for envelope in envelopes])
        return [tx.code for tx in result.tx_results]

    def refuses(self, envelope: Envelope) -> int:
        """Give the code that a summary is refused with, which must leave no trace."""
        before = self.app.app_hash
        checked = self.app.check_tx(envelope.raw).code
        (code,) = self.send(envelope)
        assert self.app.app_hash == before
        assert checked == code != codes.OK
        assert not self.app.process_proposal(9, [envelope.raw])
        assert self.app.prepare_proposal([envelope.raw], 10_000) == []
        return code


OPERATORS = [signer(f"wide operator {i}") for i in range(3)]
VALIDATORS = tuple(
    GenesisValidator(name, ed25519(name), 10) for name in ("gw-a", "gw-b", "sub-1", "sub-2")
)
MANAGED = dataclasses.replace(
    GENESIS,
    operators=tuple(key.public_key for key in OPERATORS),
    threshold=2,
    validators=VALIDATORS,
)


def convicted(name: str, height: int = 1, kind: int = 1) -> Misbehaviour:
    """Give what the engine says of a validator that voted twice."""
    return Misbehaviour(kind, Validator(ed25519(name), 1).address, height)


class Managed(Node):
    """A chain with operators and validators; its blocks may be anything."""

    def __init__(self, path: Path | None = None, genesis: WideGenesis = MANAGED) -> None:
        self.genesis = genesis
        self.app = WideApplication(genesis, Database(path, TABLES), Verifier())

    def block(
        self, *txs: Envelope, evil: Sequence[Misbehaviour] = (), height: int | None = None
    ) -> list[int]:
        """Decide a block; gives the codes of its transactions and keeps ``updates``."""
        number = self.app.height + 1 if height is None else height
        raws = [tx.raw for tx in txs]
        result = self.app.finalize_block(number, raws, Decision(b"", tuple(evil)))
        self.app.commit()
        self.updates = result.validator_updates
        assert result.app_hash == self.app.app_hash
        told = self.app.info()
        assert (result.app_hash, result.app_version) == (told.last_block_app_hash, told.app_version)
        return [tx.code for tx in result.tx_results]

    def send(self, *envelopes: Envelope) -> list[int]:
        return self.block(*envelopes)

    def sealed(self, number: int, region: bytes = NORTH, **changes: object) -> Envelope:
        """Give a region's summary for this chain."""
        return sealed(number, region, chain=self.genesis.chain, **changes)

    def approval(self, what: What, operator: int = 0, number: int | None = None) -> Envelope:
        """Give an operator's approval of a change, by default of the next number."""
        next_number = self.app.network.changes + 1
        change = NetworkChange(self.genesis.chain, number or next_number, what)
        return OPERATORS[operator].seal(change.payload())

    def change(self, what: What) -> list[int]:
        """Let two operators approve a change in one block."""
        return self.block(self.approval(what, 0), self.approval(what, 1))
