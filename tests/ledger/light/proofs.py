"""A wide-area chain whose state is real and whose headers are of our own making, for tests."""

from dataclasses import replace
from pathlib import Path

from ledger.engine.abci import Answer
from ledger.engine.solo import Solo
from ledger.genesis import GenesisValidator, WideGenesis
from ledger.light.client import Client
from ledger.light.types import LightBlock
from ledger.light.verify import Trusted
from ledger.proving import Follower
from ledger.region import RegionDirectory
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide.application import TABLES, WideApplication
from tests.ledger.light.chain import START_S, Chain, Powers, public
from tests.ledger.regional.generate import Play, Region, eventful, summaries

FOUR: Powers = {"a": 10, "b": 10, "c": 10, "d": 10}


def with_validators(genesis: WideGenesis) -> WideGenesis:
    known = tuple(GenesisValidator(name, public(name), power) for name, power in FOUR.items())
    return replace(genesis, validators=known, created=START_S)


class WideNode:
    """A node of the wide-area chain: a real application, headers made around it."""

    def __init__(self, genesis: WideGenesis) -> None:
        self.genesis = genesis
        self.app = WideApplication(genesis, Database(None, TABLES), Verifier())
        self._solo = Solo(self.app)
        root = Trusted.start(genesis)
        self.chain = Chain(root.chain_id, lambda height: FOUR, {0: self.app.app_hash})
        self.queries = 0

    def execute(self, *txs: bytes) -> list[int]:
        result = self._solo.execute(list(txs))
        self.chain.app_hashes[self._solo.height] = result.app_hash
        return [tx.code for tx in result.tx_results]

    def light_block(self, height: int) -> LightBlock:
        # the block after the newest state holds it and nothing else
        if height > self._solo.height + 1:
            raise ConnectionError("no such block yet")
        return self.chain.light_block(height)

    def query(self, path: str, key: bytes) -> Answer:
        self.queries += 1
        return self.app.query(path, key)

    def follower(self) -> Follower:
        return Follower(self.genesis, Client(Trusted.start(self.genesis)))


def reported_region(folder: Path, rounds: int = 31) -> tuple[Play, RegionDirectory, WideNode]:
    """Play an eventful region, write its folder, and report its windows to a wide-area chain."""
    directory = RegionDirectory(folder)
    play = eventful(directory.regional, rounds=rounds)
    region: Region = play.region
    region.wide_genesis = with_validators(region.wide_genesis)
    directory.genesis.write_bytes(region.genesis.encode())
    directory.wide_genesis.write_bytes(region.wide_genesis.encode())
    node = WideNode(region.wide_genesis)
    for envelope in summaries(play):
        assert node.execute(envelope.raw) == [0]
    return play, directory, node
