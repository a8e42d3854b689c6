"""``gridwitness network run``: supervises the nodes of a network that are on this machine."""

import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.notify import Notifier
from gateway.supervisor import AlreadyRunning, Phase, Supervisor
from ledger.engine.comet.rpc import Rpc, RpcError
from tools.cometbft import find_checked
from tools.errors import CommandError
from tools.network_folder import WIDE, NetworkFolder, NodeEntry

_TICK_S = 0.1
_HEALTH_S = 5.0
_FIRST_HEALTH_S = 0.5


def run(network: NetworkFolder, names: Sequence[str]) -> int:
    """Run these nodes until a signal, or until none is left.

    Gives 0 after a signal, else what the nodes ended with: 2 where an application said that its
    files do not let it start, 1 for everything else. Raises CommandError.
    """
    program = find_checked()
    entries = [network.node(name) for name in names] or network.here()
    if not entries:
        raise CommandError(f"no node of {network.path} has its home here")
    for entry in entries:
        if not network.paths(entry.name).comet.is_dir():
            raise CommandError(f"the home of {entry.name} is not on this machine")
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
