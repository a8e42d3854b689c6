"""A gateway's own program as a process of the rig, watched through its status file and its log."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from hil.meters import ROOT
from hil.status import GatewayStatus, read_status

_STOP_LIMIT_S = 15
_TAIL = 500


class GatewayProcess:
    """One gateway process: its ``config`` file, its status and log below ``folder``.

    ``name`` is that of its files.
    """

    def __init__(self, name: str, config: Path, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._config = config
        self._status_file = folder / f"{name}.json"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the program; returns at once."""
        self._status_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                "--config",
                str(self._config),
                "--status",
                str(self._status_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def status(self) -> GatewayStatus:
        """What it said of itself last; empty where it has said nothing yet."""
        return read_status(self._status_file)

    def tail(self) -> str:
        """Give the end of its log."""
        return self.log.read_text("utf-8", "replace")[-_TAIL:]

    async def stop(self) -> None:
        """End it in an orderly way."""
        if self._process is None or not self.alive:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it, and whatever it started, as a power cut would (SIGKILL)."""
        if self._process is not None and self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
