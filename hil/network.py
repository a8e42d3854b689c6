"""A network of CometBFT nodes on 127.0.0.1 whose parts can be killed, paused and cut apart.

Between the nodes lie ``hil.wires``. What a node says of itself is asked of its RPC; nothing here
trusts a node's word beyond that: ``check_no_fork`` compares what all of them hold.
"""

import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import Self

from gateway.network.create import port_of
from gateway.network.errors import ProgramError
from gateway.network.folder import NetworkFolder
from gateway.network.home import Tuning
from gateway.network.program import find
from hil.nodes import Member, NetworkError, Node, configure
from hil.ports import HOST
from hil.wires import Wires

__all__ = [
    "APPLICATION",
    "QUICK",
    "Member",
    "Network",
    "NetworkError",
    "Node",
    "configure",
    "member_of",
    "members_of",
]

APPLICATION = (sys.executable, "-m", "gateway.node")
QUICK = Tuning(commit_s=0.2, propose_s=0.6, vote_s=0.2)
"""The pace of nodes that share a machine, with nobody's card to spare."""
_LIMIT_S = 30.0
_TICK_S = 0.05


def members_of(
    folder: NetworkFolder, applications: Mapping[str, Sequence[str]] | None = None
) -> list[Member]:
    """Give the nodes of a wide-area network's folder.

    ``applications`` are other commands than the usual one, by the node's name; the option that
    names the node's settings is added to each.
    """
    return [
        member_of(
            folder,
            entry.name,
            (applications or {}).get(entry.name, APPLICATION),
            folder.paths(entry.name).settings,
        )
        for entry in folder.here()
    ]


def member_of(folder: NetworkFolder, name: str, command: Sequence[str], settings: Path) -> Member:
    """Give one node of a network's folder, whose application is a command with its settings."""
    entry = folder.node(name)
    return Member(
        name,
        folder.paths(name).path.absolute(),
        rpc_port=port_of(entry.rpc),
        p2p_port=port_of(entry.p2p),
        application=(*command, "--config", str(settings.absolute())),
    )


