"""Vectors of several gateways' closes, heads and application hash (SPEC 11.2, 11.5, 11.8).

A region of four gateways and two members that only close rounds: one reading waits for a round far
away all the time, and one gateway is suspended for another head of its own. Once with validators in
the genesis, once without.
"""

from hashlib import sha256

from tools.vectors.merkle import tree_root, trie_leaf, trie_root
from tools.vectors.network import validator_key
from tools.vectors.records import Fields, payload, reading
from tools.vectors.wire import Key, cbor, digest, record_digest, seal

_ROUND_S = 60
_FIRST = 29_533_335  # the first round of a window
_WINDOW = 15
_OPERATOR = Key("operator 0")
_GATEWAYS = [Key(f"gateway {i}") for i in range(4)]
_MEMBERS = [Key(f"meter {i}") for i in (1, 2)]
_VALIDATORS = [[f"pi-{i}", validator_key(f"pi-{i}"), 10] for i in range(4)]
_READING, _HEAD, _CLOSE = 1, 3, 8


def _genesis(*added: object) -> bytes:
    members = [[key.public_key, "a"] for key in _MEMBERS]
    gateways = [key.public_key for key in _GATEWAYS]
    head = [1, 2 if added else 1, "closes", 1_772_000_000, [_ROUND_S, 11, 96, _WINDOW]]
    return cbor([*head, [_OPERATOR.public_key], 1, gateways, members, *added])


class _Window:
    def __init__(self, number: int, height: int) -> None:
        self.number, self.height, self.members, self.alarms = number, height, 0, 0

    def encode(self) -> bytes:
        counts = [0, 0, 0, self.members, self.alarms, 0]
        return cbor([self.number, self.height, 0, 0, [None, None, None], counts, []])


