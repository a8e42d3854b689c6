"""The state trie: a path-compressed binary Merkle trie from keys to values, both byte strings.

A key's place is path = SHA-256(key), read as 256 bits, bit 0 being the most significant bit of
the first byte. A subtree of one key is a leaf. A subtree of several is an inner node at the first
bit in which their paths differ; keys with a 0 there are on its left, with a 1 on its right. So
the shape, and the root, depend on the content alone, not on the order of updates.

    empty trie   SHA-256(0x10)
    leaf         SHA-256(0x11 || SHA-256(key) || SHA-256(value))
    inner node   SHA-256(0x12 || bit || left || right), bit in one byte
    root         the hash of the top node, of whichever kind

No input of one kind is an input of another: first bytes differ, and lengths are 1, 65 and 66
bytes. None begins with 0x00 or 0x01, the prefixes of RFC 9162, which other trees here use.

A proof is the path from the top node to where the search for a key ends, as (bits, siblings,
other): the bit of each inner node passed, the hash of the child not entered, and, if the search
ends at the leaf of another key, that leaf's (SHA-256(key), SHA-256(value)).

Why an inner node commits to its bit and to nothing else. The side entered at a node is not in the
proof: it is the key's own bit. With the bit committed, a root fixes the whole search, one node
after the other, and so allows exactly one answer for each key: this value, or absent. That holds
even for a root made by a liar. Were the bit free, a prover could turn the search into a wrong
subtree and "prove" a present key absent. The bits skipped between two nodes need no commitment,
since the leaf at the end commits to its whole path.

Nodes are never changed, an update copies the nodes above it. A snapshot is therefore a reference,
costs nothing, and stays valid whatever happens later.

Left out: persistence (the state is rebuilt from the store), proofs for several keys at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ledger.protocol.errors import BadProof

if TYPE_CHECKING:
    from collections.abc import Iterator

_HASH_SIZE = 32
_LEAF = b"\x11"
_INNER = [bytes((0x12, bit)) for bit in range(256)]

EMPTY_ROOT = hashlib.sha256(b"\x10").digest()
"""Root of the trie without keys."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Where the search for one key ends, from the top node down; well-formed once it exists.

    bits      bit number of every inner node passed, strictly rising
    siblings  32-byte hash of the child not entered, for every inner node passed
    other     (SHA-256(key), SHA-256(value)) of the leaf found in place of the key's own; None if
              the key is present or the trie is empty

    Making one of anything else raises BadProof.
    """

    bits: bytes
    siblings: tuple[bytes, ...]
    other: tuple[bytes, bytes] | None

    def __post_init__(self) -> None:
        if type(self.bits) is not bytes or type(self.siblings) is not tuple:
            raise BadProof("bits are not bytes, or siblings no tuple")
        if len(self.bits) != len(self.siblings):
            raise BadProof("not one sibling for each bit")
        if any(a >= b for a, b in pairwise(self.bits)):
            raise BadProof("bits do not rise")
        if not all(_is_hash(sibling) for sibling in self.siblings):
            raise BadProof("a sibling is not a hash")
        other: object = self.other
        if other is not None and not (
            type(other) is tuple and len(other) == 2 and _is_hash(other[0]) and _is_hash(other[1])
        ):
            raise BadProof("the other leaf is not two hashes")

    def encode(self) -> list[object]:
        """As plain lists and bytes for CBOR: [bits, [sibling, ...], [] or [path, value hash]]."""
        return [self.bits, list(self.siblings), list(self.other or ())]

    @classmethod
    def decode(cls, item: object) -> Proof:
        """The proof of which `item` is the encoding; raises BadProof on anything else."""
        if type(item) is not list or len(item) != 3:
            raise BadProof("a proof is a list of three")
        bits, siblings, other = item
        if type(siblings) is not list or type(other) is not list:
            raise BadProof("siblings and other leaf are lists")
        return cls(bits, tuple(siblings), tuple(other) or None)


def verify(root: bytes, key: bytes, value: bytes | None, proof: Proof) -> None:
    """Check that the trie with this root maps `key` to `value`, or lacks it if value is None.

    Raises BadProof.
    """
    if type(key) is not bytes or (value is not None and type(value) is not bytes):
        raise BadProof("key and value are bytes")
    path = _sha256(key)
    if value is not None:
        if proof.other is not None:
            raise BadProof("a proof of absence")
        digest = _leaf_hash(path, _sha256(value))
    elif proof.other is not None:
        if proof.other[0] == path:
            raise BadProof("a proof of presence")
        digest = _leaf_hash(*proof.other)
    elif proof.bits:
        raise BadProof("a proof of presence")
    else:
        digest = EMPTY_ROOT
    for bit, sibling in zip(reversed(proof.bits), reversed(proof.siblings), strict=True):
        pair = sibling + digest if _bit(path, bit) else digest + sibling
        digest = _sha256(_INNER[bit] + pair)
    if digest != root:
        raise BadProof("proof does not lead to the root")


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _leaf_hash(path: bytes, value_hash: bytes) -> bytes:
    return hashlib.sha256(_LEAF + path + value_hash).digest()


def _bit(path: bytes, bit: int) -> int:
    return path[bit >> 3] >> (~bit & 7) & 1


def _first_difference(one: bytes, other: bytes) -> int:
    """Number of the first bit in which two different paths differ."""
    return 256 - (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_length()


def _is_hash(item: object) -> bool:
    return type(item) is bytes and len(item) == _HASH_SIZE


class _Leaf:
    __slots__ = ("key", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value


class _Inner:
    """Never changed once made, but for `digest`, which is filled in when first asked for."""

    __slots__ = ("bit", "digest", "left", "right")

    def __init__(self, bit: int, left: _Node, right: _Node) -> None:
        self.bit = bit
        self.left = left
        self.right = right
        self.digest: bytes | None = None


_Node = _Leaf | _Inner
_Steps = list[tuple[_Inner, int]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of a trie, to go back to; opaque, valid for ever, freed with its last reference."""

    top: _Node | None
    size: int


