"""Vectors of genesis bytes and network changes (SPEC 11.1, 13.1, 13.4, section 16)."""

from hashlib import sha256
from typing import Any

import ecdsa

from tools.vectors.merkle import tree_root
from tools.vectors.records import CHAIN, Fields, payload
from tools.vectors.wire import Key, Raw, cbor, digest, record_digest, signed

_KIND = 10
_P = 2**255 - 19
_OPERATORS = [Key(f"operator {i}") for i in range(3)]
_GATEWAYS = [Key(f"gateway {i}").public_key for i in range(17)]
_THRESHOLD = 2


def validator_key(name: str) -> bytes:
    """The Ed25519 public key of a validator's name."""
    secret = ecdsa.SigningKey.from_string(digest("validator " + name), curve=ecdsa.Ed25519)
    return bytes(secret.get_verifying_key().to_string())


def _validator(name: str, power: int = 10) -> list[object]:
    return [name, validator_key(name), power]


# -------------------------------------------------------------------------------------- genesis


def _regional(*added: object) -> list[object]:
    operators = [key.public_key for key in _OPERATORS]
    members = [[Key("meter 1").public_key, "Feeder-3_b"], [Key("meter 2").public_key, "a"]]
    head = [1, 2 if added else 1, "north", 1_772_000_000, [60, 11, 96, 15]]
    return [*head, operators, _THRESHOLD, _GATEWAYS[:3], members, *added]


def _wide(*added: object) -> list[object]:
    regions = [[digest("region 1")[:8], _GATEWAYS[:2]], [digest("region 2")[:8], _GATEWAYS[2:3]]]
    return [2, 2 if added else 1, "wide", 1_772_000_000, regions, *added]


_FOUR = [_validator(name) for name in ("gw-a", "gw-b", "sub-1", "sub-2")]
_KEYS = [key.public_key for key in _OPERATORS]


def _valid_genesis() -> list[tuple[str, list[object]]]:
    hundred = [_validator(f"{'v' * 29}{i:03}", 1_000_000) for i in range(100)]
    return [
        ("a region of one node", _regional()),
        ("a region of four nodes", _regional(_FOUR)),
        ("a region of a hundred nodes", _regional(hundred)),
        ("a wide area of one node", _wide()),
        ("a wide area of four nodes", _wide(_KEYS, 2, _FOUR)),
        ("a wide area of one validator", _wide([], 0, _FOUR[:1])),
        ("a wide area of operators", _wide(_KEYS, 3, [])),
    ]


def _small_order() -> list[tuple[str, bytes]]:
    """Points that anybody can sign for, and bytes that are no point."""
    d = -121665 * pow(121666, -1, _P) % _P
    # order 8: x^2 = -y^2, so the curve -x^2 + y^2 = 1 + d x^2 y^2 gives d y^4 + 2 y^2 - 1 = 0
    root = _square_root(1 + d)
    squares = [(sign * root - 1) * pow(d, -1, _P) % _P for sign in (1, -1)]
    (eight,) = [y for y in (_square_root_or_none(y2) for y2 in squares) if y is not None]
    no_point = next(y for y in range(2, 99) if not _has_x(y, d))
    return [
        ("the neutral point", (1).to_bytes(32, "little")),
        ("the neutral point with a sign", ((1 << 255) + 1).to_bytes(32, "little")),
        ("order 2", (_P - 1).to_bytes(32, "little")),
        ("order 4", bytes(32)),
        ("order 4, the other x", (1 << 255).to_bytes(32, "little")),
        ("order 8", eight.to_bytes(32, "little")),
        ("order 8, the other y", (_P - eight).to_bytes(32, "little")),
        ("order 8, the other x", ((1 << 255) + eight).to_bytes(32, "little")),
        ("no point", no_point.to_bytes(32, "little")),
        ("y of another encoding", (_P + 3).to_bytes(32, "little")),
        ("the highest number", b"\xff" * 32),
    ]


def _has_x(y: int, d: int) -> bool:
    x2 = (y * y - 1) * pow(d * y * y + 1, -1, _P) % _P
    return _square_root_or_none(x2) is not None


