"""The MQTT client against real brokers, from a real process of either interpreter."""

import hashlib
import itertools
import json
import os
import queue
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from ledger.protocol import frame
from tests.broker import (
    HOST,
    Broker,
    Certificates,
    make_certificates,
    mosquitto_broker,
    nats_broker,
)
from tests.firmware import programs

PROBE = Path(programs.__file__).with_name("mqtt_probe.py")
LIMIT_S = 20
BROKERS = {"nats": nats_broker, "mosquitto": mosquitto_broker}


class Probe:
    """The client's process: orders in, answers and messages out."""

    def __init__(self, kind: str, heap: str | None, settings: dict[str, Any]) -> None:
        self.process = programs.start(kind, PROBE, json.dumps(settings), heap=heap)
        self._decoder = frame.Decoder()
        self._numbers = itertools.count()
        self._unread: list[dict[str, Any]] = []

    def send(self, do: str, **what: Any) -> int:
        number = next(self._numbers)
        order = json.dumps({"id": number, "do": do, **what}).encode()
        self.process.stdin.write(frame.encode(3, order))
        return number

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Give the first word that fits and keep the others for later."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            for word in self._unread:
                if wanted(word):
                    self._unread.remove(word)
                    return word
            output = self.process.stdout
            if not select.select([output], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"probe said only {self._unread}")
            data = os.read(output.fileno(), 65536)
            assert data, self.process.stderr.read().decode()
            self._unread += [json.loads(payload) for _, payload in self._decoder.feed(data)]
            assert not self._decoder.errors, "something else printed"

    def answer(self, number: int) -> dict[str, Any]:
        return self.wait(lambda word: word.get("id") == number)

    def ask(self, do: str, **what: Any) -> Any:
        word = self.answer(self.send(do, **what))
        assert "ok" in word, word
        return word["ok"]

    def publish(
        self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, times: int = 1
    ) -> int:
        what = {"topic": topic, "payload": payload.hex(), "times": times}
        return self.send("publish", qos=qos, retain=retain, **what)

    def message(self) -> tuple[str, bytes, bool]:
        word = self.wait(lambda word: "topic" in word)
        return word["topic"], bytes.fromhex(word["payload"]), word["retained"]

    def link_end(self) -> str:
        return str(self.wait(lambda word: "link" in word)["link"])


@pytest.fixture
def probe() -> Iterator[Callable[..., Probe]]:
    started = []

    def run(kind: str, port: int, heap: str | None = None, **settings: Any) -> Probe:
        started.append(Probe(kind, heap, {"port": port, "client_id": "probe", **settings}))
        return started[-1]

    yield run
    for one in started:
        programs.end(one.process)


_numbers = itertools.count(1)


