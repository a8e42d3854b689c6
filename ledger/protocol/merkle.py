"""Merkle trees of RFC 9162 (Certificate Transparency 2.0) section 2.1, with SHA-256.

    empty tree   SHA-256 of nothing
    leaf         SHA-256(0x00 || data)
    inner node   SHA-256(0x01 || left || right), left the largest full power of two of leaves

The functions that build take a whole list of leaf data and keep O(log n) hashes; a log that grows
is ledger.merkle. The functions that verify are the algorithms of sections 2.1.3.2 and 2.1.4.2,
with every input from outside checked first.

A proof only speaks about a pair (root, size). Size must come from the same signed head as the
root, never from whoever brings the proof: the last leaf of a tree of three has the same path
as the second leaf of a tree of two, so with a size of the prover's choice the position means
nothing.

Left out: signatures, heads, multi-proofs.
"""

import hashlib

from ledger.protocol.errors import BadProof

HASH_SIZE = 32
"""Bytes of every hash here."""

MAX_SIZE = (1 << 64) - 1
"""Largest tree; RFC 9162 section 4.10 gives tree_size 64 bits."""

MAX_PATH = 65
"""Longest consistency path of a tree of MAX_SIZE; inclusion paths have at most 64 hashes."""

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf holding `data` (RFC 9162 section 2.1.1)."""
    h = hashlib.sha256(b"\x00")
    h.update(data)
    return h.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of the inner node over two child hashes (RFC 9162 section 2.1.1)."""
    h = hashlib.sha256(b"\x01")
    h.update(left)
    h.update(right)
    return h.digest()


def root(leaves: list[bytes]) -> bytes:
    """Root of the tree over leaf data, in order (RFC 9162 section 2.1.1)."""
    return _range_root(leaves, 0, len(leaves))


def inclusion_path(leaves: list[bytes], index: int) -> list[bytes]:
    """Hashes that lead from leaf `index` to the root, lowest first (RFC 9162 section 2.1.3.1).

    Raises IndexError if there is no such leaf: that is the caller's mistake, not a bad proof.
    """
    start, stop = 0, len(leaves)
    if not 0 <= index < stop:
        raise IndexError("no such leaf")
    path: list[bytes] = []
    while stop - start > 1:
        middle = start + split(stop - start)
        if index < middle:
            path.append(_range_root(leaves, middle, stop))
            stop = middle
        else:
            path.append(_range_root(leaves, start, middle))
            start = middle
    path.reverse()
    return path


def verify_inclusion(
    root: bytes, leaf_data: bytes, index: int, size: int, path: list[bytes]
) -> None:
    """Check that leaf `index` of the tree (root, size) holds `leaf_data` (RFC 9162 2.1.3.2).

    Raises BadProof, whatever is wrong and whatever the types of the arguments.
    """
    _check_size(size)
    _check_hash(root)
    _check_path(path)
    if type(leaf_data) is not bytes:
        raise BadProof("leaf data is not bytes")
    if type(index) is not int or not 0 <= index < size:
        raise BadProof("no such leaf in the tree")
    if _fold_inclusion(leaf_hash(leaf_data), index, size, path) != root:
        raise BadProof("path does not lead to the root")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: list[bytes]
) -> None:
    """Check that the tree (new_root, new_size) extends (old_root, old_size) (RFC 9162 2.1.4.2).

    The RFC defines 0 < old_size < new_size. Two cases are added: equal sizes need equal roots,
    and every tree extends the empty one, whose root must be EMPTY_ROOT; both take an empty path.

    Raises BadProof, whatever is wrong and whatever the types of the arguments.
    """
    _check_size(old_size)
    _check_size(new_size)
    _check_hash(old_root)
    _check_hash(new_root)
    _check_path(path)
    if old_size > new_size:
        raise BadProof("the newer tree is smaller")
    if old_size == 0 or old_size == new_size:
        _check_trivial(old_size, old_root, new_size, new_root, path)
        return
    fr, sr = _fold_consistency(old_size, old_root, new_size, path)
    if fr != old_root or sr != new_root:
        raise BadProof("path does not lead to the roots")


def split(size: int) -> int:
    """Largest power of two below `size`, which is at least 2: the leaves of the left subtree."""
    k = 1
    while k << 1 < size:
        k <<= 1
    return k


def fold(subtrees: list[bytes]) -> bytes:
    """Root over the hashes of complete subtrees, largest first, at least one."""
    i = len(subtrees) - 1
    r = subtrees[i]
    while i:
        i -= 1
        r = node_hash(subtrees[i], r)
    return r


def _range_root(leaves: list[bytes], start: int, stop: int) -> bytes:
    # Equal neighbours merge like the carries of a binary counter, so that only one hash for
    # each set bit of the count is held.
    if start == stop:
        return EMPTY_ROOT
    subtrees: list[bytes] = []
    for i in range(start, stop):
        r = leaf_hash(leaves[i])
        carry = i - start
        while carry & 1:
            r = node_hash(subtrees.pop(), r)
            carry >>= 1
        subtrees.append(r)
    return fold(subtrees)


def _fold_inclusion(r: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    fn, sn = index, size - 1
    for p in path:
        if sn == 0:
            raise BadProof("path too long")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            fn, sn = _skip_missing(fn, sn)
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise BadProof("path too short")
    return r


def _skip_missing(fn: int, sn: int) -> tuple[int, int]:
    # The last node of a level without a sibling is carried up unhashed: no path entry.
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _fold_consistency(
    old_size: int, old_root: bytes, new_size: int, path: list[bytes]
) -> tuple[bytes, bytes]:
    if not path:
        raise BadProof("path too short")
    # The root of a full old tree is itself the first hash, and is left out of the path.
    i = 0 if old_size & (old_size - 1) == 0 else 1
    fr = sr = path[0] if i else old_root
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    while i < len(path):
        if sn == 0:
            raise BadProof("path too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(path[i], fr), node_hash(path[i], sr)
            fn, sn = _skip_missing(fn, sn)
        else:
            sr = node_hash(sr, path[i])
        fn, sn, i = fn >> 1, sn >> 1, i + 1
    if sn:
        raise BadProof("path too short")
    return fr, sr


def _check_trivial(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: list[bytes]
) -> None:
    if path:
        raise BadProof("path too long")
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise BadProof("an empty tree has another root")
    if old_size == new_size and old_root != new_root:
        raise BadProof("two roots for one size")


# type() rather than isinstance(): True is an int on CPython and not on MicroPython.


def _check_size(size: int) -> None:
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise BadProof("not a tree size")


def _check_hash(value: bytes) -> None:
    if type(value) is not bytes or len(value) != HASH_SIZE:
        raise BadProof("not a hash")


def _check_path(path: list[bytes]) -> None:
    if type(path) not in (list, tuple) or len(path) > MAX_PATH:
        raise BadProof("not a path")
    for value in path:
        _check_hash(value)
