"""The socket on which CometBFT calls: ABCI 2.0 over a Unix socket, or TCP (spec/abci).

CometBFT opens four connections (consensus, mempool, query, snapshot). On each, requests come with
their length before them as an unsigned varint, and answers go back in their order. One thread
serves all of them in turns, so that a full mempool does not hold up consensus.

A broken request closes its connection. A request that must not be answered closes all of them and
ends the server, which tells its owner by ``failed``. There is no authentication: who can open the
socket can decide blocks. So a Unix socket is its owner's only, and TCP stays on loopback unless
that is switched off.
"""

import ipaddress
import logging
import os
import selectors
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from ledger.engine.comet import messages as m
from ledger.engine.comet.node import Mismatch, Node
from ledger.protobuf import MalformedMessage, Message

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 26
"""The longest request: 64 MiB. A block has 21 MiB unless the genesis file says more, a piece of a
snapshot 16 MB; what is longer is a mistake that would fill a small machine's memory."""

_MAX_CONNECTIONS = 16
_MAX_PATH_BYTES = 107  # sun_path of unix(7), without the zero at its end
_RECEIVE_BYTES = 1 << 18
_TURN = 32  # requests of one connection before the others have their turn
_MAX_UNSENT = 1 << 20  # answers that wait for a slow reader before it is heard again
_MAX_LENGTH_BITS = 70  # ten groups of seven
_PROBE_S = 1.0
_LAST_WORD_S = 2.0


class ServerError(Exception):
    """The socket cannot be opened; says why and what to do."""


class Frames:
    """Cuts a stream into requests: each has its length before it, as an unsigned varint.

    ``idle`` tells that what came is no whole request yet.
    """

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._data = bytearray()
        self._at = 0
        self.idle = True

    def feed(self, data: bytes) -> None:
        """Take in what came."""
        self._data += data
        self.idle = False

    def next(self) -> bytes | None:
        """Give the next request, or None as long as it is not whole; raises MalformedMessage."""
        start, size = self._head()
        if start and start + size <= len(self._data):
            self._at = start + size
            return bytes(self._data[start : self._at])
        del self._data[: self._at]
        self._at = 0
        self.idle = True
        return None

    def _head(self) -> tuple[int, int]:
        """Give where the next request starts, 0 while its length is not whole, and its length."""
        size = shift = 0
        for at in range(self._at, len(self._data)):
            size |= (self._data[at] & 0x7F) << shift
            shift += 7
            if size > self._max_bytes or shift > _MAX_LENGTH_BITS:
                raise MalformedMessage(f"longer than {self._max_bytes} bytes")
            if self._data[at] < 0x80:
                return at + 1, size
        return 0, 0


class _Connection:
    """One of the engine's connections: what came, and what is not sent yet."""

    def __init__(self, peer: socket.socket, max_message_bytes: int) -> None:
        self.socket = peer
        self.frames = Frames(max_message_bytes)
        self.unsent = bytearray()
        self.events = 0

    @property
    def ready(self) -> bool:
        """Tell whether a request may be there whose answer has room."""
        return not self.frames.idle and len(self.unsent) < _MAX_UNSENT

    @property
    def wanted(self) -> int:
        """Give the events to wait for; who does not read its answers is not asked for more."""
        events = selectors.EVENT_WRITE if self.unsent else 0
        if self.frames.idle and len(self.unsent) < _MAX_UNSENT:
            events |= selectors.EVENT_READ
        return events


def _tell(connection: _Connection) -> None:
    """Send the last that a connection says, and wait until the engine hangs up.

    It logs what it was told then, and not where other connections end before.
    """
    with suppress(OSError):
        connection.socket.settimeout(_LAST_WORD_S)
        connection.socket.sendall(connection.unsent)
        while connection.socket.recv(_RECEIVE_BYTES):
            pass


