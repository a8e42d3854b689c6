"""Making a network: one home a node, for the wide-area chain or for a region of several gateways.

Everything is written into a new folder beside the wanted one, which gets its name last: what is
there under that name is whole.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway import config, node
from gateway.network import program
from gateway.network.errors import NetworkFolderError
from gateway.network.folder import (
    LOOPBACK,
    REGIONAL,
    WIDE,
    Genesis,
    NetworkFolder,
    NodeEntry,
    NodePaths,
    has_control,
)
from gateway.network.home import (
    Home,
    Key,
    StateSync,
    Tuning,
    genesis_document,
    write_config,
    write_genesis,
    write_keys,
)
from ledger.genesis import GenesisValidator, Parameters, RegionGenesis, WideGenesis
from ledger.keys import Signer
from ledger.region import RegionDirectory

PORTS = 4
"""Ports of a node: peers, RPC, CometBFT's metrics, the application's."""
APPLICATION = "unix://app.sock"
"""Relative to the node's folder, in which both processes run: an absolute one may be too long."""
_POWER = 10
"""Each validator's. With 1, CometBFT takes one of four for a third of the power, dividing whole
numbers, and holds it for one without which the chain stands. Such a node, after it was away, does
not fetch blocks in bulk but four a second (blocksync/reactor.go, localNodeBlocksTheChain)."""


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """What both kinds of networks need to know. ``hosts`` are addresses other than the loopback.

    ``settings`` are values for each node's application.toml (wide) or gateway.toml (region).
    """

    names: Sequence[str]
    base_port: int = 26600
    hosts: Mapping[str, str] = field(default_factory=dict)
    operators: int = 3
    threshold: int = 2
    created: int | None = None
    tuning: Tuning = field(default_factory=Tuning)
    settings: Mapping[str, object] = field(default_factory=dict)


class Member(NamedTuple):
    """A node that is being made."""

    entry: NodeEntry
    validator: Key
    node: Key


def create_wide(
    path: Path, name: str, plan: NetworkPlan, regions: Sequence[tuple[bytes, tuple[bytes, ...]]]
) -> NetworkFolder:
    """Make a wide-area network of the regions given as (chain, gateways' keys).

    Raises FileExistsError where the folder holds something, OSError, ConfigError.
    """
    members = make_members(plan)
    keys = [Signer.generate() for _ in range(plan.operators)]
    genesis = WideGenesis(
        name,
        int(time.time()) if plan.created is None else plan.created,
        tuple(regions),
        tuple(key.public_key for key in keys),
        plan.threshold,
        _validators(members),
    )

    def fill(place: NodePaths, member: Member) -> None:
        write_wide_node(place, member.entry, genesis, plan.settings)

    return _create(path, genesis, members=members, tuning=plan.tuning, operators=keys, fill=fill)


def create_regional(
    path: Path,
    name: str,
    parameters: Parameters,
    plan: NetworkPlan,
    meters: Sequence[tuple[bytes, str]] = (),
) -> NetworkFolder:
    """Make a region that several gateways serve, one a node; raises as ``create_wide`` does."""
    members = make_members(plan)
    keys = [Signer.generate() for _ in range(plan.operators)]
    gateways = {member.entry.name: Signer.generate() for member in members}
    genesis = RegionGenesis(
        name,
        int(time.time()) if plan.created is None else plan.created,
        parameters,
        tuple(key.public_key for key in keys),
        plan.threshold,
        tuple(key.public_key for key in gateways.values()),
        tuple(meters),
        _validators(members),
    )

    def fill(place: NodePaths, member: Member) -> None:
        write_gateway_node(place, member, genesis, gateways[member.entry.name], plan.settings)

    return _create(path, genesis, members=members, tuning=plan.tuning, operators=keys, fill=fill)


def make_members(plan: NetworkPlan) -> list[Member]:
    """Give each node its keys and addresses, in the order of the names."""
    members = []
    for number, name in enumerate(plan.names):
        node_key = Key.generate()
        entry = make_entry(name, node_key, plan.base_port + PORTS * number, plan.hosts.get(name))
        members.append(Member(entry, Key.generate(), node_key))
    return members


