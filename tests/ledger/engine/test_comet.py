"""Against the real CometBFT: one validator, our server on a Unix socket, both chains."""

import dataclasses
import sqlite3

import pytest

from ledger.engine.solo import Solo
from ledger.genesis import WideGenesis
from ledger.network import Upgrade
from ledger.protocol import cbor
from tests.cometbft import need_cometbft
from tests.ledger.engine.cometbft import Network, RpcFailed, eventually
from tests.ledger.engine.serve import open_application
from tests.ledger.regional.generate import Play, Region
from tests.ledger.wide import bench

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def network(tmp_path):
    network = Network(tmp_path, str(need_cometbft()))
    yield network
    network.close()


def wide_chain(network: Network) -> tuple[WideGenesis, list[bytes]]:
    """Give a wide-area chain of this validator, and transactions for it."""
    genesis = dataclasses.replace(bench.MANAGED, validators=(network.validator,))
    txs = [bench.sealed(i, chain=genesis.chain).raw for i in range(8)]
    return genesis, txs


def regional_chain(network: Network) -> tuple[object, list[bytes]]:
    """Give a region's chain of this validator, and three rounds of four meters."""
    region = Region(4, validators=1)
    region.genesis = dataclasses.replace(region.genesis, validators=(network.validator,))
    region.chain = region.genesis.chain
    play = Play(region)
    for _ in range(3):
        play.play()
    play.close()
    return region.genesis, [tx for block in play.blocks for tx in block]


