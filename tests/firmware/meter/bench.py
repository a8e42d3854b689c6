"""What the tests of the meter's program play: a gateway, two neighbours and the rig."""

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from firmware.meter import rig_messages
from firmware.meter.identity import Identity
from hil import micropython
from ledger.protocol import cose, frame, merkle, quantities, records, topics
from ledger.protocol.cose import Envelope
from ledger.protocol.messages import Receipt
from ledger.protocol.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "firmware" / "boards" / "unix" / "main.py"
LIMIT_S = 30
GENESIS = bytes(range(32))
CHAIN = GENESIS[: records.CHAIN_BYTES]
ROUND_S = 60
START_ROUND = 1000
CLUSTER = "c1"


def identity(number: int) -> Identity:
    """Give one of the test's own keys."""
    return Identity(number.to_bytes(32, "big"))


OPERATOR, GATEWAY, ALICE, BOB, STRANGER = (identity(n) for n in (11, 12, 13, 14, 15))


def settings(port: int, neighbours: Sequence[Identity] = (ALICE, BOB), **changes: Any) -> Settings:
    """Give a meter's settings for the broker on a port."""
    given: dict[str, Any] = {
        "genesis": GENESIS,
        "round_s": ROUND_S,
        "k": 11,
        "open_rounds": 8,
        "operators": [OPERATOR.public_key],
        "threshold": 1,
        "gateways": [GATEWAY.public_key],
        "cluster": CLUSTER,
        "neighbours": [one.public_key for one in neighbours],
        "host": "127.0.0.1",
        "port": port,
    }
    return Settings(**(given | changes))


def values(round_: int, voltage_mv: int = 230_000) -> list[tuple[int, int]]:
    """Give an honest meter's values: 300 W all the time."""
    frequency = 50_000 + round_ % 7
    return [
        (quantities.VOLTAGE, voltage_mv + round_ % 5 * 10),
        (quantities.CURRENT, 1_400),
        (quantities.ACTIVE_POWER, 300_000),
        (quantities.FREQUENCY, frequency),
        (quantities.ENERGY_IMPORT, 1_000_000 + round_ * 5_000),
    ]


class Signer:
    """A neighbour's chain of readings."""

    def __init__(self, own: Identity, boot: int = 1) -> None:
        self.own = own
        self.boot = boot
        self.seq = 0
        self.previous = records.NO_DIGEST

    def reading(self, round_: int, **changes: Any) -> Envelope:
        """Sign the next reading, of a round."""
        self.seq += 1
        given: dict[str, Any] = {
            "chain": CHAIN,
            "boot": self.boot,
            "seq": self.seq,
            "time": round_ * ROUND_S,
            "interval_s": ROUND_S,
            "flags": 0,
            "lost": 0,
            "previous": self.previous,
            "values": values(round_),
        }
        envelope = self.own.seal(records.Reading(**(given | changes)).payload())
        self.previous = envelope.digest
        return envelope


class Blocks:
    """A chain of heads over digests, as a gateway signs them."""

    def __init__(self, key: Identity = GATEWAY) -> None:
        self.key = key
        self.height = 0
        self.previous = GENESIS
        self.history: list[bytes] = []

    def close(self, round_: int, digests: list[bytes]) -> Envelope:
        """Give the signed head of the next block."""
        self.height += 1
        head = records.Head(
            CHAIN,
            self.height,
            round_,
            (round_ + 1) * ROUND_S,
            self.previous,
            merkle.root(digests),
            len(digests),
            bytes(32),
            bytes(32),
            merkle.root(self.history),
        )
        payload = head.payload()
        self.previous = cose.payload_digest(payload)
        self.history.append(self.previous)
        return self.key.seal(payload)

    def bridge(self, held: int) -> tuple[int, list[bytes]]:
        """Give the proof that the newest head extends the one of height ``held``."""
        return held, merkle.inclusion_path(self.history[:-1], held - 1)


def receipt(
    head: Envelope,
    digests: list[bytes],
    wanted: Sequence[bytes],
    bridge: tuple[int, list[bytes]] | None = None,
) -> bytes:
    """Give the receipt message for some of a block's records."""
    entries = []
    for digest in wanted:
        index = digests.index(digest)
        entries.append((digest, index, merkle.inclusion_path(digests, index)))
    return Receipt(head, entries, bridge).encode()


