"""``gridwitness network``: makes, runs, watches and changes networks of CometBFT nodes."""

import argparse
import contextlib
from pathlib import Path

from gateway import node
from gateway.network.create import (
    PORTS,
    Member,
    NetworkPlan,
    Tie,
    check_settings,
    create_regional,
    create_wide,
    find_region,
    make_entry,
    port_of,
    ports_of,
    render_unit,
    tie_regions,
    write_home,
    write_unit,
    write_wide_node,
)
from gateway.network.folder import REGIONAL, WIDE, NetworkFolder
from gateway.network.home import Key, StateSync, Tuning, set_peers
from gateway.schema import ConfigError
from ledger.engine.comet.rpc import Rpc, RpcError
from ledger.genesis import MAX_VALIDATORS, Parameters, WideGenesis
from ledger.light.client import Client
from ledger.light.verify import Trusted
from ledger.protocol.errors import ProtocolError
from ledger.protocol.records import is_cluster_name
from ledger.region import RegionDirectory, RegionError
from ledger.store import StoreError
from tools import init, network_change, network_run, network_status
from tools.errors import CommandError
from tools.options import named_path

_FIRST_PORT = 26600
_MOST_GATEWAYS = 16
_KEEP_BLOCKS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _declare_init(actions.add_parser("init", help="make a network: one home a node"))
    run_ = actions.add_parser("run", help="run application and CometBFT of nodes on this machine")
    run_.add_argument("dir", type=named_path, metavar="DIR", help="folder of the network")
    run_.add_argument(
        "--node", action="append", default=[], metavar="NAME", help="only this one; may be repeated"
    )
    status = actions.add_parser("status", help="height, app hash, peers, lag, disk of every node")
    status.add_argument("dir", type=named_path, metavar="DIR", help="folder of the network")
    status.add_argument("--json", action="store_true", help="for machines")
    add = actions.add_parser("add-node", help="make the home of one more node")
    add.add_argument("dir", type=named_path, metavar="DIR", help="folder of the network")
    add.add_argument("name", metavar="NAME", help="its name")
    add.add_argument("--host", metavar="ADDRESS", help="where its peers reach it")
    add.add_argument("--base-port", type=int, metavar="P", help="its first port (the next free)")
    add.add_argument(
        "--state-sync", action="store_true", help="begin from a snapshot, not from block 1"
    )
    add.add_argument(
        "--from",
        dest="source",
        metavar="URL",
        help="state sync: RPC address to take trust from (default: the first that answers)",
    )
    unit = actions.add_parser("unit", help="print a node's systemd unit for where its folder is")
    unit.add_argument("dir", type=named_path, metavar="DIR", help="folder of the network")
    unit.add_argument("node", metavar="NAME", help="the node")
    network_change.add_commands(actions)


