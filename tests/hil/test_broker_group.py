"""Brokers that each gateway brings: one of three may die and nothing that it took is lost."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from hil.broker import Broker, BrokerError, BrokerGroup, Cluster
from hil.ports import HOST

_TOPIC = "gw/1/0011223344556677/a/reading"
_LIMIT_S = 40


@contextmanager
def _client(port: int, name: str, got: "queue.Queue[bytes] | None" = None) -> Iterator[mqtt.Client]:
    """Connect with a session that stays; where ``got`` is given, listen into it."""
    ready = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, clean_session=False)
    client.reconnect_delay_set(1, 1)
    client.on_message = lambda _c, _u, message: got.put(message.payload) if got else None
    client.on_subscribe = lambda *_: ready.set()
    client.on_connect = lambda *_: client.subscribe(_TOPIC, 1) if got else ready.set()
    client.connect(HOST, port, keepalive=20)
    client.loop_start()
    try:
        assert ready.wait(_LIMIT_S)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def test_what_a_dead_broker_of_a_group_took_reaches_a_session_at_another(tmp_path: Path) -> None:
    got: queue.Queue[bytes] = queue.Queue()
    with BrokerGroup(tmp_path) as group:
        first, second, third = group.brokers
        with _client(second.port, "listener", got):
            pass
        with _client(first.port, "sender") as sender:
            for number in range(20):
                sender.publish(_TOPIC, b"%d" % number, qos=1).wait_for_publish(_LIMIT_S)
        first.kill()
        with _client(third.port, "listener", got):
            found = {got.get(timeout=_LIMIT_S) for _ in range(20)}
    assert found == {b"%d" % number for number in range(20)}


def test_mosquitto_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="choose nats"):
        Broker(tmp_path, "mosquitto", cluster=Cluster("a", 1, (), 2, 1))