class Server:
    """Serves one node at ``address``: "unix:///path" or "tcp://127.0.0.1:port" (0: any free one).

    ``failed`` is called once, in the server's thread, with whatever stopped the node, when all
    connections are closed.
    """

    def __init__(
        self,
        node: Node,
        address: str,
        *,
        failed: Callable[[BaseException], None],
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        loopback_only: bool = True,
    ) -> None:
        self._node = node
        self._given = address
        self._failed = failed
        self._max_message_bytes = max_message_bytes
        self._loopback_only = loopback_only
        self._connections: set[_Connection] = set()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        """Open the socket and serve it in a thread; raises ServerError."""
        self._listener, self._socket_file = _listen(self._given, self._loopback_only)
        self._listener.setblocking(False)
        self._wake, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="abci", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close everything; comes back when the thread has ended. May be called again."""
        self._stopping = True
        if self._thread is None or self._thread is threading.current_thread():
            return
        with suppress(OSError):
            self._waker.send(b"x")
        self._thread.join()

    @property
    def address(self) -> str:
        """Give the address served, with the port that was free."""
        if self._socket_file is not None:
            return self._given
        host, port = self._listener.getsockname()[:2]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._serve()
        except BaseException as e:  # noqa: BLE001 - handed to the owner, who stops the process
            failure = e
        self._close()
        if failure is not None:
            _log.critical("the node stops: %s", failure, exc_info=failure)
            self._failed(failure)

    def _serve(self) -> None:
        busy = False
        while not self._stopping:
            for key, events in self._selector.select(0 if busy else None):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, _Connection):
                    self._move_bytes(key.data, events)
            for connection in tuple(self._connections):
                if connection.ready:
                    self._take_turn(connection)
            busy = any(connection.ready for connection in self._connections)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError as e:  # the peer is gone again, or we have no descriptor left for it
            _log.warning("a connection cannot be accepted: %s", e)
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            _log.warning("a connection is refused: %d are open", _MAX_CONNECTIONS)
            peer.close()
            return
        peer.setblocking(False)
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(peer, self._max_message_bytes)
        self._connections.add(connection)
        self._watch(connection)

    def _move_bytes(self, connection: _Connection, events: int) -> None:
        if events & selectors.EVENT_READ:
            try:
                data = connection.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as e:
                self._drop(connection, f"it is lost: {e}")
                return
            if not data:
                self._drop(connection, "the engine closed it", logging.INFO)
                return
            connection.frames.feed(data)  # its turn comes at once, and ends with sending
        if events & selectors.EVENT_WRITE:
            self._send(connection)

    def _take_turn(self, connection: _Connection) -> None:
        for _ in range(_TURN):
            try:
                frame = connection.frames.next()
                request = None if frame is None else m.decode_request(frame, self._node.tx_bytes)
            except MalformedMessage as e:
                self._send(connection)  # what was asked before
                self._drop(connection, f"a request is broken: {e}")
                return
            if request is None:
                break
            self._answer(connection, request)
        self._send(connection)

    def _answer(self, connection: _Connection, request: Message) -> None:
        try:
            response = self._node.answer(request)
        except Mismatch as e:
            connection.unsent += m.encode_response(m.ResponseException(str(e)))
            _tell(connection)
            raise
        connection.unsent += m.encode_response(response)

    def _send(self, connection: _Connection) -> None:
        """Send what the socket takes, and wait for what comes next."""
        try:
            while connection.unsent:
                sent = connection.socket.send(connection.unsent)
                del connection.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError as e:
            self._drop(connection, f"it is lost: {e}")
            return
        self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        wanted = connection.wanted
        if wanted == connection.events:
            return
        if not connection.events:
            self._selector.register(connection.socket, wanted, connection)
        elif not wanted:
            self._selector.unregister(connection.socket)
        else:
            self._selector.modify(connection.socket, wanted, connection)
        connection.events = wanted

    def _drop(self, connection: _Connection, why: str, level: int = logging.WARNING) -> None:
        if connection not in self._connections:
            return
        _log.log(level, "a connection is closed: %s", why)
        self._connections.discard(connection)
        if connection.events:
            self._selector.unregister(connection.socket)
        connection.socket.close()

    def _close(self) -> None:
        for connection in tuple(self._connections):
            self._drop(connection, "the server ends", logging.INFO)
        self._selector.close()
        for end in (self._listener, self._wake, self._waker):
            end.close()
        if self._socket_file is not None:
            path, inode = self._socket_file
            with suppress(OSError):
                # unless ours was removed and another server has made its own
                if path.stat().st_ino == inode:
                    path.unlink()


_SocketFile = tuple[Path, int]


def _listen(address: str, loopback_only: bool) -> tuple[socket.socket, _SocketFile | None]:
    """Open a listening socket; gives its file with the inode too. Raises ServerError."""
    scheme, _, rest = address.partition("://")
    try:
        if scheme == "unix" and rest:
            return _listen_unix(Path(rest))
        if scheme == "tcp":
            return _listen_tcp(address, loopback_only), None
    except OSError as e:
        raise ServerError(f"{address} cannot be served: {e.strerror or e}") from e
    raise ServerError(f"{address} is no address: give unix:///path or tcp://127.0.0.1:port")


def _listen_unix(path: Path) -> tuple[socket.socket, _SocketFile]:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as name:
            listener.bind(name)
        # nobody can connect before it listens, so nobody does while others may
        path.chmod(0o600)
        listener.listen()
        return listener, (path, path.stat().st_ino)
    except BaseException:
        listener.close()
        raise


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name of a socket's file that is short enough: by its open folder, where it must be."""
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        yield os.fspath(path)
        return
    folder = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    """Remove the socket that a killed server has left; raises ServerError if one answers."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ServerError(f"{path} is there and is no socket: remove it, or name another one")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            with _short(path) as name:
                probe.connect(name)
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass  # somebody listens, and is busy
    raise ServerError(f"{path} is served already: stop the other process first")


def _listen_tcp(address: str, loopback_only: bool) -> socket.socket:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise ServerError(f"{address} is no address: give tcp://127.0.0.1:port")
    if loopback_only and not _is_loopback(host):
        raise ServerError(f"{address} is open to other machines, who could decide blocks")
    family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen()
        return listener
    except BaseException:
        listener.close()
        raise


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
