"""The CBOR profile over cbor2 (CPython); see ``cbor``.

cbor2 accepts long forms, trailing bytes, maps, floats and tags. Tags and maps are stopped inside
it: shared references (tags 28 and 29) let 300 bytes unfold into a value that takes hours to walk,
and other tags run a parser for regular expressions, dates or decimals. What it gives is walked for
types outside the profile and encoded again; bytes that differ are refused.
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


def _in_profile(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is int:
        return bool(_LOWEST <= value <= _HIGHEST)
    if kind is list or kind is tuple:
        if depth == MAX_DEPTH:
            return False
        depth += 1
        return all([_in_profile(item, depth) for item in value])
    return kind is bytes or kind is str or kind is bool or value is None


def dumps(value: Any) -> bytes:
    """Encode one value of the profile.

    Raises ValueError (our own mistake, not the peer's) for any other value.
    """
    if not _in_profile(value, 0):
        raise ValueError("not a value of the CBOR profile")
    return cbor2.dumps(value)


def _items(value: Any) -> int:
    if type(value) is not list:
        return 0
    return len(value) + sum(map(_items, value))


def loads(data: bytes, most_items: int = 1 << 30) -> Any:
    """Decode exactly one value of the profile; raises MalformedRecord for any other bytes.

    ``most_items`` bounds how many items all arrays together may hold.
    """
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, **_HOOKS)
        canonical = _in_profile(value, 0) and cbor2.dumps(value) == data
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError, MemoryError) as e:
        raise MalformedRecord(f"not CBOR: {e}") from None
    if not canonical:
        raise MalformedRecord("CBOR outside the deterministic profile")
    if len(data) > most_items and _items(value) > most_items:  # every item takes a byte at least
        raise MalformedRecord("CBOR holds too many items")
    return value
