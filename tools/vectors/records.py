"""Vectors of the records: tests/vectors/records.json (SPEC section 4)."""

from tools.vectors.wire import Key, Raw, cbor, digest, signed

CHAIN = digest("genesis")[:8]
_NONE = bytes(32)

Fields = dict[str, object]


def payload(kind: int, fields: Fields, chain: bytes = CHAIN) -> bytes:
    """The payload of a record whose fields stand in wire order."""
    return cbor([kind, 1, chain, *fields.values()])


# ----------------------------------------------------------------------------- what is valid


def reading(**change: object) -> Fields:
    """Fields of a reading, some changed."""
    fields: Fields = {
        "boot": 3,
        "seq": 17,
        "time": 1_772_000_040,
        "interval_s": 60,
        "flags": 0,
        "lost": 0,
        "previous": digest("previous"),
        "values": [[1, 231_405], [2, 4_120], [3, 951_300], [5, 49_987], [6, 12_345_678_901]],
    }
    return {**fields, **change}


def ballot(**change: object) -> Fields:
    """Fields of a ballot, some changed."""
    verdicts = [[digest("reading 1"), 1], [digest("reading 2"), 20], [digest("reading 3"), 0]]
    fields: Fields = {"round": 29_533_334, "parent": digest("parent"), "verdicts": verdicts}
    return {**fields, **change}


def head(**change: object) -> Fields:
    """Fields of a head, some changed."""
    fields: Fields = {
        "height": 12,
        "round": 29_533_334,
        "time": 1_772_000_100,
        "previous": digest("head"),
        "records_root": digest("records"),
        "record_count": 120,
        "results_root": digest("results"),
        "state_root": digest("state"),
        "history_root": digest("history"),
    }
    return {**fields, **change}


def change_of(**change: object) -> Fields:
    """Fields of a registry change, some changed."""
    fields: Fields = {"number": 1, "action": 1, "public_key": Key("meter").public_key}
    return {**fields, "cluster": "Feeder-3_b", **change}


def _verdicts(n: int, verdict: int = 1) -> list[list[object]]:
    return [[digest(f"voted {i}"), verdict] for i in range(n)]


def _valid_readings() -> list[tuple[str, str, int, Fields]]:
    low: Fields = {
        "boot": 1,
        "seq": 1,
        "time": 0,
        "interval_s": 1,
        "previous": _NONE,
        "values": [[4, 0]],
    }
    high: Fields = {"boot": 2**32 - 1, "seq": 2**32 - 1, "time": 2**40 - 1, "interval_s": 86_400}
    high |= {"flags": 15, "lost": 2**32 - 1, "previous": b"\xff" * 32}
    low_values = [[code, -(2**62)] for code in range(1, 8)]
    high_values = [[code, 2**62] for code in range(1, 8)]
    return [
        ("reading", "five quantities", 1, reading()),
        ("reading", "every field at its lowest", 1, reading(**low)),
        ("reading", "every field at its highest", 1, reading(**high, values=high_values)),
        ("reading", "all quantities at the lowest value", 1, reading(values=low_values)),
        ("reading", "power out of the house", 1, reading(values=[[3, -2_300_000], [7, 5]])),
    ]


def _valid_others() -> list[tuple[str, str, int, Fields]]:
    most = [*_verdicts(12), *([digest(f"refused {i}"), 16 + i] for i in range(7))]
    zero = {"round": 0, "time": 0, "previous": _NONE, "record_count": 0, "height": 1}
    high = {"round": 2**32 - 1, "time": 2**40 - 1, "record_count": 2**32 - 1, "height": 2**32 - 1}
    leave = {"action": 2, "cluster": "", "number": 2**32 - 1}
    enrolment: Fields = {"public_key": Key("meter").public_key, "hardware": "rp2 Pico W"}
    return [
        ("ballot", "an accept, a reject, an abstention", 2, ballot()),
        ("ballot", "empty", 2, ballot(verdicts=[], round=0)),
        ("ballot", "every reason that has a name", 2, ballot(verdicts=most, round=2**32 - 1)),
        ("ballot", "24 accepts", 2, ballot(verdicts=_verdicts(24))),
        ("ballot", "the highest reason", 2, ballot(verdicts=_verdicts(1, 63))),
        ("head", "a head", 3, head()),
        ("head", "every field at its lowest", 3, head(**zero)),
        ("head", "every field at its highest", 3, head(**high)),
        ("registry_change", "a meter joins", 6, change_of()),
        ("registry_change", "cluster name of 32", 6, change_of(cluster="a" * 32)),
        ("registry_change", "a meter leaves", 6, change_of(**leave)),
        ("close", "a round", 8, {"round": 29_533_334}),
        ("close", "the first round", 8, {"round": 0}),
        ("close", "the last round", 8, {"round": 2**32 - 1}),
        ("enrolment", "of a board", 9, enrolment),
        ("enrolment", "name of 64 characters", 9, {**enrolment, "hardware": "\u00fc" * 64}),
        ("enrolment", "no name", 9, {**enrolment, "hardware": ""}),
    ]


