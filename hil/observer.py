"""What anybody on the broker can see of a region: a paho client that listens to everything.

The rig uses it to know when a round is closed and to catch envelopes that attacks send again. It
runs in paho's thread; heads are handed to the event loop.
"""

import asyncio
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from ledger.genesis import RegionGenesis, addresses
from ledger.protocol import p256, records, topics
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import ProtocolError

_CONNECT_LIMIT_S = 10


class Observer:
    """Waits for heads; with ``keep_readings`` it keeps every reading, by address, oldest first.

    ``ca`` is a PEM file for a broker with TLS. Kept readings take some 600 bytes each, for as long
    as the observer lives.
    """

    def __init__(
        self,
        host: str,
        port: int,
        genesis: RegionGenesis,
        ca: Path | None = None,
        *,
        keep_readings: bool = False,
    ) -> None:
        self.readings: dict[bytes, list[Envelope]] = {}
        self.closed_round = -1
        self.height = 0
        self._chain = genesis.chain
        self._gateways = {
            address: p256.PublicKey(key) for address, key in addresses(genesis.gateways).items()
        }
        self._keep_readings = keep_readings
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._subscribed = asyncio.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="observer")
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        if ca is not None:
            self._client.tls_set(str(ca))
        self._client.connect_async(host, port)

    async def start(self) -> None:
        """Connect and return when everything is subscribed; raises TimeoutError."""
        self._client.loop_start()
        async with asyncio.timeout(_CONNECT_LIMIT_S):
            await self._subscribed.wait()

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1, as an attacker with access to the broker could."""
        self._client.publish(topic, payload, qos=1)

    async def wait_closed(self, round_: int, limit_s: float) -> None:
        """Return when a head of this round or a later one was seen; raises TimeoutError."""
        async with asyncio.timeout(limit_s):
            while self.closed_round < round_:
                self._changed.clear()
                await self._changed.wait()

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(f"gw/1/{self._chain.hex()}/#", qos=1)

    def _on_subscribe(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._subscribed.set)

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if self._keep_readings and message.topic.endswith("/" + topics.READING):
            self._keep(bytes(message.payload))
        elif message.topic == topics.head(self._chain):
            self._loop.call_soon_threadsafe(self._see_head, bytes(message.payload))

    def _keep(self, raw: bytes) -> None:
        try:
            envelope = Envelope.parse(raw)
        except ProtocolError:
            return
        self.readings.setdefault(envelope.kid, []).append(envelope)

    def _see_head(self, raw: bytes) -> None:
        """Believe a head that one of the region's gateways signed; attacks publish others."""
        try:
            envelope = Envelope.parse(raw)
            if envelope.kid not in self._gateways:
                return
            envelope.verify(self._gateways[envelope.kid])
            head = records.decode(envelope.payload)
        except ProtocolError:
            return
        if isinstance(head, records.Head) and head.height > self.height:
            self.height, self.closed_round = head.height, head.round
            self._changed.set()
