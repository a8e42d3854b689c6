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


_SCALARS = frozenset((int, bytes, str, bool, type(None)))
_TYPES = _SCALARS | {list, tuple}


def _count(items: Any, depth: int) -> int:
    """Give how many items an array holds, nested ones too; raises ValueError outside the profile.

    Looks at the types of an array together, for this is done for every record that comes in.
    """
    types = set(map(type, items))
    if depth > MAX_DEPTH or not types <= _TYPES:
        raise ValueError("not a value of the CBOR profile")
    count = len(items)
    if not types <= _SCALARS:
        for item in items:
            if type(item) is list or type(item) is tuple:
                count += _count(item, depth + 1)
    if int in types:
        for item in items:
            if type(item) is int and not _LOWEST <= item <= _HIGHEST:
                raise ValueError("an integer outside the CBOR profile")
    return count


def dumps(value: Any) -> bytes:
    """Encode one value of the profile.

    Raises ValueError (our own mistake, not the peer's) for any other value.
    """
    _count((value,), 0)
    return cbor2.dumps(value)


def loads(data: bytes, most_items: int = 1 << 30) -> Any:
    """Decode exactly one value of the profile; raises MalformedRecord for any other bytes.

    ``most_items`` bounds how many items all arrays together may hold.
    """
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, **_HOOKS)
        count = _count((value,), 0) - 1
        canonical = cbor2.dumps(value) == data
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError, MemoryError) as e:
        raise MalformedRecord(f"not CBOR: {e}") from None
    if not canonical:
        raise MalformedRecord("CBOR outside the deterministic profile")
    if count > most_items:
        raise MalformedRecord("CBOR holds too many items")
    return value
