"""Vectors of committees, tallies, heads, receipts and members (SPEC sections 6 to 10)."""

from hashlib import sha256

from tools.vectors.merkle import tree_consistency, tree_inclusion, tree_root
from tools.vectors.records import CHAIN, Fields, change_of, payload, reading
from tools.vectors.wire import Key, Raw, cbor, digest, record_digest, seal, signed

_TERM_ROUNDS = 32
_EPOCH_ROUNDS = 32 * 128


# ------------------------------------------------------------------------------------ committee


def _draw(seed: bytes, term: int, meter: bytes, candidates: list[bytes], k: int) -> list[bytes]:
    def ticket(voter: bytes) -> bytes:
        return sha256(seed + term.to_bytes(8, "big") + meter + voter).digest()

    size = len(candidates) if len(candidates) <= 12 else min(k, len(candidates))
    return sorted(sorted(candidates, key=ticket)[:size])


def _draw_case(note: str, n: int, k: int, term: int, seed: str = "seed") -> dict[str, object]:
    # Candidates stand in an order of their own, which must not matter.
    candidates = [digest(f"voter {i}")[:16] for i in range(n)]
    meter = digest("judged")[:16]
    return {
        "note": note,
        "seed": digest(seed),
        "term": term,
        "meter": meter,
        "k": k,
        "candidates": candidates,
        "committee": _draw(digest(seed), term, meter, candidates, k),
    }