def make_entry(name: str, node_key: Key, port: int, host: str | None) -> NodeEntry:
    """Give a node's addresses: four ports from ``port`` on, all but the peers' on the loopback."""
    return NodeEntry(
        name,
        node_key.address,
        f"{host or LOOPBACK}:{port}",
        f"http://{LOOPBACK}:{port + 1}",
        f"http://{LOOPBACK}:{port + 2}/metrics",
        f"http://{LOOPBACK}:{port + 3}/metrics",
    )


def port_of(address: str) -> int:
    """Give the port of an address of network.json."""
    return int(address.removesuffix("/metrics").rpartition(":")[2])


def ports_of(entry: NodeEntry) -> set[int]:
    """Give the four ports of a node."""
    return {port_of(a) for a in (entry.p2p, entry.rpc, entry.metrics, entry.application)}


def _validators(members: Sequence[Member]) -> tuple[GenesisValidator, ...]:
    return tuple(GenesisValidator(m.entry.name, m.validator.public, _POWER) for m in members)


def _create(
    path: Path,
    genesis: Genesis,
    *,
    members: Sequence[Member],
    tuning: Tuning,
    operators: Sequence[Signer],
    fill: Callable[[NodePaths, Member], None],
) -> NetworkFolder:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not empty")
    kind = WIDE if isinstance(genesis, WideGenesis) else REGIONAL
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        network = NetworkFolder(fresh, kind, genesis.chain, tuple(m.entry for m in members))
        network.operators.mkdir(mode=0o700)
        for number, key in enumerate(operators, 1):
            key.save(network.operators / f"operator-{number}.key")
        network.genesis_file.write_bytes(genesis.encode())
        for member in members:
            write_home(network, member, genesis, tuning)
            fill(network.paths(member.entry.name), member)
            write_unit(network.paths(member.entry.name), path)
        network.save()
        fresh.chmod(0o755)
        fresh.replace(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return NetworkFolder(path, kind, genesis.chain, network.nodes)


def write_home(
    network: NetworkFolder,
    member: Member,
    genesis: Genesis,
    tuning: Tuning,
    state_sync: StateSync | None = None,
) -> None:
    """Write CometBFT's home of one node of a network that lists it; raises OSError."""
    entry = member.entry
    home = network.paths(entry.name).comet
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(genesis.created))
    write_keys(home, member.validator, member.node)
    write_genesis(home, genesis_document(genesis, created))
    everywhere = not entry.is_on_loopback
    write_config(
        home,
        Home(
            name=entry.name,
            p2p=f"0.0.0.0:{port_of(entry.p2p)}" if everywhere else entry.p2p,
            rpc_port=port_of(entry.rpc),
            metrics_port=port_of(entry.metrics),
            application=APPLICATION,
            peers=[other.peer for other in network.nodes if other.name != entry.name],
            tuning=tuning,
            state_sync=state_sync,
        ),
    )


def write_wide_node(
    place: NodePaths, entry: NodeEntry, genesis: WideGenesis, settings: Mapping[str, object]
) -> None:
    """Write what the wide-area application of a node needs; raises OSError, ConfigError."""
    RegionDirectory(place.path).wide_genesis.write_bytes(genesis.encode())
    own = {"chain.abci": APPLICATION, "metrics.port": port_of(entry.application)}
    place.settings.write_text(node.render({**settings, **own}), encoding="utf-8")


def write_gateway_node(
    place: NodePaths,
    member: Member,
    genesis: RegionGenesis,
    key: Signer,
    settings: Mapping[str, object],
) -> None:
    """Write the region's folder of a node: genesis, gateway's key, gateway.toml."""
    directory = RegionDirectory(place.path)
    directory.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.save(directory.gateway_key)
    # without a wide-area network there is no chain that all of its gateways share
    own = {
        "wide.forward": False,
        "chain.engine": "comet",
        "chain.abci": APPLICATION,
        "chain.rpc": member.entry.rpc,
        "chain.validator": member.validator.address,
        "metrics.port": port_of(member.entry.application),
    }
    config.write_default(directory.config, {**settings, **own})
    directory.genesis.write_bytes(genesis.encode())


def write_unit(place: NodePaths, network: Path) -> None:
    """Write the node's systemd unit, for the network's folder under its final name.

    Raises OSError, and NetworkFolderError for a path that no unit can hold.
    """
    place.unit.write_text(render_unit(place, network), encoding="utf-8", errors="surrogateescape")


