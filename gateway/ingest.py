"""The link to the broker: messages in, acknowledged when told to; heads, members, receipts out.

paho-mqtt runs in a thread of its own with a persistent session (fixed client id, clean session
off) and manual acknowledgement. A message that is not acknowledged is delivered again after the
next connection, so an acknowledgement always means: it is in the inbox, or it is worth nothing.
The thread connects for ever, the first connection like any other.

Left out: what the messages mean.
"""

import contextlib
import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config import Mqtt
from gateway.counters import Counters
from gateway.queue import Message
from gateway.schema import ConfigError
from ledger.protocol.cose import MAX_RECORD_BYTES

_log = logging.getLogger("gateway.ingest")

_MOST_OUTGOING = 50_000
_MOST_INCOMING = 4_000
_IDLE_S = 0.002
_FIRST_RETRY_S, _LAST_RETRY_S = 1, 30
_LAST_PAUSE_S = 10  # below the keep-alive, for paho's thread waits meanwhile


class Delivery(NamedTuple):
    """A message with what its acknowledgement needs: connection number, MQTT packet id, QoS."""

    message: Message
    connection: int
    mid: int
    qos: int


class Ingest:
    """One broker connection.

    ``filters`` are the topic filters to subscribe to at QoS 1, ``listen`` those at QoS 0, of which
    a loss does not matter. Raises ConfigError where the CA file cannot be used.
    """

    def __init__(
        self,
        settings: Mqtt,
        client_id: str,
        filters: Sequence[str],
        counters: Counters,
        *,
        listen: Sequence[str] = (),
        password: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._settings = settings
        self._filters = [(name, 1) for name in filters] + [(name, 0) for name in listen]
        self._counters = counters
        self._client_id, self._password, self._ca_file = client_id, password, ca_file
        self._incoming: queue.Queue[Delivery | None] = queue.Queue(_MOST_INCOMING)
        self._stopping = threading.Event()
        self.connections = 0
        self.ready = threading.Event()
        self._last: mqtt.MQTTMessageInfo | None = None
        self._session_kept = False
        self._pause_s = _FIRST_RETRY_S
        self._client = self._make_client()
        self._thread: threading.Thread | None = None

    def _make_client(self) -> mqtt.Client:
        client = self._new_client(clean_session=False)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.reconnect_delay_set(_FIRST_RETRY_S, _LAST_RETRY_S)
        # No limit: with one, paho looks through every unacknowledged message at each PUBACK. What
        # bounds memory is the number of messages, below.
        client.max_inflight_messages_set(0)
        client.max_queued_messages_set(_MOST_OUTGOING)
        return client

    def _new_client(self, *, clean_session: bool) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=clean_session,
            manual_ack=True,
        )
        if self._settings.user:
            client.username_pw_set(self._settings.user, self._password)
        if self._ca_file is not None:
            try:
                client.tls_set(str(self._ca_file))
            except (OSError, ssl.SSLError) as e:
                raise ConfigError(f"{self._ca_file} is not a CA certificate: {e}") from e
        return client

    # the thread's life

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._client.connect_async(
            self._settings.host, self._settings.port, self._settings.keepalive_s
        )
        # Not loop_forever in a thread of our own: paho would then write to the socket from the
        # thread that publishes as well, where two halves of packets could meet; and kept from that,
        # it would not wake its select for what is to be sent, which waits a second.
        known = set(threading.enumerate())
        self._client.loop_start()
        started = set(threading.enumerate()) - known
        self._thread = next(t for t in started if t.name.startswith("paho-mqtt-client"))

    def stop(self) -> None:
        """Say goodbye and end the thread."""
        self._stopping.set()
        self._client.disconnect()
        if self._thread is not None:
            self._thread.join(timeout=10)

    @property
    def alive(self) -> bool:
        """Tell whether the thread works; one that has died does not come back."""
        return self._thread is not None and self._thread.is_alive()

    # callbacks, in paho's thread

    def _on_connect_fail(self, _client: mqtt.Client, _userdata: object) -> None:
        self._counters.add("mqtt.unreachable")
        host, port = self._settings.host, self._settings.port
        _log.warning("event=mqtt-unreachable broker=%s:%d", host, port)

    def _on_connect(
        self, client: mqtt.Client, _userdata: object, flags: Any, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            self._counters.add("mqtt.refused")
            _log.error("event=mqtt-refused reason=%r", str(reason))
            return
        self.connections += 1
        self._session_kept = flags.session_present
        self._counters.add("mqtt.connected")
        _log.info("event=mqtt-connected session=%s", "kept" if flags.session_present else "new")
        client.subscribe(self._filters)

    def _on_subscribe(
        self, client: mqtt.Client, _userdata: object, _mid: int, reasons: Any, _properties: object
    ) -> None:
        pairs = zip(self._filters, reasons, strict=False)
        refused = [name for (name, _), reason in pairs if reason.is_failure]
        if refused:
            self._counters.add("mqtt.subscription_refused", len(refused))
            _log.error("event=mqtt-subscription-refused topics=%r", refused)
            self._try_anew(client)
            return
        self._pause_s = _FIRST_RETRY_S
        self.ready.set()
        self.wake()  # there is a new connection to greet

    def wake(self) -> None:
        """End a ``take`` that waits; may be called from any thread."""
        with contextlib.suppress(queue.Full):
            self._incoming.put_nowait(None)

    def _try_anew(self, client: mqtt.Client) -> None:
        """Connect and subscribe again after a growing pause, and not in the same session.

        Who once connected under this client id may have left subscriptions in the session until the
        broker grants no more. What waited in it, the meters send again.
        """
        self._stopping.wait(self._pause_s)
        self._pause_s = min(_LAST_PAUSE_S, 2 * self._pause_s)
        if self._session_kept and not self._stopping.is_set():
            self._drop_session()
        _cut(client)

    def _drop_session(self) -> None:
        connected = threading.Event()
        other = self._new_client(clean_session=True)
        other.on_connect = lambda *_: connected.set()
        try:
            other.connect(self._settings.host, self._settings.port, self._settings.keepalive_s)
        except OSError:
            return
        other.loop_start()
        connected.wait(_LAST_PAUSE_S)
        other.disconnect()
        other.loop_stop()
        self._counters.add("mqtt.session_dropped")
        _log.warning("event=mqtt-session-dropped")

    def _on_disconnect(
        self, _client: mqtt.Client, _userdata: object, _flags: Any, reason: Any, _properties: object
    ) -> None:
        self.ready.clear()
        if not self._stopping.is_set():
            self._counters.add("mqtt.disconnected")
            _log.warning("event=mqtt-disconnected reason=%r", str(reason))

    def _on_message(
        self, client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage
    ) -> None:
        self._counters.add("mqtt.messages")
        if len(message.payload) > MAX_RECORD_BYTES:
            self._counters.add("rejected.oversized")
            client.ack(message.mid, message.qos)
            return
        try:
            content = Message(message.topic, bytes(message.payload))
        except UnicodeDecodeError:  # brokers let no such topic through; this must not rest on it
            self._counters.add("rejected.malformed")
            client.ack(message.mid, message.qos)
            return
        delivery = Delivery(content, self.connections, message.mid, message.qos)
        try:
            # While this waits, TCP holds the broker back; the wait ends before the keep-alive.
            self._incoming.put(delivery, timeout=self._settings.keepalive_s)
        except queue.Full:
            self._counters.add("mqtt.overrun")
            _log.error("event=mqtt-overrun action=reconnect")
            _cut(client)  # unacknowledged messages come again on the next connection

    # for the service's thread

    def take(self, wait_s: float, most: int, group_s: float = 0.05) -> list[Delivery]:
        """Give the next messages: waits ``wait_s`` for the first, then for a pause or ``group_s``.

        A group shares one commit, so a short wait for more is time well spent; but brokers stop
        delivering at as few as 20 unacknowledged messages, so a pause ends it.
        """
        try:
            first = self._incoming.get(timeout=wait_s)
        except queue.Empty:
            return []
        if first is None:
            return []
        taken = [first]
        end = time.monotonic() + group_s
        more = True
        while more and time.monotonic() < end:
            # asleep, not waiting at the queue: waking for each message costs more than taking it
            time.sleep(_IDLE_S)
            more = self._drain(taken, most)
        return taken

    def _drain(self, taken: list[Delivery], most: int) -> bool:
        """Take what is there; tells whether anything was, and more may follow."""
        before = len(taken)
        while len(taken) < most:
            try:
                delivery = self._incoming.get_nowait()
            except queue.Empty:
                return len(taken) > before
            if delivery is None:
                return False
            taken.append(delivery)
        return False

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these need not come again."""
        for delivery in deliveries:
            # packet ids of an earlier connection mean nothing now; the broker sends those again
            if delivery.qos and delivery.connection == self.connections:
                self._client.ack(delivery.mid, delivery.qos)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Send a message at QoS 1; gives False where there is no link or too much waits already.

        Nothing is kept for later: what matters is published again after the next connection.
        """
        if not self.ready.is_set():
            self._counters.add("mqtt.unsent")
            return False
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            self._counters.add("mqtt.unsent")
            return False
        self._last = info
        self._counters.add("mqtt.sent")
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has what was published; gives False where it took too long."""
        if self._last is None:
            return True
        try:
            self._last.wait_for_publish(timeout_s)
        except (ValueError, RuntimeError):
            return False
        return self._last.is_published()


def _cut(client: mqtt.Client) -> None:
    """End the connection without a word; paho's thread then makes the next one."""
    connection = client.socket()
    if isinstance(connection, socket.socket):
        with contextlib.suppress(OSError):  # it has ended already
            connection.shutdown(socket.SHUT_RDWR)