class _Region:
    """What SPEC 11 says of a region in which nothing but this happens."""

    def __init__(self, genesis: bytes, *, windows: bool) -> None:
        self.genesis = sha256(genesis).digest()
        self.chain = self.genesis[:8]
        self._windows = windows
        self.heads: list[bytes] = []
        self._suspended: list[bytes] = []
        self._records: list[bytes] = []  # digests of what waits and no close takes
        self._evidence: list[tuple[Key, bytes]] = []
        self._convictions: list[bytes] = []
        self._closes: dict[bytes, tuple[int, bytes]] = {}
        self._state = {
            b"m" + key.address: cbor(
                [key.public_key, "a", 0, 0, None, False, 0, 0, [], None, 0, None]
            )
            for key in _MEMBERS
        }
        self._open: _Window | None = None
        self._ended: list[object] | None = None

    def wait(self, key: Key, data: bytes) -> None:
        self._records.append(record_digest(key, data))

    def accuse(self, key: Key, data: bytes) -> None:
        self._evidence.append((key, data))

    def convict(self, kind: int, address: bytes, height: int) -> None:
        self._convictions.append(sha256(cbor([kind, address, height])).digest())

    def ask(self, key: Key, round_: int) -> None:
        data = payload(_CLOSE, {"round": round_}, self.chain)
        self._closes[key.address] = round_, record_digest(key, data)
        while (due := self._due()) is not None:
            self._close(due)

    def _due(self) -> int | None:
        counting = [key.address for key in _GATEWAYS if key.address not in self._suspended]
        asked = sorted((self._closes[a][0] for a in counting if a in self._closes), reverse=True)
        needed = len(counting) // 2 + 1
        return asked[needed - 1] if len(asked) >= needed else None

    def _close(self, round_: int) -> None:
        height = len(self.heads) + 1
        if self._open is not None and self._open.number != round_ // _WINDOW:
            self._ended, self._open = [height - 1, self._open.encode()], None
        if self._open is None:
            self._open = _Window(round_ // _WINDOW, height)
        kept = [record_digest(key, data) for key, data in self._evidence]
        for key, data in self._evidence:
            self._suspended.append(key.address)
            self._state[b"g" + key.address] = cbor([height, sha256(data).digest(), True])
            self._open.alarms += 1
        self._evidence, self._convictions = [], []
        fields: Fields = {
            "height": height,
            "round": round_,
            "time": (round_ + 1) * _ROUND_S,
            "previous": sha256(self.heads[-1]).digest() if self.heads else self.genesis,
            "records_root": tree_root(kept),
            "record_count": len(kept),
            "results_root": tree_root([]),
            "state_root": trie_root([trie_leaf(k, v) for k, v in sorted(self._state.items())]),
            "history_root": tree_root([sha256(head).digest() for head in self.heads]),
        }
        self.heads.append(payload(_HEAD, fields, self.chain))
        self._open.members = len(_MEMBERS)
        if (round_ + 1) % _WINDOW == 0:
            self._ended, self._open = [height, self._open.encode()], None
        self._closes = {
            address: close
            for address, close in self._closes.items()
            if close[0] > round_ and address not in self._suspended
        }

    def app_hash(self) -> bytes:
        rest = bytes(32)
        waiting = [*self._records, *(record_digest(key, data) for key, data in self._evidence)]
        waiting += [self._closes[address][1] for address in sorted(self._closes)]
        for item in [*waiting, *self._convictions]:
            rest = sha256(rest + item).digest()
        if self._windows:
            own = None if self._open is None else self._open.encode()
            rest += sha256(cbor([self._ended, own])).digest()
        newest = sha256(self.heads[-1]).digest() if self.heads else self.genesis
        return sha256(newest + rest).digest()


_Step = tuple[str, int, int, int]  # note, gateway, its round after the first, code

_BEFORE: list[_Step] = [
    ("one of four", 0, 0, 0),
    ("two of four", 1, 2, 0),
    ("the same again", 1, 2, 6),
    ("less than it asked for", 1, 1, 10),
    ("three of four: the lowest of them", 2, 5, 0),
    ("what is closed already", 0, 0, 10),
    ("three of four: the middle", 3, 2, 0),
    ("more than it asked for", 2, 6, 0),
    ("the window's last round: one", 0, 14, 0),
    ("the window's last round: two close what the third asked for", 1, 14, 0),
    ("the window's last round: three", 3, 14, 0),
    ("another window: one", 0, 40, 0),
    ("another window: two", 1, 41, 0),
    ("another window: three", 3, 39, 0),
]
_AFTER: list[_Step] = [
    ("with a fourth that will be suspended", 3, 70, 0),
    ("the evidence is kept, and two of three are enough", 2, 50, 0),
    ("a suspended one", 3, 80, 5),
    ("two of three", 2, 60, 0),
]


def _close_step(region: _Region, step: _Step) -> dict[str, object]:
    note, gateway, after, code = step
    round_ = _FIRST + after
    if code == 0:
        region.ask(_GATEWAYS[gateway], round_)
    close = seal(_GATEWAYS[gateway], payload(_CLOSE, {"round": round_}, region.chain))
    return {"note": note, "code": code, "tx": close}


def _other_head(region: _Region) -> bytes:
    zeros = {name: bytes(32) for name in ("results_root", "state_root", "history_root")}
    fields: Fields = {"height": 1, "round": _FIRST, "time": (_FIRST + 1) * _ROUND_S}
    fields |= {"previous": region.genesis, "records_root": bytes(32), "record_count": 0}
    return payload(_HEAD, {**fields, **zeros}, region.chain)


def _steps(region: _Region) -> list[dict[str, object]]:
    told: list[dict[str, object]] = []

    def note(step: dict[str, object]) -> None:
        told.append({**step, "heads": len(region.heads), "app_hash": region.app_hash()})

    meter, far = (
        _MEMBERS[0],
        payload(_READING, reading(time=(_FIRST + 1000) * _ROUND_S, boot=1, seq=1), region.chain),
    )
    region.wait(meter, far)
    note({"note": "a reading of a round to come", "code": 0, "tx": seal(meter, far)})
    for step in _BEFORE:
        note(_close_step(region, step))
    convicted = [1, digest("nobody")[:20], 7]
    region.convict(*convicted)  # type: ignore[arg-type]
    note({"note": "the engine convicts somebody unknown", "code": 0, "misbehaviour": convicted})
    accused, other = _GATEWAYS[3], _other_head(region)
    region.accuse(accused, other)
    note({"note": "another head", "code": 0, "tx": seal(accused, other)})
    note({"note": "another head again", "code": 7, "tx": seal(accused, other)})
    for step in _AFTER:
        note(_close_step(region, step))
    stranger, elsewhere = Key("stranger"), payload(_CLOSE, {"round": _FIRST + 99})
    own = payload(_CLOSE, {"round": _FIRST + 99}, region.chain)
    note({"note": "a stranger", "code": 3, "tx": seal(stranger, own)})
    note({"note": "of another region", "code": 2, "tx": seal(_GATEWAYS[0], elsewhere)})
    return told


def _case(note: str, *added: object) -> dict[str, object]:
    genesis = _genesis(*added)
    region = _Region(genesis, windows=bool(added))
    steps = _steps(region)
    return {"note": note, "genesis": genesis, "steps": steps, "heads": region.heads}


def closes_file() -> dict[str, object]:
    """Content of closes.json."""
    return {
        "about": "SPEC section 11. Steps follow each other, each a block of the engine: a "
        "transaction, or what the engine convicts a validator of. Each with its code, how many "
        "heads there are then, and the application hash. Written by python -m tools.vectors.",
        "regions": [
            _case("a region of four nodes", _VALIDATORS),
            _case("a region of one node and four gateways"),
        ],
    }
