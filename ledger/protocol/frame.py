"""Serial frames: what carries messages, log and rig orders over USB or RS-485.

    frame    0x00 || escape(COBS(content)) || 0x00
    content  channel (1 byte) || payload || CRC-32 (4 bytes, big-endian) over channel and payload

COBS is Cheshire and Baker's (IEEE/ACM Trans. Networking 7:2, 1999): no 0x00 inside, at most one
byte more per 254. A frame has a 0x00 before it as well as behind it, so that text which something
else printed on the line spoils no frame: the text is counted as one damaged frame.

Escape keeps 0x03 off the line: 0x02 becomes 0x02 0x22, and 0x03 becomes 0x02 0x23. A USB console
takes 0x03 as Ctrl-C and stops the MicroPython program, so a frame must not hold it; and because
no frame does, Ctrl-C can stay switched on, and a person at the console can still stop the board.
Both directions are alike. The price is 1/128 on random bytes; the worst payload, all 0x02 and
0x03, doubles on the line. The usual trick, XOR by the excluded byte, excludes one value only,
and 0x00 is one already.

CRC-32 is that of zlib and IEEE 802.3 (``binascii.crc32``). It guards against noise, not against
an attacker: signatures do that.

Left out: addresses, repetition, order. Payloads longer than MAX_PAYLOAD are the sender's to cut.
"""

from binascii import crc32

from ledger.protocol.errors import BadFrame

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


CHANNEL_MESSAGE = const(1)
CHANNEL_LOG = const(2)
CHANNEL_RIG = const(3)

_MAX_STUFFED = const(4096)
_RUN = const(254)  # longest run of one COBS group
_OVERHEAD = const(5)  # channel and CRC

MAX_PAYLOAD = const(4074)
"""Longest payload, bytes: with channel, CRC and 17 COBS codes it fills a decoder's 4096."""


def encode(channel: int, payload: bytes) -> bytes:
    """Give the frame of one payload, delimiters included.

    Raises ValueError for a channel or payload out of range: that is the caller's mistake.
    """
    if not 0 <= channel <= 255:
        raise ValueError("channel is one byte")
    if len(payload) > MAX_PAYLOAD:
        raise ValueError("payload longer than a frame")
    content = bytes((channel,)) + payload
    content += crc32(content).to_bytes(4, "big")
    stuffed = cobs_encode(content).replace(b"\x02", b"\x02\x22").replace(b"\x03", b"\x02\x23")
    return b"\x00" + stuffed + b"\x00"


def cobs_encode(data: bytes) -> bytes:
    """Give data without any 0x00, one to 1 + len/254 bytes longer."""
    out = bytearray()
    start = 0
    size = len(data)
    full = False  # the last group had 254 bytes and stands for no zero
    while start <= size:
        zero = data.find(b"\x00", start)
        end = size if zero < 0 else zero
        while end - start >= _RUN:
            out.append(_RUN + 1)
            out.extend(data[start : start + _RUN])
            start += _RUN
            full = True
        if not (full and start == size):
            out.append(end - start + 1)
            out.extend(data[start:end])
        start = end + 1
        full = False
    return bytes(out)


def cobs_decode(data: bytes) -> bytes:
    """Undo cobs_encode; raises BadFrame."""
    if data.find(b"\x00") >= 0:
        raise BadFrame("zero inside a frame")
    out = bytearray()
    at = 0
    size = len(data)
    while at < size:
        code = data[at]
        if at + code > size:
            raise BadFrame("COBS group cut short")
        out.extend(data[at + 1 : at + code])
        at += code
        if code <= _RUN and at < size:
            out.append(0)
    return bytes(out)


def _open(stuffed: bytes) -> "tuple[int, bytes]":
    """Give (channel, payload) of one frame's COBS bytes; raises BadFrame."""
    content = cobs_decode(stuffed)
    size = len(content) - 4
    if size < 1:
        raise BadFrame("frame too short")
    if crc32(content[:size]) != int.from_bytes(content[size:], "big"):
        raise BadFrame("checksum")
    return content[0], content[1:size]


def _unescape(piece: bytes) -> bytes:
    """Undo the escape stage over a piece that ends in no half pair; raises BadFrame."""
    if piece.find(b"\x03") >= 0:
        raise BadFrame("0x03 on the line")
    escapes = piece.count(b"\x02")
    if not escapes:
        return piece
    if piece.count(b"\x02\x22") + piece.count(b"\x02\x23") != escapes:
        raise BadFrame("unknown escape")
    # In this order: the 0x02 that the second step yields must not meet the first.
    return piece.replace(b"\x02\x23", b"\x03").replace(b"\x02\x22", b"\x02")


class Decoder:
    """Takes the bytes of a line as they come, in pieces of any size, and gives whole frames.

    Nothing that comes raises; what is no frame is dropped and counted in `errors`, one for each
    stretch between two delimiters. It holds at most 4096 bytes between two calls.
    """

    def __init__(self) -> None:
        self.errors = 0
        self._stuffed = bytearray()
        self._half_escape = False
        self._bad = False

    def feed(self, data: bytes) -> "list[tuple[int, bytes]]":
        """Take bytes; give the frames that they complete as (channel, payload), oldest first."""
        frames: "list[tuple[int, bytes]]" = []
        pieces = bytes(data).split(b"\x00")
        self._take(pieces[0])
        for piece in pieces[1:]:
            self._finish(frames)
            self._take(piece)
        return frames

    def _take(self, piece: bytes) -> None:
        if self._bad or not piece:
            return
        if self._half_escape:
            piece = b"\x02" + piece
        self._half_escape = piece[-1] == 2
        if self._half_escape:
            piece = piece[:-1]
        try:
            piece = _unescape(piece)
        except BadFrame:
            self._spoil()
            return
        if len(self._stuffed) + len(piece) > _MAX_STUFFED:
            self._spoil()
            return
        self._stuffed.extend(piece)

    def _spoil(self) -> None:
        """Ignore everything up to the next delimiter, and give the memory back now."""
        self._bad = True
        self._stuffed = bytearray()

    def _finish(self, frames: "list[tuple[int, bytes]]") -> None:
        if self._bad or self._half_escape:
            self.errors += 1
        elif self._stuffed:
            try:
                frames.append(_open(bytes(self._stuffed)))
            except BadFrame:
                self.errors += 1
        self._bad = self._half_escape = False
        self._stuffed = bytearray()
