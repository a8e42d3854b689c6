"""A growing Merkle log (RFC 9162 section 2.1) that answers proofs in O(log n).

The hash of every complete subtree is kept: place (level, index) covers the leaves
[index << level, (index + 1) << level), level 0 being the leaf hashes. Such a hash never changes
once its leaves are there, so a log is fully described by its nodes and its size, and the
ragged right edge is recomputed from at most one hash a level.

The size is the only thing that says how far the log goes. A store that writes nodes and size in
one transaction, or nodes first and size later, can always reopen the log with `Log(nodes, size)`;
nodes beyond the size are leftovers and are overwritten.

Left out: leaf data (the log keeps hashes only), persistence, locking.
"""

from typing import Protocol

from ledger.protocol.merkle import EMPTY_ROOT, fold, leaf_hash, node_hash, split


class Nodes(Protocol):
    """Where a log keeps the hashes of its complete subtrees."""

    def get(self, level: int, index: int) -> bytes:
        """The 32-byte hash at a place; raises LookupError if none was put there."""

    def put(self, level: int, index: int, digest: bytes) -> None:
        """Keep a hash. The same place may be put again, with another hash, after a rollback."""


class MemoryNodes:
    """Nodes in lists, one a level; what a log puts is always dense."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = []

    def get(self, level: int, index: int) -> bytes:
        """See Nodes."""
        return self._levels[level][index]

    def put(self, level: int, index: int, digest: bytes) -> None:
        """See Nodes."""
        if level == len(self._levels):
            self._levels.append([])
        row = self._levels[level]
        if index == len(row):
            row.append(digest)
        else:
            row[index] = digest


class Log:
    """An append-only Merkle log over `nodes`, of which the first `size` leaves count.

    Not safe for use from several threads at once. After an append that raised, the log is as it
    was before. Positions outside the log raise IndexError.
    """

    def __init__(self, nodes: Nodes, size: int = 0) -> None:
        if size < 0:
            raise ValueError("a log has no negative size")
        self._nodes = nodes
        self._size = size
        # Hashes of the complete subtrees that the log is made of, largest first.
        self._edge = self._subtrees(0, size)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def append(self, data: bytes) -> int:
        """Add a leaf and return its index."""
        level, index, digest = 0, self._size, leaf_hash(data)
        self._nodes.put(level, index, digest)
        while index & 1:
            digest = node_hash(self._edge[-1 - level], digest)
            level, index = level + 1, index >> 1
            self._nodes.put(level, index, digest)
        # Only now, for a put that fails must leave the edge as it was.
        del self._edge[len(self._edge) - level :]
        self._edge.append(digest)
        self._size += 1
        return self._size - 1

    def root(self, size: int | None = None) -> bytes:
        """Root of the whole log, or of its first `size` leaves."""
        size = self._checked(size)
        if size == 0:
            return EMPTY_ROOT
        return fold(self._edge if size == self._size else self._subtrees(0, size))

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Path of leaf `index` in the tree of the first `size` leaves (RFC 9162 2.1.3.1)."""
        start, stop = 0, self._checked(size)
        if not 0 <= index < stop:
            raise IndexError(f"leaf {index} is not among the first {stop}")
        path = []
        while stop - start > 1:
            middle = start + split(stop - start)
            if index < middle:
                path.append(self._range_root(middle, stop))
                stop = middle
            else:
                path.append(self._range_root(start, middle))
                start = middle
        path.reverse()
        return path

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Path from the tree of `old` leaves to that of `new` leaves (RFC 9162 2.1.4.1).

        Empty if `old` is 0 or equals `new`, as verify_consistency expects it.
        """
        start, stop = 0, self._checked(new)
        if not 0 <= old <= stop:
            raise IndexError(f"{old} leaves are not among the first {stop}")
        if old == 0:
            return []
        path = []
        while stop != old:
            middle = start + split(stop - start)
            if old <= middle:
                path.append(self._range_root(middle, stop))
                stop = middle
            else:
                path.append(self._range_root(start, middle))
                start = middle
        if start:  # else this is the whole old tree, whose root the verifier has
            path.append(self._range_root(start, stop))
        path.reverse()
        return path

    def _checked(self, size: int | None) -> int:
        if size is None:
            return self._size
        if not 0 <= size <= self._size:
            raise IndexError(f"the log has {self._size} leaves, not {size}")
        return size

    def _range_root(self, start: int, stop: int) -> bytes:
        return fold(self._subtrees(start, stop))

    def _subtrees(self, start: int, stop: int) -> list[bytes]:
        # start is a multiple of the largest power of two in the count, as splits make it.
        found = []
        while start < stop:
            level = (stop - start).bit_length() - 1
            found.append(self._nodes.get(level, start >> level))
            start += 1 << level
        return found
