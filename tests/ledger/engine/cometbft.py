"""One real CometBFT node with our application behind it, for tests."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from hil.ports import free_port
from ledger.engine.comet import chain_id
from ledger.genesis import GenesisValidator

ROOT = Path(__file__).parents[3]
_T = TypeVar("_T")


class RpcFailed(Exception):
    """The node does not answer, or with an error."""


def eventually(what: Callable[[], _T | None], seconds: float = 10) -> _T:
    """Ask again and again until there is an answer that counts; fails when the time is over."""
    end = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            found = what()
        except (OSError, RpcFailed) as e:
            found, last = None, e
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what} ({last})")


class Network:
    """A network of one validator: its home, its application's folder, both processes."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self._program = program
        self._home = folder / "comet"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.rpc_port = free_port()
        self._cometbft("init")
        key = json.loads((self._home / "config/priv_validator_key.json").read_text())
        public = base64.b64decode(key["pub_key"]["value"])
        self.validator = GenesisValidator("node-0", public, 10)

    def _cometbft(self, *arguments: str) -> None:
        subprocess.run(
            [self._program, *arguments, "--home", str(self._home)],
            check=True,
            capture_output=True,
            timeout=10,
        )

    def begin(self, genesis: Any) -> None:
        """Write what follows from our genesis, which must have ``validator``."""
        (self.folder / "genesis.cbor").write_bytes(genesis.encode())
        path = self._home / "config/genesis.json"
        file = json.loads(path.read_text())
        file["chain_id"] = chain_id(genesis.chain)
        file["app_state"] = {"genesis": sha256(genesis.encode()).hexdigest()}
        path.write_text(json.dumps(file))
        path = self._home / "config/config.toml"
        config = path.read_text()
        for name, value in {
            "proxy_app": f'"unix://{self.folder / "app.sock"}"',
            "timeout_commit": '"20ms"',
            "create_empty_blocks": "false",
            "addr_book_strict": "false",
            "pex": "false",
        }.items():
            config, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", config)
            assert found == 1, name
        config = config.replace("tcp://127.0.0.1:26657", f"tcp://127.0.0.1:{self.rpc_port}")
        config = config.replace("tcp://0.0.0.0:26656", f"tcp://127.0.0.1:{free_port()}")
        path.write_text(config)

    def start(self, name: str) -> None:
        """Start ``application`` or ``cometbft``."""
        log = (self.folder / f"{name}.log").open("ab")
        command = {
            "application": [sys.executable, "-m", "tests.ledger.engine.serve", str(self.folder)],
            "cometbft": [self._program, "node", "--home", str(self._home)],
        }[name]
        with log:
            self._processes[name] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        if name == "application":
            # CometBFT waits 3 s before it tries again
            eventually(self._is_served)

    def _is_served(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.folder / "app.sock"))
        return True

    def kill(self, name: str) -> None:
        """End a process at once, as a power cut does."""
        os.kill(self._processes[name].pid, signal.SIGKILL)
        self._processes[name].wait(10)

    def ended(self, name: str, seconds: float = 10) -> int:
        """Wait for a process to end by itself; gives its code."""
        return self._processes[name].wait(seconds)

    def let_cometbft_end(self, seconds: float = 2) -> None:
        """Wait for CometBFT to notice that the application is gone; end it where it hangs.

        It ends itself then, but not always: a call that comes between the loss of its connection
        and its end waits for ever (v0.38.26, abci/client/socket_client.go, ``Flush``).
        """
        noticed = "connection terminated. Did the application crash?"
        eventually(lambda: noticed in self.log("cometbft") or None)
        try:
            self.ended("cometbft", seconds)
        except subprocess.TimeoutExpired:
            self.kill("cometbft")
        (self.folder / "cometbft.log").unlink()

    def log(self, name: str) -> str:
        """Give what a process has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(10)

    def rpc(self, method: str, **parameters: Any) -> Any:
        """Call the node's RPC; raises RpcFailed or OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=10)
        try:
            call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/", json.dumps(call), headers)
            answer = json.loads(connection.getresponse().read())
        except http.client.HTTPException as e:
            raise RpcFailed(str(e)) from e
        finally:
            connection.close()
        if "error" in answer:
            raise RpcFailed(str(answer["error"]))
        return answer["result"]

    def ready(self) -> int:
        """Wait until the node answers and has shaken hands; gives its height."""
        status = eventually(lambda: self.rpc("status"))
        return int(status["sync_info"]["latest_block_height"])

    def send(self, tx: bytes) -> tuple[int, int]:
        """Send a transaction and wait for its block: gives its code there, and the height.

        The code is CheckTx's, and the height 0, where that refuses it.
        """
        answer = self.rpc("broadcast_tx_commit", tx=base64.b64encode(tx).decode())
        if answer["check_tx"]["code"]:
            return answer["check_tx"]["code"], 0
        return answer["tx_result"]["code"], int(answer["height"])

    def application(self) -> tuple[int, bytes]:
        """Give the application's height and hash."""
        told = self.rpc("abci_info")["response"]
        height = int(told.get("last_block_height", 0))
        return height, base64.b64decode(told["last_block_app_hash"])

    def query(self, path: str, key: bytes) -> tuple[int, bytes]:
        """Give code and value of a query."""
        told = self.rpc("abci_query", path=path, data=key.hex())["response"]
        return told["code"], base64.b64decode(told["value"] or "")