def render_unit(place: NodePaths, network: Path) -> str:
    """Give the node's systemd unit, for this program and a network's folder.

    Raises NetworkFolderError for a path that no unit can hold.
    """
    environment = ""
    own = program.own_program()
    if not own.exists():
        environment = f"# Environment={program.ENVIRONMENT}=(where CometBFT is, if not in {own})\n"
    name = place.path.name
    return _UNIT.format(
        name=name,
        root=_unit_path(program.ROOT),
        python=_unit_word(_unit_path(sys.executable)),
        network=_unit_word(_unit_path(network.absolute()).replace("$", "$$")),
        node=_unit_paths_word(_unit_path(network.absolute() / "nodes" / name)),
        environment=environment,
    )


def _unit_path(path: Path | str) -> str:
    """Give a path without specifiers of systemd's (systemd.unit(5)); raises NetworkFolderError."""
    text = str(path)
    if has_control(text):
        raise NetworkFolderError(f"{text!r} has control characters: name another folder")
    return text.replace("%", "%%")


def _unit_word(text: str) -> str:
    """Give a word of a command line, quoted with C escapes (systemd.syntax(7), Quoting)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unit_paths_word(text: str) -> str:
    """Give a word of a list of paths: there quotes count, and a backslash is itself."""
    return '"' + text.replace('"', '"\'"\'"') + '"'


_UNIT = """\
[Unit]
Description=Gridwitness node {name}: application and CometBFT
After=network-online.target time-sync.target
Wants=network-online.target

[Service]
Type=notify
User=gridwitness
WorkingDirectory={root}
ExecStart={python} -m tools.cli network run {network} --node {name}
{environment}# a store is checked and blocks are replayed before the node answers
TimeoutStartSec=infinity
# the supervisor ends the two in order, each within 20 s
TimeoutStopSec=60
KillMode=mixed
Restart=always
RestartSec=5
# wrong settings stay wrong
RestartPreventExitStatus=2
# the supervisor says so while both run and the node answers
WatchdogSec=120
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
ReadWritePaths={node}

[Install]
WantedBy=multi-user.target
"""


# ------------------------------------------------------------------- regions of a wide-area network


class Tie(NamedTuple):
    """A region's folders (one a gateway) and the node, by name, that its gateways talk to."""

    node: str
    directories: tuple[RegionDirectory, ...]
    genesis: RegionGenesis


def find_region(path: Path, node_name: str) -> Tie:
    """Open a region's folder, or a network of gateways; raises NetworkFolderError, RegionError.

    Refused is a region whose summaries are in another wide-area chain already.
    """
    if (path / "network.json").exists():
        network = NetworkFolder.load(path)
        if network.kind != REGIONAL:
            raise NetworkFolderError(f"{path} is a wide-area network, not a region")
        places = [network.paths(entry.name).path for entry in network.here()]
    else:
        places = [path]
    directories = tuple(RegionDirectory(place.absolute()) for place in places)
    for directory in directories:
        if directory.wide.exists():
            _refuse_begun(directory)
    return Tie(node_name, directories, directories[0].load_genesis())


def _refuse_begun(directory: RegionDirectory) -> None:
    application = directory.open_wide()
    try:
        height = application.info().last_block_height
    finally:
        application.close()
    if height:
        raise NetworkFolderError(
            f"{directory.path} has a wide-area chain of {height} blocks: "
            "its summaries cannot move to another one"
        )


def tie_regions(network: NetworkFolder, genesis: WideGenesis, ties: Sequence[Tie]) -> None:
    """Tell each region's gateways of the network; raises OSError, ConfigError."""
    for tie in ties:
        tie_region(tie, genesis, network.node(tie.node).rpc)


def tie_region(tie: Tie, genesis: WideGenesis, rpc: str) -> None:
    """Tell a region's gateways of the network, through the node at ``rpc``.

    Raises OSError, ConfigError.
    """
    for directory in tie.directories:
        directory.wide_genesis.write_bytes(genesis.encode())
        for file in directory.wide.parent.glob("wide.sqlite*"):
            file.unlink()
        change_settings(directory.config, {"wide.forward": True, "wide.node": rpc})


def check_settings(ties: Sequence[Tie]) -> None:
    """Read every gateway.toml that is to be changed; raises ConfigError."""
    for tie in ties:
        for directory in tie.directories:
            config.load(directory.config)


def change_settings(path: Path, settings: Mapping[str, object]) -> None:
    """Set values in a gateway.toml; raises OSError, ConfigError."""
    config.SCHEMA.change(path, settings)
