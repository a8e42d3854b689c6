"""Publishes a region's prepared rounds as fast as broker and gateway take them; its own process.

Input: frames of (topic length, payload length) as two big-endian 16-bit numbers, then both. All of
it is read before the first message goes out. A round is not begun before the head of the round
``--ahead`` rounds before it was seen, which bounds what waits in the broker. Prints ``first`` and
``last`` with the time of the first publish and of the last round's head.
"""

import argparse
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.queue import Message
from ledger.protocol import records, topics
from ledger.protocol.cose import Envelope

_HEAD = struct.Struct(">HH")
_IN_FLIGHT = 500
_CONNECT_LIMIT_S = 10


def pack(messages: Iterable[Message]) -> bytes:
    """Give the input for these messages."""
    parts = []
    for message in messages:
        topic = message.topic.encode()
        parts += [_HEAD.pack(len(topic), len(message.payload)), topic, message.payload]
    return b"".join(parts)


def unpack(data: bytes) -> Iterator[Message]:
    """Give the messages of an input that ``pack`` made."""
    at = 0
    while at < len(data):
        topic, payload = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        text = data[at : at + topic].decode()
        yield Message(text, data[at + topic : at + topic + payload])
        at += topic + payload


class Publisher:
    """One connection that publishes at QoS 1 and watches the region's heads."""

    def __init__(self, port: int, chain: bytes) -> None:
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self._ready = threading.Event()
        self._changed = threading.Condition()
        self._newest = -1
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "bench-publisher")
        self._client.max_inflight_messages_set(_IN_FLIGHT)
        self._client.on_connect = lambda client, *_: client.subscribe(topics.head(chain), 0)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_publish = lambda *_: self._slots.release()
        self._client.on_message = self._on_head
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not self._ready.wait(_CONNECT_LIMIT_S):
            raise TimeoutError("the broker does not answer")

    def _on_head(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        head = records.decode(Envelope.parse(bytes(message.payload)).payload)
        with self._changed:
            self._newest = head.round
            self._changed.notify_all()

    def publish(self, message: Message) -> None:
        """Send one message; waits while too many are unacknowledged."""
        self._slots.acquire()
        self._client.publish(message.topic, message.payload, qos=1)

    def wait_for_head(self, round_: int, limit_s: float) -> None:
        """Wait for the head of a round; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._newest >= round_, limit_s):
                raise TimeoutError(f"no head of round {round_} in {limit_s:.0f} s")

    def close(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._client.loop_stop()


def main() -> int:
    """Publish what standard input holds."""
    parser = argparse.ArgumentParser(description="Publish prepared rounds.")
    parser.add_argument("--port", type=int, required=True, help="MQTT port on 127.0.0.1")
    parser.add_argument("--chain", type=bytes.fromhex, required=True, help="id of the region")
    parser.add_argument("--round", type=int, required=True, help="number of the first round")
    parser.add_argument("--a-round", type=int, required=True, help="messages a round")
    parser.add_argument("--ahead", type=int, default=2, help="rounds that may be under way")
    parser.add_argument("--limit", type=float, required=True, help="seconds to wait for a head")
    options = parser.parse_args()
    messages = list(unpack(sys.stdin.buffer.read()))
    publisher = Publisher(options.port, options.chain)
    print(f"first {time.monotonic()}", flush=True)
    round_ = options.round
    for at in range(0, len(messages), options.a_round):
        if at >= options.ahead * options.a_round:
            publisher.wait_for_head(round_ - options.ahead, options.limit)
        for message in messages[at : at + options.a_round]:
            publisher.publish(message)
        round_ += 1
    publisher.wait_for_head(round_ - 1, options.limit)
    print(f"last {time.monotonic()}", flush=True)
    publisher.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
