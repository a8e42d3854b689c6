"""The light client against real CometBFT nodes, and beside CometBFT's own light client."""

import http.client
import http.server
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hil.ports import free_port
from ledger.engine.comet.rpc import Rpc, RpcError
from ledger.genesis import GenesisValidator, WideGenesis
from ledger.light.client import Client, Divergence
from ledger.light.types import ABSENT
from ledger.light.verify import Clock, Trusted, UntrustedHeader
from tests.cometbft import need_cometbft, needs_cometbft
from tests.ledger.light.nodes import (
    Node,
    Process,
    eventually,
    genesis_json,
    set_power,
    with_fresh_ports,
)

pytestmark = needs_cometbft

STRANGER = bytes(range(32))


@dataclass
class Network:
    """Three validators, of which the third never runs; the set has changed twice."""

    genesis: WideGenesis
    nodes: tuple[Node, Node]
    absent: bytes

    @property
    def root(self) -> Trusted:
        return Trusted.start(self.genesis)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("nodes")
    found = with_fresh_ports(lambda attempt: _start(folder / str(attempt)))
    yield found
    for node in found.nodes:
        node.stop()


def _start(folder: Path) -> Network:
    a, b, c = (Node(folder / name) for name in ("a", "b", "c"))
    powers = [(a.public_key, 10), (b.public_key, 10), (c.public_key, 1)]
    known = tuple(GenesisValidator(f"n{i}", key, power) for i, (key, power) in enumerate(powers))
    created = int(time.time()) - 5
    genesis = WideGenesis("real", created, (), validators=known)
    chain_id = Trusted.start(genesis).chain_id
    for node, peer in ((a, b), (b, a)):
        node.configure(genesis_json(chain_id, powers, created), [peer])
    try:
        for node in (a, b):
            node.start()
        a.wait_for(3)
        set_power(a, c.public_key, 0)
        eventually(lambda: len(_powers(a)) == 2 or None, "the change of validators")
        set_power(a, STRANGER, 3)
        eventually(lambda: len(_powers(a)) == 3 or None, "the change of validators")
        a.wait_for(a.rpc.status().height + 3)
        b.wait_for(a.rpc.status().height)
    except BaseException:
        for node in (a, b):
            node.stop()
        raise
    return Network(genesis, (a, b), c.public_key)


def _powers(node: Node) -> list[int]:
    height = node.rpc.status().height
    return [v.power for v in node.rpc.validators(height).validators]


def test_every_header_of_a_real_chain_is_believed_in_turn(network: Network) -> None:
    rpc = network.nodes[0].rpc
    client = Client(network.root)
    newest = rpc.status().height
    sets = set()
    for height in range(1, newest + 1):
        block = client.follow(rpc, height)
        assert block.header.hash == block.commit.block_id.hash
        assert type(block).decode(block.encode()) == block
        sets.add(block.validators.hash)
    assert len(sets) == 3
    assert any(s.flag == ABSENT for b in client.path for s in b.commit.signatures)


def test_newest_header_is_believed_at_once_and_the_witness_agrees(network: Network) -> None:
    a, b = network.nodes
    clock = Clock(int(time.time()))
    client = Client(network.root, clock)
    newest = a.rpc.status().height
    b.wait_for(newest)
    client.follow(a.rpc, newest)
    client.compare(b.rpc)
    assert len(client.path) == 1


def test_trusted_height_and_hash_are_a_root_too(network: Network) -> None:
    rpc = network.nodes[0].rpc
    block = rpc.light_block(3)
    root = Trusted.block(network.root.chain_id, block, rpc.commit(3).commit.block_id.hash)
    newest = rpc.status().height
    assert Client(root).follow(rpc, newest).header.height == newest


def test_node_gives_no_header_that_is_still_to_come(network: Network) -> None:
    with pytest.raises(RpcError, match="must be less than or equal"):
        network.nodes[0].rpc.light_block(10**9)


class LyingNode:
    """A proxy before a node that alters its answers: another application hash from a height on."""

    def __init__(self, node: Node, from_height: int) -> None:
        self.node = node
        self.from_height = from_height
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        lying = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = lying.answer(body)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                """Join a WebSocket, on which CometBFT's light client waits for events."""
                self.close_connection = True
                with socket.create_connection(("127.0.0.1", lying.node.rpc_port), 5) as behind:
                    head = f"{self.requestline}\r\n{self.headers}".encode()
                    behind.sendall(head.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
                    _join(self.connection, behind)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def answer(self, body: bytes) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.node.rpc_port, timeout=5)
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer: Any = json.loads(connection.getresponse().read())
        connection.close()
        for one in answer if isinstance(answer, list) else [answer]:
            signed = (one.get("result") or {}).get("signed_header")
            if signed and int(signed["header"]["height"]) >= self.from_height:
                signed["header"]["app_hash"] = "13" * 32
        return json.dumps(answer).encode()


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on until one side ends."""
    while ready := select.select([one, other], [], [], 30)[0]:
        for source in ready:
            data = source.recv(1 << 16)
            if not data:
                return
            (other if source is one else one).sendall(data)


@pytest.fixture
def lying(network: Network) -> Iterator[LyingNode]:
    node = LyingNode(network.nodes[0], from_height=4)
    yield node
    node.stop()


def test_lying_node_is_refused(network: Network, lying: LyingNode) -> None:
    rpc = Rpc(lying.url)
    client = Client(network.root)
    client.follow(rpc, 3)
    with pytest.raises(UntrustedHeader, match="for another header"):
        client.follow(rpc, 5)
    rpc.close()


def test_lying_witness_is_named(network: Network, lying: LyingNode) -> None:
    rpc = Rpc(lying.url)
    client = Client(network.root)
    client.follow(network.nodes[1].rpc, 5)
    with pytest.raises(Divergence, match="cannot be believed"):
        client.compare(rpc)
    rpc.close()


class Light:
    """CometBFT's own light client: a proxy whose answers it has verified."""

    def __init__(self, network: Network, folder: Path, primary: str) -> None:
        trusted = network.nodes[0].rpc.light_block(2).header
        port = free_port()
        self.rpc = Rpc(f"http://127.0.0.1:{port}")
        command = [
            need_cometbft(),
            "light",
            trusted.chain_id,
            "--primary",
            primary.replace("http", "tcp"),
        ]
        command += ["--witnesses", network.nodes[1].url.replace("http", "tcp")]
        command += ["--height", "2", "--hash", trusted.hash.hex().upper()]
        command += ["--laddr", f"tcp://127.0.0.1:{port}", "--home-dir", str(folder / "light")]
        self._process = Process(command, folder / "light.log")

    def stop(self) -> None:
        self.rpc.close()
        self._process.stop()


def test_comets_light_client_comes_to_the_same_headers(network: Network, tmp_path: Path) -> None:
    newest = network.nodes[0].rpc.status().height
    network.nodes[1].wait_for(newest)
    light = Light(network, tmp_path, network.nodes[0].url)
    try:
        client = Client(network.root)
        for height in (3, newest - 1):
            theirs = eventually(lambda height=height: light.rpc.commit(height), "its answer")
            assert client.follow(network.nodes[0].rpc, height).header == theirs.header
            assert client.trusted.hash == theirs.header.hash
    finally:
        light.stop()


def test_comets_light_client_refuses_the_lying_node_too(
    network: Network, lying: LyingNode, tmp_path: Path
) -> None:
    light = Light(network, tmp_path, lying.url)
    try:
        assert eventually(lambda: light.rpc.commit(3), "its answer").header.height == 3
        with pytest.raises(RpcError, match="the node says"):
            light.rpc.commit(5)
    finally:
        light.stop()
