"""The CBOR profile in plain Python, small enough for a board; see ``cbor``."""

from ledger.protocol.errors import MalformedRecord

try:
    from typing import Any
except ImportError:
    pass

MAX_DEPTH = 8

_UINT = 0
_NEGATIVE = 1
_BYTES = 2
_TEXT = 3
_ARRAY = 4
_SIMPLE = {0xF4: False, 0xF5: True, 0xF6: None}


def _head(major: int, n: int) -> bytes:
    major <<= 5
    if n < 24:
        return bytes((major | n,))
    if n < 0x100:
        return bytes((major | 24, n))
    if n < 0x10000:
        return bytes((major | 25,)) + n.to_bytes(2, "big")
    if n < 0x100000000:
        return bytes((major | 26,)) + n.to_bytes(4, "big")
    if n < 0x10000000000000000:
        return bytes((major | 27,)) + n.to_bytes(8, "big")
    raise ValueError("integer beyond 64 bits")


def _write(value: "Any", out: bytearray, depth: int) -> None:
    if value is None or value is True or value is False:
        out.append(0xF6 if value is None else 0xF5 if value else 0xF4)
    elif isinstance(value, int):
        out.extend(_head(_UINT, value) if value >= 0 else _head(_NEGATIVE, -1 - value))
    elif isinstance(value, bytes):
        out.extend(_head(_BYTES, len(value)))
        out.extend(value)
    elif isinstance(value, str):
        text = value.encode()
        out.extend(_head(_TEXT, len(text)))
        out.extend(text)
    elif isinstance(value, (list, tuple)):
        if depth == MAX_DEPTH:
            raise ValueError("nested too deep")
        out.extend(_head(_ARRAY, len(value)))
        for item in value:
            _write(item, out, depth + 1)
    else:
        raise ValueError("not a value of the CBOR profile")


def dumps(value: "Any") -> bytes:
    """Encode one value of the profile.

    Raises ValueError (our own mistake, not the peer's) for any other value.
    """
    out = bytearray()
    _write(value, out, 0)
    return bytes(out)


def _read_head(data: bytes, at: int) -> "tuple[int, int, int]":
    """Give (major type, argument, next offset); only shortest forms pass."""
    first = data[at]
    major, n = first >> 5, first & 31
    at += 1
    if n < 24:
        return major, n, at
    if n > 27:
        raise MalformedRecord("CBOR length form not allowed")
    size = 1 << (n - 24)
    if at + size > len(data):
        raise MalformedRecord("CBOR ends early")
    n = int.from_bytes(data[at : at + size], "big")
    if n < (24 if size == 1 else 1 << (size * 4)):
        raise MalformedRecord("CBOR number not in its shortest form")
    return major, n, at + size


def _read(data: bytes, at: int, depth: int, left: "list[int]") -> "tuple[Any, int]":
    # left[0] counts the items that arrays may still hold
    if at >= len(data):
        raise MalformedRecord("CBOR ends early")
    first = data[at]
    if first in _SIMPLE:
        return _SIMPLE[first], at + 1
    major, n, at = _read_head(data, at)
    if major == _UINT:
        return n, at
    if major == _NEGATIVE:
        return -1 - n, at
    if n > len(data) - at or major > _ARRAY:
        raise MalformedRecord("CBOR ends early or holds a type outside the profile")
    if major == _ARRAY:
        if depth == MAX_DEPTH:
            raise MalformedRecord("CBOR nested too deep")
        left[0] -= n
        if left[0] < 0:
            raise MalformedRecord("CBOR holds too many items")
        items = []
        for _ in range(n):
            item, at = _read(data, at, depth + 1, left)
            items.append(item)
        return items, at
    raw = bytes(data[at : at + n])
    if major == _BYTES:
        return raw, at + n
    return _text(raw), at + n


def _text(raw: bytes) -> str:
    # MicroPython's decode lets surrogates, overlong forms and numbers beyond Unicode pass, and
    # its encode gives the same bytes back, so what each character should take is counted.
    try:
        text = raw.decode()
    except UnicodeError:
        raise MalformedRecord("CBOR text is not UTF-8")
    size = 0
    for c in text:
        code = ord(c)
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise MalformedRecord("CBOR text is not UTF-8")
        size += 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
    if size != len(raw):
        raise MalformedRecord("CBOR text is not UTF-8")
    return text


def loads(data: bytes, most_items: int = 1 << 30) -> "Any":
    """Decode exactly one value of the profile; raises MalformedRecord for any other bytes.

    ``most_items`` bounds how many items all arrays together may hold.
    """
    value, end = _read(data, 0, 0, [most_items])
    if end != len(data):
        raise MalformedRecord("bytes after the end of the CBOR value")
    return value
