"""One CometBFT node of a rig: its files, its two processes, and what it says of itself.

A node is, as in production, the engine (``cometbft``) and its application, joined by a socket.
``hil.network`` puts several together.
"""

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import Any

from hil.meters import ROOT
from hil.ports import HOST

_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 15.0
_ASK_LIMIT_S = 3.0
_TICK_S = 0.05
_MOST_HEADERS = 20  # what CometBFT gives in one answer of /blockchain


class NetworkError(RuntimeError):
    """A node did not do what it must; the message says which, and where its log is."""


@dataclass(frozen=True)
class Member:
    """One node: its folder, in which both processes run, ports, and the application's command.

    Without an application (None) CometBFT runs the one that its configuration names, such as its
    own kvstore.
    """

    name: str
    folder: Path
    rpc_port: int
    p2p_port: int
    application: tuple[str, ...] | None = None

    @property
    def home(self) -> Path:
        """CometBFT's home."""
        return self.folder / "comet"

    @property
    def socket(self) -> Path:
        """Where the application listens."""
        return self.folder / "app.sock"

    @property
    def url(self) -> str:
        """The address of the RPC."""
        return f"http://{HOST}:{self.rpc_port}"

    @property
    def node_id(self) -> str:
        """CometBFT's name of the node: of its key's SHA-256 the first 20 bytes."""
        key = json.loads((self.home / "config" / "node_key.json").read_text("utf-8"))
        public = base64.b64decode(key["priv_key"]["value"])[32:]
        return sha256(public).digest()[:20].hex()


def configure(home: Path, settings: Mapping[str, str]) -> None:
    """Write settings, ``section.key`` (or ``key``) to TOML text, into a home's config.toml."""
    path = home / "config" / "config.toml"
    lines = path.read_text("utf-8").splitlines()
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        lines = _set(lines, f"[{section}]" if section else "", key, value)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _set(lines: list[str], header: str, key: str, value: str) -> list[str]:
    """Replace a key in its section, or put it at the section's beginning."""
    here, begins = header == "", 0
    for number, line in enumerate(lines):
        if line.startswith("["):
            here = line.strip() == header
            begins = number + 1 if here else begins
        elif here and re.match(rf"{re.escape(key)}\s*=", line):
            return [*lines[:number], f"{key} = {value}", *lines[number + 1 :]]
    if header and header not in (line.strip() for line in lines):
        return [*lines, header, f"{key} = {value}"]
    return [*lines[:begins], f"{key} = {value}", *lines[begins:]]


