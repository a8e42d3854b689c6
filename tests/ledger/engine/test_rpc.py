"""The RPC client against a server that answers whatever a test wants."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.engine.abci import OK, Answer, TxResult
from ledger.engine.comet import rpc
from ledger.engine.comet.rpc import Rpc, RpcError
from ledger.protocol import cbor

RECORDED = json.loads((Path(__file__).parents[1] / "light" / "recorded.json").read_text())


class Server:
    """A server on loopback; ``answer`` gives the bytes after a request's body, or None to hang up.

    ``requests`` are the bodies that came, ``connections`` how many connections.
    """

    def __init__(self) -> None:
        self.answer: Callable[[bytes], bytes | None] = lambda body: b""
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming:
            try:
                while self._one(connection, incoming):
                    pass
            except OSError:
                return

    def _one(self, connection: socket.socket, incoming: Any) -> bool:
        length = 0
        while (line := incoming.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not line:
            return False
        body = incoming.read(length)
        self.requests.append(body)
        answer = self.answer(body)
        if answer is not None:
            connection.sendall(answer)
        return answer is not None

    def close(self) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()

    # kinds of answers

    def say(self, body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> None:
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        self.answer = lambda _: whole

    def reply(self, *results: Any) -> None:
        """Answer the calls to come with these results, in turn; an exception is the node's."""
        left = list(results)

        def answer(body: bytes) -> bytes:
            calls = json.loads(body)
            one = isinstance(calls, dict)
            answers = []
            for call in [calls] if one else calls:
                result = left.pop(0)
                error = {"error": {"code": -32603, "message": "Internal error", "data": result}}
                kind = error if isinstance(result, str) else {"result": result}
                answers.append({"jsonrpc": "2.0", "id": call["id"], **kind})
            # as CometBFT does: a batch of one is not answered by a list
            data = json.dumps(answers[0] if len(answers) == 1 else answers).encode()
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data

        self.answer = answer


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(served: Server) -> Server:
    served.requests.clear()
    return served


@pytest.fixture
def node(server: Server) -> Iterator[Rpc]:
    client = Rpc(server.url, timeout_s=2)
    yield client
    client.close()


CODE_0 = {"code": 0, "log": "", "data": "", "hash": "00"}


def test_transactions_go_in_batches_of_ten(server: Server, node: Rpc) -> None:
    server.reply(*[CODE_0] * 23)
    assert node.broadcast([b"tx %d" % i for i in range(23)]) == [TxResult(OK)] * 23
    batches = [json.loads(body) for body in server.requests]
    assert [len(batch) for batch in batches] == [10, 10, 3]
    sent = [base64.b64decode(call["params"]["tx"]) for batch in batches for call in batch]
    assert sent == [b"tx %d" % i for i in range(23)]


def test_large_transactions_go_in_smaller_batches(server: Server, node: Rpc) -> None:
    server.reply(*[CODE_0] * 5)
    node.broadcast([bytes(200_000)] * 5)
    assert [len(json.loads(body)) for body in server.requests] == [2, 2, 1]
    assert all(len(body) < 1_000_000 for body in server.requests)


def test_no_transactions_take_no_request(server: Server, node: Rpc) -> None:
    assert node.broadcast([]) == []
    assert server.requests == []


def test_transaction_that_the_node_has_seen_counts_as_in(server: Server, node: Rpc) -> None:
    server.reply("tx already exists in cache", {**CODE_0, "code": 6, "log": "duplicate"})
    first, second = node.broadcast([b"a", b"b"])
    assert first.code == OK
    assert second == TxResult(6, "duplicate")


def test_full_mempool_is_an_error_that_says_so(server: Server, node: Rpc) -> None:
    server.reply(CODE_0, "mempool is full: number of txs 5000 (max: 5000)")
    with pytest.raises(RpcError, match=r"127.0.0.1:\d+ broadcast_tx_sync: .*mempool is full"):
        node.broadcast([b"a", b"b"])


def _query_result(value: bytes, **changes: Any) -> dict[str, Any]:
    response = {"code": 0, "log": "", "value": base64.b64encode(value).decode(), "height": "7"}
    return {"response": {**response, **changes}}


@pytest.mark.parametrize("value", [b"leaf", None])
def test_query_gives_value_proof_and_state(server: Server, node: Rpc, value: Any) -> None:
    server.reply(_query_result(cbor.dumps([value, [1, [b"x"]], bytes(32)])))
    assert node.query("region", b"\x01\xff") == Answer(value, [1, [b"x"]], bytes(32), 7)
    params = json.loads(server.requests[0])["params"]
    assert (params["path"], params["data"]) == ("region", "01ff")


def test_query_that_the_application_refuses_is_an_error(server: Server, node: Rpc) -> None:
    server.reply(_query_result(b"", code=25, log="no such path"))
    with pytest.raises(RpcError, match="code 25: no such path"):
        node.query("x", b"")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        cbor.dumps([]),
        cbor.dumps([b"", []]),
        cbor.dumps([1, [], b""]),
        cbor.dumps([b"", b"", b""]),
        cbor.dumps([b"", [], None]),
        cbor.dumps([b"", [], b"", 1]),
    ],
)
def test_query_answer_of_another_form_is_an_error(server: Server, node: Rpc, value: bytes) -> None:
    server.reply(_query_result(value))
    with pytest.raises(RpcError, match="not of this kind"):
        node.query("region", b"")


