"""The growing log against the recursive definitions, and after faults of its store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.merkle import Log, MemoryNodes
from ledger.protocol import merkle
from tools.vectors import merkle as naive


class CountingNodes(MemoryNodes):
    """Counts reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, level: int, index: int) -> bytes:
        self.reads += 1
        return super().get(level, index)


class FailingNodes(MemoryNodes):
    """Refuses to write a place once its fuse has burnt down."""

    fuse = -1

    def put(self, level: int, index: int, digest: bytes) -> None:
        if self.fuse == 0:
            raise OSError("disk full")
        self.fuse -= 1
        super().put(level, index, digest)


def _filled(size: int, nodes: MemoryNodes | None = None) -> tuple[Log, list[bytes]]:
    leaves = [b"leaf %d" % i for i in range(size)]
    log = Log(nodes or MemoryNodes())
    for leaf in leaves:
        log.append(leaf)
    return log, leaves


def test_empty_log_has_the_empty_root() -> None:
    log = Log(MemoryNodes())
    assert (log.size, log.root()) == (0, merkle.EMPTY_ROOT)


def test_append_returns_the_index_and_moves_the_size() -> None:
    log = Log(MemoryNodes())
    assert [log.append(b"") for _ in range(3)] == [0, 1, 2]
    assert log.size == 3


@given(st.lists(st.binary(max_size=20), max_size=70))
def test_root_of_every_size_is_the_recursive_definition(leaves: list[bytes]) -> None:
    log = Log(MemoryNodes())
    for count, leaf in enumerate(leaves):
        log.append(leaf)
        assert log.root() == naive.tree_root(leaves[: count + 1])
    for size in range(len(leaves) + 1):
        assert log.root(size) == naive.tree_root(leaves[:size])


def test_every_inclusion_up_to_40_is_the_definition_and_verifies() -> None:
    log, leaves = _filled(40)
    for size in range(1, 41):
        for index in range(size):
            path = log.inclusion(index, size)
            assert path == naive.tree_inclusion(leaves[:size], index)
            merkle.verify_inclusion(log.root(size), leaves[index], index, size, path)
    assert log.inclusion(7) == log.inclusion(7, 40)


def test_every_consistency_up_to_40_is_the_definition_and_verifies() -> None:
    log, leaves = _filled(40)
    for new in range(41):
        for old in range(new + 1):
            path = log.consistency(old, new)
            assert path == naive.tree_consistency(leaves[:new], old)
            merkle.verify_consistency(old, log.root(old), new, log.root(new), path)
    assert log.consistency(7) == log.consistency(7, 40)


@pytest.mark.parametrize("size", range(35))
def test_reopened_log_goes_on_as_if_never_closed(size: int) -> None:
    nodes = MemoryNodes()
    _, leaves = _filled(size, nodes)
    again = Log(nodes, size)
    assert again.root() == naive.tree_root(leaves)
    again.append(b"more")
    assert again.root() == naive.tree_root([*leaves, b"more"])


@given(st.integers(0, 40), st.integers(0, 40))
def test_log_reopened_at_an_older_size_overwrites_what_lay_beyond(keep: int, lost: int) -> None:
    nodes = MemoryNodes()
    _, leaves = _filled(keep + lost, nodes)
    log = Log(nodes, keep)
    leaves = leaves[:keep]
    for i in range(lost + 3):
        leaves.append(b"other %d" % i)
        log.append(leaves[-1])
    assert log.root() == naive.tree_root(leaves)
    for index in range(len(leaves)):
        assert log.inclusion(index) == naive.tree_inclusion(leaves, index)


@pytest.mark.parametrize("fuse", range(6))
def test_append_that_fails_at_any_write_leaves_the_log_as_it_was(fuse: int) -> None:
    nodes = FailingNodes()
    log, leaves = _filled(31, nodes)  # the next append writes six places
    nodes.fuse = fuse
    with pytest.raises(OSError, match="disk full"):
        log.append(b"next")
    assert (log.size, log.root()) == (31, naive.tree_root(leaves))
    nodes.fuse = -1
    log.append(b"next")
    assert log.root() == naive.tree_root([*leaves, b"next"])


def test_proofs_read_a_logarithmic_number_of_nodes() -> None:
    nodes = CountingNodes()
    size = (1 << 12) - 1  # the most ragged right edge
    log, _ = _filled(size, nodes)
    assert nodes.reads == 0
    for ask in (
        lambda: log.inclusion(1),
        lambda: log.consistency(1000),
        lambda: log.root(size - 1),
    ):
        nodes.reads = 0
        ask()
        assert nodes.reads <= 2 * 12


def test_positions_outside_the_log_raise_index_error() -> None:
    log, _ = _filled(5)
    for ask in (
        lambda: log.root(6),
        lambda: log.root(-1),
        lambda: log.inclusion(5),
        lambda: log.inclusion(-1),
        lambda: log.inclusion(3, 3),
        lambda: log.inclusion(0, 6),
        lambda: log.consistency(6),
        lambda: log.consistency(-1),
        lambda: log.consistency(3, 2),
        lambda: log.consistency(3, 6),
    ):
        with pytest.raises(IndexError):
            ask()
    with pytest.raises(ValueError, match="negative"):
        Log(MemoryNodes(), -1)


def test_missing_node_raises_lookup_error() -> None:
    with pytest.raises(LookupError):
        Log(MemoryNodes(), 3)
