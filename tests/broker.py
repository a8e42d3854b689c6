"""Real MQTT brokers on 127.0.0.1, for tests: nats-server (JetStream and MQTT) and mosquitto."""

import datetime
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hil.broker import Broker, BrokerError, Tls
from hil.ports import HOST, free_port

__all__ = ["HOST", "Broker", "Certificates", "free_port", "make_certificates"]


class Certificates(NamedTuple):
    """A private authority and its server certificate for localhost and 127.0.0.1.

    PEM files, and `ca_der` for boards: MicroPython and CPython both take DER bytes as `cadata`.
    """

    ca: Path
    ca_der: Path
    cert: Path
    key: Path


def _broker(kind: str, folder: Path, tls: Certificates | None) -> Broker:
    try:
        return Broker(folder, kind, Tls(tls.cert, tls.key, tls.ca) if tls else None)
    except BrokerError as e:
        pytest.skip(str(e))


@contextmanager
def nats_broker(folder: Path, tls: Certificates | None = None) -> Iterator[Broker]:
    """Run nats-server with JetStream and MQTT 3.1.1, its store below `folder`.

    With `tls` the MQTT port speaks TLS only. The test is skipped where nats-server is missing.
    """
    with _broker("nats", folder, tls) as broker:
        yield broker


@contextmanager
def mosquitto_broker(folder: Path, tls: Certificates | None = None) -> Iterator[Broker]:
    """Run mosquitto without authentication and persistence; skips where it is missing."""
    with _broker("mosquitto", folder, tls) as broker:
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