def _round_case(round_: int, round_s: int) -> dict[str, object]:
    return {
        "round": round_,
        "round_s": round_s,
        "first_s": round_ * round_s,
        "last_s": (round_ + 1) * round_s - 1,
        "end_s": (round_ + 1) * round_s,
        "term": round_ // _TERM_ROUNDS,
        "epoch": round_ // _EPOCH_ROUNDS,
        "next_epoch_start": (round_ // _EPOCH_ROUNDS + 1) * _EPOCH_ROUNDS,
    }


def committee_file() -> dict[str, object]:
    """Content of committee.json."""
    term = 29_533_334 // _TERM_ROUNDS
    cases = [_draw_case(f"{n} candidates, all sit", n, 11, term) for n in (0, 1, 2, 3, 11, 12)]
    cases += [_draw_case("5 seats, but 12 candidates: all sit", 12, 5, term)]
    cases += [_draw_case(f"{n} candidates", n, 11, term) for n in (13, 14, 55, 100)]
    cases += [_draw_case(f"{k} seats of 13", 13, k, term) for k in (3, 12, 13, 14)]
    cases += [_draw_case(f"{k} seats of 40", 40, k, term) for k in (3, 7, 255)]
    cases += [_draw_case(f"term {t}", 20, 7, t) for t in (0, 1, 2**27 - 1, 2**64 - 1)]
    cases += [_draw_case("another seed", 20, 7, 1, "another seed")]
    rounds = [0, 1, 31, 32, 4095, 4096, 29_533_334, 2**32 - 1]
    return {
        "about": "SPEC sections 7 and 8. Written by python -m tools.vectors.",
        "draws": cases,
        "rounds": [_round_case(r, s) for r in rounds for s in (1, 15, 60, 900)],
    }


# ---------------------------------------------------------------------------------------- tally

_OPEN, _ACCEPTED, _REJECTED = 0, 1, 2


def _outcome(drawn: int, accepts: int, rejects: int) -> int:
    majority = drawn // 2 + 1
    if drawn < 3:
        return _OPEN
    return _ACCEPTED if accepts >= majority else _REJECTED if rejects >= majority else _OPEN


def tally_file() -> dict[str, object]:
    """Content of tally.json."""
    rows = [
        [drawn, accepts, rejects, _outcome(drawn, accepts, rejects)]
        for drawn in (0, 1, 2, 3, 4, 5, 7, 11, 12)
        for accepts in range(drawn + 1)
        for rejects in range(drawn + 1 - accepts)
    ]
    rows += [[255, a, r, _outcome(255, a, r)] for a, r in ((127, 127), (128, 127), (127, 128))]
    ballots = [[], [0], [1], [16], [1, 1, 16, 0, 22, 63, 1], [0] * 11, [16, 17, 18, 19, 20, 21, 22]]
    return {
        "about": "SPEC section 9. An outcome is [seats drawn, accepts, rejects, outcome]: 0 open, "
        "1 accepted, 2 rejected. Written by python -m tools.vectors.",
        "outcomes": rows,
        "counts": [
            {
                "verdicts": verdicts,
                "accepts": verdicts.count(1),
                "rejects": sum(verdict >= 16 for verdict in verdicts),
                "abstentions": verdicts.count(0),
            }
            for verdicts in ballots
        ],
    }


# ---------------------------------------------------------------------------------------- heads

_ROUND_S = 60
_FIRST_ROUND = 29_533_334
_GENESIS = digest("genesis")
_GATEWAY = Key("gateway")


class _Chain:
    """Heads of a few rounds; block h holds h readings, so that roots differ in shape too."""

    def __init__(self, blocks: int, fork: str = "") -> None:
        self.heads: list[dict[str, object]] = []
        self.digests: list[bytes] = []  # of heads, height 1 first
        self.records: list[list[bytes]] = []  # digests of each block's records
        for height in range(1, blocks + 1):
            self._add(height, fork)

    def _add(self, height: int, fork: str) -> None:
        meters = [Key(f"meter {i}") for i in range(height - 1)]
        records = [record_digest(meter, payload(1, reading(seq=height))) for meter in meters]
        fields: Fields = {
            "height": height,
            "round": _FIRST_ROUND + height + height // 4,  # some rounds are left out
            "time": (_FIRST_ROUND + height + height // 4 + 1) * _ROUND_S,
            "previous": self.digests[-1] if self.digests else _GENESIS,
            "records_root": tree_root(records),
            "record_count": len(records),
            "results_root": digest(f"results {height}{fork}"),
            "state_root": digest(f"state {height}{fork}"),
            "history_root": tree_root(self.digests),
        }
        data = payload(3, fields)
        self.heads.append({"fields": fields, "records": records, **signed(_GATEWAY, data)})
        self.digests.append(sha256(data).digest())
        self.records.append(records)

    def envelope(self, height: int) -> bytes:
        data = self.heads[height - 1]["envelope"]
        assert isinstance(data, bytes)
        return data

    def bridge(self, height: int, held: int) -> list[object]:
        """What shows that the head `held` lies in the history of the head `height`."""
        return [held, tree_inclusion(self.digests[: height - 1], held - 1)]


_CHAIN = _Chain(12)
_FORK = _Chain(12, " of another branch")


def _extends(
    note: str, height: int, held: int, *, valid: bool = True, **change: object
) -> dict[str, object]:
    """Does head `height` extend the head held? With its bridge where one is needed."""
    digests = [_GENESIS, *_CHAIN.digests]
    needs_bridge = 0 < held < height - 1
    return {
        "note": note,
        "valid": valid,
        "head": _CHAIN.heads[height - 1]["payload"],
        "held_height": held,
        "held_digest": digests[held],
        "bridge": _CHAIN.bridge(height, held) if needs_bridge else None,
        **change,
    }


def _bad_extends() -> list[dict[str, object]]:
    other, path = _FORK.digests, _CHAIN.bridge(12, 5)[1]
    assert isinstance(path, list)

    def fail(note: str, height: int, held: int, **change: object) -> dict[str, object]:
        return _extends(note, height, held, valid=False, **change)

    return [
        fail("next head, another branch held", 6, 5, held_digest=other[4]),
        fail("next head, a bridge does not help", 6, 5, held_digest=other[4], bridge=[5, path]),
        fail("first head, another genesis", 1, 0, held_digest=digest("another genesis")),
        fail("bridge missing", 12, 5, bridge=None),
        fail("bridge from another height", 12, 5, bridge=[4, _CHAIN.bridge(12, 4)[1]]),
        fail("bridge that names another height", 12, 5, bridge=[4, path]),
        fail("bridge under another head", 12, 5, bridge=_CHAIN.bridge(11, 5)),
        fail("bridge, another branch held", 12, 5, held_digest=other[4]),
        fail("bridge of the other branch", 12, 5, held_digest=other[4], bridge=_FORK.bridge(12, 5)),
        fail("bridge too short", 12, 5, bridge=[5, path[:-1]]),
        fail("bridge too long", 12, 5, bridge=[5, [*path, bytes(32)]]),
        fail("bridge's path in reverse", 12, 5, bridge=[5, path[::-1]]),
        fail("the same height", 5, 5, bridge=_CHAIN.bridge(12, 5)),
        fail("an older head", 5, 12, bridge=None),
        fail("an older head, with a bridge", 5, 11, bridge=_CHAIN.bridge(12, 11)),
    ]


def heads_file() -> dict[str, object]:
    """Content of heads.json."""
    last = len(_CHAIN.digests)
    valid = [_extends(f"head {h} after {h - 1}", h, h - 1) for h in (1, 2, 3, 12)]
    valid += [_extends(f"head {h} after {b}", h, b) for h in (3, 4, 9, 12) for b in range(1, h - 1)]
    valid += [_extends("no head named before", 7, 0)]
    return {
        "about": "SPEC section 10. The history root of a head covers the digests of all earlier "
        "heads. A bridge is [held height, path]. Written by python -m tools.vectors.",
        "chain": CHAIN,
        "genesis": _GENESIS,
        "round_s": _ROUND_S,
        "gateway": _GATEWAY.public_key,
        "heads": _CHAIN.heads,
        "consistency": [
            # history root of head n is over n - 1 leaves
            {"old": a, "new": last, "path": tree_consistency(_CHAIN.digests[: last - 1], a - 1)}
            for a in range(1, last + 1)
        ],
        "extends": valid + _bad_extends(),
    }


# ------------------------------------------------------------------------- receipts and members


def _entry(height: int, index: int) -> list[object]:
    records = _CHAIN.records[height - 1]
    return [records[index], index, tree_inclusion(records, index)]


def _receipt(height: int, indexes: list[int], held: int = 0) -> list[object]:
    bridge = _CHAIN.bridge(height, held) if held else None
    return [1, _CHAIN.envelope(height), bridge, [_entry(height, i) for i in indexes]]


def _valid_receipts() -> list[dict[str, object]]:
    cases = [
        ("one record of one", _receipt(2, [0])),
        ("one record of eleven", _receipt(12, [6])),
        ("reading and ballot", _receipt(12, [0, 10])),
        ("all of a block", _receipt(9, list(range(8)))),
        ("no record, a head alone", _receipt(12, [])),
        ("with a bridge", _receipt(12, [3], 5)),
        ("bridge of the head before", _receipt(12, [3], 11)),
        ("bridge of the first head", _receipt(8, [3], 1)),
    ]
    return [
        {"note": note, "head": item[1], "bridge": item[2], "entries": item[3], "bytes": cbor(item)}
        for note, item in cases
    ]


def _malformed_receipts() -> list[tuple[str, bytes]]:
    version, head, bridge, entries = _receipt(12, [3], 5)
    one = _entry(12, 3)
    assert isinstance(head, bytes)
    items: list[tuple[str, object]] = [
        ("not an array", 1),
        ("empty array", []),
        ("last field missing", [version, head, bridge]),
        ("one field more", [version, head, bridge, entries, None]),
        ("version 0", [0, head, bridge, entries]),
        ("version 2", [2, head, bridge, entries]),
        ("version true", [True, head, bridge, entries]),
        ("head null", [1, None, bridge, entries]),
        ("head as a payload", [1, _CHAIN.heads[11]["payload"], bridge, entries]),
        ("head cut", [1, head[:-1], bridge, entries]),
        ("head not wrapped in octets", [1, Raw(head), bridge, entries]),
        ("bridge false", [1, head, False, entries]),
        ("bridge empty", [1, head, [], entries]),
        ("bridge without a path", [1, head, [5], entries]),
        ("bridge from height 0", [1, head, [0, []], entries]),
        ("bridge from height 2**32", [1, head, [2**32, []], entries]),
        ("bridge's path of 41", [1, head, [5, [bytes(32)] * 41], entries]),
        ("bridge's node of 31 octets", [1, head, [5, [bytes(31)]], entries]),
        ("bridge's path null", [1, head, [5, None], entries]),
        ("entries null", [1, head, bridge, None]),
        ("17 entries", [1, head, bridge, [one] * 17]),
        ("entry of two", [1, head, bridge, [one[:2]]]),
        ("entry of four", [1, head, bridge, [[*one, 0]]]),
        ("digest of 31 octets", [1, head, bridge, [[bytes(31), 0, []]]]),
        ("index -1", [1, head, bridge, [[bytes(32), -1, []]]]),
        ("index 2**32", [1, head, bridge, [[bytes(32), 2**32, []]]]),
        ("index true", [1, head, bridge, [[bytes(32), True, []]]]),
        ("path of 41", [1, head, bridge, [[bytes(32), 0, [bytes(32)] * 41]]]),
        ("node of 33 octets", [1, head, bridge, [[bytes(32), 0, [bytes(33)]]]]),
        ("path as octets", [1, head, bridge, [[bytes(32), 0, bytes(32)]]]),
    ]
    whole = cbor([version, head, bridge, entries])
    cases = [(reason, cbor(item)) for reason, item in items]
    return [*cases, ("nothing", b""), ("truncated", whole[:-1]), ("octet behind", whole + b"\x00")]


def _unproved_receipts() -> list[tuple[str, bytes]]:
    leaf, index, path = _entry(12, 3)
    head, good = _CHAIN.envelope(12), _entry(12, 5)
    assert isinstance(path, list)
    entries: list[tuple[str, list[object]]] = [
        ("another record", [[digest("another"), index, path]]),
        ("another place", [[leaf, 4, path]]),
        ("a place behind the last", [[leaf, 11, path]]),
        ("path too short", [[leaf, index, path[:-1]]]),
        ("path too long", [[leaf, index, [*path, bytes(32)]]]),
        ("no path", [[leaf, index, []]]),
        ("one good entry, one bad", [good, [digest("another"), index, path]]),
        ("entry of another block", [_entry(9, 3)]),
    ]
    cases = [(reason, cbor([1, head, None, item])) for reason, item in entries]
    empty = cbor([1, _CHAIN.envelope(1), None, [[digest("another"), 0, []]]])
    return [*cases, ("a block without records", empty)]


def _members() -> tuple[list[dict[str, object]], list[tuple[str, bytes]]]:
    operators = [Key("operator 1"), Key("operator 2")]
    changes = [
        seal(operator, payload(6, change_of(number=n, public_key=Key(f"meter {n}").public_key)))
        for n in range(1, 4)
        for operator in operators
    ]
    valid: list[dict[str, object]] = [
        {"note": f"{len(some)} approvals", "changes": some, "bytes": cbor([1, some])}
        for some in ([], changes[:1], changes, [changes[0]] * 32)
    ]
    items: list[tuple[str, object]] = [
        ("not an array", None),
        ("version missing", [changes]),
        ("one field more", [1, changes, None]),
        ("version 2", [2, changes]),
        ("version true", [True, changes]),
        ("changes null", [1, None]),
        ("a change is null", [1, [None]]),
        ("a change is text", [1, ["a" * 100]]),
        ("a change is a number", [1, [0]]),
        ("a change is cut", [1, [changes[0][:-1]]]),
        ("a change is not wrapped in octets", [1, [Raw(changes[0])]]),
        ("33 changes", [1, [changes[0]] * 33]),
    ]
    return valid, [(reason, cbor(item)) for reason, item in items]


def receipts_file() -> dict[str, object]:
    """Content of receipts.json."""
    members, bad_members = _members()
    return {
        "about": "SPEC sections 6 and 10, on heads.json. Written by python -m tools.vectors.",
        "gateway": _GATEWAY.public_key,
        "valid": _valid_receipts(),
        "malformed": [{"reason": r, "bytes": data} for r, data in _malformed_receipts()],
        "unproved": [{"reason": r, "bytes": data} for r, data in _unproved_receipts()],
        "members": members,
        "malformed_members": [{"reason": r, "bytes": data} for r, data in bad_members],
    }
