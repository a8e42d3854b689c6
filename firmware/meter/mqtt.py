"""An MQTT 3.1.1 client for one link: QoS 0 and 1, last will, TLS, bounded memory.

Source: MQTT Version 3.1.1, OASIS Standard, 29 October 2014; numbers in comments are its sections.

The order of use is connect(), then run() in a task of its own, and beside it subscribe() and
publish(). Whatever the network or the broker does ends in one error, LinkDown, at every call in
progress; then connect() again on the same object, which keeps its buffer. Waiting, retrying and
journalling are the callers': a publish() that raised may or may not have arrived.

Every wait is bounded by `timeout_s`, and a silent link is found within keepalive_s / 2 + timeout_s.
Two waits are not, because the board's own network stack blocks in them: looking up a host name
(give an address where the watchdog is short), and the arithmetic of the TLS handshake. TLS checks
the certificate's dates, so a board sets its clock before it connects.

Left out: QoS 2, sending again with DUP, unsubscribing, sessions kept across restarts of the board.
"""

import asyncio

from firmware.meter import stream
from firmware.meter.clock import ticks_diff, ticks_ms

try:
    from typing import Any, Callable
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


# Control packet types with their fixed flags (2.2).
_CONNECT = const(0x10)
_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_SUBSCRIBE = const(0x82)
_SUBACK = const(0x90)
_PINGRESP = const(0xD0)
_PINGREQ_PACKET = b"\xc0\x00"
_DISCONNECT_PACKET = b"\xe0\x00"


class LinkDown(OSError):
    """The link to the broker is gone, or the broker broke the protocol; the text says which."""


def _text(text: "str | bytes") -> bytes:
    """Give a length-prefixed string or binary field (1.5.3)."""
    data = text.encode() if isinstance(text, str) else bytes(text)
    if len(data) > 0xFFFF:
        raise ValueError("field longer than 65,535 bytes")
    return len(data).to_bytes(2, "big") + data


def _packet(first: int, *parts: bytes) -> bytes:
    """Give a whole control packet: type and flags, remaining length (2.2.3), contents."""
    out = bytearray((first,))
    length = sum([len(part) for part in parts])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    for part in parts:
        out.extend(part)
    return bytes(out)