class Trie:
    """The mapping and its root. Opened on a snapshot, it is a trie of its own from there on.

    Not safe for writing from several threads; a trie opened on a snapshot may be read in another
    thread than the one that goes on writing.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._top: _Node | None = None
        self._size = 0
        if snapshot is not None:
            self.rollback(snapshot)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of SHA-256(key), of the state at the first step."""
        stack = [] if self._top is None else [self._top]
        while stack:
            node = stack.pop()
            if isinstance(node, _Inner):
                stack.append(node.right)
                stack.append(node.left)
            else:
                yield node.key, node.value

    def get(self, key: bytes) -> bytes | None:
        """The key's value, or None if it has none."""
        leaf, _ = self._search(_sha256(key))
        return leaf.value if leaf is not None and leaf.key == key else None

    def set(self, key: bytes, value: bytes) -> None:
        """Give the key this value, whether or not it had one."""
        path = _sha256(key)
        leaf, steps = self._search(path)
        node: _Node = _Leaf(key, value)
        if leaf is None:
            self._size = 1
        elif leaf.key != key:
            bit = _first_difference(path, _sha256(leaf.key))
            neighbour: _Node = leaf
            while steps and steps[-1][0].bit > bit:
                neighbour = steps.pop()[0]
            node = _Inner(bit, neighbour, node) if _bit(path, bit) else _Inner(bit, node, neighbour)
            self._size += 1
        elif leaf.value == value:
            return
        self._replace(steps, node)

    def delete(self, key: bytes) -> None:
        """Take the key out; raises KeyError if it is not there."""
        leaf, steps = self._search(_sha256(key))
        if leaf is None or leaf.key != key:
            raise KeyError(key)
        self._size -= 1
        if not steps:
            self._top = None
            return
        parent, side = steps.pop()
        self._replace(steps, parent.left if side else parent.right)

    def root(self) -> bytes:
        """32-byte root; hashes each inner node changed since the last call once."""
        return EMPTY_ROOT if self._top is None else _digest(self._top)

    def prove(self, key: bytes) -> Proof:
        """Proof for `verify` of the key's value, or of its absence."""
        leaf, steps = self._search(_sha256(key))
        bits = bytes(inner.bit for inner, _ in steps)
        siblings = tuple(_digest(inner.left if side else inner.right) for inner, side in steps)
        if leaf is None or leaf.key == key:
            return Proof(bits, siblings, None)
        return Proof(bits, siblings, (_sha256(leaf.key), _sha256(leaf.value)))

    def snapshot(self) -> Snapshot:
        """The present state. Needs no release; O(1)."""
        return Snapshot(self._top, self._size)

    def rollback(self, snapshot: Snapshot) -> None:
        """Go (back) to a state, of this or another trie. O(1)."""
        self._top, self._size = snapshot.top, snapshot.size

    def _search(self, path: bytes) -> tuple[_Leaf | None, _Steps]:
        """The leaf where the search ends, and each inner node passed with the side entered."""
        steps: _Steps = []
        node = self._top
        while isinstance(node, _Inner):
            side = _bit(path, node.bit)
            steps.append((node, side))
            node = node.right if side else node.left
        return node, steps

    def _replace(self, steps: _Steps, node: _Node) -> None:
        """Put `node` where the search along `steps` ended, copying every node above it."""
        for inner, side in reversed(steps):
            if side:
                node = _Inner(inner.bit, inner.left, node)
            else:
                node = _Inner(inner.bit, node, inner.right)
        self._top = node


def _digest(node: _Node) -> bytes:
    # Recursion is bounded by the 256 bits of a path.
    if isinstance(node, _Leaf):
        return _leaf_hash(_sha256(node.key), _sha256(node.value))
    if node.digest is None:
        node.digest = _sha256(_INNER[node.bit] + _digest(node.left) + _digest(node.right))
    return node.digest