class Peer:
    """paho-mqtt as the independent other side; messages wait in a queue."""

    def __init__(self, port: int) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._granted = threading.Event()
        self._connected = threading.Event()
        # A name of its own: a broker may close a newcomer that takes over a name too soon.
        name = f"peer-{next(_numbers)}"
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_message = lambda client, data, message: self.messages.put(message)
        self._client.on_subscribe = lambda *_: self._granted.set()
        self._client.connect(HOST, port)
        self._client.loop_start()
        assert self._connected.wait(LIMIT_S)

    def subscribe(self, topic: str, qos: int = 1) -> None:
        self._granted.clear()
        self._client.subscribe(topic, qos)
        assert self._granted.wait(LIMIT_S)

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        sent = self._client.publish(topic, payload, qos, retain)
        if qos:
            sent.wait_for_publish(LIMIT_S)

    def next(self) -> paho.MQTTMessage:
        return self.messages.get(timeout=LIMIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def _peer(port: int) -> Iterator[Peer]:
    with closing(Peer(port)) as peer:
        yield peer


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with BROKERS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def peer(broker: Broker) -> Iterator[Peer]:
    with _peer(broker.port) as one:
        yield one


each_interpreter = pytest.mark.parametrize("kind", programs.BOTH)


@each_interpreter
def test_qos_1_messages_arrive_both_ways(
    kind: str, broker: Broker, peer: Peer, probe: Callable[..., Probe]
) -> None:
    meter = probe(kind, broker.port)
    assert meter.ask("connect") is False
    peer.subscribe(f"up/{kind}")
    assert meter.ask("subscribe", topic=f"down/{kind}/+", qos=1) == 1
    sent = [n.to_bytes(2, "big") * 120 for n in range(50)]
    orders = [meter.publish(f"up/{kind}", payload) for payload in sent]
    for order in orders:
        assert "ok" in meter.answer(order)
    got = [peer.next() for _ in sent]
    assert sorted(message.payload for message in got) == sorted(sent)
    assert {(message.qos, message.retain) for message in got} == {(1, False)}
    for payload in sent:
        peer.publish(f"down/{kind}/x", payload)
    assert [meter.message() for _ in sent] == [(f"down/{kind}/x", p, False) for p in sent]


@each_interpreter
def test_retained_messages_are_kept_and_marked(
    kind: str, broker: Broker, probe: Callable[..., Probe]
) -> None:
    meter = probe(kind, broker.port)
    meter.ask("connect")
    assert "ok" in meter.answer(meter.publish(f"kept/{kind}", b"status", retain=True))
    with _peer(broker.port) as late:
        late.subscribe(f"kept/{kind}")
        message = late.next()
        assert (message.payload, message.retain) == (b"status", True)
    meter.ask("subscribe", topic=f"kept/{kind}", qos=0)
    assert meter.message() == (f"kept/{kind}", b"status", True)


@each_interpreter
def test_killed_client_leaves_its_last_will(
    kind: str, broker: Broker, peer: Peer, probe: Callable[..., Probe]
) -> None:
    will = (f"will/{kind}", "gone", 1, True)
    meter = probe(kind, broker.port, will=will, keepalive_s=60)
    meter.ask("connect")
    peer.subscribe(f"will/{kind}")
    meter.process.kill()
    assert peer.next().payload == b"gone"


@each_interpreter
def test_orderly_close_leaves_no_last_will(
    kind: str, broker: Broker, peer: Peer, probe: Callable[..., Probe]
) -> None:
    meter = probe(kind, broker.port, will=(f"calm/{kind}", "gone", 1, False))
    meter.ask("connect")
    peer.subscribe(f"calm/{kind}")
    assert "ok" in meter.answer(meter.publish(f"calm/{kind}", b"last word"))
    meter.ask("close")
    assert meter.link_end() == "closed"
    meter.process.stdin.close()
    assert meter.process.wait(LIMIT_S) == 0
    peer.publish(f"calm/{kind}", b"after the end")
    assert [peer.next().payload for _ in range(2)] == [b"last word", b"after the end"]


@each_interpreter
def test_idle_link_lives_longer_than_the_brokers_patience(
    kind: str, broker: Broker, probe: Callable[..., Probe]
) -> None:
    # A broker ends a link after 1.5 times its keep alive (3.1.2.10); 3 s are twice that.
    meter = probe(kind, broker.port, keepalive_s=1, timeout_s=5)
    meter.ask("connect")
    meter.ask("idle", seconds=3)
    assert "ok" in meter.answer(meter.publish("idle", b"still here"))


@each_interpreter
def test_message_that_is_too_long_is_counted_and_the_next_one_comes(
    kind: str, broker: Broker, peer: Peer, probe: Callable[..., Probe]
) -> None:
    meter = probe(kind, broker.port, max_packet=1024)
    meter.ask("connect")
    meter.ask("subscribe", topic=f"long/{kind}", qos=1)
    peer.publish(f"long/{kind}", bytes(300_000))
    peer.publish(f"long/{kind}", b"next")
    assert meter.message() == (f"long/{kind}", b"next", False)
    assert meter.ask("oversized") == 1


@each_interpreter
@pytest.mark.parametrize("name", BROKERS)
def test_killed_broker_takes_the_link_down_and_its_return_brings_it_back(
    kind: str, name: str, tmp_path: Path, probe: Callable[..., Probe]
) -> None:
    with BROKERS[name](tmp_path) as broker:
        meter = probe(kind, broker.port)
        meter.ask("connect")
        assert "ok" in meter.answer(meter.publish("t", b"before"))
        broker.kill()
        assert meter.link_end()
        assert "down" in meter.answer(meter.publish("t", b"lost"))
        assert "down" in meter.answer(meter.send("connect"))
        broker.restart()
        meter.ask("connect")
        assert "ok" in meter.answer(meter.publish("t", b"after"))


@each_interpreter
@pytest.mark.parametrize("name", BROKERS)
def test_tls_link_carries_messages_of_every_size(
    kind: str,
    name: str,
    tmp_path: Path,
    certificates: Certificates,
    probe: Callable[..., Probe],
) -> None:
    with BROKERS[name](tmp_path, certificates) as broker:
        secure = {"ca": str(certificates.ca_der), "server_hostname": "localhost"}
        meter = probe(kind, broker.port, max_packet=20_000, **secure)
        meter.ask("connect")
        meter.ask("subscribe", topic="secret", qos=1)
        for times in (0, 1, 25, 99):
            assert "ok" in meter.answer(meter.publish("secret", b"ten bytes.", times=times))
            assert meter.message() == ("secret", b"ten bytes." * times, False)
        # Longer than one TLS record (16 KB).
        assert "ok" in meter.answer(meter.publish("secret", b"ten bytes.", times=1_900))
        wanted = hashlib.sha256(b"ten bytes." * 1_900).hexdigest()
        assert meter.wait(lambda word: "topic" in word)["sha256"] == wanted


@each_interpreter
def test_wrong_authority_wrong_name_and_no_tls_are_link_down(
    kind: str, tmp_path: Path, certificates: Certificates, probe: Callable[..., Probe]
) -> None:
    stranger = make_certificates(tmp_path / "stranger")
    with nats_broker(tmp_path, certificates) as broker:
        for ca, name in ((stranger.ca_der, "localhost"), (certificates.ca_der, "elsewhere")):
            meter = probe(kind, broker.port, ca=str(ca), server_hostname=name)
            assert "certificate" in meter.answer(meter.send("connect"))["down"].lower()
        meter = probe(kind, broker.port, timeout_s=1)
        assert "down" in meter.answer(meter.send("connect"))
    (tmp_path / "plain").mkdir()
    with nats_broker(tmp_path / "plain") as plain:
        ca = str(certificates.ca_der)
        meter = probe(kind, plain.port, ca=ca, server_hostname="localhost", timeout_s=2)
        assert "down" in meter.answer(meter.send("connect"))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server((HOST, 0))) as server:
        server.settimeout(LIMIT_S)
        yield server


