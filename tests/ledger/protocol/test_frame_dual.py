"""Serial frames, on both interpreters."""

from ledger.protocol import frame
from ledger.protocol.errors import BadFrame


def _run(first, last):
    return bytes(range(first, last + 1))


# Data and its COBS form, by the rules of Cheshire and Baker; the last group of 254 stands for
# no zero, and nothing follows it.
_COBS = (
    (b"", b"\x01"),
    (b"\x00", b"\x01\x01"),
    (b"\x00\x00", b"\x01\x01\x01"),
    (b"\x00\x11\x00", b"\x01\x02\x11\x01"),
    (b"\x11\x22\x00\x33", b"\x03\x11\x22\x02\x33"),
    (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
    (b"\x11\x00\x00\x00", b"\x02\x11\x01\x01\x01"),
    (_run(1, 254), b"\xff" + _run(1, 254)),
    (_run(0, 254), b"\x01\xff" + _run(1, 254)),
    (_run(1, 255), b"\xff" + _run(1, 254) + b"\x02\xff"),
    (_run(2, 255) + b"\x00", b"\xff" + _run(2, 255) + b"\x01\x01"),
    (_run(3, 255) + b"\x00\x01", b"\xfe" + _run(3, 255) + b"\x02\x01"),
)


def _mixed(size):
    """Bytes with many zeros, escapes and long runs; the same on both interpreters."""
    state = 12345
    out = bytearray()
    while len(out) < size:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        out.extend(bytes((state >> 8 & 3,)) * (state >> 16 & 3))
        out.append(state >> 10 & 255)
    return bytes(out[:size])


def test_cobs_follows_the_published_rules():
    for data, stuffed in _COBS:
        assert frame.cobs_encode(data) == stuffed, data
        assert frame.cobs_decode(stuffed) == data, data


def test_cobs_with_a_needless_last_group_is_read_as_well():
    assert frame.cobs_decode(b"\xff" + _run(1, 254) + b"\x01") == _run(1, 254)


def test_broken_cobs_is_refused():
    for stuffed in (b"\x00", b"\x03\x11", b"\x02\x00", b"\xff", b"\x01\x05\x11"):
        try:
            frame.cobs_decode(stuffed)
        except BadFrame:
            continue
        raise AssertionError(stuffed)


def test_frame_of_version_1_has_these_very_bytes():
    # channel 3, payload 02 03 00: CRC-32 of 03 02 03 00 is 1b58f75f (zlib).
    assert frame.encode(3, b"\x02\x03\x00") == (
        b"\x00\x04\x02\x23\x02\x22\x02\x23\x05\x1b\x58\xf7\x5f\x00"
    )


def test_every_length_comes_back():
    for size in list(range(12)) + [252, 253, 254, 255, 256, 507, 508, 509, 1024, 4073, 4074]:
        payload = _mixed(size)
        decoder = frame.Decoder()
        assert decoder.feed(frame.encode(1, payload)) == [(1, payload)], size
        assert decoder.errors == 0


def test_worst_payload_still_fits():
    for byte in (b"\x00", b"\x02", b"\x03", b"\xff"):
        payload = byte * frame.MAX_PAYLOAD
        decoder = frame.Decoder()
        assert decoder.feed(frame.encode(255, payload)) == [(255, payload)]


def test_frames_hold_neither_interrupt_nor_inner_zero():
    for size in (0, 1, 300, 4000):
        inner = frame.encode(3, _mixed(size))[1:-1]
        assert inner.find(b"\x00") < 0
        assert inner.find(b"\x03") < 0


def test_bytes_fed_one_by_one_give_the_same_frames():
    line = frame.encode(1, _mixed(300)) + frame.encode(2, b"\x02\x03") + frame.encode(3, b"")
    decoder = frame.Decoder()
    frames = []
    for at in range(len(line)):
        frames.extend(decoder.feed(line[at : at + 1]))
    assert frames == [(1, _mixed(300)), (2, b"\x02\x03"), (3, b"")]
    assert decoder.errors == 0


def test_text_before_a_frame_costs_one_error_and_no_frame():
    decoder = frame.Decoder()
    frames = decoder.feed(b"MPY: soft reboot\r\n" + frame.encode(1, b"x") + b"oops\n")
    assert frames == [(1, b"x")]
    assert decoder.errors == 1
    assert decoder.feed(frame.encode(1, b"y")) == [(1, b"y")]
    assert decoder.errors == 2


def test_every_flipped_bit_is_refused():
    line = frame.encode(1, b"\x00\x02\x03reading")
    for at in range(1, len(line) - 1):
        for bit in range(8):
            spoilt = bytearray(line)
            spoilt[at] ^= 1 << bit
            decoder = frame.Decoder()
            assert decoder.feed(bytes(spoilt)) == [], (at, bit)
            assert decoder.errors >= 1
            assert decoder.feed(frame.encode(1, b"next")) == [(1, b"next")]


def test_interrupt_byte_and_unknown_escape_spoil_a_frame():
    line = frame.encode(1, b"abc")
    for noise in (b"\x03", b"\x02", b"\x02\x02\x22", b"\x02\x24"):
        decoder = frame.Decoder()
        assert decoder.feed(line[:3] + noise + line[3:]) == []
        assert decoder.errors == 1


def test_endless_line_without_delimiter_is_held_to_4096_bytes():
    decoder = frame.Decoder()
    for _ in range(20):
        assert decoder.feed(b"\x55" * 1000) == []
        assert len(decoder._stuffed) <= 4096
    assert decoder.feed(b"\x00") == []
    assert decoder.errors == 1
    assert decoder.feed(frame.encode(2, b"log")) == [(2, b"log")]


def test_too_long_payload_is_the_callers_error():
    for channel, payload in ((1, bytes(frame.MAX_PAYLOAD + 1)), (256, b""), (-1, b"")):
        try:
            frame.encode(channel, payload)
        except ValueError:
            continue
        raise AssertionError(channel)
