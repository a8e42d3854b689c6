"""What the meter tells the rig, or the person at its USB line: bounded, and never waited for."""

import asyncio

from firmware.meter import rig_messages
from firmware.meter.rig import RigChannel
from ledger.protocol.frame import CHANNEL_RIG

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_MAX_REPORTS = const(32)


class Reports:
    """Messages to the rig that wait to be sent; the oldest go when nobody reads."""

    def __init__(self, channel: RigChannel) -> None:
        self._channel = channel
        self._waiting: "list[bytes]" = []
        self._ready = asyncio.Event()

    def put(self, message: bytes) -> None:
        """Send a message soon."""
        if len(self._waiting) >= _MAX_REPORTS:
            self._waiting.pop(0)
        self._waiting.append(message)
        self._ready.set()

    def event(self, text: str) -> None:
        """Tell something that a person should see."""
        self.put(rig_messages.event(text[:200]))

    async def run(self) -> None:
        """Send for ever. Waits without a beat while nobody reads the line."""
        while True:
            await self.flush()
            await self._ready.wait()
            self._ready.clear()

    async def flush(self) -> None:
        """Send what waits."""
        while self._waiting:
            await self._channel.send(CHANNEL_RIG, self._waiting.pop(0))
