"""Whatever a broker sends, the MQTT client gives messages or LinkDown, in bounded memory."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.meter import mqtt, stream
from firmware.meter.mqtt import Client, LinkDown
from tests.firmware.meter.test_mqtt_dual import CONNACK, Line

_FIRST = st.one_of(st.sampled_from([0x20, 0x30, 0x32, 0x40, 0x90, 0xD0]), st.integers(0, 255))
_BODY = st.one_of(
    st.binary(max_size=80),
    st.tuples(st.text(min_size=1, max_size=10), st.binary(max_size=90)).map(
        lambda parts: len(parts[0].encode()).to_bytes(2, "big") + parts[0].encode() + parts[1]
    ),
)
_PACKET = st.tuples(_FIRST, _BODY).map(lambda parts: mqtt._packet(*parts))
_PIECE = st.one_of(_PACKET, st.binary(max_size=30), st.just(CONNACK), st.none())
_SCRIPT = st.lists(_PIECE, max_size=12)


@settings(max_examples=400)
@given(_SCRIPT, st.booleans())
def test_any_broker_gives_messages_or_link_down(script, after_connack):
    got = []

    def on_message(topic, payload, retained):
        assert len(payload) <= 64
        got.append(topic)

    async def main():
        line = Line(([CONNACK] if after_connack else []) + [p for p in script if p != b""])
        usual, stream.Stream = stream.Stream, lambda: line
        client = Client("broker", 1883, "meter", on_message, timeout_s=1, max_packet=64)
        try:
            await client.connect()
            await client.run()
        except LinkDown:
            pass
        finally:
            stream.Stream = usual
        assert client._reason
        assert line.closed
        assert len(client._buffer) == 69
        acknowledged = [packet for packet in line.sent[1:] if packet[:2] == b"\x40\x02"]
        assert len(acknowledged) == len(line.sent) - 1

    asyncio.run(main())
    assert all(topic and "\0" not in topic and "+" not in topic for topic in got)
