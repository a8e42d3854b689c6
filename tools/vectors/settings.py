"""Vectors of settings and topics (SPEC sections 6 and 12)."""

from tools.vectors.records import CHAIN, Cases, Fields
from tools.vectors.wire import Key, cbor, digest


def _settings(**change: object) -> Fields:
    fields: Fields = {
        "version": 1,
        "genesis": digest("genesis"),
        "round_s": 60,
        "k": 11,
        "open_rounds": 96,
        "operators": [Key("operator 1").public_key, Key("operator 2").public_key],
        "threshold": 2,
        "gateways": [Key("gateway").public_key],
        "cluster": "feeder-3",
        "neighbours": [Key(f"neighbour {i}").public_key for i in range(3)],
        "host": "gateway.lan",
        "port": 8883,
        "user": "meter",
        "password": "s3cret",
        "ca": b"\x30\x82\x01\x00",
    }
    return {**fields, **change}


def _valid_settings() -> list[tuple[str, Fields]]:
    bare: Fields = {"operators": [], "gateways": [], "neighbours": [], "host": "", "threshold": 1}
    bare |= {"user": None, "password": None, "ca": None, "round_s": 1, "k": 3}
    full: Fields = {
        "round_s": 86_400,
        "k": 255,
        "open_rounds": 65_535,
        "threshold": 32,
        "port": 65_535,
    }
    full |= {"cluster": "a" * 32, "host": "h" * 255, "user": "u" * 255, "password": "p" * 255}
    full |= {"neighbours": [bytes([2]) + digest(f"x {i}") for i in range(255)]}
    return [
        ("TLS and a password", _settings()),
        ("every field at its least", _settings(**bare, open_rounds=1, port=1, cluster="a")),
        ("every field at its most", _settings(**full)),
        ("several brokers", _settings(host=_LISTS[0][0])),
    ]


_Place = tuple[str, int]

# a host list with the port for those that name none, and what it says
_LISTS: list[tuple[str, int, list[_Place]]] = [
    ("pi-1,pi-2:8884,pi-3", 8883, [("pi-1", 8883), ("pi-2", 8884), ("pi-3", 8883)]),
    ("gateway.lan", 1883, [("gateway.lan", 1883)]),
    ("10.0.0.3:1", 1883, [("10.0.0.3", 1)]),
    ("fd00::1", 1883, [("fd00::1", 1883)]),
    ("fd00::1:8883,a", 1, [("fd00::1:8883", 1), ("a", 1)]),
    ("[fd00::1]:65535,[fd00::2]", 7, [("fd00::1", 65_535), ("fd00::2", 7)]),
    ("a,b,c,d,e,f,g,h:00008", 1, [*((name, 1) for name in "abcdefg"), ("h", 8)]),
    ("", 1883, [("", 1883)]),
]

_BAD_LISTS = [
    ("nine brokers", "a,b,c,d,e,f,g,h,i"),
    ("one of two is empty", "a,"),
    ("the first of two is empty", ",a"),
    ("port 0", "a:0"),
    ("port 65536", "a,b:65536"),
    ("port of six digits", "a:000001"),
    ("port without digits", "a:"),
    ("port with a sign", "a:+1"),
    ("port of other digits", "a:\u0661"),
    ("port and no name", ":1883"),
    ("port and no name among others", "a,:1883"),
]


def _bad_settings() -> Cases:
    good = _settings()
    key = Key("neighbour 0").public_key
    changes: list[tuple[str, str, object]] = [
        ("version 0", "version", 0),
        ("version 2", "version", 2),
        ("version true", "version", True),
        ("version null", "version", None),
        ("genesis of 8 octets", "genesis", bytes(8)),
        ("round of no length", "round_s", 0),
        ("round longer than a day", "round_s", 86_401),
        ("committee of two", "k", 2),
        ("committee of 256", "k", 256),
        ("no open round", "open_rounds", 0),
        ("65536 open rounds", "open_rounds", 65_536),
        ("operators null", "operators", None),
        ("operator key uncompressed", "operators", [b"\x04" + bytes(64)]),
        ("33 operators", "operators", [key] * 33),
        ("threshold 0", "threshold", 0),
        ("threshold 33", "threshold", 33),
        ("threshold true", "threshold", True),
        ("17 gateways", "gateways", [key] * 17),
        ("no cluster", "cluster", ""),
        ("cluster with a slash", "cluster", "a/b"),
        ("cluster of 33", "cluster", "a" * 33),
        ("256 neighbours", "neighbours", [key] * 256),
        ("neighbour key of 32 octets", "neighbours", [key[:32]]),
        ("neighbour key as text", "neighbours", ["a" * 33]),
        ("host null", "host", None),
        ("host of 256", "host", "h" * 256),
        ("port 0", "port", 0),
        ("port 65536", "port", 65_536),
        ("user a number", "user", 1),
        ("password as octets", "password", b"x"),
        ("certificate as text", "ca", "x"),
        ("certificate false", "ca", False),
    ]
    whole = cbor(list(good.values()))
    shape = [
        ("nothing", b""),
        ("not an array", cbor(1)),
        ("last field missing", cbor(list(good.values())[:-1])),
        ("one field more", cbor([*good.values(), None])),
        ("truncated", whole[:-1]),
        ("octet behind", whole + b"\x00"),
    ]
    changes += [(f"host: {why}", "host", host) for why, host in _BAD_LISTS]
    return shape + [(why, cbor(list({**good, name: x}.values()))) for why, name, x in changes]


