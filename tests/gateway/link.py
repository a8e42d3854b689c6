"""Paho clients that publish for simulated meters and watch what comes back, without sleeps."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config import write_default
from gateway.queue import Message
from ledger.genesis import RegionGenesis
from ledger.protocol import records, topics
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.messages import Receipt
from tests.gateway.region import GATEWAY, Meter, genesis_of, signer

LIMIT_S = 30.0


def make_region(folder: Path, port: int, members: int, **settings: object) -> RegionGenesis:
    """Write a region's folder as the provisioning tool would; gives its genesis."""
    genesis = genesis_of(members)
    (folder / "keys").mkdir(parents=True)
    (folder / "genesis.cbor").write_bytes(genesis.encode())
    GATEWAY.save(folder / "keys" / "gateway.key")
    base: dict[str, object] = {
        "mqtt.port": port,
        "rounds.pace": "trace",
        "rounds.timeout_s": 20.0,
        "wide.forward": False,
    }
    write_default(folder / "gateway.toml", base | settings)
    return genesis


class Street:
    """All meters of a region behind one MQTT connection (topics are not tied to connections)."""

    def __init__(
        self,
        genesis: RegionGenesis,
        members: int,
        port: int,
        ca: Path | None = None,
        *,
        connect: bool = True,
    ) -> None:
        self.genesis = genesis
        self.meters = [Meter(genesis, signer(i + 1)) for i in range(members)]
        self.heads: list[records.Head] = []
        self.receipted: set[bytes] = set()
        self._changed = threading.Condition()
        self._connected = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="street")
        self._client.reconnect_delay_set(1, 1)
        if ca is not None:
            self._client.tls_set(str(ca))
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(topics.head(genesis.chain), 1), (topics.every(genesis.chain, topics.RECEIPT), 1)]
        )
        self._disconnected = threading.Event()
        self._client.on_subscribe = lambda *_: self._connected.set()
        self._client.on_disconnect = lambda *_: self._lose()
        self._client.on_message = lambda _client, _data, message: self._take(message)
        if connect:
            self._client.connect("127.0.0.1", port, keepalive=10)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._connected.wait(LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _lose(self) -> None:
        self._connected.clear()
        self._disconnected.set()

    def wait_connected(self) -> None:
        assert self._connected.wait(LIMIT_S)

    def wait_disconnected(self) -> None:
        assert self._disconnected.wait(LIMIT_S)

    def _take(self, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            if message.topic == topics.head(self.genesis.chain):
                envelope = Envelope.parse(message.payload)
                head = records.decode(envelope.payload)
                self.heads.append(head)
                for meter in self.meters:
                    meter.parent = payload_digest(envelope.payload)
            else:
                receipt = Receipt.decode(message.payload)
                self.receipted.update(receipt.proved(records.decode(receipt.head.payload)))
            self._changed.notify_all()

    def wait_for(self, what: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(what, LIMIT_S), (len(self.heads), len(self.receipted))

    def publish(self, *messages: Message) -> None:
        """Publish at QoS 1 and wait until the broker has them."""
        sent = [self._client.publish(m.topic, m.payload, qos=1) for m in messages]
        for info in sent:
            info.wait_for_publish(LIMIT_S)

    def send(self, envelopes: list[Envelope]) -> None:
        owners = {meter.address: meter for meter in self.meters}
        self.publish(*[owners[e.kid].message(e) for e in envelopes])

    def play(self, round_: int) -> list[Envelope]:
        """Send one honest round; gives its records."""
        readings = [meter.reading(round_) for meter in self.meters]
        ballots = [meter.ballot(round_, readings) for meter in self.meters]
        self.send(readings)
        self.send(ballots)
        return readings + ballots

    def wait_round(self, round_: int) -> None:
        self.wait_for(lambda: bool(self.heads) and self.heads[-1].round == round_)

    def wait_receipts(self, envelopes: list[Envelope]) -> None:
        wanted = {e.digest for e in envelopes}
        self.wait_for(lambda: wanted <= self.receipted)
