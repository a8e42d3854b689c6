"""Links between nodes that a rig can cut and mend: small TCP forwarders on 127.0.0.1.

Each pair of nodes shares one ``Link``. Both ends dial the other through it, so a link has two
listening ports, one a direction, and one state. ``cut`` ends what is open and refuses what comes,
as a pulled plug that both ends notice; ``hold`` only stops forwarding, as a network that swallows
packets: the ends wait, and TCP delivers when it is mended. No privileges are needed.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Collection, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

from hil.ports import HOST

_PIECE_BYTES = 1 << 16
_LIMIT_S = 10.0


class Link:
    """One pair of nodes; use the methods of ``Wires``, which call these on its loop.

    ``ports`` are where to dial each of the two, by name.
    """

    def __init__(self, targets: Mapping[str, int]) -> None:
        self._targets = dict(targets)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.ports: dict[str, int] = {}
        self.forwarded_bytes = 0

    async def listen(self) -> None:
        """Take connections towards both ends, on ports that the system chooses."""
        for name, port in self._targets.items():

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port
            ) -> None:
                await self._serve(reader, writer, port)

            server = await asyncio.start_server(serve, HOST, 0, limit=_PIECE_BYTES)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything."""
        for server in self._servers:
            server.close()
        await self.cut()

    async def cut(self) -> None:
        """End the open connections and refuse new ones until ``mend``."""
        self._open = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hold(self) -> None:
        """Forward nothing until ``mend``; connections stay, new ones are taken and wait."""
        self._flowing.clear()

    def mend(self) -> None:
        """Forward again."""
        self._open = True
        self._flowing.set()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # a cancelled connection has ended as asked; the server must not take it for an error
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if self._open:
                    await self._flowing.wait()
                    await self._join(reader, writer, port)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, port, limit=_PIECE_BYTES)
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE_BYTES):
            await self._flowing.wait()
            writer.write(piece)
            await writer.drain()
            self.forwarded_bytes += len(piece)


class Wires:
    """The links between all pairs of some nodes, served by a thread of their own.

    ``ports`` are where the nodes listen. A context manager; ``address`` is valid once it began.
    """

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = dict(ports)
        self._links: dict[frozenset[str], Link] = {}
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()
        for a, b in itertools.combinations(self._ports, 2):
            link = Link({a: self._ports[a], b: self._ports[b]})
            self._links[frozenset((a, b))] = link
            self._call(link.listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        for link in self._links.values():
            self._call(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LIMIT_S)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_LIMIT_S)

    def port(self, dialler: str, name: str) -> int:
        """Give the port of 127.0.0.1 by which ``dialler`` reaches ``name``."""
        return self._links[frozenset((dialler, name))].ports[name]

    def forwarded_bytes(self, a: str, b: str) -> int:
        """Tell how much went over a link so far, both ways together."""
        return self._links[frozenset((a, b))].forwarded_bytes

    def _between(self, group: Collection[str]) -> list[Link]:
        inside = set(group)
        return [link for pair, link in self._links.items() if len(pair & inside) == 1]

    def cut(self, group: Collection[str]) -> None:
        """Cut a group of nodes off from all others: their connections end, none can be made."""
        for link in self._between(group):
            self._call(link.cut())

    def hold(self, group: Collection[str]) -> None:
        """Swallow what goes between a group and all others; nobody is told."""
        for link in self._between(group):
            self._loop.call_soon_threadsafe(link.hold)

    def mend(self) -> None:
        """Make every link whole."""
        for link in self._links.values():
            self._loop.call_soon_threadsafe(link.mend)