def _declare_init(parser: argparse.ArgumentParser) -> None:
    init.add_arguments(parser)
    parser.set_defaults(name="network")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--validators", metavar="A,B,…", help="nodes of a wide-area chain")
    kind.add_argument("--gateways", metavar="A,B,…", help="gateways of one region, a node each")
    parser.add_argument(
        "--base-port",
        type=int,
        metavar="P",
        help=f"first of {PORTS} ports a node ({_FIRST_PORT}, or above those of the regions)",
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME=ADDRESS",
        help="where peers reach a node (default: 127.0.0.1, all on this machine)",
    )
    parser.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="[NODE=]DIR",
        help="a region that sends summaries, through this node (default: the first)",
    )
    defaults = Tuning()
    parser.add_argument(
        "--commit-s",
        type=float,
        default=defaults.commit_s,
        help="pace of a busy chain: seconds from block to block (%(default)s)",
    )
    parser.add_argument(
        "--empty-s",
        type=int,
        default=defaults.empty_s,
        help="a quiet chain makes a block so often, in seconds (%(default)s)",
    )
    parser.add_argument(
        "--keep-blocks",
        type=int,
        default=_KEEP_BLOCKS,
        help="blocks that CometBFT keeps on each node, 0: all (%(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Do what is asked; raises CommandError."""
    try:
        if options.action == "init":
            return _init(options)
        network = NetworkFolder.load(options.dir)
        if options.action == "run":
            return network_run.run(network, options.node)
        if options.action == "status":
            return network_status.show(network, as_json=options.json)
        if options.action == "add-node":
            return _add_node(network, options)
        if options.action == "unit":
            place = network.paths(network.node(options.node).name)
            print(render_unit(place, network.path), end="")
            return 0
        return network_change.run(network, options)
    except (ConfigError, RegionError, StoreError) as e:
        raise CommandError(str(e)) from e


# ------------------------------------------------------------------------------------------- init


def _init(options: argparse.Namespace) -> int:
    parameters, meters = init.check_options(options)
    plan = _plan(options)
    if options.validators is None and options.region:
        raise CommandError("--region is for a wide-area network: make it with --validators")
    if options.validators is not None:
        _refuse_regional(parameters, meters)
    path: Path = options.dir
    try:
        if options.validators is None:
            network = create_regional(path, options.name, parameters, plan, meters)
            ties: list[Tie] = []
        else:
            ties = [_tie(text, plan) for text in options.region]
            network = _create_wide(path, options.name, plan, ties)
    except FileExistsError as e:
        raise CommandError(f"{e}; name a new folder") from e
    except OSError as e:
        raise CommandError(f"the network cannot be made in {path}: {e}") from e
    _tell(network, ties)
    return 0


def _refuse_regional(parameters: Parameters, meters: list[tuple[bytes, str]]) -> None:
    if meters:
        raise CommandError("--member is for a region: make it with --gateways")
    for name in ("round_s", "committee", "open_rounds", "window_rounds"):
        if getattr(parameters, name) != getattr(Parameters(), name):
            option = "--" + name.replace("_", "-")
            raise CommandError(f"{option} is for a region: make it with --gateways")


def _plan(options: argparse.Namespace) -> NetworkPlan:
    option = "--gateways" if options.validators is None else "--validators"
    text = options.gateways if options.validators is None else options.validators
    if not text:
        raise CommandError(f"{option} is empty: name the nodes, as in a,b,c,d")
    names = text.split(",")
    most = _MOST_GATEWAYS if options.validators is None else MAX_VALIDATORS
    for name in names:
        if not is_cluster_name(name):
            raise CommandError(f"{option}: {name!r} is not 1 to 32 letters, digits, '-', '_'")
    if len(set(names)) != len(names) or not 1 <= len(names) <= most:
        raise CommandError(f"{option} {text}: give 1 to {most} names, none twice")
    base_port = _base_port(options, len(names))
    for name, value, low, high in (
        ("commit-s", options.commit_s, 0.02, 60),
        ("empty-s", options.empty_s, 1, 86_400),
        ("keep-blocks", options.keep_blocks, 0, 1_000_000_000),
    ):
        # written so that a NaN fails too
        if not low <= value <= high:
            raise CommandError(f"--{name} {value}: give {low} to {high}")
    return NetworkPlan(
        names=names,
        base_port=base_port,
        hosts=_hosts(options.host, names),
        operators=options.operators,
        threshold=options.threshold,
        tuning=Tuning(commit_s=options.commit_s, empty_s=options.empty_s),
        settings={"keep.blocks": options.keep_blocks},
    )


def _base_port(options: argparse.Namespace, nodes: int) -> int:
    """Give the first port, so that no node has one of a region's node on this machine."""
    taken = {}
    for text in options.region:
        folder = Path(text.partition("=")[2] or text)
        if (folder / "network.json").exists():
            entries = NetworkFolder.load(folder).nodes
            taken.update({port: folder for entry in entries for port in ports_of(entry)})
    port: int = options.base_port if options.base_port is not None else _FIRST_PORT
    clash = sorted(taken.keys() & set(range(port, port + PORTS * nodes)))
    if clash and options.base_port is None:
        port = max(taken) + 1
    elif clash:
        raise CommandError(
            f"port {clash[0]} is of a node of {taken[clash[0]]}: give another --base-port, "
            f"{max(taken) + 1} for one"
        )
    _check_port(port, nodes)
    return port


def _check_port(port: int, nodes: int) -> None:
    if not 1024 <= port <= 65536 - PORTS * nodes:
        raise CommandError(f"--base-port {port}: give 1024 to {65536 - PORTS * nodes}")


def _hosts(options: list[str], names: list[str]) -> dict[str, str]:
    hosts: dict[str, str] = {}
    for text in options:
        name, separator, address = text.partition("=")
        if not separator or name not in names or not _is_host(address):
            raise CommandError(f"--host {text}: give NAME=ADDRESS of one of {','.join(names)}")
        if name in hosts:
            raise CommandError(f"--host {text}: {name} has an address already, {hosts[name]}")
        hosts[name] = address
    return hosts


def _is_host(text: str) -> bool:
    return 1 <= len(text) <= 253 and all(c.isascii() and (c.isalnum() or c in ".-") for c in text)


def _tie(text: str, plan: NetworkPlan) -> Tie:
    name, separator, folder = text.partition("=")
    if not separator:
        name, folder = plan.names[0], text
    if name not in plan.names or not folder:
        raise CommandError(f"--region {text}: give NODE=DIR with one of {','.join(plan.names)}")
    return find_region(Path(folder), name)


def _create_wide(path: Path, name: str, plan: NetworkPlan, ties: list[Tie]) -> NetworkFolder:
    chains = [tie.genesis.chain for tie in ties]
    if len(set(chains)) != len(chains):
        raise CommandError("--region: one region is named twice")
    check_settings(ties)
    regions = [(tie.genesis.chain, tie.genesis.gateways) for tie in ties]
    network = create_wide(path, name, plan, regions)
    genesis = network.load_genesis()
    assert isinstance(genesis, WideGenesis)
    tie_regions(network, genesis, ties)
    return network


def _tell(network: NetworkFolder, ties: list[Tie]) -> None:
    genesis = network.load_genesis()
    what = "region" if network.kind == REGIONAL else "wide-area chain"
    print(f"{what} {genesis.name}, id {genesis.chain.hex()}, {len(network.nodes)} nodes")
    for tie in ties:
        region = tie.genesis
        print(
            f"region {region.name}, id {region.chain.hex()}, sends its summaries through {tie.node}"
        )
    print(f"genesis {genesis.digest.hex()}   (give this to whoever verifies)")
    print(f"operators' keys in {network.operators}: move them to their operators, off this machine")
    print("next:")
    if network.kind == REGIONAL:
        print(f"  set [mqtt] in {network.path}/nodes/*/gateway.toml, then")
    elsewhere = [entry for entry in network.nodes if not entry.is_on_loopback]
    if not elsewhere:
        print(f"  gridwitness network run {network.path}")
    for entry in elsewhere:
        place = network.paths(entry.name).path
        print(f"  MOVE {place} to {entry.host}: no copy of it may stay here or be elsewhere")
    if elsewhere:
        print("  each machine gets copies of network.json and genesis.cbor, and runs its own node:")
        print(f"  gridwitness network run {network.path} --node NAME")


# --------------------------------------------------------------------------------------- add-node


def _add_node(network: NetworkFolder, options: argparse.Namespace) -> int:
    name = options.name
    if network.kind != WIDE:
        raise CommandError(
            "the gateways of a region are in its genesis: a new machine takes an old one's place "
            "with that one's folder"
        )
    if not is_cluster_name(name):
        raise CommandError(f"{name!r} is not 1 to 32 letters, digits, '-', '_'")
    if name in [entry.name for entry in network.nodes] or network.paths(name).path.exists():
        raise CommandError(f"{name} is a node of this network already")
    if options.host is not None and not _is_host(options.host):
        raise CommandError(f"--host {options.host}: give a name or an IPv4 address")
    port = options.base_port
    if port is None:
        port = max(port_of(entry.p2p) for entry in network.nodes) + PORTS
    _check_port(port, 1)
    for entry in network.nodes:
        clash = sorted(ports_of(entry) & set(range(port, port + PORTS)))
        if clash:
            raise CommandError(f"--base-port {port}: port {clash[0]} is of {entry.name}")
    genesis = network.load_genesis()
    assert isinstance(genesis, WideGenesis)
    state_sync = _state_sync(network, genesis, options.source) if options.state_sync else None
    settings = _settings_here(network)
    kept = settings[0].keep.blocks if settings else _KEEP_BLOCKS
    node_key = Key.generate()
    member = Member(make_entry(name, node_key, port, options.host), Key.generate(), node_key)
    whole = NetworkFolder(network.path, network.kind, network.chain, (*network.nodes, member.entry))
    try:
        write_home(whole, member, genesis, Tuning(), state_sync)
        write_wide_node(whole.paths(name), member.entry, genesis, {"keep.blocks": kept})
        write_unit(whole.paths(name), whole.path)
        whole.save()
        for entry in network.here():
            peers = [other.peer for other in whole.nodes if other.name != entry.name]
            set_peers(whole.paths(entry.name).comet, peers)
    except OSError as e:
        raise CommandError(f"the home of {name} cannot be made: {e}") from e
    print(f"{name}: home in {whole.paths(name).path}, peers at {member.entry.p2p}")
    if state_sync is not None:
        print(f"it trusts block {state_sync.height}, {state_sync.block_hash.hex()}")
    print("it follows the chain once it runs, and votes after")
    print(f"  gridwitness network validator-add {whole.path} {name}")
    return 0


def _settings_here(network: NetworkFolder) -> list[node.NodeConfig]:
    """Read the settings of the nodes whose homes are here; raises ConfigError."""
    files = [network.paths(entry.name).settings for entry in network.here()]
    return [node.load(file) for file in files if file.exists()]


def _check_snapshots(network: NetworkFolder, height: int) -> None:
    """Refuse a state sync that would wait for ever; raises CommandError.

    RPC does not tell snapshots: those of the nodes here are looked for, and the others have one
    where the chain is as long as the blocks from one snapshot to the next.
    """
    for entry in network.here():
        folder = RegionDirectory(network.paths(entry.name).path).snapshots
        if folder.is_dir() and any(folder.iterdir()):
            return
    settings = _settings_here(network)
    paces = {one.keep.snapshot_every for one in settings} or {node.Keep().snapshot_every}
    made = [pace for pace in paces if pace]
    if not made:
        raise CommandError(
            "the nodes here make no snapshots (keep.snapshot_every is 0): leave --state-sync out"
        )
    if height < min(made):
        raise CommandError(
            f"no node has a snapshot yet: the chain is at height {height}, and one is made every "
            f"{min(made)} blocks (keep.snapshot_every, as the settings here tell; nodes cannot be "
            "asked for it): leave --state-sync out, or wait"
        )


def _state_sync(network: NetworkFolder, genesis: WideGenesis, url: str | None) -> StateSync:
    """Follow the chain from its genesis to its newest block, which is trusted then."""
    said = ""
    for address in [url] if url else [entry.rpc for entry in network.nodes]:
        try:
            with contextlib.closing(Rpc(address)) as rpc:
                height = rpc.status().height
                _check_snapshots(network, height)
                block = Client(Trusted.start(genesis)).follow(rpc, max(1, height))
        except (RpcError, ValueError, ProtocolError) as e:
            said = str(e)
            continue
        others = [entry.rpc for entry in network.nodes if entry.rpc != address] or [address]
        servers = tuple(server.removeprefix("http://") for server in (address, others[0]))
        return StateSync((servers[0], servers[1]), height, block.header.hash)
    raise CommandError(f"state sync needs a node that answers: {said}")
