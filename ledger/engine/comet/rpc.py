"""A client of a CometBFT node's RPC: JSON-RPC 2.0 over HTTP (docs.cometbft.com/v0.38/rpc).

What comes back is believed by nobody: types are checked here, truth by ``ledger.light``. Answers
are bounded in bytes and time; each call has its deadline, whatever drips in.

Left out: events over WebSocket, TLS (a node listens on loopback; ``ledger.light`` needs no trusted
line), everything that only debugging needs.
"""

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ledger.engine.abci import OK, Answer, TxResult
from ledger.light import jsonform
from ledger.light.jsonform import BadAnswer, array, base64_bytes, hexadecimal, member, number, text
from ledger.light.types import (
    MAX_VALIDATORS,
    LightBlock,
    SignedHeader,
    Timestamp,
    Validator,
    ValidatorSet,
)
from ledger.protocol import cbor
from ledger.protocol.errors import MalformedRecord

MAX_ANSWER_BYTES = 8 << 20
_BATCH = 10
"""Calls in a batch: CometBFT's rpc.max_request_batch_size, unless it was raised."""
_BATCH_BYTES = 500_000
"""Transactions in a batch; base64 and JSON included it stays below rpc.max_body_bytes (10^6)."""
_PAGE = 100
_CHUNK = 1 << 16
_MAX_PEERS = 1000
_IN_CACHE = "tx already exists in cache"

_T = TypeVar("_T")


class RpcError(OSError):
    """A node gave no usable answer: a sentence names its address, the method and the trouble."""


class _NodeSaysNo(Exception):
    """The node answered, with an error of its own."""


@dataclass(frozen=True)
class Status:
    """Where a node stands. ``app_hash`` is that of the newest header: after the block before it.

    ``validator`` is the node's own validator key; its power is 0 where it validates not.
    """

    node_id: str
    moniker: str
    network: str
    version: str
    height: int
    block_hash: bytes
    app_hash: bytes
    time: Timestamp
    earliest_height: int
    catching_up: bool
    validator: Validator


@dataclass(frozen=True)
class Peer:
    """A node that another one is connected to."""

    node_id: str
    moniker: str
    address: str
    outbound: bool


@dataclass(frozen=True)
class Mempool:
    """The transactions that wait for a block: how many, and their bytes together."""

    count: int
    size_bytes: int