class _Process:
    """One program of a node, started any number of times; what it prints goes to a log."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command, self.log = list(command), log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        if self.running:
            return
        with self.log.open("ab") as log:
            # a session of its own: Ctrl-C in a terminal is for the program that drives it
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def send(self, number: Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def end(self, number: Signals) -> None:
        """Send a signal and wait for the end; who does not end is killed."""
        if self._process is None:
            return
        self.send(number)
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Node:
    """One node's two processes and what it says of itself."""

    def __init__(self, member: Member, program: str) -> None:
        self.member = member
        self.name = member.name
        start = [program, "start", "--home", str(member.home)]
        self.engine = _Process(start, member.folder / "comet.log")
        self.application = (
            None
            if member.application is None
            else _Process(member.application, member.folder / "application.log")
        )

    @property
    def processes(self) -> list[_Process]:
        """The application, if it is a process of its own, and the engine."""
        return [*([self.application] if self.application else []), self.engine]

    @property
    def running(self) -> bool:
        """Whether every process of the node runs."""
        return all(process.running for process in self.processes)

    def start(self) -> None:
        """Start what does not run; raises NetworkError when the application does not come up."""
        self.start_application()
        self.start_engine()

    def start_application(self) -> None:
        """Start the application if it does not run; returns at once."""
        if self.application is not None and not self.application.running:
            self.member.socket.unlink(missing_ok=True)  # one that a killed process left
            self.application.start()

    def start_engine(self) -> None:
        """Start the engine once the application listens; raises NetworkError when it does not."""
        if self.application is not None:
            # else CometBFT finds nobody and asks again after three seconds only
            self._wait_socket(self.application)
        self.engine.start()

    def replace_application(self, command: Sequence[str]) -> None:
        """Have the node start with another application from its next start on.

        The option that names its settings, the command's last two words, stays.
        """
        assert self.application is not None
        self.application.command = [*command, *self.application.command[-2:]]

    def reset(self) -> None:
        """Empty a stopped node: blocks and ledger go; what it has signed is not forgotten.

        The way back of a node whose state is wrong: it gets all blocks from the others again.
        """
        home = str(self.member.home)
        subprocess.run(
            [self.engine.command[0], "reset-state", "--home", home], check=True, capture_output=True
        )
        shutil.rmtree(self.member.folder / "ledger")

    def _wait_socket(self, application: _Process) -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        while not self.member.socket.exists():
            if not application.running or time.monotonic() > deadline:
                raise NetworkError(f"{self.name}: the application did not start: {self.tail()}")
            time.sleep(_TICK_S)

    def tail(self) -> str:
        """Give the last lines of both logs, for people."""
        logs = [process.log for process in self.processes if process.log.exists()]
        return "\n".join(f"{log}:\n{log.read_text('utf-8', 'replace')[-1500:]}" for log in logs)

    def kill(self) -> None:
        """End both processes as a power cut would (SIGKILL)."""
        for process in self.processes:
            process.send(SIGKILL)
        for process in self.processes:
            process.end(SIGKILL)

    def stop(self) -> None:
        """End both in an orderly way, the engine first; wakes what is paused."""
        self.resume()
        for process in reversed(self.processes):
            process.end(SIGTERM)

    def pause(self) -> None:
        """Stop both processes where they stand (SIGSTOP)."""
        for process in self.processes:
            process.send(SIGSTOP)

    def resume(self) -> None:
        """Let both go on (SIGCONT)."""
        for process in self.processes:
            process.send(SIGCONT)

    # what it says

    def stand(self) -> tuple[int, int, str]:
        """Give the newest block's height, and the application's height and hash in hex.

        Heights are -1 where the node does not answer.
        """
        try:
            answer = self.ask("abci_info")["response"]
        except NetworkError:
            return -1, -1, ""
        app_hash = base64.b64decode(answer.get("last_block_app_hash", "")).hex()
        return self.height(), int(answer.get("last_block_height", 0)), app_hash

    def waiting(self) -> int:
        """Give how many transactions wait for a block."""
        return int(self.ask("num_unconfirmed_txs")["total"])

    def ask(self, path: str, **arguments: object) -> dict[str, Any]:
        """Give the result of one RPC call; raises NetworkError when there is none."""
        query = "&".join(f"{key}={value}" for key, value in arguments.items())
        url = f"http://{HOST}:{self.member.rpc_port}/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=_ASK_LIMIT_S) as answer:
                result: dict[str, Any] = json.load(answer)["result"]
                return result
        except urllib.error.HTTPError as e:
            with e:
                text = e.read().decode("utf-8", "replace")[:300]
            raise NetworkError(f"{self.name} answers {path} with {e.code}: {text}") from e
        except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
            raise NetworkError(f"{self.name} does not answer {path}: {e}") from e

    def height(self) -> int:
        """Give the newest block's height; -1 where the node does not answer."""
        try:
            return int(self.ask("status")["sync_info"]["latest_block_height"])
        except NetworkError:
            return -1

    def peers(self) -> int:
        """Give how many nodes it is connected with; 0 where it does not answer."""
        try:
            return int(self.ask("net_info")["n_peers"])
        except NetworkError:
            return 0

    def headers(self, first: int, last: int) -> dict[int, tuple[str, str]]:
        """Give height -> (block hash, application hash in the header) of what the node holds.

        A header's application hash is the one after the block before it.
        """
        found: dict[int, tuple[str, str]] = {}
        while first <= last:
            high = min(last, first + _MOST_HEADERS - 1)
            for meta in self.ask("blockchain", minHeight=first, maxHeight=high)["block_metas"]:
                header = meta["header"]
                found[int(header["height"])] = (meta["block_id"]["hash"], header["app_hash"])
            first = high + 1
        return found