@pytest.mark.parametrize("chain", [wide_chain, regional_chain])
def test_chain_goes_on_over_kills_of_either_process(network, chain):
    genesis, txs = chain(network)
    alone = Solo(open_application(genesis.encode(), None))
    thirds = [txs[i * len(txs) // 4 : (i + 1) * len(txs) // 4] for i in range(4)]

    def play(portion: list[bytes]) -> None:
        """Send transactions to both; their hashes must agree after each."""
        for tx in portion:
            code, height = network.send(tx)
            assert code == 0
            # a block that changes the hash is followed by an empty one, for a header with the hash
            after = eventually(lambda h=height: at_least(h))
            assert after[1] == alone.execute([tx]).app_hash

    def at_least(height: int) -> tuple[int, bytes] | None:
        told = network.application()
        return told if told[0] >= height else None

    def same_as_before() -> None:
        told = eventually(lambda: at_least(before[0]))
        assert told[1] == before[1]

    network.begin(genesis)
    network.start("application")
    network.start("cometbft")
    network.ready()
    assert network.application() == (0, alone.application.info().last_block_app_hash)
    play(thirds[0])
    before = network.application()

    network.kill("cometbft")
    network.start("cometbft")
    network.ready()
    same_as_before()
    play(thirds[1])
    before = network.application()

    # the application dies: CometBFT notices, for its connections are gone
    network.kill("application")
    network.let_cometbft_end()
    network.start("application")
    network.start("cometbft")
    network.ready()
    same_as_before()
    play(thirds[2])
    before = network.application()

    # the application lost everything: the handshake plays the whole chain again
    network.kill("application")
    network.let_cometbft_end()
    for file in network.folder.glob("chain.*"):
        file.unlink()
    network.start("application")
    network.start("cometbft")
    network.ready()
    same_as_before()
    play(thirds[3])


def test_rubbish_stays_out_and_queries_come_with_proofs(network):
    genesis, txs = wide_chain(network)
    network.begin(genesis)
    network.start("application")
    network.start("cometbft")
    network.ready()
    assert network.send(txs[0])[0] == 0
    assert network.send(b"rubbish")[0] == 1
    assert network.send(b"x" * 5000)[0] == 100
    assert network.send(txs[0][:-1] + bytes([txs[0][-1] ^ 1]))[0] in (4, 6)
    height, app_hash = network.application()
    assert height >= 1
    code, value = network.query("region", bench.NORTH)
    assert code == 0
    leaf, proof, proved = cbor.loads(value)
    assert proved == app_hash
    assert leaf is not None
    assert proof
    assert network.query("no such path", b"")[0] == 25
    # the hash after block 1 is what the header of block 2 tells
    height = network.send(txs[1])[1]
    header = eventually(lambda: network.rpc("commit", height=str(height)))
    assert bytes.fromhex(header["signed_header"]["header"]["app_hash"]) == app_hash


def test_validator_that_operators_let_in_reaches_cometbft(network):
    genesis, _ = wide_chain(network)
    node = bench.Managed(genesis=genesis)
    joining = bench.VALIDATORS[0]
    approvals = [node.approval(joining._replace(power=1), i).raw for i in (0, 1)]
    network.begin(genesis)
    network.start("application")
    network.start("cometbft")
    network.ready()
    height = [network.send(tx)[1] for tx in approvals][-1]
    # CometBFT lets a change rule two blocks later; it makes the next one by itself for the new hash
    told = eventually(lambda: voting(network, height + 2, 2))
    assert {v["voting_power"] for v in told} == {"10", "1"}


def voting(network: Network, height: int, count: int) -> list[dict[str, str]] | None:
    try:
        told = network.rpc("validators", height=str(height))["validators"]
    except RpcFailed:
        return None
    return told if len(told) == count else None


def test_headers_carry_the_new_version_from_the_height_of_an_upgrade_on(network):
    genesis, txs = wide_chain(network)
    change = bench.Managed(genesis=genesis).approval(Upgrade(2, 8), 0)
    approvals = [bench.OPERATORS[i].seal(change.payload).raw for i in (0, 1)]
    started_again = False
    network.begin(genesis)
    (network.folder / "newer").touch()
    network.start("application")
    network.start("cometbft")
    network.ready()
    for tx in approvals + txs:
        height = network.send(tx)[1]
        if 6 <= height < 8:  # what is saved at the border is what a start goes on from
            network.kill("cometbft")
            network.start("cometbft")
            network.ready()
            started_again = True
    assert started_again
    assert height > 8
    headers = [network.rpc("commit", height=str(h + 1)) for h in range(height)]
    versions = [told["signed_header"]["header"]["version"]["app"] for told in headers]
    assert versions == ["1"] * 7 + ["2"] * (height - 7)
    assert network.rpc("abci_info")["response"]["app_version"] == "2"


@pytest.mark.parametrize("wrong", ["genesis", "validators"])
def test_node_of_another_network_is_not_served(network, wrong):
    genesis, _ = wide_chain(network)
    network.begin(genesis)
    other = (
        dataclasses.replace(genesis, name="other")
        if wrong == "genesis"
        else dataclasses.replace(genesis, validators=bench.VALIDATORS)
    )
    (network.folder / "genesis.cbor").write_bytes(other.encode())
    network.start("application")
    network.start("cometbft")
    assert network.ended("application") == 3
    network.ended("cometbft")
    # both say why
    for name in ("application", "cometbft"):
        assert "CometBFT's genesis.json is of another network" in network.log(name)


def test_block_that_the_application_cannot_make_durable_stops_both(network):
    genesis, txs = wide_chain(network)
    network.begin(genesis)
    network.start("application")
    network.start("cometbft")
    network.ready()
    code, before = network.send(txs[0])
    assert code == 0
    # a table that the block needs is gone: no state that can be
    with sqlite3.connect(network.folder / "chain.sqlite") as database:
        database.execute("ALTER TABLE blocks RENAME TO gone")
    database.close()
    with pytest.raises((OSError, RpcFailed)):
        network.send(txs[1])
    assert network.ended("application") == 3
    network.let_cometbft_end()
    with sqlite3.connect(network.folder / "chain.sqlite") as database:
        database.execute("ALTER TABLE gone RENAME TO blocks")
    database.close()
    network.start("application")
    network.start("cometbft")
    network.ready()
    eventually(lambda: network.application()[0] > before)
