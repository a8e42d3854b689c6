"""Plays CometBFT: speaks ABCI 2.0 over a server's socket, with a codec written a second time.

Nothing here comes from ``ledger.protobuf`` or ``ledger.engine.comet.messages``: an error there
would otherwise be made twice. Field numbers are those of CometBFT v0.38's abci/types.proto, read
anew. A message is a list of (field number, value): int for a varint, bytes for anything with a
length; decoded, a dict of field number to the list of its values.
"""

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Value = int | bytes
Fields = Iterable[tuple[int, Value]]
Decoded = dict[int, list[Value]]

# (number in message Request, number in message Response)
ECHO, FLUSH, INFO, INIT_CHAIN, QUERY, CHECK_TX = (1, 2), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9)
COMMIT, LIST_SNAPSHOTS, OFFER_SNAPSHOT = (11, 12), (12, 13), (13, 14)
LOAD_CHUNK, APPLY_CHUNK, PREPARE, PROCESS = (14, 15), (15, 16), (16, 17), (17, 18)
EXTEND_VOTE, VERIFY_EXTENSION, FINALIZE = (18, 19), (19, 20), (20, 21)
EXCEPTION = 1

TIME = b"\x08\x80\xe2\xcf\xaa\x06\x10\x05"  # 1,700,000,000 s and 5 ns


def varint(number: int) -> bytes:
    """Give an int64 or uint64 as base-128 groups, low group first."""
    number %= 1 << 64
    groups = [number >> shift & 127 for shift in range(0, 70, 7)]
    while len(groups) > 1 and groups[-1] == 0:
        groups.pop()
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def encode(fields: Fields) -> bytes:
    """Give a message's bytes; zero and empty values stay away, as proto3 leaves them out."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number * 8) + varint(value) if value else b""
        elif value:
            out += varint(number * 8 + 2) + varint(len(value)) + value
    return out


def always(number: int, value: bytes) -> bytes:
    """Give one field that is written even when it is empty."""
    return varint(number * 8 + 2) + varint(len(value)) + value


def decode(data: bytes) -> Decoded:
    """Take a message of varints and lengths apart; anything else fails the test."""
    found: Decoded = {}
    rest = memoryview(data)
    while rest:
        tag, rest = _number(rest)
        value, rest = _number(rest)
        if tag % 8 == 0:
            found.setdefault(tag // 8, []).append(value)
        else:
            assert tag % 8 == 2, f"wire type {tag % 8}"
            assert value <= len(rest)
            found.setdefault(tag // 8, []).append(bytes(rest[:value]))
            rest = rest[value:]
    return found


def _number(rest: memoryview) -> tuple[int, memoryview]:
    total = 0
    for i in range(10):
        total += (rest[i] & 127) << 7 * i
        if rest[i] < 128:
            return total, rest[i + 1 :]
    raise AssertionError("a varint of more than 10 bytes")


def number(message: Decoded, at: int) -> int:
    """Give a varint field, 0 if it is not there."""
    (value,) = message.get(at, [0])
    assert isinstance(value, int)
    return value


def octets(message: Decoded, at: int) -> bytes:
    """Give a bytes field, empty if it is not there."""
    (value,) = message.get(at, [b""])
    assert isinstance(value, bytes)
    return value


def frame(call: tuple[int, int], body: bytes = b"") -> bytes:
    """Give a request as it goes over the socket."""
    request = always(call[0], body)
    return varint(len(request)) + request


class Refusal(Exception):
    """The server answered with ResponseException."""


class Closed(Exception):
    """The server closed the connection instead of answering."""


class Connection:
    """One connection: requests out, answers in, in order."""

    def __init__(self, address: str) -> None:
        scheme, _, rest = address.partition("://")
        if scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(20)
            try:
                self.socket.connect(rest)
            except OSError:
                self.socket.close()
                raise
        else:
            host, _, port = rest.rpartition(":")
            self.socket = socket.create_connection((host, int(port)), timeout=20)
        self._stream = self.socket.makefile("rb")

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def read(self) -> tuple[int, Decoded]:
        """Read one answer: its number in message Response, and its fields."""
        try:
            size = shift = 0
            while True:
                byte = self._stream.read(1)
                if not byte:
                    raise Closed
                size += (byte[0] & 127) << shift
                shift += 7
                if byte[0] < 128:
                    break
            data = self._stream.read(size)
        except ConnectionError:
            raise Closed from None
        if len(data) < size:
            raise Closed
        ((at, (body,)),) = decode(data).items()
        assert isinstance(body, bytes)
        return at, decode(body)

    def call(self, call: tuple[int, int], body: bytes = b"") -> Decoded:
        """Send a request and a flush, as CometBFT does; give the answer's fields."""
        try:
            self.send(frame(call, body) + frame(FLUSH))
        except ConnectionError:
            raise Closed from None
        at, answer = self.read()
        if at == EXCEPTION:
            self.close()
            raise Refusal(octets(answer, 1).decode())
        assert at == call[1], (at, call)
        assert self.read() == (FLUSH[1], {})
        return answer


