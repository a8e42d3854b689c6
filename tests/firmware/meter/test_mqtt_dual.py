"""The MQTT client against scripted bytes, on both interpreters (MQTT 3.1.1)."""

import asyncio

from firmware.meter import mqtt, stream
from firmware.meter.mqtt import Client, LinkDown

CONNACK = b"\x20\x02\x00\x00"


class Line:
    """A connection in memory: gives the script's pieces, then waits for ever or ends."""

    def __init__(self, script, ends=True):
        self.script = list(script)
        self.ends = ends
        self.sent = []
        self.closed = 0
        self.more = asyncio.Event()

    async def open(self, host, port, ssl, server_hostname):
        await asyncio.sleep(0)

    def add(self, piece):
        self.script.append(piece)
        self.more.set()

    async def readinto(self, view):
        await asyncio.sleep(0)
        while not self.script:
            if self.ends:
                return 0
            self.more.clear()
            await self.more.wait()
        piece = self.script.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if piece is None:
            return None
        size = min(len(view), len(piece))
        view[:size] = piece[:size]
        if size < len(piece):
            self.script.insert(0, piece[size:])
        return size

    def write(self, data):
        self.sent.append(bytes(data))

    async def drain(self):
        await asyncio.sleep(0)

    def close(self, orderly):
        self.closed += 1


def _client(line, on_message=lambda topic, payload, retained: None, **options):
    stream.Stream = lambda: line
    options.setdefault("timeout_s", 0.2)
    return Client("broker", 1883, "meter", on_message, **options)


async def _sent(line, count):
    """Wait until so many packets have left."""
    while len(line.sent) < count:  # noqa: ASYNC110 - turns of the event loop, not time
        await asyncio.sleep(0)


async def _down(awaitable):
    """Await it; give the text of the LinkDown that it must raise."""
    try:
        await awaitable
    except LinkDown as error:
        return str(error)
    raise AssertionError("the link stayed up")


def _session(script, **options):
    """Connect, run until the script ends; give (messages, what was sent, reason, client)."""
    got = []

    def note(topic, payload, retained):
        got.append((topic, bytes(payload), retained))

    async def main():
        line = Line(script)
        client = _client(line, note, **options)
        await client.connect()
        reason = await _down(client.run())
        assert line.closed
        return got, line.sent, reason, client

    return asyncio.run(main())


def _publish(topic, payload, qos=0, packet_id=0, retain=0):
    body = len(topic).to_bytes(2, "big") + topic
    if qos:
        body += packet_id.to_bytes(2, "big")
    return mqtt._packet(0x30 | qos << 1 | retain, body, payload)


def _connect_packet(**options):
    async def main():
        line = Line([CONNACK])
        await _client(line, **options).connect()
        return line.sent[0]

    return asyncio.run(main())


def test_connect_packet_has_the_standards_bytes():
    # Fields in the order of 3.1: name, level 4, flags, keep alive, then the payload (3.1.3).
    assert _connect_packet(keepalive_s=30) == b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05meter"
    packet = _connect_packet(
        keepalive_s=258, user="u", password="pw", will=("w", b"\x00", 1, True), clean_session=False
    )
    assert packet == (
        b"\x10\x1e\x00\x04MQTT\x04\xec\x01\x02\x00\x05meter\x00\x01w\x00\x01\x00\x00\x01u\x00\x02pw"
    )


def test_remaining_length_follows_table_2_4():
    for size, field in ((0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16383, b"\xff\x7f")):
        assert mqtt._packet(0x30, bytes(size))[: 1 + len(field)] == b"\x30" + field
    assert mqtt._packet(0x30, bytes(16384))[:4] == b"\x30\x80\x80\x01"


def test_messages_are_the_same_however_the_stream_cuts_them():
    line = CONNACK + _publish(b"a/b", b"\x00\x01", 1, 7) + _publish(b"c", b"", retain=1)
    line += b"\xd0\x00" + _publish(b"d", bytes(200))
    wanted = [("a/b", b"\x00\x01", False), ("c", b"", True), ("d", bytes(200), False)]
    for step in (1, 2, 3, 7, 1000):
        pieces = []
        for at in range(0, len(line), step):
            pieces += [None, line[at : at + step]]  # None: a TLS record is not whole yet
        got, sent, reason, _ = _session(pieces, max_packet=256)
        assert got == wanted, step
        assert sent[1:] == [b"\x40\x02\x00\x07"]
        assert reason == "broker closed the connection"


def test_qos_1_is_acknowledged_only_after_on_message_returned():
    order = []

    async def main():
        line = Line([CONNACK, _publish(b"t", b"x", 1, 0x1234)])
        client = _client(line, lambda topic, payload, retained: order.append(len(line.sent)))
        await client.connect()
        await _down(client.run())
        return line.sent

    assert asyncio.run(main())[1:] == [b"\x40\x02\x12\x34"]
    assert order == [1]