def test_light_block_is_put_together_of_header_and_validators(server: Server, node: Rpc) -> None:
    block = RECORDED[0]
    total = len(block["validators"])
    page = {"total": str(total), "validators": block["validators"]}
    server.reply({"signed_header": block["signed_header"]}, page)
    found = node.light_block(1)
    assert found.header.hash == found.commit.block_id.hash
    assert found.validators.hash == found.header.validators_hash


def test_validators_are_read_page_by_page(server: Server, node: Rpc) -> None:
    one = RECORDED[0]["validators"][0]
    keys = [base64.b64encode(i.to_bytes(32, "big")).decode() for i in range(230)]
    many = [{**one, "pub_key": {**one["pub_key"], "value": key}} for key in keys]
    pages = [many[i : i + 100] for i in (0, 100, 200)]
    server.reply(*[{"total": "230", "validators": page} for page in pages])
    assert len(node.validators(5).validators) == 230
    assert [json.loads(b)["params"]["page"] for b in server.requests] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "page", [{"total": "2", "validators": []}, {"total": "0", "validators": []}]
)
def test_endless_or_empty_pages_are_an_error(server: Server, node: Rpc, page: Any) -> None:
    server.reply(*[page] * 3)
    with pytest.raises(RpcError):
        node.validators(5)


def test_connection_is_kept(server: Server, node: Rpc) -> None:
    before = server.connections
    server.reply(*[{"total": "3", "total_bytes": "9"}] * 3)
    for _ in range(3):
        assert node.unconfirmed() == rpc.Mempool(3, 9)
    assert server.connections == before + 1


def test_connection_that_the_node_closed_is_opened_again(server: Server, node: Rpc) -> None:
    mempool = {"total": "0", "total_bytes": "0"}
    server.reply(mempool)
    node.unconfirmed()
    replying: list[bytes] = []

    def hang_up_once(body: bytes) -> bytes | None:
        if not replying:
            replying.append(body)
            server.reply(mempool)
            return None
        raise AssertionError

    server.answer = hang_up_once
    node.unconfirmed()
    assert replying


def test_node_that_is_not_there_is_an_error_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RpcError, match=f"http://127.0.0.1:{port} status: nothing listens there"):
        Rpc(f"http://127.0.0.1:{port}").status()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:1", "https://127.0.0.1:1", "unix:///a", "http://", "http://a/b"]
)
def test_other_kinds_of_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Rpc(url)


def test_error_of_the_node_is_named(server: Server, node: Rpc) -> None:
    server.reply("height 9 must be less than 5")
    with pytest.raises(RpcError, match="the node says: Internal error: height 9"):
        node.commit(9)


def test_answer_to_another_call_is_an_error(server: Server, node: Rpc) -> None:
    server.say(b'{"jsonrpc":"2.0","id":5,"result":{}}')
    with pytest.raises(RpcError, match="another call"):
        node.status()


def test_answer_without_end_is_cut_off(
    server: Server, node: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "MAX_ANSWER_BYTES", 100_000)
    server.answer = lambda body: b"HTTP/1.0 200 OK\r\n\r\n" + bytes(1_000_000)
    with pytest.raises(RpcError, match="more than"):
        node.status()


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_dripping_answer_ends_at_the_deadline(server: Server, start: bytes) -> None:
    done = threading.Event()

    def drip(body: bytes) -> bytes | None:
        connection = server._open[-1]
        connection.sendall(start)
        while not done.wait(0.05):
            connection.sendall(b"x")
        return None

    server.answer = drip
    client = Rpc(server.url, timeout_s=0.4)
    began = time.monotonic()
    with pytest.raises(RpcError):
        client.status()
    assert time.monotonic() - began < 2
    done.set()
    client.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"error":{}}',
        b'{"error":{"message":"\\ud800"}}',
        b"[" * 100_000,
        b'{"id":0,"result":' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b'{"id":0,"result":{"node_info":[]}}',
    ],
)
def test_useless_answers_are_one_error(server: Server, node: Rpc, body: bytes) -> None:
    server.say(body)
    for call in (node.status, node.net_info, node.unconfirmed, node.commit, node.light_block):
        with pytest.raises(RpcError):
            call()
    with pytest.raises(RpcError):
        node.query("region", b"")
    with pytest.raises(RpcError):
        node.broadcast([b"a", b"b"])
    with pytest.raises(RpcError):
        node.validators(1)


@given(st.binary(max_size=200))
def test_no_bytes_on_the_line_break_the_client(served: Server, data: bytes) -> None:
    client = Rpc(served.url, timeout_s=2)

    def cut(body: bytes) -> bytes | None:
        served._open[-1].sendall(data)
        return None

    served.answer = cut
    try:
        with pytest.raises(RpcError):
            client.status()
    finally:
        client.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("1"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["response", "code", "log", "value", "height", "total", "validators"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_breaks_the_decoders(served: Server, result: Any) -> None:
    served.say(json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode())
    client = Rpc(served.url, timeout_s=2)
    try:
        for call in (client.status, client.net_info, client.unconfirmed, client.light_block):
            try:
                call()
            except RpcError:
                continue
        for ask in (lambda: client.query("a", b""), lambda: client.broadcast([b"a"])):
            try:
                ask()
            except RpcError:
                continue
    finally:
        client.close()
