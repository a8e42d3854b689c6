"""``gridwitness board enrol|provision``: a flashed board gets its place in a region.

The key is made on the board and stays there: ``enrol`` fetches the board's signed request, which
``init --member`` or ``member join`` takes; ``provision`` tells the board its region and broker.
"""

import argparse
import ssl
from pathlib import Path

from firmware.meter import rig_messages
from gateway import provision
from hil.serial_line import LineError, SerialLine
from ledger.genesis import RegionGenesis
from ledger.protocol import cose
from ledger.protocol.errors import ProtocolError
from ledger.protocol.records import Enrolment, is_cluster_name
from ledger.protocol.settings import brokers_of
from ledger.region import RegionDirectory, RegionError
from tools.errors import CommandError
from tools.options import named_path

_MOST_ASKED = 5
_ANSWER_LIMIT_S = 20  # making a key and loading tables takes a Pico some seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="enrol|provision", required=True)
    enrol = actions.add_parser("enrol", help="fetch a board's enrolment request")
    enrol.add_argument(
        "--out", type=named_path, required=True, metavar="FILE", help="where to write it"
    )
    tell = actions.add_parser("provision", help="tell a board its region and broker")
    tell.add_argument("dir", type=named_path, metavar="DIR", help="folder of the region")
    tell.add_argument("--cluster", help="its cluster, if it is no member of the genesis")
    tell.add_argument(
        "--host",
        required=True,
        help="the broker's name or address; of several that are one, up to 8: pi-1,pi-2:8884,pi-3",
    )
    tell.add_argument(
        "--mqtt-port", type=int, default=1883, help="the port of brokers that name none"
    )
    tell.add_argument("--user", help="the board's user name at the broker")
    tell.add_argument(
        "--password-file", type=named_path, metavar="FILE", help="its password, one line"
    )
    tell.add_argument(
        "--ca", type=named_path, metavar="PEM", help="the broker's CA; without it no TLS"
    )
    for sub in (enrol, tell):
        sub.add_argument(
            "--port",
            required=True,
            help="the board: USB serial number, device (/dev/ttyACM0) or pyserial URL",
        )


def run(options: argparse.Namespace) -> int:
    """Talk to the board; raises CommandError."""
    try:
        return _enrol(options) if options.action == "enrol" else _provision(options)
    except (LineError, RegionError) as e:
        raise CommandError(str(e)) from e


def _enrol(options: argparse.Namespace) -> int:
    if options.out.exists():
        raise CommandError(f"{options.out} exists: name a new file")
    with SerialLine(options.port) as line:
        raw = _identify(line)
    address = _address(raw)
    try:
        options.out.write_bytes(raw)
    except OSError as e:
        raise CommandError(f"{options.out}: cannot be written: {e.strerror}") from e
    print(f"meter {address.hex()}: its enrolment request is in {options.out}")
    return 0


def _provision(options: argparse.Namespace) -> int:
    genesis = RegionDirectory(options.dir.absolute()).load_genesis()
    if not 1 <= options.mqtt_port <= 65_535:
        raise CommandError(f"--mqtt-port {options.mqtt_port}: give 1 to 65535")
    try:
        brokers_of(options.host, options.mqtt_port)
    except ProtocolError as e:
        raise CommandError(
            f"--host {options.host}: {e}; give name, name:port or [IPv6 address]:port of up to 8"
            " brokers, separated by commas"
        ) from e
    if options.cluster is not None and not is_cluster_name(options.cluster):
        raise CommandError(f"--cluster {options.cluster}: 1 to 32 letters, digits, '-', '_'")
    password, ca = _read_password(options.password_file), _read_ca(options.ca)
    with SerialLine(options.port) as line:
        address = _address(_identify(line))
        settings = provision.meter_settings(
            genesis,
            address,
            options.host,
            options.mqtt_port,
            cluster=options.cluster or _cluster_of(genesis, address),
            user=options.user,
            password=password,
            ca=ca,
        )
        _tell(line, settings.encode(), genesis.chain)
    print(f"meter {address.hex()} belongs to cluster {settings.cluster} of {genesis.name}")
    return 0


def _identify(line: SerialLine) -> bytes:
    message = line.ask(rig_messages.identify(), rig_messages.ENROL, _ANSWER_LIMIT_S)
    return bytes(message[1])


def _tell(line: SerialLine, settings: bytes, chain: bytes) -> None:
    """Send settings until the board says that it has them: that it belongs to this chain."""
    message = rig_messages.provision(settings)
    for _ in range(_MOST_ASKED):
        raw = bytes(line.ask(message, rig_messages.ENROL, _ANSWER_LIMIT_S)[1])
        if _open(raw)[1].chain == chain:
            return
        message = rig_messages.identify()  # that was said before: at its start, or when asked
    raise CommandError("the board did not keep the settings: see what it prints")


def _open(raw: bytes) -> tuple[cose.Envelope, Enrolment]:
    try:
        return provision.open_enrolment(raw)
    except ProtocolError as e:
        raise CommandError(f"the board's answer is not an enrolment request: {e}") from e


def _address(raw: bytes) -> bytes:
    return _open(raw)[0].kid


def _cluster_of(genesis: RegionGenesis, address: bytes) -> str:
    for key, cluster in genesis.members:
        if cose.address_of(key) == address:
            return cluster
    raise CommandError(
        f"meter {address.hex()} is no member of the genesis: give its --cluster, "
        "and let operators approve it with gridwitness member join"
    )


def _read_password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise CommandError(f"{path}: the password cannot be read: {e}") from e
    if not lines or not lines[0]:
        raise CommandError(f"{path}: the first line is not a password")
    return lines[0]


def _read_ca(path: Path | None) -> bytes | None:
    """Give the certificate as DER, which boards take, from a PEM file."""
    if path is None:
        return None
    try:
        return ssl.PEM_cert_to_DER_cert(path.read_text("ascii").strip())
    except (OSError, ValueError) as e:
        raise CommandError(f"{path}: is not a PEM certificate: {e}") from e