class Process:
    """The meter's program in a MicroPython process, with this test as its rig."""

    def __init__(self, folder: Path, heap: str | None = None) -> None:
        command = [micropython.interpreter(), *micropython.heap_options(heap), str(PROGRAM)]
        self._log = (folder / "log.txt").open("ab")
        self._process = subprocess.Popen(
            [*command, "--dir", str(folder / "flash")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=micropython.environment(ROOT),
        )
        self.messages: queue.Queue[list[Any]] = queue.Queue()
        self.seen: list[list[Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        decoder = frame.Decoder()
        assert self._process.stdout is not None
        while data := self._process.stdout.read1(4096):  # type: ignore[attr-defined]
            for channel, payload in decoder.feed(data):
                assert channel == frame.CHANNEL_RIG
                self.messages.put(rig_messages.decode(payload))

    def send(self, message: bytes) -> None:
        """Send a rig message."""
        assert self._process.stdin is not None
        self._process.stdin.write(frame.encode(frame.CHANNEL_RIG, message))
        self._process.stdin.flush()

    def provision(self, given: Settings) -> None:
        """Give the meter its settings."""
        self.send(rig_messages.provision(given.encode()))

    def sample(self, round_: int, round_ms: int = 60_000, **changes: Any) -> None:
        """Give the meter the sample of a round."""
        given: dict[str, Any] = {"time_s": round_ * ROUND_S, "interval_s": ROUND_S, "flags": 0}
        pairs = changes.pop("values", values(round_))
        self.send(rig_messages.sample(**(given | changes), round_ms=round_ms, values=pairs))

    def wait(self, number: int, where: Callable[[list[Any]], bool] = lambda _: True) -> list[Any]:
        """Give the next rig message of a kind; fails where none comes in time."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                message = self.messages.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no message {number} after {self.seen[-8:]}") from None
            self.seen.append(message)
            if message[0] == number and where(message):
                return message

    def enrolled(self) -> records.Enrolment:
        """Give the enrolment request, its signature checked."""
        envelope = Envelope.parse(self.wait(rig_messages.ENROL)[1])
        request = records.decode(envelope.payload)
        assert isinstance(request, records.Enrolment)
        envelope.verify(cose.p256.PublicKey(request.public_key))
        return request

    def events(self) -> list[str]:
        """Give the events so far."""
        while not self.messages.empty():
            self.seen.append(self.messages.get())
        return [message[1] for message in self.seen if message[0] == rig_messages.EVENT]

    def end(self) -> int:
        """End the line; gives the exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(LIMIT_S)
        self._gone()
        return status

    def kill(self) -> None:
        """End the process as a power cut would; does nothing where it has ended."""
        self._process.kill()
        self._process.wait(LIMIT_S)
        self._gone()

    def _gone(self) -> None:
        self._reader.join(LIMIT_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        self._log.close()


class Air:
    """A client that hears and says everything of the region, as gateway and neighbours would."""

    def __init__(self, port: int) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._subscribed = threading.Event()
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, m: self.heard.put((m.topic, m.payload))
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(LIMIT_S)

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe("gw/1/#", 1)

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish and wait until the broker has it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(LIMIT_S)

    def say_reading(self, envelope: Envelope, cluster: str = CLUSTER) -> None:
        """Publish a reading on its signer's topic."""
        self.say(topics.meter(CHAIN, cluster, envelope.kid, topics.READING), envelope.raw)

    def hear(self, topic: str, limit_s: float = LIMIT_S) -> bytes:
        """Give the next message on a topic, passing others over; fails where none comes."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                heard, payload = self.heard.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"nothing on {topic}") from None
            if heard == topic:
                return payload

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


def told(port: int, topic: str, payload: bytes) -> bool:
    """Ask for a topic's retained message, as newcomers, until it is this one or time is up."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        newcomer = Air(port)
        try:
            if newcomer.hear(topic, 1.0) == payload:
                return True
        except AssertionError:
            continue  # not told anything yet
        finally:
            newcomer.close()
    return False