def test_what_on_message_raises_comes_out_of_run_and_is_not_acknowledged():
    def refuse(topic, payload, retained):
        raise KeyError(topic)

    async def main():
        line = Line([CONNACK, _publish(b"t", b"x", 1, 1)])
        client = _client(line, refuse)
        await client.connect()
        try:
            await client.run()
        except KeyError:
            return line
        raise AssertionError("swallowed")

    line = asyncio.run(main())
    assert len(line.sent) == 1
    assert line.closed


def test_too_long_message_is_read_past_acknowledged_and_counted():
    big = _publish(b"big", bytes(5000), 1, 9)
    script = [CONNACK + big[:50], big[50:3000], big[3000:] + _publish(b"t", b"next")]
    got, sent, _, client = _session(script, max_packet=100)
    assert got == [("t", b"next", False)]
    assert sent[1:] == [b"\x40\x02\x00\x09"]
    assert client.oversized == 1
    assert len(client._buffer) == 105


def test_longest_message_that_fits_is_delivered():
    for size, fits in ((97, True), (98, False)):
        got, _, _, client = _session([CONNACK, _publish(b"t", bytes(size))], max_packet=100)
        assert (len(got), client.oversized) == ((1, 0) if fits else (0, 1))


MALFORMED = (
    b"\x30\xff\xff\xff\xff\x01",  # five bytes of length
    b"\x30\x00",  # PUBLISH without topic length
    b"\x30\x02\x00\x00",  # empty topic
    b"\x30\x03\x00\x02t",  # topic cut short
    b"\x30\x04\x00\x02\xff\xfe",  # not UTF-8
    b"\x30\x03\x00\x01+",  # wildcard
    b"\x30\x03\x00\x01\x00",  # zero character
    b"\x32\x04\x00\x01t\x00",  # packet identifier cut short
    b"\x32\x05\x00\x01t\x00\x00",  # packet identifier 0
    b"\x34\x05\x00\x01t\x00\x01",  # QoS 2
    b"\x36\x05\x00\x01t\x00\x01",  # QoS 3
    b"\x40\x01\x00",  # PUBACK too short
    b"\x41\x02\x00\x01",  # PUBACK with flags
    b"\x90\x02\x00\x01",  # SUBACK without code
    b"\xd0\x01\x00",  # PINGRESP with contents
    b"\x20\x02\x00\x00",  # a second CONNACK
    b"\x10\x00",
    b"\x00\x00",
    b"\xf0\x00",
    b"\x50\x02\x00\x01",  # PUBREC
    b"\x90\xff\x7f",  # not a PUBLISH, and too long
    b"\x30\xff\x7f\xff\xff",  # topic longer than the buffer
)


def test_every_malformed_packet_takes_the_link_down_with_its_reason():
    for packet in MALFORMED:
        got, sent, reason, _ = _session([CONNACK, packet, bytes(20)], max_packet=256)
        assert not got and len(sent) == 1, packet
        assert reason != "broker closed the connection", packet


def test_acknowledgement_of_nothing_is_passed_over():
    got, _, _, _ = _session([CONNACK, b"\x40\x02\x00\x05", _publish(b"t", b"x")])
    assert got == [("t", b"x", False)]


def test_refused_or_malformed_connack_is_link_down():
    async def main(answer):
        line = Line([answer])
        client = _client(line)
        assert await _down(client.connect())
        assert line.closed
        assert await _down(client.run())
        assert await _down(client.publish("t", b""))

    answers = (b"\x20\x02\x00\x05", b"\x20\x02\x02\x00", b"\x20\x01\x00", b"\x20\x03\x00\x00\x00")
    for answer in answers + (b"", b"HTTP/1.1 400 Bad Request\r\n", _publish(b"t", b"x")):
        asyncio.run(main(answer))


def test_network_errors_and_bad_certificates_are_link_down():
    async def main(error):
        client = _client(Line([error]))
        assert await _down(client.connect())
        client = _client(Line([CONNACK, error]))
        await client.connect()
        assert await _down(client.run())

    for error in (OSError(104), ValueError("certificate")):
        asyncio.run(main(error))


def test_silent_broker_is_link_down_within_the_timeout():
    async def main():
        line = Line([], ends=False)
        assert await _down(_client(line, timeout_s=0.05).connect()) == "broker does not answer"
        assert line.closed
        line = Line([CONNACK], ends=False)
        client = _client(line, timeout_s=0.05, keepalive_s=1)
        await client.connect()
        assert await _down(client.run()) == "no answer to a ping"
        assert line.sent[1:] == [b"\xc0\x00"]

    asyncio.run(main())


