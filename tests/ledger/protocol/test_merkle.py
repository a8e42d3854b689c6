"""Properties of RFC 9162 trees, against the definitions in tools.vectors.merkle."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import merkle
from ledger.protocol.errors import BadProof
from tools.vectors import merkle as naive

_VECTORS = Path(__file__).parents[2] / "vectors"

trees = st.lists(st.binary(max_size=40), min_size=1, max_size=70, unique=True)
hashes = st.binary(min_size=32, max_size=32)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
    | st.binary(max_size=40) | hashes,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)  # fmt: skip
sizes = st.integers(-2, 100) | st.integers() | junk
paths = st.lists(hashes, max_size=70) | st.lists(junk, max_size=5) | junk


def _walk(index: int, size: int) -> str:
    """Sides of the siblings from the leaf up; a path speaks for all positions with one walk."""
    if size == 1:
        return ""
    k = naive._split(size)
    return _walk(index, k) + "R" if index < k else _walk(index - k, size - k) + "L"


def test_roots_are_those_that_certificate_transparency_publishes() -> None:
    # certificate-transparency-go and its kin test on these eight leaves.
    roots = [merkle.root(naive._LEAVES[:size]).hex() for size in range(1, 9)]
    assert roots == [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_root_is_the_recursive_definition(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == naive.tree_root(leaves)


@given(trees, st.data())
def test_inclusion_path_is_the_recursive_definition_and_verifies(
    leaves: list[bytes], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.inclusion_path(leaves, index)
    assert path == naive.tree_inclusion(leaves, index)
    merkle.verify_inclusion(merkle.root(leaves), leaves[index], index, len(leaves), path)


@given(trees, st.data())
def test_inclusion_with_any_changed_byte_is_refused(
    leaves: list[bytes], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    parts = [merkle.root(leaves), leaves[index], *merkle.inclusion_path(leaves, index)]
    place = data.draw(st.integers(0, len(parts) - 1).filter(lambda i: parts[i]))
    at = data.draw(st.integers(0, len(parts[place]) - 1))
    changed = bytearray(parts[place])
    changed[at] ^= data.draw(st.integers(1, 255))
    parts[place] = bytes(changed)
    with pytest.raises(BadProof):
        merkle.verify_inclusion(parts[0], parts[1], index, len(leaves), parts[2:])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 20])
def test_inclusion_verifies_exactly_where_the_walk_is_the_same(size: int) -> None:
    leaves = [b"%d" % i for i in range(size)]
    root = merkle.root(leaves)
    for index in range(size):
        path = merkle.inclusion_path(leaves, index)
        for other_size in range(1, 45):
            for other in range(other_size):
                same = _walk(index, size) == _walk(other, other_size)
                assert _accepted(root, leaves[index], other, other_size, path) == same
                # Where the size is trusted, and it must be, the position is one and only.
                assert not (same and other_size == size and other != index)


def _accepted(root: bytes, leaf: bytes, index: int, size: int, path: list[bytes]) -> bool:
    try:
        merkle.verify_inclusion(root, leaf, index, size, path)
    except BadProof:
        return False
    return True


def test_consistency_verifies_for_every_pair_up_to_40() -> None:
    leaves = [b"%d" % i for i in range(40)]
    roots = [merkle.root(leaves[:size]) for size in range(41)]
    for new in range(41):
        for old in range(new + 1):
            path = naive.tree_consistency(leaves[:new], old)
            merkle.verify_consistency(old, roots[old], new, roots[new], path)


@given(st.integers(1, 60), st.integers(2, 60), st.data())
def test_consistency_with_any_changed_byte_is_refused(
    old: int, new: int, data: st.DataObject
) -> None:
    old, new = sorted((old, new))
    leaves = [b"%d" % i for i in range(new)]
    parts = [merkle.root(leaves[:old]), merkle.root(leaves)]
    parts += naive.tree_consistency(leaves, old)
    place, at = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 31))
    changed = bytearray(parts[place])
    changed[at] ^= data.draw(st.integers(1, 255))
    parts[place] = bytes(changed)
    with pytest.raises(BadProof):
        merkle.verify_consistency(old, parts[0], new, parts[1], parts[2:])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 39))
def test_history_with_one_old_leaf_changed_has_no_consistency_path(
    old: int, new: int, changed: int
) -> None:
    old, new = sorted((old, new))
    leaves = [b"%d" % i for i in range(new)]
    rewritten = list(leaves)
    rewritten[changed % old] = b"rewritten"
    for tree in (leaves, rewritten):
        path = naive.tree_consistency(tree, old)
        with pytest.raises(BadProof):
            merkle.verify_consistency(
                old, merkle.root(leaves[:old]), new, merkle.root(rewritten), path
            )


@given(hashes | junk, st.binary(max_size=9) | junk, sizes, sizes, paths)
def test_verify_inclusion_of_anything_passes_or_raises_bad_proof(
    root: bytes, leaf: bytes, index: int, size: int, path: list[bytes]
) -> None:
    _accepted(root, leaf, index, size, path)


@given(sizes, hashes | junk, sizes, hashes | junk, paths)
def test_verify_consistency_of_anything_passes_or_raises_bad_proof(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: list[bytes]
) -> None:
    try:
        merkle.verify_consistency(old_size, old_root, new_size, new_root, path)
    except BadProof:
        return
    # Nobody finds a preimage by chance: only the two cases without a path can have passed.
    assert path in ([], ())
    assert old_size == 0 or (old_size == new_size and old_root == new_root)