class Network:
    """Some nodes with wires between them. A context manager: at its end no process is left."""

    def __init__(self, members: Iterable[Member], program: str | None = None) -> None:
        program = program or find_cometbft()
        self.nodes = {member.name: Node(member, program) for member in members}
        self.wires = Wires({m.name: m.p2p_port for m in self._members})
        self._closed = False
        self._unwired: dict[Path, str] = {}

    @property
    def _members(self) -> list[Member]:
        return [node.member for node in self.nodes.values()]

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names."""
        return tuple(self.nodes)

    def __enter__(self) -> Self:
        self.wires.__enter__()
        try:
            for member in self._members:
                self._wire(member)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process and take the wires away; who waits for something is told."""
        self._closed = True
        for node in self.nodes.values():
            node.kill()
        for path, text in self._unwired.items():
            path.write_text(text, "utf-8")  # the nodes' own ways to each other again
        self.wires.__exit__(None, None, None)

    def _wire(self, member: Member) -> None:
        peers = ",".join(
            f"{other.node_id}@{HOST}:{self.wires.port(member.name, other.name)}"
            for other in self._members
            if other.name != member.name
        )
        fixed = {
            "p2p.persistent_peers": json.dumps(peers),
            "p2p.pex": "false",  # else they learn of ways around the wires
            "p2p.addr_book_strict": "false",
            "p2p.allow_duplicate_ip": "true",
        }
        path = member.home / "config" / "config.toml"
        self._unwired[path] = path.read_text("utf-8")
        configure(member.home, fixed)

    # doing

    def start(self, *names: str) -> None:
        """Start nodes, all where none is named."""
        nodes = [self.nodes[name] for name in names or self.names]
        for node in nodes:
            node.start_application()
        for node in nodes:
            node.start_engine()

    def stop(self, *names: str) -> None:
        """End nodes in an orderly way, all where none is named."""
        nodes = [self.nodes[name] for name in names or self.names]
        for node in nodes:
            node.resume()
            node.engine.send(SIGTERM)  # all at once: each takes a while
        for node in nodes:
            node.stop()

    # looking

    def wait(self, done: Callable[[], bool], limit_s: float, complaint: str) -> None:
        """Wait until ``done()``; raises NetworkError with the complaint after ``limit_s``."""
        deadline = time.monotonic() + limit_s
        while not done():
            if self._closed or time.monotonic() > deadline:
                raise NetworkError(f"{complaint}; {self._heights()}")
            time.sleep(_TICK_S)

    def _heights(self) -> str:
        return ", ".join(f"{n.name} at {n.height()}" for n in self.nodes.values())

    def wait_height(
        self, height: int, names: Collection[str] = (), limit_s: float = _LIMIT_S
    ) -> None:
        """Wait until nodes, all where none is named, have a height; raises NetworkError."""
        waiting = set(names or self.names)

        def done() -> bool:
            for name in sorted(waiting):
                if self.nodes[name].height() >= height:
                    waiting.discard(name)
            return not waiting

        self.wait(done, limit_s, f"not every node came to height {height}")

    def wait_peers(self, limit_s: float = _LIMIT_S) -> None:
        """Wait until every running node is connected with every other one."""
        nodes = [node for node in self.nodes.values() if node.running]
        self.wait(
            lambda: all(node.peers() >= len(nodes) - 1 for node in nodes),
            limit_s,
            "not every node is connected with every other one",
        )

    def wait_quiet(self, names: Collection[str] = (), limit_s: float = _LIMIT_S) -> None:
        """Wait until nodes hold the same and none has anything to put into a block."""
        nodes = [self.nodes[name] for name in names or self.names]

        def are_quiet() -> bool:
            return _common_stand(nodes) is not None and _nothing_waits(nodes)

        try:
            self.wait(are_quiet, limit_s, "the nodes do not come to rest")
        except NetworkError as e:
            raise NetworkError(f"{e}; {', '.join(_describe(node) for node in nodes)}") from None

    def top(self, names: Collection[str] = ()) -> int:
        """Give the greatest height that any of some nodes has."""
        return max(self.nodes[name].height() for name in names or self.names)

    def wait_blocks(
        self, count: int, names: Collection[str] = (), limit_s: float = _LIMIT_S
    ) -> int:
        """Wait until nodes have ``count`` more blocks than any of them has; gives the height."""
        height = max(0, self.top(names)) + count
        self.wait_height(height, names, limit_s)
        return height

    def app_hashes(self, height: int, names: Collection[str] = ()) -> dict[str, str]:
        """Give each node's application hash after a block; the block after it must be there."""
        return {
            name: self.nodes[name].headers(height + 1, height + 1)[height + 1][1]
            for name in names or self.names
        }

    def check_no_fork(self, names: Collection[str] = ()) -> int:
        """Compare every block that two nodes hold; gives the greatest height that all hold.

        Raises NetworkError when two of them hold different blocks at one height.
        """
        chosen = names or self.names
        heights = {name: self.nodes[name].height() for name in chosen}
        known: dict[int, tuple[tuple[str, str], str]] = {}
        for name in chosen:
            for height, header in self.nodes[name].headers(1, heights[name]).items():
                first, holder = known.setdefault(height, (header, name))
                if first != header:
                    raise NetworkError(f"fork at height {height}: {holder} and {name} differ")
        return min(heights.values())


def _describe(node: Node) -> str:
    try:
        height, own, app_hash = node.stand()
        header = node.ask("status")["sync_info"]["latest_app_hash"]
        return (
            f"{node.name}: height {height}, application {own} with {app_hash[:8]}, header "
            f"{header[:8]}, {node.waiting()} transactions wait"
        )
    except NetworkError as e:
        return str(e)


def _nothing_waits(nodes: Sequence[Node]) -> bool:
    try:
        return not any(node.waiting() for node in nodes)
    except NetworkError:
        return False


def _common_stand(nodes: Sequence[Node]) -> tuple[int, int, str] | None:
    """Give where all nodes stand; None where they differ, or one more block is due.

    The newest block must carry the newest application hash: CometBFT makes one more for it.
    """
    try:
        stands = {node.stand() for node in nodes}
        headers = {str(node.ask("status")["sync_info"]["latest_app_hash"]) for node in nodes}
    except NetworkError:
        return None
    if len(stands) != 1 or {header.lower() for header in headers} != {s[2] for s in stands}:
        return None
    return stands.pop()


def find_cometbft() -> str:
    """Give the program; raises NetworkError where it is not installed."""
    try:
        return str(find())
    except ProgramError as e:
        raise NetworkError(str(e)) from e