def _accept(listener: socket.socket, stack: ExitStack) -> socket.socket:
    link = stack.enter_context(closing(listener.accept()[0]))
    link.settimeout(LIMIT_S)
    return link


@each_interpreter
def test_broker_that_accepts_and_never_answers_is_link_down(
    kind: str, listener: socket.socket, probe: Callable[..., Probe]
) -> None:
    with ExitStack() as stack:
        meter = probe(kind, listener.getsockname()[1], timeout_s=0.5, keepalive_s=1)
        order = meter.send("connect")
        _accept(listener, stack)
        assert meter.answer(order)["down"] == "broker does not answer"


@each_interpreter
def test_broker_that_falls_silent_is_link_down(
    kind: str, listener: socket.socket, probe: Callable[..., Probe]
) -> None:
    with ExitStack() as stack:
        meter = probe(kind, listener.getsockname()[1], timeout_s=0.5, keepalive_s=1)
        order = meter.send("connect")
        link = _accept(listener, stack)
        link.sendall(b"\x20\x02\x00\x00")
        assert "ok" in meter.answer(order)
        assert meter.link_end() == "no answer to a ping"
        received = b""
        while piece := link.recv(100):
            received += piece
        assert received.endswith(b"\xc0\x00")


@each_interpreter
def test_broker_that_stops_reading_is_link_down(
    kind: str, listener: socket.socket, probe: Callable[..., Probe]
) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with ExitStack() as stack:
        meter = probe(kind, listener.getsockname()[1], timeout_s=1, keepalive_s=60)
        order = meter.send("connect")
        _accept(listener, stack).sendall(b"\x20\x02\x00\x00")
        assert "ok" in meter.answer(order)
        # The buffers of both sockets hold a few megabytes at most.
        for _ in range(1_000):
            answer = meter.answer(meter.publish("t", b"x", qos=0, times=20_000))
            if "down" in answer:
                break
        assert answer["down"] == "broker does not read"
        assert meter.link_end() == "broker does not read"


@each_interpreter
def test_nobody_listening_is_link_down(
    kind: str, listener: socket.socket, probe: Callable[..., Probe]
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    meter = probe(kind, port)
    assert meter.answer(meter.send("connect"))["down"].startswith("connecting: ")


@each_interpreter
def test_random_bytes_from_a_socket_only_take_the_link_down(
    kind: str, listener: socket.socket, probe: Callable[..., Probe]
) -> None:
    draw = random.Random(20)
    meter = probe(kind, listener.getsockname()[1], timeout_s=0.3, max_packet=256)
    for n in range(40):
        with ExitStack() as stack:
            order = meter.send("connect")
            link = _accept(listener, stack)
            noise = (b"\x20\x02\x00\x00" if n % 4 else b"") + draw.randbytes(n * 20)
            with suppress(OSError):  # the client may have hung up already
                link.sendall(noise)
                link.shutdown(socket.SHUT_WR)
            if "ok" in meter.answer(order):
                assert meter.link_end()
    assert "down" in meter.answer(meter.publish("t", b""))


def test_board_sized_heap_takes_thousands_of_messages(
    tmp_path: Path, probe: Callable[..., Probe]
) -> None:
    """400 KB of heap on 64 bits are about a 200 KB board; a leak of 100 bytes each would show."""
    with nats_broker(tmp_path) as broker, _peer(broker.port) as peer:
        meter = probe("micropython", broker.port, heap="400k", quiet=True)
        meter.ask("connect")
        meter.ask("subscribe", topic="many", qos=1)
        for n in range(4_000):
            peer.publish("many", n.to_bytes(2, "big") * 125, qos=0)
        peer.publish("many", b"last")
        assert meter.wait(lambda word: "topic" in word)["count"] == 4_001
