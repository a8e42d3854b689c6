"""``gridwitness member join|leave DIR``: a registry change, approved by operators.

The approvals go to the gateway by MQTT, or into files when ``--out`` is given (an operator who
holds a key on another machine signs there and hands the file over).
"""

import argparse
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway import config
from gateway.config import Config
from gateway.schema import ConfigError
from ledger.genesis import RegionGenesis
from ledger.protocol import records, topics
from ledger.protocol.cose import address_of
from ledger.region import RegionDirectory, RegionError
from ledger.regional.state import Member, State
from ledger.regional.view import LedgerView
from ledger.store import StoreError
from tools import operators
from tools.errors import CommandError
from tools.init import read_request
from tools.options import named_path

_PUBLISH_LIMIT_S = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="join|leave", required=True)
    join = actions.add_parser("join", help="let a meter join a cluster")
    join.add_argument("dir", type=named_path, metavar="DIR", help="folder of the region")
    join.add_argument("--request", type=named_path, required=True, help="its enrolment request")
    join.add_argument("--cluster", required=True, help="the cluster it joins")
    leave = actions.add_parser("leave", help="let a meter leave the region")
    leave.add_argument("dir", type=named_path, metavar="DIR", help="folder of the region")
    leave.add_argument("--meter", required=True, help="its address, or the start of it")
    for sub in (join, leave):
        operators.add_options(sub, "DIR/keys/operator-*.key", "write approvals, send nothing")


def run(options: argparse.Namespace) -> int:
    """Sign and hand over the change; raises CommandError."""
    directory = RegionDirectory(options.dir.absolute())
    try:
        genesis = directory.load_genesis()
    except RegionError as e:
        raise CommandError(str(e)) from e
    state = _read_state(directory, genesis)
    change = _make_change(options, genesis, state)
    paths = options.key or sorted(directory.keys.glob("operator-*.key"))
    keys = operators.load_keys(paths[: genesis.threshold], genesis.operators, "region")
    approvals = [key.seal(change.payload()).raw for key in keys]
    if options.out is not None:
        files = {f"change-{change.number}-{i}.cose": raw for i, raw in enumerate(approvals, 1)}
        operators.write_approvals(options.out, files)
    else:
        _publish(directory, genesis, approvals)
    missing = genesis.threshold - len(approvals)
    print(f"change {change.number}: {len(approvals)} approvals handed over", end="")
    print(f", {missing} more are needed" if missing > 0 else "; it takes effect when witnessed")
    return 0


def _read_state(directory: RegionDirectory, genesis: RegionGenesis) -> State:
    if not directory.regional.exists():
        rows = State.genesis_rows(genesis)
        return State.load((key, value) for key, value in rows if value is not None)
    try:
        view = LedgerView(directory.regional, genesis.parameters.round_s)
    except StoreError as e:
        raise CommandError(str(e)) from e
    try:
        return view.state()
    finally:
        view.close()


def _make_change(
    options: argparse.Namespace, genesis: RegionGenesis, state: State
) -> records.RegistryChange:
    number = state.registry.changes + 1
    if options.action == "join":
        if not records.is_cluster_name(options.cluster):
            raise CommandError(f"--cluster {options.cluster}: 1 to 32 letters, digits, '-', '_'")
        key = read_request(options.request)
        if state.members.get(address_of(key)) is not None:
            raise CommandError("this meter's key is or was a member: it joins with a new key")
        return records.RegistryChange(genesis.chain, number, records.JOIN, key, options.cluster)
    address, member = find_member(state, options.meter)
    if member.active_until is not None:
        raise CommandError(f"{address.hex()} has left or is suspended already")
    return records.RegistryChange(genesis.chain, number, records.LEAVE, member.public_key, "")


def find_member(state: State, start: str) -> tuple[bytes, Member]:
    """Give the one member whose address starts so; raises CommandError."""
    found = [(a, m) for a, m in state.members.items() if a.hex().startswith(start.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(f"no member's address starts with {start}: see gridwitness show DIR")
    raise CommandError(f"{len(found)} members' addresses start with {start}: give more digits")


def _publish(directory: RegionDirectory, genesis: RegionGenesis, approvals: list[bytes]) -> None:
    try:
        settings = config.load(directory.config)
        password = config.read_password(settings)
    except ConfigError as e:
        raise CommandError(str(e)) from e
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="gridwitness-member")
    if settings.mqtt.user:
        client.username_pw_set(settings.mqtt.user, password)
    if settings.mqtt.ca_file:
        client.tls_set(str(settings.file(settings.mqtt.ca_file)))
    _send(client, settings, topics.registry(genesis.chain), approvals)


def _send(client: mqtt.Client, settings: Config, topic: str, approvals: list[bytes]) -> None:
    where = f"{settings.mqtt.host}:{settings.mqtt.port}"
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    try:
        client.connect(settings.mqtt.host, settings.mqtt.port)
        client.loop_start()
        if not connected.wait(_PUBLISH_LIMIT_S):
            raise CommandError(f"the broker at {where} does not answer: nothing was sent")
        for raw in approvals:
            client.publish(topic, raw, qos=1).wait_for_publish(_PUBLISH_LIMIT_S)
    except OSError as e:
        raise CommandError(f"the broker at {where} cannot be reached: {e}") from e
    finally:
        client.disconnect()
        client.loop_stop()
