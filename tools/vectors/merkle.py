"""Test vectors of the Merkle trees and the state trie: tests/vectors/merkle.json and trie.json.

Roots and paths are computed here by the definitions themselves, recursively and without a line of
ledger's Merkle or trie code, so that the vectors judge that code instead of repeating it. Byte
strings are hexadecimal. `valid` says whether a verifier must pass the case or refuse it.

Written by `python -m tools.vectors`.
"""

from hashlib import sha256

# Those that the Certificate Transparency project's own tests use.
_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]

Leaf = tuple[bytes, bytes]
"""A trie's leaf: path = SHA-256(key), and SHA-256(value)."""

EncodedProof = list[object]
"""[bits, [sibling, ...], [] or [path, value hash]], as ledger.trie.Proof.encode gives it."""


# ------------------------------------------------------------- RFC 9162 section 2.1, as it stands


def tree_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = _split(len(leaves))
    return _node(tree_root(leaves[:k]), tree_root(leaves[k:]))


def tree_inclusion(leaves: list[bytes], index: int) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*tree_inclusion(leaves[:k], index), tree_root(leaves[k:])]
    return [*tree_inclusion(leaves[k:], index - k), tree_root(leaves[:k])]


def tree_consistency(leaves: list[bytes], old: int) -> list[bytes]:
    """PROOF of RFC 9162 section 2.1.4.1, and the empty path for old = 0."""
    return _subproof(leaves, old, whole=True) if old else []


