"""Meters as processes: the firmware's own program in a real MicroPython interpreter each.

A ``ProcessMeter`` owns one process, whose standard input and output are the rig channel
(``firmware.meter.rig_messages`` in frames); what it logs goes to a file. Interpreters are found by
``hil.micropython``.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firmware.meter import rig_messages
from gateway.provision import open_enrolment
from hil import micropython
from ledger.protocol import frame
from ledger.protocol.errors import ProtocolError

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "firmware" / "boards" / "unix" / "main.py"
_READ_BYTES = 4096
_STOP_LIMIT_S = 5

Handler = Callable[["ProcessMeter", list[Any]], None]


class MeterError(RuntimeError):
    """A meter's process did not do what it must; the message names meter and reason."""


class ProcessMeter:
    """One meter of the rig. ``on_message`` gets its rig messages, decoded.

    ``folder`` is the board's flash: key, journal, settings and counters live there and survive a
    restart of the process. ``program`` takes the command line of firmware/boards/unix/main.py.
    """

    def __init__(
        self, name: str, folder: Path, on_message: Handler, program: Path = PROGRAM
    ) -> None:
        self.name = name
        self.folder = folder
        self.public_key = b""
        self.address = b""
        self.enrolment = b""
        self._decoder = frame.Decoder()
        self._refused = 0
        self._on_message = on_message
        self._program = program
        self._enrolled = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, heap: str | None = None) -> None:
        """Start the process. ``heap`` limits MicroPython's heap ("400k" is about a board's)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._enrolled.clear()
        command = [micropython.interpreter(), *micropython.heap_options(heap), str(self._program)]
        with (self.folder / "log.txt").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--dir",
                str(self.folder / "flash"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=micropython.environment(ROOT),
                # Ctrl-C in a terminal is for the rig, which then stops its meters
                start_new_session=True,
            )
        self._reading = asyncio.create_task(self._read())

    @property
    def damaged(self) -> int:
        """Count the frames since the newest start, and the messages, that could not be read."""
        return self._decoder.errors + self._refused

    @property
    def running(self) -> bool:
        """Tell whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    async def enrolled(self, limit_s: float) -> None:
        """Wait for the meter's signed enrolment request; raises MeterError."""
        try:
            async with asyncio.timeout(limit_s):
                await self._enrolled.wait()
        except TimeoutError:
            raise MeterError(f"meter {self.name} did not enrol: {self._log_tail()}") from None

    def send(self, message: bytes) -> None:
        """Send a rig message; a process that is gone misses it."""
        if self._process is None or self._process.stdin is None or not self.running:
            return
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(frame.encode(frame.CHANNEL_RIG, message))

    async def stop(self) -> None:
        """End the process in an orderly way, or by force when it does not follow."""
        if self._process is None:
            return
        self.send(rig_messages.stop())
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
        await self._gone()

    async def kill(self) -> None:
        """End the process as a power cut would (SIGKILL)."""
        if self._process is not None and self.running:
            self._process.kill()
        await self._gone()

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            await self._reading
            self._reading = None

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._decoder = frame.Decoder()
        while data := await self._process.stdout.read(_READ_BYTES):
            for channel, payload in self._decoder.feed(data):
                if channel == frame.CHANNEL_RIG:
                    self._take(payload)

    def _take(self, payload: bytes) -> None:
        try:
            message = rig_messages.decode(payload)
            if message[0] == rig_messages.ENROL:
                self._enrol(message[1])
        except ProtocolError:
            self._refused += 1
            return
        self._on_message(self, message)

    def _enrol(self, raw: bytes) -> None:
        envelope, request = open_enrolment(raw)
        self.enrolment = raw
        self.public_key = request.public_key
        self.address = envelope.kid
        self._enrolled.set()

    def _log_tail(self) -> str:
        text = (self.folder / "log.txt").read_text("utf-8", "replace").strip()
        return text[-500:] or "it logged nothing"
