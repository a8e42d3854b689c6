"""Links between nodes: what is cut ends, what is held waits, what is mended flows."""

import socket
import threading
from collections.abc import Iterator

import pytest

from hil.ports import HOST
from hil.wires import Wires

WAIT_S = 5.0
SILENCE_S = 0.2


class Echo:
    """A node that sends back what it gets."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(WAIT_S)


@pytest.fixture
def nodes() -> Iterator[dict[str, Echo]]:
    nodes = {name: Echo() for name in "abcd"}
    yield nodes
    for node in nodes.values():
        node.close()


@pytest.fixture
def wires(nodes: dict[str, Echo]) -> Iterator[Wires]:
    with Wires({name: node.port for name, node in nodes.items()}) as wires:
        yield wires


def dial(wires: Wires, dialler: str, name: str) -> socket.socket:
    return socket.create_connection((HOST, wires.port(dialler, name)), timeout=WAIT_S)


def echoes(connection: socket.socket, data: bytes = b"hello") -> bool:
    """Tell whether what is sent comes back; False when the connection has ended."""
    try:
        connection.sendall(data)
        got = b""
        while len(got) < len(data):
            piece = connection.recv(4096)
            if not piece:
                return False
            got += piece
    except (ConnectionError, BrokenPipeError):
        return False
    return got == data


def test_each_end_reaches_the_other(wires: Wires) -> None:
    for pair in ("ab", "ba", "cd"):
        with dial(wires, *pair) as connection:
            assert echoes(connection, bytes(range(256)) * 1000)
    assert wires.forwarded_bytes("a", "b") == 2 * wires.forwarded_bytes("d", "c") == 1024 * 1000


def test_cut_ends_connections_and_takes_no_new_ones_until_mended(wires: Wires) -> None:
    with dial(wires, "a", "c") as across, dial(wires, "a", "b") as within:
        assert echoes(across)
        assert echoes(within)
        wires.cut(["a", "b"])
        assert not echoes(across)
        assert echoes(within)
    with dial(wires, "d", "a") as refused:
        assert not echoes(refused)
    wires.mend()
    with dial(wires, "d", "a") as again:
        assert echoes(again)


def test_hold_delivers_what_was_sent_once_mended(wires: Wires) -> None:
    with dial(wires, "b", "d") as connection:
        assert echoes(connection)
        wires.hold(["d"])
        connection.sendall(b"early")
        connection.settimeout(SILENCE_S)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        with dial(wires, "a", "d") as waiting:
            waiting.sendall(b"new")
            waiting.settimeout(SILENCE_S)
            with pytest.raises(TimeoutError):
                waiting.recv(10)
            wires.mend()
            waiting.settimeout(WAIT_S)
            assert waiting.recv(10) == b"new"
        connection.settimeout(WAIT_S)
        assert connection.recv(10) == b"early"


def test_link_to_a_node_that_is_down_ends_at_once(wires: Wires, nodes: dict[str, Echo]) -> None:
    nodes["b"].close()
    with dial(wires, "a", "b") as connection:
        assert not echoes(connection)
    nodes["b"] = Echo()  # for the fixture to close


def test_end_closes_every_port(nodes: dict[str, Echo]) -> None:
    with Wires({name: node.port for name, node in nodes.items()}) as wires:
        ports = [wires.port("a", "b"), wires.port("b", "a")]
        connection = dial(wires, "a", "b")
        assert echoes(connection)
    assert not echoes(connection)
    connection.close()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), timeout=WAIT_S)
