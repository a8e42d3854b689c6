"""The supervisor of the link: one session after the other, for ever.

A session begins from nothing each time: network, connection, subscriptions, then everything that
has no receipt is published again. However it ends, all of its tasks are gone before the next; the
first session is like any other, so access point and broker may come up later than the meter. The
wait between two doubles up to half a minute, with jitter, so that a neighbourhood does not come
back at one instant.

Where the settings name several brokers, the meter stays with one that works. After a session that
did not last it goes to the next, and the wait doubles when all of them have had their turn.

Left out: what messages mean. They go to ``on_message`` as they come.
"""

import asyncio
from binascii import a2b_base64, hexlify
from os import urandom

from firmware.meter import clock
from firmware.meter.mqtt import Client, LinkDown
from firmware.meter.watch import wait
from ledger.protocol import topics

try:
    from typing import Any, Callable

    from firmware.meter.outbox import Outbox
    from ledger.protocol.settings import Settings
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_FIRST_WAIT_MS = const(500)
_LONGEST_WAIT_MS = const(30_000)
_GOOD_SESSION_MS = const(10_000)
_IDLE_MS = const(2000)
# The longest message that a meter must take: the members of a cluster of twelve with three
# approvals each.
_MAX_PACKET = const(6144)

ONLINE = b"online"
OFFLINE = b"offline"


def der_of(certificate: bytes) -> bytes:
    """Give a certificate as DER; boards' TLS takes no PEM. Raises ValueError."""
    if not certificate.startswith(b"-----BEGIN"):
        return certificate
    lines = certificate.split(b"-----")
    return a2b_base64(lines[2])


def tls_context(certificate: bytes) -> "Any":
    """Give an SSLContext that trusts this one authority and no other."""
    import ssl

    context: "Any" = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=der_of(certificate))
    return context


def next_wait_ms(failures: int, jitter: int) -> int:
    """Give the wait after so many failed sessions in a row; ``jitter`` is 0 to 255."""
    longest = min(_FIRST_WAIT_MS << min(failures, 16), _LONGEST_WAIT_MS)
    return longest // 2 + longest * jitter // 512


class Brokers:
    """The brokers of the settings ((name, port), in their order), and whose turn it is."""

    def __init__(self, brokers: "list[tuple[str, int]]") -> None:
        self._brokers = brokers
        self._at = 0
        self._failures = 0

    def now(self) -> "tuple[str, int]":
        """Give the broker to connect to."""
        return self._brokers[self._at]

    def ended(self, lasted: bool, jitter: int) -> int:
        """Take note of the end of a session; gives the wait before the next (ms).

        A broker with which a session ``lasted`` is tried first again. ``jitter`` is 0 to 255.
        """
        if lasted:
            self._failures = 0
        else:
            self._at = (self._at + 1) % len(self._brokers)
        wait_ms = next_wait_ms(self._failures // len(self._brokers), jitter)
        self._failures += 1
        return wait_ms


class Link:
    """``network`` is a coroutine function that brings the board's network up or raises OSError.

    ``tell(online)`` and ``beat()`` are called as things happen; on_message(topic, payload,
    retained) as firmware.meter.mqtt.Client tells.
    """

    def __init__(
        self,
        settings: "Settings",
        address: bytes,
        outbox: "Outbox",
        network: "Callable[[], Any]",
        on_message: "Callable[[str, Any, bool], None]",
        tell: "Callable[[bool], None]",
        beat: "Callable[[], None]",
        fault: "Callable[[str, str], None]",
    ) -> None:
        self._settings = settings
        self._address = address
        self._outbox = outbox
        self._network = network
        self._tell = tell
        self._beat = beat
        self._fault = fault
        self._ended = False
        self._online_at: "Any" = None
        self.online = False
        tls = tls_context(settings.ca) if settings.ca is not None else None
        self._brokers = Brokers(settings.brokers())
        host, port = self._brokers.now()
        self._client = Client(
            host,
            port,
            hexlify(address).decode(),
            on_message,
            user=settings.user,
            password=settings.password,
            will=(self._topic(topics.STATUS), OFFLINE, 1, True),
            ssl=tls,
            max_packet=_MAX_PACKET,
        )

    def _topic(self, kind: str) -> str:
        return topics.meter(self._settings.chain, self._settings.cluster, self._address, kind)

    async def run(self) -> None:
        """Keep the link up for ever."""
        while True:
            self._beat()
            self._online_at = None
            try:
                await self._session()
            except OSError as error:  # LinkDown too
                self._fault("link down", str(error))
            self._beat()
            wait_ms = self._brokers.ended(self._lasted(), urandom(1)[0])
            await asyncio.sleep(wait_ms / 1000)

    def _lasted(self) -> bool:
        """Tell whether the session that has ended was one."""
        if self._online_at is None:
            return False
        return clock.ticks_diff(clock.ticks_ms(), self._online_at) > _GOOD_SESSION_MS

    async def goodbye(self) -> None:
        """End an open session in order: the status says so instead of the last will."""
        if self.online:
            try:
                await self._client.publish(self._topic(topics.STATUS), OFFLINE, retain=True, qos=0)
            except LinkDown:
                return
            await self._client.close()

    async def _session(self) -> None:
        await self._network()
        host, port = self._brokers.now()
        self._client.aim(host, port)
        await self._client.connect()
        self._beat()
        self._ended = False
        reading = asyncio.create_task(self._read())
        try:
            await self._subscribe()
            await self._client.publish(self._topic(topics.STATUS), ONLINE, retain=True)
            self.online = True
            self._online_at = clock.ticks_ms()
            self._tell(True)
            self._outbox.restart()
            await self._publish()
        finally:
            await self._close(reading)

    async def _close(self, reading: "Any") -> None:
        reading.cancel()
        try:
            await reading
        except asyncio.CancelledError:
            pass
        if self.online:
            self.online = False
            self._tell(False)

    async def _read(self) -> None:
        try:
            await self._client.run()
        except LinkDown as error:
            self._fault("link down", str(error))
        finally:
            self._ended = True
            self._outbox.ready.set()

    async def _subscribe(self) -> None:
        # All at QoS 0. The session is a clean one, so that at QoS 1 nothing would be kept for a
        # meter that is away; what is lost on the way costs an abstention, or is retained, or is
        # asked for by sending again. And a group of brokers that has just lost one takes seconds
        # to agree on each subscription at QoS 1.
        settings = self._settings
        await self._client.subscribe(topics.head(settings.chain))
        await self._client.subscribe(self._topic(topics.RECEIPT))
        await self._client.subscribe(topics.members(settings.chain, settings.cluster))
        await self._client.subscribe(topics.cluster_readings(settings.chain, settings.cluster))

    async def _publish(self) -> None:
        while not self._ended:
            self._beat()
            item = self._outbox.take()
            if item is None:
                await wait(self._outbox.ready, _IDLE_MS)
            else:
                await self._client.publish(self._topic(item[0]), item[1])