def _subproof(leaves: list[bytes], old: int, *, whole: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if whole else [tree_root(leaves)]
    k = _split(len(leaves))
    if old <= k:
        return [*_subproof(leaves[:k], old, whole=whole), tree_root(leaves[k:])]
    return [*_subproof(leaves[k:], old - k, whole=False), tree_root(leaves[:k])]


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


# ------------------------------------------------- the trie, from the formulas of ledger.trie


def trie_leaf(key: bytes, value: bytes) -> Leaf:
    """Path and value hash of a key and its value."""
    return sha256(key).digest(), sha256(value).digest()


def trie_root(leaves: list[Leaf], bit: int = 0) -> bytes:
    """Root over leaves whose paths agree in all bits before `bit`, in any order."""
    if not leaves:
        return sha256(b"\x10").digest()
    if len(leaves) == 1:
        return sha256(b"\x11" + leaves[0][0] + leaves[0][1]).digest()
    bit, sides = _parted(leaves, bit)
    left, right = (trie_root(side, bit + 1) for side in sides)
    return sha256(b"\x12" + bytes([bit]) + left + right).digest()


def trie_proof(leaves: list[Leaf], path: bytes, bit: int = 0) -> EncodedProof:
    """Encoded proof of the presence or absence of `path`."""
    bits, siblings = b"", []
    while len(leaves) > 1:
        bit, sides = _parted(leaves, bit)
        side = _bit(path, bit)
        bits += bytes([bit])
        siblings.append(trie_root(sides[1 - side], bit + 1))
        leaves, bit = sides[side], bit + 1
    other = list(leaves[0]) if leaves and leaves[0][0] != path else []
    return [bits, siblings, other]


def _parted(leaves: list[Leaf], bit: int) -> tuple[int, tuple[list[Leaf], list[Leaf]]]:
    """The first bit from `bit` on in which the paths differ, and the leaves on its two sides."""
    while True:
        left = [leaf for leaf in leaves if not _bit(leaf[0], bit)]
        right = [leaf for leaf in leaves if _bit(leaf[0], bit)]
        if left and right:
            return bit, (left, right)
        bit += 1


def _bit(path: bytes, bit: int) -> int:
    return int(f"{int.from_bytes(path, 'big'):0256b}"[bit])


# ----------------------------------------------------------------------------------- merkle.json


def _merkle() -> dict[str, object]:
    sizes = range(len(_LEAVES) + 1)
    zeros, ones = b"\x00" * 32, b"\xff" * 32
    return {
        "about": "RFC 9162 section 2.1, SHA-256. Written by python -m tools.vectors.",
        "leaf": [{"data": d, "hash": tree_root([d])} for d in _LEAVES[:3]],
        "node": [{"left": zeros, "right": ones, "hash": _node(zeros, ones)}],
        "leaves": _LEAVES,
        "roots": [tree_root(_LEAVES[:size]) for size in sizes],
        "inclusion": [_inclusion(index, size) for size in sizes for index in range(size)]
        + _inclusion_cases(),
        "consistency": [_consistency(old, new) for new in sizes for old in range(new + 1)]
        + _consistency_cases()
        + _special_consistency_cases(),
    }


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _inclusion(index: int, size: int, note: str = "", /, **change: object) -> dict[str, object]:
    """The case of a leaf and a tree; with a note it is one that must fail by the change named."""
    leaves = _LEAVES[:size]
    return {
        "note": note or f"leaf {index} of {size}",
        "valid": not note,
        "root": tree_root(leaves),
        "leaf": leaves[index],
        "index": index,
        "size": size,
        "path": tree_inclusion(leaves, index),
        **change,
    }


def _inclusion_cases() -> list[dict[str, object]]:
    path = tree_inclusion(_LEAVES[:7], 2)
    inner = tree_root(_LEAVES[2:3]) + path[0]
    top, leaf, own = path[-1], tree_root(_LEAVES[:1]), tree_root(_LEAVES[1:2])
    return [
        _inclusion(2, 7, "passes, for a path does not fix the size", size=8, valid=True),
        _inclusion(2, 7, "another index", index=3),
        _inclusion(2, 7, "index beyond the tree", index=7),
        _inclusion(2, 7, "index far beyond the tree", index=1 << 200),
        _inclusion(2, 7, "negative index", index=-1),
        _inclusion(0, 1, "empty tree", size=0),
        _inclusion(2, 7, "negative size", size=-7),
        _inclusion(2, 7, "size too small for the path", size=4),
        _inclusion(2, 7, "size too large for the path", size=9),
        _inclusion(2, 7, "largest size", size=(1 << 64) - 1),
        _inclusion(2, 7, "size beyond 64 bits", size=1 << 64),
        _inclusion(2, 7, "another leaf", leaf=_LEAVES[3]),
        _inclusion(2, 7, "another root", root=tree_root(_LEAVES[:6])),
        _inclusion(2, 7, "root too short", root=tree_root(_LEAVES[:7])[:31]),
        _inclusion(2, 7, "no path", path=[]),
        _inclusion(2, 7, "first hash missing", path=path[1:]),
        _inclusion(2, 7, "last hash missing", path=path[:-1]),
        _inclusion(2, 7, "one hash more", path=[*path, path[0]]),
        _inclusion(2, 7, "hashes in reverse", path=path[::-1]),
        _inclusion(2, 7, "one bit of a hash", path=[path[0], _flip(path[1]), path[2]]),
        _inclusion(2, 7, "hash too short", path=[path[0], path[1][:31], path[2]]),
        _inclusion(2, 7, "hash too long", path=[path[0], path[1] + b"\x00", path[2]]),
        _inclusion(2, 7, "path of 66", path=[b"\x00" * 32] * 66),
        _inclusion(2, 7, "inner node as leaf", leaf=inner, index=1, size=4, path=path[1:]),
        _inclusion(0, 1, "one leaf, one hash", path=[b"\x00" * 32]),
        _inclusion(0, 1, "one leaf, one hash, root to suit", path=[top], root=_node(top, leaf)),
        _inclusion(1, 2, "hash too short, root to suit", path=[top[1:]], root=_node(top[1:], own)),
    ]


def _consistency(old: int, new: int, note: str = "", /, **change: object) -> dict[str, object]:
    """The case of two trees; with a note it is one that must fail by the change named."""
    return {
        "note": note or f"{old} to {new}",
        "valid": not note,
        "old_size": old,
        "old_root": tree_root(_LEAVES[:old]),
        "new_size": new,
        "new_root": tree_root(_LEAVES[:new]),
        "path": tree_consistency(_LEAVES[:new], old),
        **change,
    }


def _consistency_cases() -> list[dict[str, object]]:
    path = tree_consistency(_LEAVES[:7], 3)
    old_root, new_root = tree_root(_LEAVES[:3]), tree_root(_LEAVES[:7])
    other = tree_root(_LEAVES[:5])
    return [
        _consistency(3, 7, "another old size", old_size=2),
        _consistency(3, 7, "another new size", new_size=9),
        _consistency(3, 7, "sizes exchanged", old_size=7, new_size=3),
        _consistency(3, 7, "negative old size", old_size=-3),
        _consistency(3, 7, "negative new size", new_size=-7),
        _consistency(3, 7, "largest sizes", old_size=(1 << 64) - 2, new_size=(1 << 64) - 1),
        _consistency(3, 7, "new size beyond 64 bits", new_size=1 << 64),
        _consistency(3, 7, "another old root", old_root=other),
        _consistency(3, 7, "another new root", new_root=other),
        _consistency(3, 7, "roots exchanged", old_root=new_root, new_root=old_root),
        _consistency(3, 7, "no path", path=[]),
        _consistency(3, 7, "first hash missing", path=path[1:]),
        _consistency(3, 7, "last hash missing", path=path[:-1]),
        _consistency(3, 7, "one hash more", path=[*path, path[0]]),
        _consistency(3, 7, "one bit of a hash", path=[*path[:-1], _flip(path[-1])]),
        _consistency(3, 7, "hash too short", path=[*path[:-1], path[-1][:31]]),
        _consistency(3, 7, "path of 66", path=[b"\x00" * 32] * 66),
        _consistency(
            3,
            7,
            "one hash more, roots to suit",
            path=[*path, other],
            old_root=_node(other, old_root),
            new_root=_node(other, new_root),
        ),
        _consistency(
            3,
            7,
            "smaller newer tree, roots to suit",
            path=[other, path[0]],
            old_root=other,
            new_size=2,
            new_root=_node(other, path[0]),
        ),
    ]


def _special_consistency_cases() -> list[dict[str, object]]:
    """Old trees that are full, empty or the new tree itself: paths of a form of their own."""
    other = tree_root(_LEAVES[:3])
    full = [tree_root(_LEAVES[:4]), *tree_consistency(_LEAVES[:7], 4)]
    return [
        _consistency(4, 7, "no path, old tree full", path=[]),
        _consistency(4, 7, "root of a full old tree in the path", path=full),
        _consistency(5, 5, "equal sizes, two roots", old_root=other),
        _consistency(5, 5, "equal sizes, a path", path=[other]),
        _consistency(0, 5, "empty old tree, another root", old_root=other),
        _consistency(0, 5, "empty old tree, a path", path=[other]),
        _consistency(0, 0, "two roots of the empty tree", new_root=other),
    ]


def _flip(digest: bytes) -> bytes:
    return bytes([digest[0] ^ 1]) + digest[1:]


# ------------------------------------------------------------------------------------- trie.json


def _trie() -> dict[str, object]:
    entries = _trie_entries()
    absent = [b"absent %d" % i for i in range(8)]
    one = entries[:1]
    valid = [_trie_case(entries, key, value) for key, value in entries]
    valid += [_trie_case(entries, key, None) for key in absent]
    valid += [_trie_case(one, one[0][0], one[0][1]), _trie_case(one, absent[0], None)]
    valid += [_trie_case([], absent[0], None)]
    return {
        "about": "State trie, formulas in ledger/trie.py. Written by python -m tools.vectors. "
        "Entries are [key, value], roots those of the first 0, 1, 2 ... entries; a proof's value "
        "null means: absent.",
        "entries": entries,
        "roots": [_root_of(entries[:size]) for size in range(len(entries) + 1)],
        "proofs": valid + _trie_cases(entries),
    }


def _trie_entries() -> list[tuple[bytes, bytes]]:
    """Ten keys, the last two alike in more bits than any other pair of 4,096."""
    keys = sorted((b"meter %d" % i for i in range(4096)), key=lambda key: sha256(key).digest())
    paths = [int.from_bytes(sha256(key).digest(), "big") for key in keys]
    near = min(range(len(keys) - 1), key=lambda i: paths[i] ^ paths[i + 1])
    chosen = [b"", b"\x00", *(b"meter %d" % i for i in range(6)), keys[near], keys[near + 1]]
    return [(key, b"" if i == 1 else b"value %d" % i) for i, key in enumerate(chosen)]


def _root_of(entries: list[tuple[bytes, bytes]]) -> bytes:
    return trie_root([trie_leaf(*entry) for entry in entries])


def _trie_case(
    entries: list[tuple[bytes, bytes]],
    key: bytes,
    value: bytes | None,
    note: str = "",
    /,
    **change: object,
) -> dict[str, object]:
    """A proof from the trie of `entries`; with a note one that must fail by the change named."""
    leaves = [trie_leaf(*entry) for entry in entries]
    return {
        "note": note or f"{'absent' if value is None else 'present'}, {len(entries)} keys",
        "valid": not note,
        "root": trie_root(leaves),
        "key": key,
        "value": value,
        "proof": trie_proof(leaves, sha256(key).digest()),
        **change,
    }


def _trie_cases(entries: list[tuple[bytes, bytes]]) -> list[dict[str, object]]:
    """All must fail, and all but those so named are about the last key, with its value."""
    key, value = entries[-1]
    leaves = [trie_leaf(*entry) for entry in entries]
    gone = b"absent 0"
    away = trie_proof(leaves, sha256(gone).digest())

    def fail(note: str, **change: object) -> dict[str, object]:
        return _trie_case(entries, key, value, note, **change)

    return [
        fail("another value", value=b"value"),
        fail("another key with the same value", key=entries[-2][0]),
        fail("another root", root=_root_of(entries[:-1])),
        fail("root too short", root=trie_root(leaves)[:31]),
        fail("a present key as absent", value=None),
        fail("a present key as absent, empty trie", value=None, proof=[b"", [], []]),
        fail("an absent key as present", key=gone, proof=away),
        fail("absence of another key", value=None, proof=away),
        *(fail(note, proof=proof) for note, proof in _damaged_proofs(leaves)),
        *(fail(note, value=None, proof=proof) for note, proof in _false_absences(leaves)),
    ]


def _damaged_proofs(leaves: list[Leaf]) -> list[tuple[str, EncodedProof]]:
    """Proofs that the last leaf is present, each with one fault."""
    bits, hashes = _bits_and_hashes(leaves)
    own = list(leaves[-1])
    return [
        ("another leaf beside the key's own", [bits, hashes, list(leaves[0])]),
        ("another bit", [bits[:-1] + bytes([bits[-1] - 1]), hashes, []]),
        ("one bit of a hash", [bits, [_flip(hashes[0]), *hashes[1:]], []]),
        ("hashes in reverse", [bits, hashes[::-1], []]),
        ("bits do not rise", [bits + bits[-1:], [*hashes, hashes[0]], []]),
        ("lowest node missing", [bits[:-1], hashes[:-1], []]),
        ("top node missing", [bits[1:], hashes[1:], []]),
        ("one hash more", [bits, [*hashes, hashes[0]], []]),
        ("one hash less", [bits, hashes[:-1], []]),
        ("hash too short", [bits, [*hashes[:-1], hashes[-1][:31]], []]),
        ("half another leaf", [bits, hashes, own[:1]]),
        ("two items", [bits, hashes]),
        ("four items", [bits, hashes, [], []]),
    ]


def _false_absences(leaves: list[Leaf]) -> list[tuple[str, EncodedProof]]:
    """Proofs that the last leaf's key, which is present, is absent."""
    bits, hashes = _bits_and_hashes(leaves)
    (path, value_hash), neighbour = leaves[-1], leaves[-2]
    own_hash = trie_root([leaves[-1]])
    # The lowest node parts the last two leaves. With a bit number at which the key's bit is the
    # opposite one, the search enters the neighbour, and left and right stay what they are.
    lowest = bits[-1]
    turn = next(bit for bit in range(lowest, 256) if _bit(path, bit) != _bit(path, lowest))
    return [
        ("a present key as absent, own leaf as another", [bits, hashes, [path, value_hash]]),
        (
            "a present key as absent, wrong turn at the lowest node",
            [bits[:-1] + bytes([turn]), [*hashes[:-1], own_hash], list(neighbour)],
        ),
    ]


def _bits_and_hashes(leaves: list[Leaf]) -> tuple[bytes, list[bytes]]:
    bits, hashes, _ = trie_proof(leaves, leaves[-1][0])
    assert isinstance(bits, bytes)
    assert isinstance(hashes, list)
    return bits, hashes


# -------------------------------------------------------------------------------------- the files


def generate() -> dict[str, object]:
    """Content of each vector file by its name."""
    return {"merkle.json": _merkle(), "trie.json": _trie()}
