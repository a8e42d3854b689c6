"""Networks of real nodes for tests: made and run by the commands, as a user does."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from gateway.network.folder import NetworkFolder
from ledger.engine.comet.rpc import Rpc, RpcError
from ledger.protocol.cose import Envelope

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30


class Running:
    """``gridwitness network run``, its output, and the nodes' RPC."""

    def __init__(self, path: Path, nodes: Sequence[str] = ()) -> None:
        self.network = NetworkFolder.load(path)
        words = [word for name in nodes for word in ("--node", name)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.cli", "network", "run", str(path), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            for line in pipe:
                self.lines.append(line.rstrip())

    def rpc(self, name: str) -> Rpc:
        return Rpc(self.network.node(name).rpc)

    def until_height(self, height: int, names: Sequence[str] = ()) -> None:
        """Wait until the nodes (all of the network's) have a block."""
        for name in names or [node.name for node in self.network.nodes]:
            with_rpc = self.rpc(name)

            def there(rpc: Rpc = with_rpc) -> bool:
                try:
                    return rpc.status().height >= height
                except RpcError:
                    return False

            self.until(there)
            with_rpc.close()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.lines)
            time.sleep(0.05)

    def end(self) -> int:
        """Ask it to end; gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reader.join(LIMIT_S)


def broadcast(rpc: Rpc, envelope: Envelope) -> int:
    """Hand in one transaction; gives the code of its check."""
    (result,) = rpc.broadcast([envelope.raw])
    return result.code
