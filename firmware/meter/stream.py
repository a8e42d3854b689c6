"""TCP and TLS connections in the two interpreters' asyncio, with one interface.

Each has open(host, port, ssl, server_hostname), readinto(view) -> bytes read, 0 at the end, None
for "not yet"; write(data), drain() and close(orderly). They raise OSError, and for a certificate
that is refused ValueError (MicroPython) or OSError (CPython). One task reads, one writes.
"""

import asyncio
import select
import sys

try:
    from typing import Any
except ImportError:
    pass

_POLL_S = 0.02


class BoardStream:
    """A TCP or TLS connection on MicroPython; close() frees the socket in every state.

    asyncio.open_connection() would lose the socket when it is cancelled while connecting.
    """

    def __init__(self) -> None:
        self._socket: "Any" = None
        self._stream: "Any" = None

    async def open(self, host: str, port: int, ssl: "Any", server_hostname: str) -> None:
        """Connect; with an SSLContext the handshake begins."""
        from errno import EINPROGRESS
        from socket import SOCK_STREAM, getaddrinfo, socket

        where: "Any" = getaddrinfo(host, port, 0, SOCK_STREAM)[0]
        self._socket = socket(where[0], where[1], where[2])
        self._socket.setblocking(False)
        try:
            self._socket.connect(where[-1])
        except OSError as error:
            if error.errno != EINPROGRESS:
                raise
        await self._connected()
        if ssl:
            self._socket = ssl.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            self._socket.setblocking(False)
        self._stream = asyncio.StreamReader(self._socket)

    async def _connected(self) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        while True:
            for _, events in poller.poll(0):
                if events & select.POLLERR:
                    raise OSError("connection refused or host unreachable")
                return
            await asyncio.sleep(_POLL_S)

    async def readinto(self, view: memoryview) -> "int | None":
        """Read what is there; see the module."""
        return await self._stream.readinto(view)

    def write(self, data: bytes) -> None:
        """Send now or keep for drain()."""
        self._stream.write(data)

    async def drain(self) -> None:
        """Wait until what was written has left."""
        await self._stream.drain()

    def close(self, orderly: bool) -> None:
        """Free the socket."""
        if self._socket:
            self._socket.close()
            self._socket = None


class HostStream:
    """The same on CPython."""

    def __init__(self) -> None:
        self._reader: "Any" = None
        self._writer: "Any" = None

    async def open(self, host: str, port: int, ssl: "Any", server_hostname: str) -> None:
        """Connect; with an SSLContext the handshake begins."""
        name = server_hostname if ssl else None
        self._reader, self._writer = await asyncio.open_connection(
            host, port, ssl=ssl, server_hostname=name
        )

    async def readinto(self, view: memoryview) -> "int | None":
        """Read what is there; see the module."""
        data = await self._reader.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> None:
        """Send now or keep for drain()."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until what was written has left."""
        await self._writer.drain()

    def close(self, orderly: bool) -> None:
        """Close; orderly: what was written still leaves."""
        if not self._writer:
            return
        if orderly:
            self._writer.close()
        else:  # close() would wait for a peer that reads nothing any more
            self._writer.transport.abort()
        self._writer = None


Stream: "Any" = BoardStream if sys.implementation.name == "micropython" else HostStream
