"""What docs/gateway.md tells people to write is run: broker, rules, settings, unit."""

import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway import config as configuration
from gateway.queue import Message
from hil.ports import free_port
from ledger.protocol import topics
from ledger.regional import codes
from tests.broker import make_certificates
from tests.gateway.link import LIMIT_S, Street, make_region
from tests.gateway.region import FIRST
from tests.gateway.test_broker import gateway

DOCS = Path(__file__).parents[2] / "docs" / "gateway.md"
MEMBERS = 3


def block(name: str) -> str:
    """Give the code block whose first line is a comment that ends in ``name``."""
    found = re.search(rf"```\w+\n(# \S*{re.escape(name)}\n.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None, name
    return found[1]


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def mosquitto(config: Path, port: int) -> Iterator[None]:
    """Run mosquitto with a configuration file until the block ends."""
    arguments = [program("mosquitto"), "-c", str(config)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            for line in child.stderr:
                if line.rstrip().endswith("running"):
                    break
            else:
                pytest.fail("mosquitto did not start")
            yield
        finally:
            child.kill()


def write_broker(folder: Path, port: int) -> Path:
    """Write the documented broker configuration for this machine; gives its file."""
    tls = make_certificates(folder / "tls")
    text = block("conf.d/gridwitness.conf").replace("listener 8883", f"listener {port} 127.0.0.1")
    places = {
        "/etc/mosquitto/certs/ca.pem": tls.ca,
        "/etc/mosquitto/certs/broker.pem": tls.cert,
        "/etc/mosquitto/certs/broker.key": tls.key,
        "/etc/mosquitto/gridwitness.passwd": folder / "passwd",
        "/etc/mosquitto/gridwitness.acl": folder / "acl",
        "/var/lib/mosquitto/": f"{folder}/",
    }
    for documented, here in places.items():
        assert documented in text
        text = text.replace(documented, str(here))
    (folder / "acl").write_text(block("gridwitness.acl"))
    (folder / "mosquitto.conf").write_text(f"user root\n{text}")
    return folder / "mosquitto.conf"


def add_user(folder: Path, name: str) -> None:
    passwords = folder / "passwd"
    new = [] if passwords.exists() else ["-c"]
    subprocess.run(
        [program("mosquitto_passwd"), "-b", *new, str(passwords), name, f"password of {name}"],
        check=True,
    )


class OneMeter(Street):
    """A street whose connection is one meter's: its own user, its own rights."""

    def __init__(self, street: Street, port: int, ca: Path) -> None:
        super().__init__(street.genesis, MEMBERS, port, ca, connect=False)
        user = self.meters[0].address.hex()
        self._client.username_pw_set(user, f"password of {user}")
        self._client.connect("127.0.0.1", port, keepalive=10)


def test_documented_broker_lets_a_meter_write_to_its_own_topics_only(tmp_path: Path) -> None:
    port = free_port()
    config = write_broker(tmp_path, port)
    settings = configuration.parse(tomllib.loads(block("gateway.toml")), "docs").mqtt
    genesis = make_region(
        tmp_path / "region",
        port,
        MEMBERS,
        **{
            "mqtt.user": settings.user,
            "mqtt.password_file": settings.password_file,
            "mqtt.ca_file": str(tmp_path / "tls" / "ca.pem"),
            "rounds.timeout_s": 1.0,
        },
    )
    (tmp_path / "region" / settings.password_file).write_text("password of gateway\n")
    plan = Street(genesis, MEMBERS, port, connect=False)
    own = plan.meters[0]
    for name in ("gateway", own.address.hex()):
        add_user(tmp_path, name)
    with mosquitto(config, port):
        ca = tmp_path / "tls" / "ca.pem"
        with gateway(tmp_path / "region") as service, OneMeter(plan, port, ca) as street:
            mine, other = street.meters[:2]
            foreign = other.reading(FIRST)
            street.publish(
                other.message(foreign),
                Message(topics.registry(genesis.chain), b"not an operator"),
                Message(topics.head(genesis.chain), b"not a gateway"),
            )
            record = mine.reading(FIRST)
            street.publish(mine.message(record), mine.message(mine.ballot(FIRST, [])))
            street.wait_receipts([record])
            assert foreign.digest not in street.receipted
            assert service.counters["records.received"] == 2


def test_documented_broker_refuses_strangers(tmp_path: Path) -> None:
    port = free_port()
    config = write_broker(tmp_path, port)
    add_user(tmp_path, "gateway")
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.tls_set(str(tmp_path / "tls" / "ca.pem"))
    reasons = []

    def refused(
        _client: mqtt.Client, _data: object, _flags: object, reason: object, _p: object
    ) -> None:
        reasons.append(str(reason))
        client.disconnect()

    client.on_connect = refused
    with mosquitto(config, port):
        client.connect("127.0.0.1", port)
        client.loop_forever()
    assert reasons == ["Not authorized"]


def test_documented_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    text = block("gridwitness-gateway.service")
    unit = tmp_path / "gridwitness-gateway.service"
    # the interpreter of the documented place is not on this machine
    unit.write_text(text.replace("/opt/gridwitness/.venv/bin/python", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", str(unit)], capture_output=True, text=True, timeout=LIMIT_S
    )
    mine = [line for line in done.stderr.splitlines() if "gridwitness" in line]
    assert mine == []


def test_every_code_of_the_chain_is_documented() -> None:
    text = DOCS.read_text()
    # what only a gateway's own order, a question or an application bug can meet
    own = {"ok", "wrong-round", "impossible", "unknown-head", "unknown-query"}
    for name in set(codes.NAMES.values()) - own:
        assert f"`{name}`" in text, name


@contextmanager
def documented_group(folder: Path) -> Iterator[list[int]]:
    """Run three brokers as documented, on this machine; gives their MQTT ports."""
    tls = make_certificates(folder / "tls")
    names = ("pi-1", "pi-2", "pi-3")
    mqtt_ports, routes, pages = ([free_port() for _ in names] for _ in range(3))
    brokers = []
    for at, name in enumerate(names):
        text = block("nats/gridwitness.conf").replace('name: "pi-1"', f'name: "{name}"')
        changes = {
            "127.0.0.1:4222": f"127.0.0.1:{free_port()}",
            "127.0.0.1:8222": f"127.0.0.1:{pages[at]}",
            "0.0.0.0:6222": f"127.0.0.1:{routes[at]}",
            "0.0.0.0:8883": f"127.0.0.1:{mqtt_ports[at]}",
            "/var/lib/nats": str(folder / name),
            "/etc/nats/broker.pem": str(tls.cert),
            "/etc/nats/broker.key": str(tls.key),
        }
        changes |= {f"@{n}:6222": f"@127.0.0.1:{routes[i]}" for i, n in enumerate(names)}
        for documented, here in changes.items():
            assert text.count(documented) == 1, documented
            text = text.replace(documented, here)
        config = folder / f"{name}.conf"
        config.write_text(text)
        brokers.append(config)
    with ExitStack() as stack:
        for config in brokers:
            log = stack.enter_context(config.with_suffix(".log").open("wb"))
            process = subprocess.Popen([nats_server(), "-c", config], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
        deadline = time.monotonic() + LIMIT_S
        while not all(is_healthy(page) for page in pages):
            assert time.monotonic() < deadline, config.with_suffix(".log").read_text()
            time.sleep(0.05)
        yield mqtt_ports


def nats_server() -> str:
    beside = shutil.which("nats-server", path=str(Path(sys.executable).parent))
    return beside or program("nats-server")


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_documented_group_of_brokers_is_one(tmp_path: Path) -> None:
    with documented_group(tmp_path) as ports:
        ca = tmp_path / "tls" / "ca.pem"
        genesis = make_region(
            tmp_path / "region",
            ports[1],
            MEMBERS,
            **{"mqtt.ca_file": str(ca), "rounds.timeout_s": 1.0},
        )
        with (
            gateway(tmp_path / "region"),
            Street(genesis, MEMBERS, ports[2], ca) as street,
        ):
            street.wait_receipts(street.play(FIRST))
