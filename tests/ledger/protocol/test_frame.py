"""Serial frames: properties and fuzz."""

import zlib
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.protocol import frame
from ledger.protocol.errors import BadFrame

# Bytes that the encoding treats specially come up often.
_PAYLOADS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\x00", b"\x02", b"\x03", b"\x02\x22", b"\x02\x23", b"\x22", b"\xff"]),
        st.integers(250, 260).map(lambda n: b"\x01" * n),
    ),
    max_size=12,
).map(b"".join)
_FRAMES = st.tuples(st.integers(0, 255), _PAYLOADS)


def _feed_in_pieces(decoder: frame.Decoder, line: bytes, cuts: list[int]) -> list:
    edges = sorted({0, len(line), *(cut % (len(line) + 1) for cut in cuts)})
    out = []
    for start, stop in pairwise(edges):
        out += decoder.feed(line[start:stop])
    return out


@given(st.lists(_FRAMES, max_size=5), st.lists(st.integers(0, 100_000), max_size=20))
def test_frames_come_back_however_the_line_cuts_them(frames, cuts):
    line = b"".join(frame.encode(channel, payload) for channel, payload in frames)
    decoder = frame.Decoder()
    assert _feed_in_pieces(decoder, line, cuts) == frames
    assert decoder.errors == 0


@given(_FRAMES)
def test_encoded_frame_is_free_of_interrupt_and_zero(one):
    line = frame.encode(*one)
    assert line[0] == line[-1] == 0
    assert 0 not in line[1:-1]
    assert 3 not in line


@given(st.binary(max_size=2000))
def test_cobs_is_undone_and_adds_one_byte_in_254(data):
    stuffed = frame.cobs_encode(data)
    assert 0 not in stuffed
    assert len(stuffed) <= len(data) + 1 + len(data) // 254
    assert frame.cobs_decode(stuffed) == data


@given(st.binary(max_size=600))
def test_cobs_decoder_gives_a_value_or_bad_frame(data):
    try:
        content = frame.cobs_decode(data)
    except BadFrame:
        return
    assert len(content) <= len(data)


_LINES = st.lists(
    st.one_of(
        st.binary(max_size=60),
        _FRAMES.map(lambda one: frame.encode(*one)),
        _FRAMES.map(lambda one: frame.encode(*one)[: len(one[1]) // 2]),
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=300)
@given(_LINES, st.lists(st.integers(0, 100_000), max_size=20))
def test_any_line_noise_only_counts_errors(line, cuts):
    decoder = frame.Decoder()
    for channel, payload in _feed_in_pieces(decoder, line, cuts):
        assert 0 <= channel <= 255
        assert len(payload) <= frame.MAX_PAYLOAD
    assert len(decoder._stuffed) <= 4096
    decoder.feed(b"\x00")
    before = decoder.errors
    assert decoder.feed(frame.encode(1, b"after the noise")) == [(1, b"after the noise")]
    assert decoder.errors == before


@given(_FRAMES)
def test_checksum_is_zlibs_crc_32_over_channel_and_payload(one):
    channel, payload = one
    stuffed = frame.encode(channel, payload)[1:-1]
    content = frame.cobs_decode(stuffed.replace(b"\x02\x23", b"\x03").replace(b"\x02\x22", b"\x02"))
    assert content == bytes([channel]) + payload + zlib.crc32(content[:-4]).to_bytes(4, "big")
