"""The whole way with real nodes: summaries through CometBFT, figures back with their proof."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ledger.engine.comet import chain_id
from ledger.engine.comet.node import Node as AbciNode
from ledger.engine.comet.server import Server
from ledger.genesis import GenesisValidator
from ledger.light.client import Client
from ledger.light.verify import Trusted
from ledger.proof import encode, region_leaf, verify_proof
from ledger.protocol import tally
from ledger.protocol.cose import payload_digest
from ledger.proving import Follower, prove_region
from ledger.region import RegionDirectory
from ledger.regional.view import LedgerView
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide.application import TABLES, WideApplication
from tests.cometbft import needs_cometbft
from tests.ledger.light.nodes import Node, eventually, genesis_json, with_fresh_ports
from tests.ledger.regional.generate import Play, eventful, summaries
from tools import figure, verify

pytestmark = needs_cometbft


@dataclass
class Wide:
    """A wide-area chain of one validator, and a region with its folder."""

    node: Node
    play: Play
    directory: RegionDirectory

    @property
    def genesis(self) -> str:
        return str(self.directory.wide_genesis)

    def report(self) -> None:
        """Send the region's summaries, each once the one before it is in."""
        rpc, region = self.node.rpc, self.play.region.chain
        for envelope in summaries(self.play):
            (result,) = rpc.broadcast([envelope.raw])
            assert result.code == 0, result
            last = payload_digest(envelope.payload)

            def kept(last: bytes = last) -> bool | None:
                value = rpc.query("region", region).value
                return (value is not None and region_leaf(value).last == last) or None

            eventually(kept, "a summary")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wide]:
    folder = tmp_path_factory.mktemp("wide")
    with ExitStack() as stack:
        found = with_fresh_ports(lambda attempt: _start(folder / str(attempt), stack))
        yield found


def _start(folder: Path, stack: ExitStack) -> Wide:
    directory = RegionDirectory(folder / "region")
    play = eventful(directory.regional, rounds=30)
    stack.callback(play.close)
    node = Node(folder / "node")
    created = int(time.time()) - 5
    genesis = replace(
        play.region.wide_genesis,
        created=created,
        validators=(GenesisValidator("sub-1", node.public_key, 10),),
    )
    play.region.wide_genesis = genesis
    directory.genesis.write_bytes(play.region.genesis.encode())
    directory.wide_genesis.write_bytes(genesis.encode())
    app = WideApplication(genesis, Database(folder / "wide.sqlite", TABLES), Verifier())
    stack.callback(app.close)
    name = chain_id(genesis.chain)
    abci = AbciNode(app, chain_id=name, genesis_validators=genesis.validators)
    address = f"unix://{folder / 'app.sock'}"
    failed: list[BaseException] = []
    stack.callback(lambda: _nothing(failed))
    server = Server(abci, address, failed=failed.append)
    start = genesis_json(name, [(node.public_key, 10)], created)
    node.configure({**start, "app_state": {"genesis": genesis.digest.hex()}}, [], proxy_app=address)
    server.start()
    stack.callback(server.stop)
    stack.callback(node.stop)
    node.start()
    node.wait_for(2)
    return Wide(node, play, directory)


def _nothing(failed: list[BaseException]) -> None:
    assert failed == []


def _run(module: object, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    code: int = module.run(parser.parse_args(arguments))  # type: ignore[attr-defined]
    return code


def test_region_that_has_not_reported_is_proved_to_have_not(wide: Wide) -> None:
    genesis = wide.play.region.wide_genesis
    follower = Follower(genesis, Client(Trusted.start(genesis)))
    sections = prove_region(wide.node.rpc, follower, b"another!")
    assert verify_proof(encode(genesis, sections), genesis).leaf is None


def test_figure_and_reading_come_back_with_their_proof(
    wide: Wide, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide.report()
    node, region = wide.node, wide.play.region.chain
    view = LedgerView(wide.directory.regional, 60)
    digest = next(r.digest for r in view.readings() if r.outcome == tally.ACCEPTED)
    view.close()
    path = tmp_path / "reading.proof"
    code = _run(
        figure,
        *("--node", node.url, "--witness", node.url, "--trust", wide.genesis),
        *("--region", region.hex(), "--ledger", str(wide.directory.path)),
        *("--reading", digest.hex(), "-o", str(path), "--trusting-period", "1"),
    )
    assert code == 0, capsys.readouterr().out
    capsys.readouterr()
    assert _run(verify, str(path), "--trust", wide.genesis, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["to_height"] == 30
    assert found["reading"]["outcome"] == "accepted"
    assert found["member"]["block"] == 30
    assert found["summary"]["gateway"] == wide.play.region.gateways[0].address.hex()


def test_table_of_regions_is_verified(wide: Wide, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(figure, "--node", wide.node.url, "--trust", wide.genesis) == 0
    assert wide.play.region.chain.hex() in capsys.readouterr().out
