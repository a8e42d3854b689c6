"""Real MQTT brokers on 127.0.0.1, for tests: nats-server (JetStream and MQTT) and mosquitto."""

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
_START_LIMIT_S = 20


class Certificates(NamedTuple):
    """A private authority and its server certificate for localhost and 127.0.0.1.

    PEM files, and `ca_der` for boards: MicroPython and CPython both take DER bytes as `cadata`.
    """

    ca: Path
    ca_der: Path
    cert: Path
    key: Path


class Broker:
    """One broker process; `port` stays the same over restarts, and so does what it stored."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.port = port
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = self._log.read_text(errors="replace")
                    raise RuntimeError(f"the broker did not start:\n{text}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it in an orderly way."""
        if self._process:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def restart(self) -> None:
        """Start it again after stop() or kill(); stops it first if it still runs."""
        self.stop()
        self.start()


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def _running(broker: Broker) -> Iterator[Broker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextmanager
def nats_broker(folder: Path, tls: Certificates | None = None) -> Iterator[Broker]:
    """Run nats-server with JetStream and MQTT 3.1.1, its store below `folder`.

    With `tls` the MQTT port speaks TLS only. The test is skipped where nats-server is missing.
    """
    program = _program("nats-server")
    port = free_port()
    secure = f'tls {{ cert_file: "{tls.cert}", key_file: "{tls.key}" }}' if tls else ""
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: "test"\nlisten: "{HOST}:-1"\n'
        f'jetstream {{ store_dir: "{folder / "nats"}" }}\n'
        f'mqtt {{ listen: "{HOST}:{port}"\n{secure} }}\n',
        encoding="utf-8",
    )
    with _running(Broker([program, "-c", str(config)], port, folder / "nats.log")) as broker:
        yield broker


@contextmanager
def mosquitto_broker(folder: Path, tls: Certificates | None = None) -> Iterator[Broker]:
    """Run mosquitto without authentication and persistence; skips where it is missing."""
    program = _program("mosquitto")
    port = free_port()
    secure = f"certfile {tls.cert}\nkeyfile {tls.key}\n" if tls else ""
    # Started by root, mosquitto becomes its own user, which may not read the test's folder.
    user = "user root\n" if os.geteuid() == 0 else ""
    config = folder / "mosquitto.conf"
    config.write_text(
        f"{user}listener {port} {HOST}\nallow_anonymous true\n{secure}", encoding="utf-8"
    )
    with _running(Broker([program, "-c", str(config)], port, folder / "mosquitto.log")) as broker:
        yield broker


def make_certificates(folder: Path) -> Certificates:
    """Write a fresh authority and a P-256 server certificate of its, valid for a day each way."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    ca = (
        _builder(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    cert = (
        _builder(name, ca_name, server_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    paths = Certificates(*(folder / n for n in ("ca.pem", "ca.der", "cert.pem", "key.pem")))
    pem = serialization.Encoding.PEM
    paths.ca.write_bytes(ca.public_bytes(pem))
    paths.ca_der.write_bytes(ca.public_bytes(serialization.Encoding.DER))
    paths.cert.write_bytes(cert.public_bytes(pem))
    paths.key.write_bytes(
        server_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
    )
