"""The whole gateway against real brokers, with signed records of simulated meters."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config import load
from gateway.queue import Message
from gateway.schema import ConfigError
from gateway.service import Service
from ledger.protocol import topics
from tests.broker import Broker, make_certificates, mosquitto_broker, nats_broker
from tests.gateway.link import LIMIT_S, Street, make_region
from tests.gateway.region import FIRST, GATEWAY

MEMBERS = 6
BROKERS = {"nats": nats_broker, "mosquitto": mosquitto_broker}


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with BROKERS[request.param](folder) as running:
        yield running


@contextmanager
def gateway(folder: Path, *, wait: bool = True) -> Iterator[Service]:
    """Run a gateway in a thread; its end must be clean."""
    service = Service(load(folder / "gateway.toml"), status=folder / "status.json")
    errors: list[BaseException] = []

    def run() -> None:
        try:
            service.run()
        except BaseException as e:  # noqa: BLE001 - shown in the test's own thread
            errors.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert not wait or service.wait_ready(LIMIT_S)
        yield service
    finally:
        service.stop()
        thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert errors == []


def until(what: Callable[[], bool]) -> None:
    """Look often until something of another thread is so."""
    look = threading.Event()
    deadline = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < deadline
        look.wait(0.02)


def test_rounds_come_back_as_heads_and_receipts(broker: Broker, tmp_path: Path) -> None:
    genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
    with gateway(tmp_path / "region") as service, Street(genesis, MEMBERS, broker.port) as street:
        for round_ in range(FIRST, FIRST + 3):
            sent = street.play(round_)
            street.wait_receipts(sent)
            street.wait_round(round_)
        assert sorted({head.height for head in street.heads}) == [1, 2, 3]
        assert service.counters["records.in_blocks"] == 3 * 2 * MEMBERS
        assert service.counters["outcome.accepted"] == 3 * MEMBERS


def test_bad_messages_through_a_real_broker_disturb_nobody(broker: Broker, tmp_path: Path) -> None:
    genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
    with gateway(tmp_path / "region") as service, Street(genesis, MEMBERS, broker.port) as street:
        meter = street.meters[0]
        topic = meter.topic(topics.READING)
        reading = meter.reading(FIRST)
        street.publish(
            Message(topic, bytes(5000)),
            Message(topic, b""),
            Message(topic, reading.raw[:-1] + bytes([reading.raw[-1] ^ 1])),
            Message(street.meters[1].topic(topics.READING), reading.raw),
            Message(topics.registry(genesis.chain), b"\xff" * 50),
        )
        street.wait_receipts(street.play(FIRST))
        counters = service.counters
        assert counters["rejected.oversized"] == 1
        assert counters["rejected.malformed"] == 2
        assert counters["rejected.bad-signature"] == 1
        assert counters["rejected.wrong-topic"] == 1


def test_messages_sent_while_the_gateway_was_away_come_in(broker: Broker, tmp_path: Path) -> None:
    genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
    with Street(genesis, MEMBERS, broker.port) as street:
        with gateway(tmp_path / "region"):
            street.wait_receipts(street.play(FIRST))
        sent = street.play(FIRST + 1)
        with gateway(tmp_path / "region"):
            street.wait_receipts(sent)


def test_gateway_outlives_its_broker(broker: Broker, tmp_path: Path) -> None:
    genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
    with gateway(tmp_path / "region") as service, Street(genesis, MEMBERS, broker.port) as street:
        street.wait_receipts(street.play(FIRST))
        broker.kill()
        street.wait_disconnected()
        until(lambda: service.counters["mqtt.disconnected"] == 1)
        broker.start()
        # mosquitto here keeps no sessions over a restart: what is sent before the gateway is back
        # would be lost, and a meter would send it again
        street.wait_connected()
        assert service.wait_ready(LIMIT_S)
        street.wait_receipts(street.play(FIRST + 1))


def test_stranger_that_filled_the_gateways_session_is_got_rid_of(
    broker: Broker, tmp_path: Path
) -> None:
    """Under the gateway's client id it has left subscriptions; nats-server then grants no more."""
    genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
    filters = ["gw/#", "gw/1/#", "+/#", "+/+/#"]
    take_over(f"gateway-{GATEWAY.address.hex()}", broker.port, filters)
    with gateway(tmp_path / "region") as service, Street(genesis, MEMBERS, broker.port) as street:
        street.wait_receipts(street.play(FIRST))
        refused = service.counters["mqtt.subscription_refused"]
        assert service.counters["mqtt.session_dropped"] == bool(refused)


def take_over(client_id: str, port: int, filters: list[str]) -> None:
    """Connect in somebody's name to the session kept for it, subscribe, and go."""
    subscribed = threading.Event()
    stranger = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False)
    stranger.on_connect = lambda client, *_: client.subscribe([(name, 1) for name in filters])
    stranger.on_subscribe = lambda *_: subscribed.set()
    stranger.connect("127.0.0.1", port)
    stranger.loop_start()
    assert subscribed.wait(LIMIT_S)
    stranger.disconnect()
    stranger.loop_stop()


def test_gateway_that_starts_before_its_broker_connects_later(tmp_path: Path) -> None:
    with nats_broker(tmp_path) as broker:
        broker.stop()
        genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
        with gateway(tmp_path / "region", wait=False) as service:
            broker.start()
            assert service.wait_ready(LIMIT_S)
            with Street(genesis, MEMBERS, broker.port) as street:
                street.wait_receipts(street.play(FIRST))


def test_link_is_encrypted_where_a_ca_is_named(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "tls")
    with mosquitto_broker(tmp_path, certificates) as broker:
        genesis = make_region(
            tmp_path / "region", broker.port, MEMBERS, **{"mqtt.ca_file": str(certificates.ca)}
        )
        with (
            gateway(tmp_path / "region"),
            Street(genesis, MEMBERS, broker.port, certificates.ca) as street,
        ):
            street.wait_receipts(street.play(FIRST))


def test_file_that_is_no_certificate_is_a_config_error(tmp_path: Path) -> None:
    make_region(tmp_path / "region", 1883, 3, **{"mqtt.ca_file": "genesis.cbor"})
    with pytest.raises(ConfigError, match="not a CA certificate"):
        Service(load(tmp_path / "region" / "gateway.toml"))