# ------------------------------------------------------------------------------ what is refused

Cases = list[tuple[str, bytes]]


def _numbers(kind: int, good: Fields, name: str, low: int, high: int) -> Cases:
    """What no integer field takes: beyond its range, and every other type."""
    foreign: list[tuple[str, object]] = [
        (f"{low - 1}", low - 1),
        (f"{high + 1}", high + 1),
        ("2**64-1", 2**64 - 1),
        ("-2**64", -(2**64)),
        ("true", True),
        ("false", False),
        ("null", None),
        ("octets", b"\x01"),
        ("text", "1"),
        ("an array", [1]),
        ("a float", Raw(b"\xf9\x3c\x00")),
        ("a big number", Raw(b"\xc2\x41\x01")),
    ]
    return [(f"{name} is {what}", payload(kind, {**good, name: x})) for what, x in foreign]


def _octets(kind: int, good: Fields, name: str, size: int) -> Cases:
    foreign: list[tuple[str, object]] = [
        (f"{size - 1} octets", bytes(size - 1)),
        (f"{size + 1} octets", bytes(size + 1)),
        ("no octets", b""),
        ("null", None),
        ("zero", 0),
        (f"a text of {size}", "a" * size),
        (f"an array of {size}", [0] * size),
    ]
    return [(f"{name} is {what}", payload(kind, {**good, name: x})) for what, x in foreign]


def _shape(kind: int, good: Fields) -> Cases:
    """Faults of the whole payload, the same for every type."""
    values = list(good.values())
    whole = payload(kind, good)
    start = [kind, 1, CHAIN]
    return [
        ("last field missing", cbor([*start, *values[:-1]])),
        ("one field more", cbor([*start, *values, 0])),
        ("no fields", cbor(start)),
        ("version 0", cbor([kind, 0, CHAIN, *values])),
        ("version 2", cbor([kind, 2, CHAIN, *values])),
        ("version true", cbor([kind, True, CHAIN, *values])),
        ("version null", cbor([kind, None, CHAIN, *values])),
        ("type as text", cbor([str(kind), 1, CHAIN, *values])),
        ("chain of 7 octets", cbor([kind, 1, CHAIN[:7], *values])),
        ("chain of 9 octets", cbor([kind, 1, CHAIN + b"\x00", *values])),
        ("chain null", cbor([kind, 1, None, *values])),
        ("truncated", whole[:-1]),
        ("octet behind", whole + b"\x00"),
        ("indefinite array", b"\x9f" + whole[1:] + b"\xff"),
        ("array's length in a long form", bytes([0x98, whole[0] & 31]) + whole[1:]),
        ("type in a long form", whole[:1] + bytes([0x18, kind]) + whole[2:]),
        ("tagged", b"\xd2" + whole),
        ("wrapped in octets", cbor(whole)),
        ("wrapped in an array", b"\x81" + whole),
        ("a map", b"\xa1" + cbor(kind) + whole),
    ]


def _bad_types() -> Cases:
    rest = [1, CHAIN, 7]
    return [
        ("nothing", b""),
        ("not an array", cbor(8)),
        ("empty array", cbor([])),
        ("type alone", cbor([8])),
        ("no chain", cbor([8, 1])),
        ("type 0", cbor([0, *rest])),
        ("type 4, reserved", cbor([4, *rest])),
        ("type 5, reserved", cbor([5, *rest])),
        ("type 10", cbor([10, *rest])),
        ("type 65535", cbor([65_535, *rest])),
        ("type 65536", cbor([65_536, *rest])),
        ("type -1", cbor([-1, *rest])),
        ("type true", cbor([True, *rest])),
    ]


def _bad_readings() -> Cases:
    good = reading()
    cases = _shape(1, good)
    for name, low, high in (
        ("boot", 1, 2**32 - 1),
        ("seq", 1, 2**32 - 1),
        ("time", 0, 2**40 - 1),
        ("interval_s", 1, 86_400),
        ("flags", 0, 15),
        ("lost", 0, 2**32 - 1),
    ):
        cases += _numbers(1, good, name, low, high)
    cases += _octets(1, good, "previous", 32)
    lists: list[tuple[str, object]] = [
        ("no values", []),
        ("values null", None),
        ("values not an array", 1),
        ("values a map", Raw(b"\xa1\x01\x02")),
        ("a value alone", [1]),
        ("a value of one", [[1]]),
        ("a value of three", [[1, 2, 3]]),
        ("17 values", [[i, 0] for i in range(1, 18)]),
        ("quantities in falling order", [[2, 0], [1, 0]]),
        ("a quantity twice", [[1, 0], [1, 0]]),
        ("the last two quantities exchanged", [[1, 0], [3, 0], [2, 0]]),
        ("quantity 0", [[0, 0]]),
        ("quantity -1", [[-1, 0]]),
        ("quantity 8, not assigned", [[8, 0]]),
        ("quantity 65536", [[65_536, 0]]),
        ("quantity true", [[True, 0]]),
        ("quantity null", [[None, 0]]),
        ("value above 2**62", [[1, 2**62 + 1]]),
        ("value below -2**62", [[1, -(2**62) - 1]]),
        ("value true", [[1, True]]),
        ("value null", [[1, None]]),
        ("value as text", [[1, "230"]]),
        ("value a float", [[1, Raw(b"\xfb\x40\x6c\xc0\x00\x00\x00\x00\x00")]]),
    ]
    return cases + [(what, payload(1, {**good, "values": x})) for what, x in lists]