def settings_file() -> dict[str, object]:
    """Content of settings.json."""
    return {
        "about": "SPEC section 12. Fields stand in wire order; brokers are what a host list says. "
        "Written by python -m tools.vectors.",
        "valid": [
            {"note": note, "fields": fields, "bytes": cbor(list(fields.values()))}
            for note, fields in _valid_settings()
        ],
        "invalid": [{"reason": reason, "bytes": data} for reason, data in _bad_settings()],
        "brokers": [
            {"host": host, "port": port, "brokers": brokers} for host, port, brokers in _LISTS
        ],
    }


# -------------------------------------------------------------------------------------- topics


def topics_file() -> dict[str, object]:
    """Content of topics.json."""
    address = Key("meter").address
    root = f"gw/1/{CHAIN.hex()}"
    own = f"{root}/feeder-3/{address.hex()}"
    bad = [
        ("empty", ""),
        ("the head's", f"{root}/head"),
        ("a cluster's", f"{root}/feeder-3/members"),
        ("no kind", own),
        ("one level more", f"{own}/reading/x"),
        ("leading slash", f"/{own}/reading"),
        ("another root", f"{own}/reading".replace("gw/", "zz/", 1)),
        ("another version", f"{own}/reading".replace("gw/1/", "gw/2/", 1)),
        ("region of 14 digits", f"gw/1/{CHAIN.hex()[:14]}/feeder-3/{address.hex()}/reading"),
        ("region in capitals", f"gw/1/{'AB' * 8}/feeder-3/{address.hex()}/reading"),
        ("region not hexadecimal", f"gw/1/{'xy' * 8}/feeder-3/{address.hex()}/reading"),
        ("no cluster", f"{root}//{address.hex()}/reading"),
        ("cluster a wildcard", f"{root}/+/{address.hex()}/reading"),
        ("cluster of 33", f"{root}/{'a' * 33}/{address.hex()}/reading"),
        ("address of 30 digits", f"{root}/feeder-3/{address.hex()[:30]}/reading"),
        ("address of 33 digits", f"{root}/feeder-3/{address.hex()}0/reading"),
        ("address in capitals", f"{root}/feeder-3/{'AB' * 16}/reading"),
        ("address not hexadecimal", f"{root}/feeder-3/{'g' * 32}/reading"),
        ("address with a space", f"{root}/feeder-3/ {address.hex()[1:]}/reading"),
        ("address of 32 other characters", f"{root}/feeder-3/{chr(0xE9) * 32}/reading"),
        ("address of 16 two-octet characters", f"{root}/feeder-3/{chr(0xE9) * 16}/reading"),
        ("address a wildcard", f"{root}/feeder-3/+/reading"),
    ]
    return {
        "about": "SPEC section 6. Written by python -m tools.vectors.",
        "chain": CHAIN,
        "cluster": "feeder-3",
        "address": address,
        "topics": {
            **{kind: f"{own}/{kind}" for kind in ("reading", "ballot", "status", "receipt")},
            "head": f"{root}/head",
            "registry": f"{root}/registry",
            "members": f"{root}/feeder-3/members",
        },
        "filters": {
            "cluster_readings": f"{root}/feeder-3/+/reading",
            "every_reading": f"{root}/+/+/reading",
            "every_ballot": f"{root}/+/+/ballot",
            "every_status": f"{root}/+/+/status",
        },
        "invalid": [{"reason": reason, "topic": topic} for reason, topic in bad],
    }