def test_unacknowledged_publish_and_subscribe_are_link_down():
    async def main(call):
        client = _client(Line([CONNACK], ends=False), timeout_s=0.05)
        await client.connect()
        assert await _down(call(client)) == "broker does not acknowledge"
        assert await _down(client.run())

    asyncio.run(main(lambda client: client.publish("t", b"x")))
    asyncio.run(main(lambda client: client.subscribe("t")))


def test_end_of_the_link_wakes_everything_that_waits():
    async def main():
        line = Line([CONNACK], ends=False)
        client = _client(line, max_inflight=2, timeout_s=60)
        await client.connect()
        waiting = [client.publish("t", b"") for _ in range(4)] + [client.subscribe("t")]
        calls = [_down(call) for call in waiting + [client.run()]]
        tasks = [asyncio.create_task(call) for call in calls]
        await _sent(line, 4)  # CONNECT, two PUBLISH, SUBSCRIBE
        line.add(OSError(104))
        for task in tasks:
            assert await task

    asyncio.run(main())


def test_no_more_than_max_inflight_messages_wait_for_their_puback():
    async def main():
        line = Line([CONNACK], ends=False)
        client = _client(line, max_inflight=3, timeout_s=60)
        await client.connect()
        running = asyncio.create_task(client.run())
        tasks = [asyncio.create_task(client.publish("t", bytes((n,)))) for n in range(10)]
        acknowledged = 0
        while acknowledged < 10:
            await _sent(line, min(10, acknowledged + 3) + 1)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(line.sent) == min(10, acknowledged + 3) + 1
            line.add(b"\x40\x02" + line.sent[acknowledged + 1][5:7])
            acknowledged += 1
        for task in tasks:
            await task
        await client.close()
        await running
        return line.sent

    sent = asyncio.run(main())
    assert sorted([packet[-1] for packet in sent[1:11]]) == list(range(10))
    assert sent[11] == b"\xe0\x00"


def test_packet_identifiers_skip_zero_and_those_in_use():
    async def main():
        client = _client(Line([CONNACK], ends=False))
        await client.connect()
        client._packet_id = 65534
        client._answers = {1: None, 2: None}
        return [client._next_id(), client._next_id()]

    assert asyncio.run(main()) == [65535, 3]


def test_subscription_gives_the_granted_qos_and_refusal_is_link_down():
    async def main(code):
        line = Line([CONNACK], ends=False)
        client = _client(line, timeout_s=5)
        await client.connect()
        running = asyncio.create_task(_down(client.run()))
        asking = asyncio.create_task(client.subscribe("a/+/b", 1))
        await _sent(line, 2)
        assert line.sent[1] == b"\x82\x0a\x00\x01\x00\x05a/+/b\x01"
        line.add(b"\x90\x03\x00\x01" + bytes((code,)))
        try:
            return await asking
        finally:
            line.add(OSError(104))
            await running

    assert asyncio.run(main(0)) == 0
    assert asyncio.run(main(1)) == 1
    asyncio.run(_down(main(0x80)))


def test_puback_for_a_subscription_is_link_down():
    async def main():
        line = Line([CONNACK], ends=False)
        client = _client(line, timeout_s=5)
        await client.connect()
        running = asyncio.create_task(_down(client.run()))
        asking = asyncio.create_task(_down(client.subscribe("t")))
        await _sent(line, 2)
        line.add(b"\x40\x02\x00\x01")
        assert await running == "wrong kind of answer"
        assert await asking

    asyncio.run(main())


def test_same_client_connects_again_with_the_same_buffer():
    async def main():
        client = _client(Line([CONNACK]))
        buffer = client._buffer
        await client.connect()
        await _down(client.run())
        line = Line([CONNACK[:2], b"\x01\x00"], ends=False)
        stream.Stream = lambda: line
        await client.connect()
        assert client.session_present
        assert client._buffer is buffer
        running = asyncio.create_task(client.run())
        await client.publish("t", b"x", qos=0)
        assert line.sent[1] == b"\x30\x04\x00\x01tx"
        await client.close()
        await running

    asyncio.run(main())


def test_cancelled_run_closes_without_disconnect():
    async def main():
        line = Line([CONNACK], ends=False)
        client = _client(line)
        await client.connect()
        running = asyncio.create_task(client.run())
        for _ in range(10):
            await asyncio.sleep(0)
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            pass
        assert line.closed
        assert len(line.sent) == 1
        assert await _down(client.publish("t", b""))

    asyncio.run(main())


def test_random_bytes_only_ever_take_the_link_down():
    state = 1
    for _ in range(300):
        noise = bytearray()
        for _ in range(40):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            # Often a first byte that is allowed, and a short length.
            noise.append((0x30, 0x32, 0x40, 0x90, 0xD0, 2, 5, 0)[state >> 8 & 7])
            noise.append(state >> 16 & (255 if state & 0x400000 else 7))
        _, _, reason, client = _session([CONNACK, bytes(noise)], max_packet=64)
        assert reason
        assert len(client._buffer) == 69
