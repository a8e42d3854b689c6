"""``gridwitness network run``: supervises the nodes of a network that are on this machine."""

import fcntl
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.network.create import port_of
from gateway.network.folder import LOOPBACK, WIDE, NetworkFolder, NodeEntry
from gateway.network.program import find_checked
from gateway.notify import Notifier
from gateway.supervisor import AlreadyRunning, Phase, Supervisor
from ledger.engine.comet.rpc import Rpc, RpcError
from tools.errors import CommandError

_TICK_S = 0.1
_HEALTH_S = 5.0
_FIRST_HEALTH_S = 0.5


def run(network: NetworkFolder, names: Sequence[str]) -> int:
    """Run these nodes until a signal, or until none is left.

    Gives 0 after a signal, else what the nodes ended with: 2 where an application said that its
    files do not let it start, 1 for everything else. Raises CommandError,
    NetworkFolderError, ProgramError.
    """
    program = find_checked()
    entries = [network.node(name) for name in names] or of_this_machine(network)
    for entry in entries:
        if not network.paths(entry.name).comet.is_dir():
            raise CommandError(f"the home of {entry.name} is not on this machine")
    taken = [said for entry in entries for said in _taken_ports(network, entry)]
    if taken:
        # not 2: whoever has the port may go away
        print(f"gridwitness: {taken[0]}", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    supervisors: list[Supervisor] = []
    try:
        # one by one: what has been started is ended where the next cannot be
        supervisors.extend(_start(network, entry, program) for entry in entries)
    except AlreadyRunning as e:
        _end(supervisors)
        raise CommandError(str(e)) from e
    except BaseException:
        _end(supervisors)
        raise
    for entry in entries:
        _say(f"{entry.name}: rpc {entry.rpc}, peers at {entry.p2p}")
    health = _Health(entries)
    health.start()
    try:
        while not stop.wait(_TICK_S) and any(s.phase is not Phase.ENDED for s in supervisors):
            for supervisor in supervisors:
                supervisor.step()
            health.alive = not any(supervisor.exit_code for supervisor in supervisors)
    finally:
        health.stop()
        _end(supervisors)
    if stop.is_set():
        _say("stopped")
    return max(supervisor.exit_code for supervisor in supervisors)


def of_this_machine(network: NetworkFolder) -> list[NodeEntry]:
    """Give the nodes that are here by their homes and by their addresses; raises CommandError.

    A home alone says little: with a copied folder two machines would sign with one key.
    """
    homes = network.here()
    if not homes:
        raise CommandError(f"no node of {network.path} has its home here")
    own = [entry for entry in homes if _is_own(entry.host)]
    others = [entry for entry in homes if entry not in own]
    told = ", ".join(f"{entry.name} is at {entry.host}" for entry in others)
    if not own:
        raise CommandError(
            f"no address of this machine is a node's of {network.path} ({told}): name the node "
            "that runs here, and nowhere else, with --node"
        )
    if others:
        _say(f"not started, as it is no address of this machine: {told}")
    return own


def _is_own(host: str) -> bool:
    """Tell whether a host is this machine: whether one can listen there."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except (OSError, UnicodeError):
        return False
    return True


def _taken_ports(network: NetworkFolder, entry: NodeEntry) -> list[str]:
    """Say of each of a node's ports that somebody else has; nothing of a node that runs."""
    lock = network.paths(entry.name).lock
    if lock.exists():
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return []  # the supervisor says so
    said = []
    everywhere = "" if not entry.is_on_loopback else LOOPBACK
    for what, host, address in (
        ("peers", everywhere, entry.p2p),
        ("RPC", LOOPBACK, entry.rpc),
        ("CometBFT's figures", LOOPBACK, entry.metrics),
        ("the application's figures", LOOPBACK, entry.application),
    ):
        port = port_of(address)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as e:
                said.append(
                    f"{entry.name}: port {port}, for {what}, cannot be had: {e.strerror}; "
                    f"`ss -ltnp sport = :{port}` tells who has it"
                )
    return said


def _start(network: NetworkFolder, entry: NodeEntry, program: Path) -> Supervisor:
    paths = network.paths(entry.name)
    folder = paths.path.absolute()
    module = ["gateway.node", "--config"] if network.kind == WIDE else ["gateway", "--config"]
    settings = paths.settings if network.kind == WIDE else paths.gateway_settings
    return Supervisor(
        entry.name,
        folder,
        application=[sys.executable, "-m", *module, str(settings.absolute())],
        engine=[str(program), "start", "--home", "comet"],
        socket_path=paths.socket.absolute(),
        logs=(paths.application_log.absolute(), paths.comet_log.absolute()),
        say=_say,
    )


def _end(supervisors: Sequence[Supervisor]) -> None:
    """Stop them all and wait for it; each is bounded by its own limits."""
    for supervisor in supervisors:
        supervisor.stop()
    while any(supervisor.phase is not Phase.ENDED for supervisor in supervisors):
        for supervisor in supervisors:
            supervisor.step()
        time.sleep(_TICK_S)


def _say(text: str) -> None:
    print(text, flush=True)


class _Health(threading.Thread):
    """Asks the nodes for their heights, and tells systemd that they run."""

    def __init__(self, entries: Sequence[NodeEntry]) -> None:
        super().__init__(name="health", daemon=True)
        self.alive = True
        self._nodes = [(entry.name, Rpc(entry.rpc, timeout_s=3)) for entry in entries]
        self._stop_asked = threading.Event()
        self._notifier = Notifier()

    def stop(self) -> None:
        self._notifier.send("STOPPING=1")
        self._stop_asked.set()
        self.join()
        self._notifier.close()
        for _, rpc in self._nodes:
            rpc.close()

    def run(self) -> None:
        waiting = dict(self._nodes)
        while not self._stop_asked.wait(_FIRST_HEALTH_S if waiting else _HEALTH_S):
            answers = 0
            for name, rpc in self._nodes:
                try:
                    height = rpc.status().height
                except RpcError:
                    continue
                answers += 1
                if waiting.pop(name, None) is not None:
                    _say(f"{name}: answers, height {height}")
                    if not waiting:
                        self._notifier.send("READY=1")
            # one watchdog for what runs here: a node that hangs must be noticed
            if answers == len(self._nodes) and self.alive:
                self._notifier.send("WATCHDOG=1")
