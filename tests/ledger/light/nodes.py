"""Real CometBFT nodes with the key-value store that is built into them, for tests."""

import base64
import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from hil.ports import free_port
from ledger.engine.comet.rpc import Rpc, RpcError
from tests.cometbft import need_cometbft

_T = TypeVar("_T")


def eventually(ask: Callable[[], _T | None], what: str, timeout_s: float = 30) -> _T:
    """Give what ``ask`` gives once it is something; a refused call is asked again."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            found = ask()
        except RpcError:
            found = None
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come in {timeout_s} s")


class PortTaken(AssertionError):
    """Somebody else has taken a port since it was looked for: start anew."""


def with_fresh_ports(start: Callable[[int], _T]) -> _T:
    """Give what ``start(attempt)`` gives, once its ports are its own."""
    for attempt in range(3):
        try:
            return start(attempt)
        except PortTaken:
            continue
    return start(3)


class Process:
    """A program whose output goes to a file; ended by its own id."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def check(self) -> None:
        """Fail where the program has ended by itself."""
        if self._process.poll() is None:
            return
        log = self.log.read_text()[-2000:]
        raise (PortTaken if "address already in use" in log else AssertionError)(log)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Node:
    """One node's home folder, and the node while it runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        subprocess.run(
            [need_cometbft(), "init", "--home", str(home)], check=True, capture_output=True
        )
        key = json.loads((home / "config" / "priv_validator_key.json").read_text())
        self.public_key = base64.b64decode(key["pub_key"]["value"])
        show = [need_cometbft(), "show-node-id", "--home", str(home)]
        self.id = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
        self._process: Process | None = None

    # ports are taken as late as can be: others look for free ones too

    @cached_property
    def p2p(self) -> int:
        return free_port()

    @cached_property
    def rpc_port(self) -> int:
        return free_port()

    @cached_property
    def rpc(self) -> Rpc:
        return Rpc(f"http://127.0.0.1:{self.rpc_port}")

    @property
    def url(self) -> str:
        return self.rpc.base_url

    def configure(
        self, genesis: dict[str, object], peers: "Sequence[Node]", *, proxy_app: str = "kvstore"
    ) -> None:
        (self.home / "config" / "genesis.json").write_text(json.dumps(genesis))
        path = self.home / "config" / "config.toml"
        text = path.read_text()
        peer_list = ",".join(f"{peer.id}@127.0.0.1:{peer.p2p}" for peer in peers)
        for pattern, value in [
            ('laddr = "tcp://127.0.0.1:26657"', f'laddr = "tcp://127.0.0.1:{self.rpc_port}"'),
            ('laddr = "tcp://0.0.0.0:26656"', f'laddr = "tcp://127.0.0.1:{self.p2p}"'),
            ('proxy_app = ".*"', f'proxy_app = "{proxy_app}"'),
            ('persistent_peers = ".*"', f'persistent_peers = "{peer_list}"'),
            ("addr_book_strict = true", "addr_book_strict = false"),
            ("allow_duplicate_ip = false", "allow_duplicate_ip = true"),
            ('timeout_commit = ".*"', 'timeout_commit = "50ms"'),
            ('timeout_propose = ".*"', 'timeout_propose = "500ms"'),
            ('pprof_laddr = ".*"', 'pprof_laddr = ""'),
        ]:
            text, count = re.subn(pattern, value, text)
            assert count == 1, pattern
        path.write_text(text)

    def start(self) -> None:
        command = [need_cometbft(), "start", "--home", str(self.home), "--log_level", "error"]
        self._process = Process(command, self.home / "log")

    def stop(self) -> None:
        self.rpc.close()
        if self._process is not None:
            self._process.stop()

    def wait_for(self, height: int) -> None:
        def reached() -> bool | None:
            if self._process is not None:
                self._process.check()
            return self.rpc.status().height >= height or None

        eventually(reached, f"height {height}")


def genesis_json(
    chain_id: str, powers: Sequence[tuple[bytes, int]], created: int
) -> dict[str, object]:
    """Give CometBFT's genesis file; ``powers`` are (public key, power)."""
    validators = [
        {
            "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(k).decode()},
            "power": str(power),
            "name": "",
        }
        for k, power in powers
    ]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
    return {
        "genesis_time": moment,
        "chain_id": chain_id,
        "initial_height": "1",
        "validators": validators,
        "app_hash": "",
    }


def set_power(node: Node, key: bytes, power: int) -> None:
    """Have the key-value store change a validator's power; 0 takes it out."""
    tx = f"val=ed25519!{base64.b64encode(key).decode()}!{power}".encode()
    (result,) = node.rpc.broadcast([tx])
    assert result.code == 0, result.log
