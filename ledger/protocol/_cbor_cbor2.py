"""The CBOR profile on CPython: cbor2 decodes, plain Python encodes; see ``cbor``.

cbor2 accepts long forms, trailing bytes, maps, floats and tags. Tags and maps are stopped inside
it: shared references (tags 28 and 29) let 300 bytes unfold into a value that takes hours to walk,
and other tags run a parser for regular expressions, dates or decimals. What it gives is encoded
again; values outside the profile, and bytes that differ, are refused.

The encoder is our own because it has to look at every type anyhow: looking and then encoding with
cbor2 takes twice as long, and this is done for every record that comes in.
"""

from typing import Any, NoReturn

import cbor2

from ledger.protocol.errors import MalformedRecord

MAX_DEPTH = 8
_LOWEST, _HIGHEST = -(2**64), 2**64 - 1


def _refuse(*_: Any) -> NoReturn:
    raise ValueError("a tag or a map")


# Tags that cbor2 decodes by itself; the hook for tags sees the others only.
_BUILT_IN_TAGS = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261)
_TAGS = dict.fromkeys((*_BUILT_IN_TAGS, 1004, 43000, 55799), _refuse)
_HOOKS: Any = {"tag_hook": _refuse, "object_hook": _refuse, "semantic_decoders": _TAGS}

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY = 0x00, 0x20, 0x40, 0x60, 0x80
_SIMPLE = {False: b"\xf4", True: b"\xf5", None: b"\xf6"}


def _make_head(major: int, n: int) -> bytes:
    """Give the shortest head of a major type (its bits in place) and a number of 64 bits."""
    if n < 24:
        return bytes((major | n,))
    if n < 1 << 8:
        return bytes((major | 24, n))
    if n < 1 << 16:
        return ((major | 25) << 16 | n).to_bytes(3, "big")
    if n < 1 << 32:
        return ((major | 26) << 32 | n).to_bytes(5, "big")
    return ((major | 27) << 64 | n).to_bytes(9, "big")


# most numbers and lengths in records are below 256
_UINTS, _BYTES_HEADS, _ARRAYS = (
    tuple(_make_head(major, n) for n in range(256)) for major in (_UINT, _BYTES, _ARRAY)
)


def _write(items: Any, parts: list[bytes], depth: int) -> None:
    """Add the encodings of an array's items, a part for each; raises ValueError."""
    add = parts.append
    for item in items:
        kind = type(item)
        if kind is int:
            if 0 <= item < 256:
                add(_UINTS[item])
            elif _LOWEST <= item <= _HIGHEST:
                add(_make_head(_UINT, item) if item >= 0 else _make_head(_NEGATIVE, ~item))
            else:
                raise ValueError("an integer outside the CBOR profile")
        elif kind is bytes:
            size = len(item)
            add((_BYTES_HEADS[size] if size < 256 else _make_head(_BYTES, size)) + item)
        elif kind is list or kind is tuple:
            if depth == MAX_DEPTH:
                raise ValueError("nested too deep for the CBOR profile")
            size = len(item)
            add(_ARRAYS[size] if size < 256 else _make_head(_ARRAY, size))
            _write(item, parts, depth + 1)
        elif kind is str:
            text = item.encode()
            add(_make_head(_TEXT, len(text)) + text)
        elif kind is bool or item is None:
            add(_SIMPLE[item])
        else:
            raise ValueError("not a value of the CBOR profile")


def dumps(value: Any) -> bytes:
    """Encode one value of the profile.

    Raises ValueError (our own mistake, not the peer's) for any other value.
    """
    parts: list[bytes] = []
    _write((value,), parts, 0)
    return b"".join(parts)


def loads(data: bytes, most_items: int = 1 << 30) -> Any:
    """Decode exactly one value of the profile; raises MalformedRecord for any other bytes.

    ``most_items`` bounds how many items all arrays together may hold.
    """
    parts: list[bytes] = []
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, **_HOOKS)
        _write((value,), parts, 0)
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError, MemoryError) as e:
        raise MalformedRecord(f"not CBOR: {e}") from None
    if b"".join(parts) != data:
        raise MalformedRecord("CBOR outside the deterministic profile")
    if len(parts) - 1 > most_items:
        raise MalformedRecord("CBOR holds too many items")
    return value