class _DeadlineSocket(socket.socket):
    """A socket whose reads end at a moment, not so long after the last byte.

    http.client's files read through ``recv_into``.
    """

    deadline = 0.0

    def recv_into(self, *args: Any, **options: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole answer in time")
        self.settimeout(left)
        return super().recv_into(*args, **options)


class _Connection(http.client.HTTPConnection):
    sock: _DeadlineSocket | None

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = _DeadlineSocket(plain.family, plain.type, plain.proto, plain.detach())
        self.sock.settimeout(self.timeout)


class Rpc:
    """Calls to one node. The connection is kept and reopened; safe to use from several threads.

    ``base_url`` is like "http://127.0.0.1:26657". Every method raises RpcError, and nothing else
    for whatever the node does. ValueError for another kind of URL.
    """

    def __init__(self, base_url: str, timeout_s: float = 5) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise ValueError(f"{base_url} is not an address like http://127.0.0.1:26657")
        self.base_url = base_url
        self._timeout_s = timeout_s
        self._connection = _Connection(parts.hostname, parts.port or 80, timeout=timeout_s)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the connection; the next call opens one again."""
        with self._lock:
            self._connection.close()

    # what the node says of itself

    def status(self) -> Status:
        """Ask where the node stands."""
        return self._decoded("status", {}, _status)

    def net_info(self) -> tuple[Peer, ...]:
        """Ask for the peers."""
        return self._decoded("net_info", {}, _peers)

    def unconfirmed(self) -> Mempool:
        """Ask what waits in the mempool."""
        return self._decoded("num_unconfirmed_txs", {}, _mempool)

    # transactions

    def broadcast(self, txs: Sequence[bytes]) -> list[TxResult]:
        """Give transactions to the mempool; the results are those of CheckTx, in order.

        One that the node has seen lately counts as in. When RpcError is raised (a full mempool
        too), some may be in: give them all once more.
        """
        results: list[TxResult] = []
        for batch in _batches(txs):
            calls = [{"tx": base64.b64encode(tx).decode()} for tx in batch]
            results += self._decoded("broadcast_tx_sync", calls, _tx_results)
        return results

    # the application's state

    def query(self, path: str, key: bytes) -> Answer:
        """Ask the application (``Application.query``); what it refuses is an RpcError too."""
        params = {"path": path, "data": key.hex(), "height": "0", "prove": True}
        return self._decoded("abci_query", params, _query_answer)

    # what the chain's validators have signed

    def commit(self, height: int = 0) -> SignedHeader:
        """Ask for the header at a height (0: the newest) and its commit."""
        params = {} if height == 0 else {"height": str(height)}
        return self._decoded("commit", params, _signed_header)

    def validators(self, height: int) -> ValidatorSet:
        """Ask for the validators at a height, page by page."""
        found: list[Validator] = []
        total = 1
        while len(found) < total:
            page = {"height": str(height), "page": str(len(found) // _PAGE + 1)}
            params = {**page, "per_page": str(_PAGE)}
            total, validators = self._decoded("validators", params, _validators_page)
            if len(validators) != min(_PAGE, total - len(found)):
                raise RpcError(f"{self.base_url} validators: a page of another size than asked for")
            found += validators
        return ValidatorSet(tuple(found))

    def light_block(self, height: int = 0) -> LightBlock:
        """Ask for what a light client needs of a height (0: the newest)."""
        signed = self.commit(height)
        validators = self.validators(signed.header.height)
        return LightBlock.of(signed.header, signed.commit, validators)

    # one call

    def _decoded(self, method: str, params: Any, decode: Callable[[Any], _T]) -> _T:
        """Call once, or as a batch where ``params`` is a list, and decode what comes back."""
        try:
            return decode(self._call(method, params))
        except _NodeSaysNo as e:
            reason = f"the node says: {e}"
        except ConnectionRefusedError:
            reason = "nothing listens there: is it running?"
        except (OSError, http.client.HTTPException) as e:
            reason = str(e) or type(e).__name__
        except (ValueError, RecursionError) as e:  # not JSON, or JSON of another shape
            reason = f"an answer that cannot be used: {e}"
        raise RpcError(f"{self.base_url} {method}: {reason}")

    def _call(self, method: str, params: Any) -> Any:
        batch = params if type(params) is list else [params]
        calls = [
            {"jsonrpc": "2.0", "id": i, "method": method, "params": p} for i, p in enumerate(batch)
        ]
        body = json.dumps(calls if params is batch else calls[0]).encode()
        with self._lock:
            answer = json.loads(self._exchange(body))
        if params is not batch:
            return _result(answer, 0)
        if len(calls) == 1 and type(answer) is dict:  # so CometBFT answers a batch of one
            answer = [answer]
        if type(answer) is not list or len(answer) != len(calls):
            _refuse_trouble(answer)
            raise BadAnswer("not one answer a call")
        return answer

    def _exchange(self, body: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        reused = self._connection.sock is not None
        try:
            try:
                return self._send(body, deadline)
            except (ConnectionError, http.client.BadStatusLine):
                # the node may have closed a connection that nothing was said on for a while
                if not reused:
                    raise
                self._connection.close()
                return self._send(body, deadline)
        except BaseException:
            self._connection.close()
            raise

    def _send(self, body: bytes, deadline: float) -> bytes:
        connection = self._connection
        if connection.sock is None:
            connection.connect()
        assert connection.sock is not None
        connection.sock.deadline = deadline
        connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        parts, size = [], 0
        while chunk := response.read(_CHUNK):
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise BadAnswer(f"more than {MAX_ANSWER_BYTES} bytes")
        return b"".join(parts)


# --------------------------------------------------------------------------- decoding answers


def _trouble(answer: Any) -> str:
    """Give the words of a JSON-RPC error, or nothing."""
    error = answer.get("error") if type(answer) is dict else None
    if type(error) is not dict:
        return ""
    words = [error[name] for name in ("message", "data") if type(error.get(name)) is str]
    return ascii(": ".join(words)[:500])[1:-1] or "an error without words"


def _refuse_trouble(answer: Any) -> None:
    trouble = _trouble(answer)
    if trouble:
        raise _NodeSaysNo(trouble)


def _result(answer: Any, id_: int) -> Any:
    _refuse_trouble(answer)
    if member(answer, "id") != id_:
        raise BadAnswer("the answer to another call")
    return member(answer, "result")


def _batches(txs: Sequence[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    size = 0
    for tx in txs:
        if not batches or len(batches[-1]) == _BATCH or size + len(tx) > _BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(tx)
        size += len(tx)
    return batches


def _tx_results(answers: list[Any]) -> list[TxResult]:
    results = []
    for id_, answer in enumerate(answers):
        if _IN_CACHE in _trouble(answer):
            results.append(TxResult(OK, _IN_CACHE))
            continue
        result = _result(answer, id_)
        code = number(member(result, "code"), 33)
        if code < 0:
            raise BadAnswer("a negative code")
        results.append(TxResult(code, text(member(result, "log"))))
    return results


def _query_answer(result: Any) -> Answer:
    response = member(result, "response")
    code, height = number(member(response, "code"), 33), number(member(response, "height"))
    if code != OK:
        log = ascii(text(member(response, "log"))[:500])[1:-1]
        raise _NodeSaysNo(f"the application refuses the query with code {code}: {log}")
    try:
        fields = cbor.loads(base64_bytes(member(response, "value")))
    except MalformedRecord as e:
        raise BadAnswer(f"the application's answer is not of this kind: {e}") from None
    if type(fields) is not list or len(fields) != 3:
        raise BadAnswer("the application's answer is not of this kind")
    value, proof, app_hash = fields
    shapes = (type(value) is bytes or value is None, type(proof) is list)
    if not all(shapes) or type(app_hash) is not bytes or height < 0:
        raise BadAnswer("the application's answer is not of this kind")
    return Answer(value, proof, app_hash, height)


def _signed_header(result: Any) -> SignedHeader:
    return jsonform.signed_header(member(result, "signed_header"), MAX_VALIDATORS)


def _validators_page(result: Any) -> tuple[int, list[Validator]]:
    total = number(member(result, "total"))
    if not 1 <= total <= MAX_VALIDATORS:
        raise BadAnswer(f"not 1 to {MAX_VALIDATORS} validators")
    validators = array(member(result, "validators"), _PAGE)
    return total, [jsonform.validator(item) for item in validators]


def _status(result: Any) -> Status:
    node, sync = member(result, "node_info"), member(result, "sync_info")
    return Status(
        text(member(node, "id")),
        text(member(node, "moniker")),
        text(member(node, "network")),
        text(member(node, "version")),
        number(member(sync, "latest_block_height")),
        hexadecimal(member(sync, "latest_block_hash")),
        hexadecimal(member(sync, "latest_app_hash")),
        jsonform.time(member(sync, "latest_block_time")),
        number(member(sync, "earliest_block_height")),
        member(sync, "catching_up") is True,
        jsonform.validator(member(result, "validator_info")),
    )


def _peers(result: Any) -> tuple[Peer, ...]:
    return tuple(
        Peer(
            text(member(peer, "node_info", "id")),
            text(member(peer, "node_info", "moniker")),
            text(member(peer, "remote_ip")),
            member(peer, "is_outbound") is True,
        )
        for peer in array(member(result, "peers"), _MAX_PEERS)
    )


def _mempool(result: Any) -> Mempool:
    return Mempool(number(member(result, "total")), number(member(result, "total_bytes")))
