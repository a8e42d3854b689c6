"""Vectors of the CBOR profile: tests/vectors/cbor.json (SPEC section 2)."""

from tools.vectors.wire import Raw, cbor, head, long_head

_EDGES = [0, 1, 10, 23, 24, 25, 99, 100, 255, 256, 1000, 65535, 65536, 1_000_000, 2**32 - 1, 2**32]
_MORE_EDGES = [1_000_000_000_000, 2**53, 2**63 - 1, 2**63, 2**64 - 1]


def tagged(value: object) -> object:
    """A value as JSON tells it: byte strings as {"hex": …}, everything else as it is."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    return value


def _nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _values() -> list[tuple[str, object]]:
    numbers = _EDGES + _MORE_EDGES
    pairs: list[tuple[str, object]] = [(f"integer {n}", n) for n in numbers]
    pairs += [(f"integer {-1 - n}", -1 - n) for n in numbers]
    pairs += [("false", False), ("true", True), ("null", None)]
    sizes = (0, 1, 23, 24, 255, 256)
    pairs += [(f"{n} octets", bytes(i & 0xFF for i in range(n))) for n in sizes]
    pairs += [(f"text of {n}", "a" * n) for n in sizes]
    pairs += [
        ("text of two-octet characters", "\u00fc\u07ff\u0080"),
        ("text of three-octet characters", "\u0800\u20ac\ud7ff\ue000\uffff"),
        ("text of four-octet characters", "\U00010000\U0001f50c\U0010ffff"),
        ("text with a zero and a byte order mark", "\x00\ufeff"),
    ]
    pairs += [(f"array of {n}", list(range(n))) for n in (0, 1, 23, 24, 256)]
    pairs += [("arrays nested eight deep", _nested(8))]
    pairs += [("array of everything", [0, -1, b"\x00", "", False, True, None, [[], [b""]]])]
    return pairs


def _unfolding(levels: int, width: int) -> bytes:
    """Shared references (tags 28 and 29) that unfold into width ** (levels - 1) items."""
    shared = b"\xd8\x1c"
    items = [Raw(shared + b"\x80")]
    for i in range(1, levels):
        refs = bytes([0xD8, 0x1D, i - 1]) * width
        items.append(Raw(shared + head(4, width) + refs))
    return cbor(items)


def _long_forms() -> list[tuple[str, bytes]]:
    cases = []
    for major, what in ((0, "integer"), (1, "negative integer")):
        for n, size in ((0, 1), (23, 1), (24, 2), (255, 2), (256, 4), (65535, 4), (65536, 8)):
            cases.append((f"{what} {n} in {size} octets", long_head(major, n, size)))
        cases.append((f"{what} 2**32-1 in 8 octets", long_head(major, 2**32 - 1, 8)))
    for size in (1, 2, 4, 8):
        cases.append((f"octet string's length in {size} octets", long_head(2, 1, size) + b"\x00"))
        cases.append((f"text's length in {size} octets", long_head(3, 1, size) + b"a"))
        cases.append((f"array's length in {size} octets", long_head(4, 1, size) + b"\x00"))
    return cases


def _foreign_types() -> list[tuple[str, str]]:
    return [
        ("half float", "f93c00"),
        ("single float", "fa3f800000"),
        ("double float", "fb3ff0000000000000"),
        ("not a number", "f97e00"),
        ("undefined", "f7"),
        ("simple value 0", "e0"),
        ("simple value 19", "f3"),
        ("simple value 32", "f820"),
        ("false as a two-octet simple value", "f814"),
        ("simple value 255", "f8ff"),
        ("empty map", "a0"),
        ("map", "a10102"),
        ("map with one key twice", "a201020102"),
        ("map inside an array", "81a0"),
        ("tag 0, a date", "c074323031332d30332d32315432303a30343a30305a"),
        ("tag 1, a time", "c11a514b67b0"),
        ("tag 2, a big number that fits 64 bits", "c24101"),
        ("tag 2, 2**64", "c249010000000000000000"),
        ("tag 3, -2**64-1", "c349010000000000000000"),
        ("tag 4, a decimal fraction", "c48221196ab3"),
        ("tag 4, exponent out of reach", "c4821b7fffffffffffffff01"),
        ("tag 18 inside", "81d280"),
        ("tag 24, embedded CBOR", "d8184100"),
        ("tag 28, a shared value", "d81c80"),
        ("tag 28 and 29, a list that holds itself", "d81c81d81d00"),
        ("tag 35, a regular expression", "d8236128"),
        ("tag 256, string references", "d9010080"),
        ("tag 258, a set", "d901028101"),
        ("tag 55799, self-described CBOR", "d9d9f700"),
        ("tag number of 64 bits", "dbffffffffffffffff00"),
        ("reserved length form 28", "1c"),
        ("reserved length form 30 of an array", "9e"),
        ("indefinite octet string", "5f4100ff"),
        ("indefinite text", "7f6161ff"),
        ("indefinite array", "9f00ff"),
        ("indefinite map", "bfff"),
        ("break alone", "ff"),
    ]


def _broken() -> list[tuple[str, str]]:
    return [
        ("nothing", ""),
        ("byte after the value", "0000"),
        ("value after the value", "8000"),
        ("break after the value", "80ff"),
        ("array ends early", "8201"),
        ("array of 2**32 items", "9b0000000100000000"),
        ("array of 2**63 items", "9b8000000000000000"),
        ("array of 2**64-1 items", "9bffffffffffffffff"),
        ("octet string ends early", "4200"),
        ("octet string of 2**31 octets", "5a80000000"),
        ("octet string of 2**64-1 octets", "5bffffffffffffffff"),
        ("text ends early", "6261"),
        ("argument of one octet missing", "18"),
        ("argument of two octets cut", "1901"),
        ("argument of four octets cut", "1a010000"),
        ("argument of eight octets cut", "1b01000000000000"),
        ("text of a lone continuation octet", "6180"),
        ("text ends inside a character", "62e282"),
        ("text with an overlong zero", "62c080"),
        ("text with an overlong slash", "62c0af"),
        ("text with an overlong form of three octets", "63e09fbf"),
        ("text with an overlong form of four octets", "64f08fbfbf"),
        ("text with a surrogate", "63eda080"),
        ("text with a pair of surrogates", "66eda080edb080"),
        ("text beyond U+10FFFF", "64f4908080"),
        ("text with octet f8", "65f888808080"),
        ("text with octet ff", "61ff"),
    ]


def cbor_file() -> dict[str, object]:
    """Content of cbor.json."""
    invalid = [(note, bytes.fromhex(text)) for note, text in _foreign_types() + _broken()]
    invalid += _long_forms()
    invalid += [
        ("arrays nested nine deep", cbor(_nested(9))),
        ("arrays nested 400 deep", b"\x81" * 399 + b"\x80"),
        ("arrays nested 1000 deep, cut", b"\x81" * 1000),
        ("tags nested 1000 deep, cut", b"\xc6" * 1000),
        ("shared references that unfold into 60**6 items", _unfolding(7, 60)),
    ]
    return {
        "about": 'SPEC section 2. Byte strings: {"hex": ...}. Written by python -m tools.vectors.',
        "valid": [
            {"note": note, "value": tagged(value), "bytes": cbor(value)}
            for note, value in _values()
        ],
        "invalid": [{"reason": reason, "bytes": data} for reason, data in invalid],
    }
