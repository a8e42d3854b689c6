"""The board's end of its serial line: frames in and out over the console (ledger.protocol.frame).

On a board the console is USB (or the UART that the build uses); in a process under the rig it is
standard input and output. Frames never hold 0x03, so Ctrl-C stays switched on and a person or
mpremote can still stop the board.

What else prints to the console (a traceback, a banner) falls between frames; the other end counts
it as line noise. Left out: repetition and acknowledgement, which the messages above bring along.
"""

import asyncio
import select
import sys

from ledger.protocol import frame

try:
    from typing import Any
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


# Longest piece written at once. A pipe that polls writable takes 4,096 bytes without blocking;
# a USB endpoint holds 64, and the rest of a piece waits inside the driver until the host reads.
_PIECE = const(256)

_POLL_S = 0.002


class LineClosed(EOFError):
    """Standard input ended: whoever drove this process is gone."""


class Console:
    """MicroPython's standard input and output as raw bytes; other tasks run meanwhile."""

    def __init__(self, source: "Any" = None, sink: "Any" = None) -> None:
        self._source = source or sys.stdin.buffer
        self._sink = sink or sys.stdout.buffer
        self._reader = asyncio.StreamReader(self._source)
        self._readable = select.poll()
        self._readable.register(self._source, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(self._sink, select.POLLOUT)
        self._byte = bytearray(1)
        self._piece = bytearray(_PIECE)

    async def read(self) -> bytes:
        """Give the bytes that are there, 1 to 256; b"" at the end of input.

        One by one, for readinto() on standard input waits until its whole buffer is full.
        """
        if not await self._reader.readinto(self._byte):
            return b""
        self._piece[0] = self._byte[0]
        at = 1
        while at < _PIECE and self._readable.poll(0):
            if not self._source.readinto(self._byte):
                break  # the end of input: the next read() meets it again
            self._piece[at] = self._byte[0]
            at += 1
        return bytes(self._piece[:at])

    async def write(self, data: bytes) -> None:
        """Write all of data, however long the other end does not read."""
        view = memoryview(data)
        while len(view) > 0:
            while not self._writable.poll(0):  # noqa: ASYNC110 - a poll object has no event
                await asyncio.sleep(_POLL_S)
            written = self._sink.write(view[:_PIECE])
            view = view[written or 0 :]


class CPythonConsole(Console):
    """The same on CPython, whose event loop waits on file descriptors."""

    def __init__(self) -> None:
        unbuffered: "Any" = open  # the boards' open() has neither argument
        self._source = unbuffered(0, "rb", buffering=0, closefd=False)
        self._sink = unbuffered(1, "wb", buffering=0, closefd=False)
        self._writable = select.poll()
        self._writable.register(self._sink, select.POLLOUT)

    async def read(self) -> bytes:
        """Give the bytes that are there, 1 to 256; b"" at the end of input."""
        loop: "Any" = asyncio.get_event_loop()
        ready = asyncio.Event()
        loop.add_reader(self._source, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._source)
        return bytes(self._source.read(_PIECE))


class RigChannel:
    """Frames over a port: `await recv()` and `await send(channel, payload)`.

    `port` has the two coroutines of Console: read() -> bytes, b"" at the end, and write(bytes);
    by default it is this interpreter's console. One task receives; any number send.
    """

    def __init__(self, port: "Any" = None) -> None:
        if port is None:
            port = Console() if sys.implementation.name == "micropython" else CPythonConsole()
        self._port = port
        self._decoder = frame.Decoder()
        self._waiting: "list[tuple[int, bytes]]" = []
        self._lock = asyncio.Lock()

    @property
    def errors(self) -> int:
        """Damaged frames since the start."""
        return self._decoder.errors

    async def recv(self) -> "tuple[int, bytes]":
        """Give the next frame as (channel, payload); raises LineClosed when input has ended."""
        while not self._waiting:
            data = await self._port.read()
            if not data:
                raise LineClosed("standard input ended")
            self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)

    async def send(self, channel: int, payload: bytes) -> None:
        """Write one frame whole; raises ValueError if it is too long (frame.MAX_PAYLOAD).

        Waits as long as nobody reads: callers whose frames may be lost bound it themselves.
        """
        data = frame.encode(channel, payload)
        async with self._lock:
            await self._port.write(data)