@dataclass
class Block:
    """What a block gave: result codes, application hash, validator updates, lowest kept block."""

    codes: list[int]
    app_hash: bytes
    updates: dict[bytes, int]
    retain: int
    app_version: int | None


@dataclass
class Evidence:
    """A conviction in a block, as CometBFT tells it."""

    kind: int
    address: bytes
    power: int
    height: int

    def encode(self) -> bytes:
        """Give message Misbehavior, with time and total power."""
        who = encode([(1, self.address), (3, self.power)])
        return encode([(1, self.kind), (2, who), (3, self.height), (4, TIME), (5, 40)])


@dataclass
class Driver:
    """The engine's side of a node: four connections, as CometBFT opens them."""

    address: str
    height: int = 0
    proposer: bytes = bytes(20)
    time_s: int = 1_700_000_000
    consensus: Connection = field(init=False)
    mempool: Connection = field(init=False)
    query: Connection = field(init=False)
    snapshot: Connection = field(init=False)

    def __post_init__(self) -> None:
        # proxy/multi_app_conn.go: query, snapshot, mempool, consensus
        for name in ("query", "snapshot", "mempool", "consensus"):
            setattr(self, name, Connection(self.address))

    def close(self) -> None:
        """Hang up all four."""
        for connection in (self.query, self.snapshot, self.mempool, self.consensus):
            connection.close()

    def info(self, abci_version: str = "2.0.0") -> tuple[int, bytes, int]:
        """Give (height, application hash, application version)."""
        body = encode([(1, b"0.38.26"), (2, 11), (3, 8), (4, abci_version.encode())])
        answer = self.query.call(INFO, body)
        return number(answer, 4), octets(answer, 5), number(answer, 3)

    def init_chain(
        self,
        chain_id: str,
        validators: Sequence[tuple[bytes, int]],
        app_state: bytes,
        initial_height: int = 1,
    ) -> bytes:
        """Begin a chain; gives the application hash before the first block."""
        parameters = encode([(1, encode([(1, 4194304), (2, -1)])), (2, encode([(1, 100000)]))])
        updates = [(4, encode([(1, encode([(1, key)])), (2, power)])) for key, power in validators]
        body = encode([(1, TIME), (2, chain_id.encode()), (3, parameters), *updates])
        body += encode([(5, app_state), (6, initial_height)])
        answer = self.consensus.call(INIT_CHAIN, body)
        assert 2 not in answer, "validators of the genesis file stand"
        # ConsensusParams{version = 4: VersionParams{app = 1}}: the rules' version in every header
        assert decode(octets(decode(octets(answer, 1)), 4)) == {1: [self.info()[2]]}
        return octets(answer, 3)

    def check_tx(self, tx: bytes, *, recheck: bool = False) -> int:
        """Give the code of a transaction for the mempool."""
        return number(self.mempool.call(CHECK_TX, encode([(1, tx), (2, int(recheck))])), 1)

    def check_txs(self, txs: Sequence[bytes]) -> list[int]:
        """Ask of many without waiting between them, as a busy mempool does."""
        self.mempool.send(b"".join(frame(CHECK_TX, encode([(1, tx)])) for tx in txs))
        answers = [self.mempool.read() for _ in txs]
        assert all(at == CHECK_TX[1] for at, _ in answers)
        return [number(answer, 1) for _, answer in answers]

    def prepare(self, txs: Sequence[bytes], max_tx_bytes: int = 4_000_000) -> list[bytes]:
        """Let the node choose a block's transactions."""
        last_commit = encode(
            [(1, 1), (2, encode([(1, encode([(1, bytes(20)), (3, 10)])), (5, 2)]))]
        )
        body = encode([(1, max_tx_bytes)]) + b"".join(always(2, tx) for tx in txs)
        body += always(3, last_commit) + encode(self._header(5))
        return [tx for tx in self.consensus.call(PREPARE, body).get(1, []) if isinstance(tx, bytes)]

    def process(self, txs: Sequence[bytes]) -> bool:
        """Let the node judge a proposed block."""
        answer = self.consensus.call(PROCESS, self._block(txs, (), self.height + 1))
        return {1: True, 2: False}[number(answer, 1)]

    def finalize(
        self,
        txs: Sequence[bytes],
        evidence: Sequence[Evidence] = (),
        *,
        height: int | None = None,
    ) -> Block:
        """Decide the next block."""
        height = self.height + 1 if height is None else height
        answer = self.consensus.call(FINALIZE, self._block(txs, evidence, height))
        results = [decode(r) for r in answer.get(2, []) if isinstance(r, bytes)]
        updates = {}
        for update in (decode(u) for u in answer.get(3, []) if isinstance(u, bytes)):
            updates[octets(decode(octets(update, 1)), 1)] = number(update, 2)
        parameters = octets(answer, 4)
        version = number(decode(octets(decode(parameters), 4)), 1) if parameters else None
        codes = [number(result, 1) for result in results]
        return Block(codes, octets(answer, 5), updates, 0, version)

    def commit(self) -> int:
        """Make the block durable; gives the lowest block that the node needs."""
        retain = number(self.consensus.call(COMMIT), 3)
        self.height += 1
        return retain

    def block(self, txs: Sequence[bytes], evidence: Sequence[Evidence] = ()) -> Block:
        """Propose, decide and commit exactly these transactions."""
        assert self.process(txs)
        return self.decide(txs, evidence)

    def decide(self, txs: Sequence[bytes], evidence: Sequence[Evidence] = ()) -> Block:
        """Decide and commit, as a node does that comes later and asks for blocks."""
        block = self.finalize(txs, evidence)
        block.retain = self.commit()
        return block

    def ask(self, path: str, key: bytes, height: int = 0) -> tuple[int, bytes, int]:
        """Query; gives (code, value, height)."""
        body = encode([(1, key), (2, path.encode()), (3, height), (4, 1)])
        answer = self.query.call(QUERY, body)
        return number(answer, 1), octets(answer, 7), number(answer, 9)

    def _header(self, first: int, height: int | None = None) -> list[tuple[int, Value]]:
        height = self.height + 1 if height is None else height
        time = encode([(1, self.time_s), (2, 5)])
        return [(first, height), (first + 1, time), (first + 2, bytes(32)), (8, self.proposer)]

    def _block(self, txs: Sequence[bytes], evidence: Sequence[Evidence], height: int) -> bytes:
        body = b"".join(always(1, tx) for tx in txs) + always(2, b"")
        body += b"".join(always(3, found.encode()) for found in evidence)
        return body + encode([(4, b"\x11" * 32), *self._header(5, height)])
