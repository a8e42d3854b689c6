"""``gridwitness network status``: where every node of a network stands."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from gateway.network.folder import WIDE, NetworkFolder, NodeEntry
from ledger.engine.comet.rpc import Rpc, RpcError
from ledger.network import NetworkRules
from tools.options import PipeConsole

_TIMEOUT_S = 3
_PIPE_WIDTH = 160


@dataclass
class NodeStatus:
    """One line of the table. What is not known is None; ``error`` then says why.

    ``changes`` is the number of the network's changes that are in effect.
    ``app_hash`` is the one in the header at ``height``: after the block before it. The sizes are
    bytes on this machine's disk.
    """

    name: str
    rpc: str
    height: int | None = None
    app_hash: str | None = None
    peers: int | None = None
    lag: int | None = None
    catching_up: bool | None = None
    power: int | None = None
    changes: int | None = None
    comet_bytes: int | None = None
    application_bytes: int | None = None
    error: str = ""


def read(network: NetworkFolder) -> list[NodeStatus]:
    """Ask all nodes at once; those that do not answer are told by ``error``."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(lambda entry: _read_node(network, entry), network.nodes))
    highest = max((status.height or 0 for status in found), default=0)
    for status in found:
        if status.height is not None:
            status.lag = highest - status.height
    return found


def _read_node(network: NetworkFolder, entry: NodeEntry) -> NodeStatus:
    found = NodeStatus(entry.name, entry.rpc)
    paths = network.paths(entry.name)
    if paths.path.is_dir():
        found.comet_bytes = _size(paths.comet / "data")
        found.application_bytes = _size(paths.path / "ledger")
    rpc = Rpc(entry.rpc, _TIMEOUT_S)
    try:
        status = rpc.status()
        if status.node_id != entry.id:
            found.error = (
                f"another node answers here, {status.node_id}: look for who has {entry.rpc}"
            )
            return found
        found.height = status.height
        found.app_hash = status.app_hash.hex()
        found.catching_up = status.catching_up
        found.power = status.validator.power
        found.peers = len(rpc.net_info())
        found.changes = _changes(network, rpc)
    except RpcError as e:
        found.error = str(e)
    finally:
        rpc.close()
    return found


def _changes(network: NetworkFolder, rpc: Rpc) -> int | None:
    try:
        value = rpc.query("network", b"").value
    except RpcError:
        return None
    return NetworkRules.of(network.load_genesis()).load(value).changes


def _size(folder: Path) -> int:
    """Give the bytes below a folder; files that go away meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def show(network: NetworkFolder, *, as_json: bool) -> int:
    """Print the table; gives 1 where a node did not answer."""
    found = read(network)
    if as_json:
        data = {"chain": network.chain.hex(), "kind": network.kind}
        print(json.dumps({**data, "nodes": [asdict(status) for status in found]}, indent=1))
    else:
        _print(network, found)
    return 1 if any(status.error for status in found) else 0


def _print(network: NetworkFolder, found: list[NodeStatus]) -> None:
    console = PipeConsole(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    kind = "wide-area chain" if network.kind == WIDE else "region"
    table = Table(title=f"{kind} {network.chain.hex()}", title_justify="left", box=SIMPLE)
    for name in ("node", "height", "app hash", "peers", "lag", "power", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("comet", "ledger"):
        table.add_column(name, justify="right", no_wrap=True)
    for status in found:
        table.add_row(
            status.name,
            _text(status.height),
            (status.app_hash or "-")[:12],
            _text(status.peers),
            _text(status.lag),
            _text(status.power),
            _state(status),
            _size_text(status.comet_bytes),
            _size_text(status.application_bytes),
        )
    console.print(table)
    changes = [status.changes for status in found if status.changes is not None]
    if changes:
        console.print(f"changes of the network in effect: {max(changes)}")
    for status in found:
        if status.error:
            console.print(f"{status.name}: {status.error}", soft_wrap=True)


def _state(status: NodeStatus) -> str:
    if status.error:
        return "silent"
    return "catching up" if status.catching_up else "in step"


def _text(value: int | None) -> str:
    return "-" if value is None else str(value)


def _size_text(size: int | None) -> str:
    return "-" if size is None else f"{size / (1 << 20):.1f} MiB"