def _square_root_or_none(n: int) -> int | None:
    candidate = pow(n, (_P + 3) // 8, _P)
    for root in (candidate, candidate * pow(2, (_P - 1) // 4, _P) % _P):
        if root * root % _P == n % _P:
            return root
    return None


def _square_root(n: int) -> int:
    root = _square_root_or_none(n)
    assert root is not None
    return root


def _bad_validators() -> list[tuple[str, object]]:
    name, key, power = _FOUR[0]
    other = validator_key("other")
    cases: list[tuple[str, object]] = [
        ("validators null", None),
        ("101 validators", [_validator(f"v{i}") for i in range(101)]),
        ("one name twice", [_FOUR[0], [name, other, 1]]),
        ("one key twice", [_FOUR[0], ["other", key, 1]]),
        ("a validator of two fields", [[name, key]]),
        ("a validator of four fields", [[name, key, power, 1]]),
        ("a validator null", [None]),
        ("no name", [["", key, power]]),
        ("name of 33", [["a" * 33, key, power]]),
        ("name with a dot", [["a.b", key, power]]),
        ("name as octets", [[b"a", key, power]]),
        ("key of 31 octets", [[name, validator_key("gw-a")[:31], power]]),
        ("key of 33 octets", [[name, _GATEWAYS[0], power]]),
        ("power 0", [[name, key, 0]]),
        ("power 1000001", [[name, key, 1_000_001]]),
        ("power true", [[name, key, True]]),
        ("power -1", [[name, key, -1]]),
    ]
    return cases


def _malformed_genesis() -> list[tuple[str, list[object]]]:
    cases = [(f"region: {what}", _regional(value)) for what, value in _bad_validators()]
    cases += [(f"wide: {what}", _wide(_KEYS, 2, value)) for what, value in _bad_validators()]
    plain, managed = _wide(), _wide(_KEYS, 2, _FOUR)
    return [
        *cases,
        ("region: version 2 without validators", _regional([])),
        ("region: version 1 with validators", [1, 1, *_regional(_FOUR)[2:]]),
        ("region: version 2, nine fields", [1, 2, *_regional()[2:]]),
        ("region: version true", [1, True, *_regional()[2:]]),
        ("region: version 3", [1, 3, *_regional(_FOUR)[2:]]),
        ("region: a field behind", [*_regional(_FOUR), None]),
        ("wide: version 2 with nothing added", _wide([], 0, [])),
        ("wide: version 1 with operators", [2, 1, *managed[2:]]),
        ("wide: version 2, five fields", [2, 2, *plain[2:]]),
        ("wide: a field missing", managed[:-1]),
        ("wide: a field behind", [*managed, None]),
        ("wide: an operator twice", _wide([_KEYS[0], _KEYS[0]], 2, _FOUR)),
        ("wide: 33 operators", _wide([Key(f"op {i}").public_key for i in range(33)], 2, _FOUR)),
        ("wide: threshold 0 with operators", _wide(_KEYS, 0, _FOUR)),
        ("wide: threshold above the operators", _wide(_KEYS, 4, _FOUR)),
        ("wide: threshold without operators", _wide([], 1, _FOUR)),
        ("wide: threshold true", _wide(_KEYS, True, _FOUR)),
    ]


def genesis_file() -> dict[str, object]:
    """Content of genesis.json."""
    return {
        "about": "SPEC 11.1, 13.1, 16.1. The first field tells a region's genesis (1) from the "
        "wide area's (2). Written by python -m tools.vectors.",
        "valid": [
            {
                "note": note,
                "bytes": cbor(item),
                "digest": sha256(cbor(item)).digest(),
                "chain": sha256(cbor(item)).digest()[:8],
                "validators": item[9 if item[0] == 1 else 7] if item[1] == 2 else [],
            }
            for note, item in _valid_genesis()
        ],
        "malformed": [{"reason": r, "bytes": cbor(item)} for r, item in _malformed_genesis()],
        "validator_keys": [validator_key(f"validator {i}") for i in range(20)],
        "invalid_validator_keys": [{"reason": r, "key": key} for r, key in _small_order()],
    }


# ------------------------------------------------------------------------------ network changes


def _change(action: object, arguments: object, number: object = 1) -> Fields:
    return {"number": number, "action": action, "arguments": arguments}


def _valid_changes() -> list[tuple[str, Fields]]:
    region = digest("region 3")[:8]
    return [
        ("a validator", _change(1, _validator("gw-c"))),
        (
            "the longest name, the most power",
            _change(1, _validator("v" * 32, 1_000_000), 2**32 - 1),
        ),
        ("a removal", _change(2, ["gw-a"], 2)),
        ("a version", _change(3, [2, 100_000], 3)),
        ("the last version", _change(3, [2**32 - 1, 2**63 - 1])),
        ("the first height", _change(3, [2, 1])),
        ("a region", _change(4, [region, _GATEWAYS[:2]], 4)),
        ("a region of 16 gateways", _change(4, [region, _GATEWAYS[:16]])),
    ]


def _foreign(low: int, high: int) -> list[object]:
    return [low - 1, high + 1, True, None, b"\x01", "1", [1], Raw(b"\xf9\x3c\x00")]


def _bad_arguments() -> list[tuple[str, int, object]]:
    name, key, power = _validator("gw-c")
    region = digest("region 3")[:8]
    cases: list[tuple[str, int, object]] = [
        (f"validator: {what.removeprefix('a validator ')}", 1, item[0])
        for what, item in _bad_validators()
        if isinstance(item, list) and len(item) == 1 and not what.startswith("power")
    ]
    cases += [(f"validator: power {x!r}", 1, [name, key, x]) for x in _foreign(1, 1_000_000)]
    cases += [
        (f"validator: name {x!r}", 1, [x, key, power]) for x in (None, b"a", 1, "a/b", "\u00fc")
    ]
    cases += [(f"remove: {x!r}", 2, x) for x in (None, [], [""], ["a", "b"], [b"a"], ["a b"])]
    cases += [(f"version {x!r}", 3, [x, 5]) for x in _foreign(2, 2**32 - 1)]
    cases += [(f"height {x!r}", 3, [2, x]) for x in _foreign(1, 2**63 - 1)]
    cases += [("version without a height", 3, [2]), ("version and more", 3, [2, 5, 1])]
    cases += [
        ("region of 7 octets", 4, [region[:7], _GATEWAYS[:1]]),
        ("region without gateways", 4, [region, []]),
        ("region alone", 4, [region]),
        ("17 gateways", 4, [region, _GATEWAYS]),
        ("a gateway twice", 4, [region, [_GATEWAYS[0]] * 2]),
        ("a gateway of 32 octets", 4, [region, [_GATEWAYS[0][:32]]]),
        ("gateways null", 4, [region, None]),
        ("region and more", 4, [region, _GATEWAYS[:1], 1]),
    ]
    return cases


def _bad_changes() -> list[tuple[str, bytes]]:
    good = _change(2, ["gw-a"])
    cases = [(what, _change(action, arguments)) for what, action, arguments in _bad_arguments()]
    cases += [(f"number {x!r}", {**good, "number": x}) for x in _foreign(1, 2**32 - 1)]
    cases += [(f"action {x!r}", {**good, "action": x}) for x in _foreign(1, 4)]
    for action in (1, 3, 4):
        cases.append((f"action {action} with a name alone", {**good, "action": action}))
    cases.append(("a field behind", {**good, "more": 0}))
    cases.append(("arguments missing", {"number": 1, "action": 2}))
    return [(what, payload(_KIND, fields)) for what, fields in cases]


# ----------------------------------------------------------------------------------- sequences


class _Registry:
    """The registry of clause 16.4, written a second time."""

    def __init__(self) -> None:
        self.changes = 0
        self.versions: list[list[int]] = []
        self.validators: dict[str, list[Any]] = {str(v[0]): [*v[1:], False] for v in _FOUR}
        self.approvals: dict[bytes, set[bytes]] = {}
        self.taken_back: dict[bytes, int] = {}
        self.regions: dict[bytes, object] = {}

    def leaf(self) -> bytes:
        validators = [[name, *self.validators[name]] for name in sorted(self.validators)]
        approvals = [[data, sorted(who)] for data, who in sorted(self.approvals.items()) if who]
        taken_back = [list(row) for row in sorted(self.taken_back.items())]
        return cbor([self.changes, self.versions, validators, approvals, taken_back])

    def powers(self) -> dict[bytes, int]:
        return {key: power for key, power, removed in self.validators.values() if not removed}

    def approve(self, operator: Key, fields: Fields) -> None:
        data = payload(_KIND, fields)
        for who in self.approvals.values():
            if operator.address in who:
                self.taken_back[operator.address] = self.taken_back.get(operator.address, 0) + 1
            who.discard(operator.address)
        self.approvals.setdefault(data, set()).add(operator.address)
        if len(self.approvals[data]) == _THRESHOLD:
            self.approvals.clear()
            self.taken_back.clear()
            self.changes += 1
            self._put_in_force(fields["action"], fields["arguments"])

    def _put_in_force(self, action: object, arguments: object) -> None:
        assert isinstance(arguments, list)
        if action == 1:
            self.validators[arguments[0]] = [arguments[1], arguments[2], False]
        elif action == 2:
            del self.validators[arguments[0]]
        elif action == 3:
            self.versions.append(arguments)
        else:
            self.regions[arguments[0]] = arguments[1]

    def convict(self, key: bytes) -> None:
        for row in self.validators.values():
            if row[0] == key and len(self.powers()) > 1:
                row[2] = True


_Step = tuple[str, int | None, object, int]  # what, operator or None, fields or key, code


def _steps() -> list[_Step]:
    new = _validator("new")
    turned = ["gw-b", validator_key("gw-b, second key"), 7]
    region = [digest("region 3")[:8], _GATEWAYS[:2]]
    convicted = validator_key("sub-2")
    return [
        ("one of two", 0, _change(1, new), 0),
        ("the same again", 0, _change(1, new), 6),
        ("thinks again", 0, _change(1, _validator("new", 99)), 0),
        ("another one, of the first", 1, _change(1, new), 0),
        ("the first again: in force", 0, _change(1, new), 0),
        ("of a number that is taken", 2, _change(1, _validator("new", 99)), 9),
        ("of a number to come", 2, _change(2, ["gw-a"], 3), 9),
        ("leaves: one", 2, _change(2, ["gw-a"], 2), 0),
        ("leaves: two", 1, _change(2, ["gw-a"], 2), 0),
        ("leaves again", 1, _change(2, ["gw-a"], 3), 13),
        ("another key: one", 1, _change(1, turned, 3), 0),
        ("another key: two", 2, _change(1, turned, 3), 0),
        ("a key that another has", 2, _change(1, ["x", turned[1], 1], 4), 13),
        ("what is there", 2, _change(1, turned, 4), 13),
        ("is convicted", None, convicted, 0),
        ("is convicted again", None, convicted, 0),
        ("a key of former days", None, validator_key("gw-b"), 0),
        ("comes back: one", 0, _change(1, _validator("sub-2"), 4), 0),
        ("comes back: two", 2, _change(1, _validator("sub-2"), 4), 0),
        ("a version: one", 0, _change(3, [2, 500], 5), 0),
        ("a version: two", 1, _change(3, [2, 500], 5), 0),
        ("the same version later", 1, _change(3, [2, 600], 6), 13),
        ("a later one before it", 1, _change(3, [3, 500], 6), 13),
        ("a region: one", 0, _change(4, region, 6), 0),
        ("a region: two", 1, _change(4, region, 6), 0),
        ("convicted: new", None, validator_key("new"), 0),
        ("convicted: gw-b", None, turned[1], 0),
        ("convicted: sub-1", None, validator_key("sub-1"), 0),
        ("the last one keeps its vote", None, convicted, 0),
        ("the last one cannot leave", 0, _change(2, ["sub-2"], 7), 13),
        ("one without a vote can: one", 0, _change(2, ["sub-1"], 7), 0),
        ("one without a vote can: two", 2, _change(2, ["sub-1"], 7), 0),
    ]


def _sequence() -> tuple[list[dict[str, object]], list[bytes]]:
    """What each step gives, and the entries of what is kept on a wide-area chain."""
    registry, told, entries = _Registry(), [], []
    for height, (note, operator, what, code) in enumerate(_steps(), 1):
        before = registry.powers()
        step: dict[str, object] = {"note": note, "code": code}
        if operator is None:
            assert isinstance(what, bytes)
            address = sha256(what).digest()[:20]
            registry.convict(what)
            step |= {"kind": 1, "address": address, "height": height}
            kept = sha256(cbor([1, address, height])).digest()
            entries.append(cbor([address, height, 27, kept]))
        else:
            assert isinstance(what, dict)
            key, data = _OPERATORS[operator], payload(_KIND, what)
            step |= {"envelope": signed(key, data)["envelope"], "digest": record_digest(key, data)}
            if code == 0:
                registry.approve(key, what)
                digest_ = sha256(data).digest()
                entries.append(cbor([key.address, what["number"], 26, digest_]))
        after = registry.powers()
        changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        step["leaf"] = registry.leaf()
        step["updates"] = [[key, after.get(key, 0)] for key in changed]
        told.append(step)
    return told, entries


def network_file() -> dict[str, object]:
    """Content of network.json."""
    steps, entries = _sequence()
    return {
        "about": "SPEC section 16 and 13.4. Steps follow each other on one wide-area chain: an "
        "operator's approval, or a conviction by the engine; with its code, the leaf n after it "
        "and what the engine is told. Written by python -m tools.vectors.",
        "chain": CHAIN,
        "operators": [key.public_key for key in _OPERATORS],
        "threshold": _THRESHOLD,
        "validators": _FOUR,
        "valid": [
            {"note": note, "fields": fields, **signed(_OPERATORS[0], payload(_KIND, fields))}
            for note, fields in _valid_changes()
        ],
        "invalid": [{"reason": reason, "payload": data} for reason, data in _bad_changes()],
        "steps": steps,
        "entries": entries,
        "log_root": tree_root(entries),
    }