def _bad_ballots() -> Cases:
    good = ballot()
    cases = _shape(2, good) + _numbers(2, good, "round", 0, 2**32 - 1)
    cases += _octets(2, good, "parent", 32)
    one = digest("reading 1")
    lists: list[tuple[str, object]] = [
        ("verdicts null", None),
        ("verdicts not an array", 0),
        ("25 verdicts", _verdicts(25)),
        ("a digest alone", [one]),
        ("a verdict of one", [[one]]),
        ("a verdict of three", [[one, 1, 1]]),
        ("one reading twice, the same verdict", [[one, 1], [one, 1]]),
        ("one reading twice, two verdicts", [[one, 1], [digest("x"), 1], [one, 16]]),
        ("digest of 31 octets", [[one[:31], 1]]),
        ("digest of 33 octets", [[one + b"\x00", 1]]),
        ("digest null", [[None, 1]]),
        ("verdict -1", [[one, -1]]),
        ("verdict 2, not assigned", [[one, 2]]),
        ("verdict 15, not assigned", [[one, 15]]),
        ("verdict 64", [[one, 64]]),
        ("verdict true", [[one, True]]),
        ("verdict false", [[one, False]]),
        ("verdict null", [[one, None]]),
    ]
    return cases + [(what, payload(2, {**good, "verdicts": x})) for what, x in lists]


def _bad_heads() -> Cases:
    good = head()
    cases = _shape(3, good)
    for name, low, high in (
        ("height", 1, 2**32 - 1),
        ("round", 0, 2**32 - 1),
        ("time", 0, 2**40 - 1),
        ("record_count", 0, 2**32 - 1),
    ):
        cases += _numbers(3, good, name, low, high)
    for name in ("previous", "records_root", "results_root", "state_root", "history_root"):
        cases += _octets(3, good, name, 32)
    return cases


def _bad_changes() -> Cases:
    good = change_of()
    cases = _shape(6, good) + _numbers(6, good, "number", 1, 2**32 - 1)
    cases += _numbers(6, good, "action", 1, 2) + _octets(6, good, "public_key", 33)
    names: list[tuple[str, object]] = [
        ("joining without a cluster", ""),
        ("cluster name of 33", "a" * 33),
        ("cluster name with a slash", "a/b"),
        ("cluster name with a plus", "+"),
        ("cluster name with a number sign", "#"),
        ("cluster name with a space", "a b"),
        ("cluster name with a zero", "a\x00"),
        ("cluster name with a dot", "a.b"),
        ("cluster name with an umlaut", "Tr\u00e4nke"),
        ("cluster name with other digits", "\u0663"),
        ("cluster name as octets", b"a"),
        ("cluster name null", None),
    ]
    cases += [(what, payload(6, {**good, "cluster": x})) for what, x in names]
    return [*cases, ("leaving with a cluster", payload(6, {**good, "action": 2}))]


def _bad_enrolments() -> Cases:
    good: Fields = {"public_key": Key("meter").public_key, "hardware": "esp32"}
    names: list[tuple[str, object]] = [
        ("name of 65 characters", "a" * 65),
        ("name as octets", b"esp32"),
        ("name null", None),
        ("name a number", 1),
    ]
    cases = _shape(9, good) + _octets(9, good, "public_key", 33)
    return cases + [(what, payload(9, {**good, "hardware": x})) for what, x in names]


def records_file() -> dict[str, object]:
    """Content of records.json."""
    signer = Key("meter")
    invalid = {"any": _bad_types(), "reading": _bad_readings(), "ballot": _bad_ballots()}
    invalid |= {"head": _bad_heads(), "registry_change": _bad_changes()}
    close: Fields = {"round": 7}
    invalid["close"] = _shape(8, close) + _numbers(8, close, "round", 0, 2**32 - 1)
    invalid["enrolment"] = _bad_enrolments()
    return {
        "about": "SPEC section 4. Fields stand in wire order. One key signs all, for brevity: who "
        "may sign what is a rule of the chain. Written by python -m tools.vectors.",
        "chain": CHAIN,
        "valid": [
            {
                "record": record,
                "note": note,
                "type": kind,
                "fields": fields,
                **signed(signer, payload(kind, fields)),
            }
            for record, note, kind, fields in _valid_readings() + _valid_others()
        ],
        "invalid": [
            {"record": record, "reason": reason, "payload": data}
            for record, cases in invalid.items()
            for reason, data in cases
        ],
    }