class _Answer:
    """What the broker will say to one SUBSCRIBE or PUBLISH."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.code: "int | None" = None
        self.event = asyncio.Event()


class Client:
    """One MQTT link.

    on_message(topic: str, payload: memoryview, retained: bool) is called from run() for every
    message; the view is valid during the call only. The acknowledgement (QoS 1) leaves after it
    has returned, and a message may come twice. It must be quick: nothing is read meanwhile. What
    it raises ends run() and comes out there.

    will is (topic, payload, qos, retain) or None. ssl is an SSLContext or None. user and password
    are both given or both None. A packet longer than max_packet bytes is read past, acknowledged
    and counted in `oversized`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        on_message: "Callable[[str, memoryview, bool], Any]",
        *,
        user: "str | None" = None,
        password: "str | bytes | None" = None,
        keepalive_s: int = 30,
        timeout_s: float = 20,
        will: "tuple[str, bytes, int, bool] | None" = None,
        ssl: "Any" = None,
        server_hostname: "str | None" = None,
        clean_session: bool = True,
        max_packet: int = 4096,
        max_inflight: int = 8,
    ) -> None:
        if not 0 < keepalive_s <= 0xFFFF or max_inflight < 1:
            raise ValueError("keepalive_s or max_inflight out of range")
        self._ssl = ssl
        self._where = (host, port, ssl, server_hostname or host)
        self._on_message = on_message
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
        self._max_packet = max_packet
        self._max_inflight = max_inflight
        self._hello = _hello(client_id, user, password, keepalive_s, will, clean_session)
        self._buffer = bytearray(max_packet + 5)  # and the longest fixed header
        self._view = memoryview(self._buffer)
        self.oversized = 0
        self.session_present = False
        self._packet_id = 0
        self._reset()
        self._reason: "str | None" = "not connected"

    def _reset(self) -> None:
        self._stream: "Any" = None
        self._reading: "Any" = None
        self._reason = None
        self._closing = False
        self._error: "Exception | None" = None
        self._start = self._end = 0  # the unread bytes of the buffer
        self._lock = asyncio.Lock()  # one packet is written at a time
        self._freed = asyncio.Event()  # a place among the unacknowledged is free
        self._ended = asyncio.Event()
        self._answers: "dict[int, _Answer]" = {}
        self._sent_at = self._received_at = ticks_ms()
        self._ping_at: "Any" = None  # when the unanswered ping left

    # ------------------------------------------------------------------ for the supervisor

    def aim(self, host: str, port: int) -> None:
        """Say which broker the next connect() goes to; its certificate must name this host."""
        self._where = (host, port, self._ssl, host)

    async def connect(self) -> None:
        """Open the connection and the MQTT session; raises LinkDown, also when refused."""
        self._shut()
        self._reset()
        self._stream = stream.Stream()
        complete = False
        try:
            await asyncio.wait_for(self._open(), self._timeout_s)
            complete = True
        except asyncio.TimeoutError:
            raise LinkDown("broker does not answer")
        finally:
            if not complete:
                self._fail("not connected")
                self._shut()

    async def run(self) -> None:
        """Read and ping until the link ends: raises LinkDown, or returns after close().

        Cancelled, it closes the connection without DISCONNECT: the broker sends the last will.
        """
        self._check()
        self._reading = asyncio.create_task(self._read_packets())
        tick_s = max(0.05, min(self._keepalive_s, self._timeout_s) / 4)
        try:
            while not self._ended.is_set():
                await self._keep_alive()
                try:
                    await asyncio.wait_for(self._ended.wait(), tick_s)
                except asyncio.TimeoutError:
                    pass
        finally:
            self._fail("run() ended")
            self._shut()
        if self._error:
            raise self._error
        if self._reason:
            raise LinkDown(self._reason)

    async def close(self) -> None:
        """Say goodbye, so that the last will is not sent, and close; run() returns."""
        self._closing = True  # from now on the broker may close first
        try:
            await self._send(_DISCONNECT_PACKET)
        except LinkDown:
            pass
        self._fail("")
        self._shut()

    # ------------------------------------------------------------------------- for the meter

    async def subscribe(self, topic: str, qos: int = 0) -> int:
        """Subscribe to one topic filter; gives the QoS granted; raises LinkDown, also if refused.

        `qos` is 0 or 1.
        """
        packet_id = self._next_id()
        field = packet_id.to_bytes(2, "big")
        packet = _packet(_SUBSCRIBE, field, _text(topic), bytes((qos,)))
        code = await self._ask(packet_id, _SUBACK, packet)
        if code > 1:
            self._fail("subscription refused")
            self._check()
        return code

    async def publish(self, topic: str, payload: bytes, retain: bool = False, qos: int = 1) -> None:
        """Publish; at QoS 1 returns when the broker has acknowledged. Raises LinkDown.

        At most max_inflight messages are unacknowledged; more wait here.
        """
        if not qos:
            await self._send(_packet(_PUBLISH | retain, _text(topic), payload))
            return
        while len(self._answers) >= self._max_inflight:
            self._check()
            self._freed.clear()
            await self._freed.wait()
        packet_id = self._next_id()
        field = packet_id.to_bytes(2, "big")
        packet = _packet(_PUBLISH | 2 | retain, _text(topic), field, payload)
        await self._ask(packet_id, _PUBACK, packet)

    # ------------------------------------------------------------------------------- ending

    def _fail(self, reason: str) -> None:
        """Note why the link ended (the first reason stays) and wake whoever waits for it."""
        if self._reason is None:
            self._reason = "" if self._closing else reason
        self._ended.set()
        self._freed.set()
        for answer in self._answers.values():
            answer.event.set()

    def _check(self) -> None:
        if self._reason is not None:
            raise LinkDown(self._reason or "closed")

    def _shut(self) -> None:
        # First the reader: on MicroPython a socket must leave the poller before it is closed.
        if self._reading:
            self._reading.cancel()
            self._reading = None
        if self._stream:
            self._stream.close(orderly=not self._reason)

    # ------------------------------------------------------------------------------ sending

    async def _send(self, packet: bytes) -> None:
        async with self._lock:
            self._check()
            link = self._stream
            reason = "sending was interrupted"  # half a packet may be out
            try:
                self._sent_at = ticks_ms()
                link.write(packet)
                await asyncio.wait_for(link.drain(), self._timeout_s)
                reason = ""
            except asyncio.TimeoutError:
                reason = "broker does not read"
                raise LinkDown(reason)
            # MicroPython reports a bad certificate as ValueError.
            except (OSError, ValueError) as error:
                reason = "sending: " + str(error)
                raise LinkDown(reason)
            finally:
                if reason and link is self._stream:
                    self._fail(reason)

    async def _ask(self, packet_id: int, kind: int, packet: bytes) -> int:
        """Send a packet and give the code of its answer; raises LinkDown if none comes."""
        answer = self._answers[packet_id] = _Answer(kind)
        answers = self._answers
        try:
            await self._send(packet)
            await asyncio.wait_for(answer.event.wait(), self._timeout_s)
        except asyncio.TimeoutError:
            self._fail("broker does not acknowledge")
        finally:
            answers.pop(packet_id)
            self._freed.set()
        if answer.code is None:
            raise LinkDown(self._reason or "closed")
        return answer.code

    def _next_id(self) -> int:
        """Give a packet identifier, 1 to 65,535, that is not in use (2.3.1)."""
        self._check()
        while True:
            self._packet_id = self._packet_id % 0xFFFF + 1
            if self._packet_id not in self._answers:
                return self._packet_id

    async def _keep_alive(self) -> None:
        now = ticks_ms()
        if self._ping_at is not None:
            if ticks_diff(now, self._ping_at) > self._timeout_s * 1000:
                self._fail("no answer to a ping")
            return
        idle_ms = max(ticks_diff(now, self._sent_at), ticks_diff(now, self._received_at))
        if idle_ms * 2 >= self._keepalive_s * 1000:
            self._ping_at = now
            try:
                await self._send(_PINGREQ_PACKET)
            except LinkDown as error:
                self._fail(str(error))

    # ---------------------------------------------------------------------------- receiving

    async def _open(self) -> None:
        try:
            await self._stream.open(*self._where)
        # CPython reports a bad certificate here; both are OSError or ValueError.
        except (OSError, ValueError) as error:
            raise LinkDown("connecting: " + str(error))
        await self._send(self._hello)
        first, body = await self._next_packet()
        if first != _CONNACK or len(body) != 2 or body[0] > 1:
            raise LinkDown("no CONNACK")
        if body[1]:
            raise LinkDown("connection refused with code " + str(body[1]))
        self.session_present = bool(body[0])

    async def _read_packets(self) -> None:
        try:
            while True:
                await self._handle(await self._next_packet())
        except LinkDown as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - the task's edge: run() raises it again
            self._error = error
        finally:
            self._ended.set()

    async def _fill(self, count: int) -> None:
        """Read until `count` unread bytes lie in the buffer; raises LinkDown."""
        size = self._end - self._start
        if self._start and (not size or self._start + count > len(self._buffer)):
            self._view[:size] = self._view[self._start : self._end]
            self._start, self._end = 0, size
        while self._end - self._start < count:
            try:
                got = await self._stream.readinto(self._view[self._end :])
            except (OSError, ValueError) as error:
                raise LinkDown("receiving: " + str(error))
            if got == 0:
                raise LinkDown("broker closed the connection")
            self._end += got or 0  # None: part of a TLS record
            self._received_at = ticks_ms()

    async def _next_packet(self) -> "tuple[int, memoryview]":
        """Give (first byte, contents) of the next packet that fits; the view is short-lived."""
        while True:
            length, header = await self._lengths()
            first = self._buffer[self._start]
            if length <= self._max_packet:
                await self._fill(header + length)
                at = self._start + header
                self._start = at + length
                return first, self._view[at : self._start]
            await self._skip(first, header, length)

    async def _lengths(self) -> "tuple[int, int]":
        """Give (remaining length, size of the fixed header) of the packet that comes (2.2.3)."""
        length = 0
        for at in range(1, 5):
            await self._fill(at + 1)
            byte = self._buffer[self._start + at]
            length |= (byte & 127) << 7 * (at - 1)
            if byte < 128:
                return length, at + 1
        raise LinkDown("malformed length")

    async def _skip(self, first: int, header: int, length: int) -> None:
        """Read past a PUBLISH that is too long; acknowledge it, or it would come for ever."""
        qos = first >> 1 & 3
        await self._fill(header + 2)
        at = self._start + header
        topic_end = 2 + (self._buffer[at] << 8 | self._buffer[at + 1])
        if first & 0xF0 != _PUBLISH or qos > 1 or topic_end + 2 > self._max_packet:
            raise LinkDown("packet too long")
        await self._fill(header + topic_end + 2)
        at = self._start + header + topic_end
        packet_id = bytes(self._view[at : at + 2])
        self._start += header
        while length:
            await self._fill(1)
            step = min(length, self._end - self._start)
            self._start += step
            length -= step
        self.oversized += 1
        if qos:
            await self._send(b"\x40\x02" + packet_id)

    async def _handle(self, packet: "tuple[int, memoryview]") -> None:
        first, body = packet
        if first & 0xF0 == _PUBLISH:
            await self._deliver(first, body)
        elif first == _PUBACK and len(body) == 2:
            self._answered(_PUBACK, body, 0)
        elif first == _SUBACK and len(body) == 3:
            self._answered(_SUBACK, body, body[2])
        elif first == _PINGRESP and not len(body):
            self._ping_at = None
        else:
            raise LinkDown("unexpected packet of type " + str(first >> 4))

    def _answered(self, kind: int, body: memoryview, code: int) -> None:
        answer = self._answers.get(body[0] << 8 | body[1])
        if answer is None:
            return  # of a publish() whose caller gave up
        if answer.kind != kind:
            raise LinkDown("wrong kind of answer")
        answer.code = code
        answer.event.set()

    async def _deliver(self, first: int, body: memoryview) -> None:
        qos = first >> 1 & 3
        size = len(body)
        topic_end = 2 + (body[0] << 8 | body[1]) if size >= 2 else 2
        start = topic_end + 2 if qos else topic_end
        if qos > 1 or topic_end == 2 or start > size:
            raise LinkDown("malformed PUBLISH")
        try:
            topic = str(body[2:topic_end], "utf-8")
        except UnicodeError:
            raise LinkDown("topic is not UTF-8")
        packet_id = bytes(body[topic_end:start])
        if packet_id == b"\x00\x00" or "\x00" in topic or "+" in topic or "#" in topic:
            raise LinkDown("malformed PUBLISH")
        self._on_message(topic, body[start:], bool(first & 1))
        if qos:
            await self._send(b"\x40\x02" + packet_id)


def _hello(
    client_id: str,
    user: "str | None",
    password: "str | bytes | None",
    keepalive_s: int,
    will: "tuple[str, bytes, int, bool] | None",
    clean_session: bool,
) -> bytes:
    """Give the CONNECT packet (3.1); raises ValueError for arguments that do not fit."""
    if (user is None) != (password is None) or not (client_id or clean_session):
        raise ValueError("user without password, or a session without a client id")
    flags = 2 if clean_session else 0
    fields = _text(client_id)
    if will:
        topic, payload, qos, retain = will
        flags |= 4 | qos << 3 | retain << 5
        fields += _text(topic) + _text(payload)
    if user is not None and password is not None:
        flags |= 0xC0
        fields += _text(user) + _text(password)
    head = b"\x00\x04MQTT\x04" + bytes((flags,)) + keepalive_s.to_bytes(2, "big")
    return _packet(_CONNECT, head, fields)
