"""RFC 9162 trees against the shared vectors, on CPython and on MicroPython."""

import json

from ledger.protocol import merkle
from ledger.protocol.errors import BadProof

_VECTORS = __file__.replace("\\", "/").rsplit("/", 3)[0] + "/vectors/merkle.json"
_ZERO = bytes(32)


def _load():
    with open(_VECTORS) as f:
        return json.load(f)


def _hashes(texts):
    return [bytes.fromhex(text) for text in texts]


def _passes(function, *arguments):
    try:
        function(*arguments)
    except BadProof:
        return False
    return True


def test_leaf_and_node_hashes_are_those_of_the_vectors():
    vectors = _load()
    for case in vectors["leaf"]:
        assert merkle.leaf_hash(bytes.fromhex(case["data"])).hex() == case["hash"]
    for case in vectors["node"]:
        left, right = _hashes([case["left"], case["right"]])
        assert merkle.node_hash(left, right).hex() == case["hash"]


def test_roots_are_those_of_the_vectors():
    vectors = _load()
    leaves = _hashes(vectors["leaves"])
    assert len(vectors["roots"]) == len(leaves) + 1
    for size, expected in enumerate(vectors["roots"]):
        assert merkle.root(leaves[:size]).hex() == expected
    assert merkle.EMPTY_ROOT.hex() == vectors["roots"][0]


def test_inclusion_paths_are_those_of_the_vectors():
    vectors = _load()
    leaves = _hashes(vectors["leaves"])
    built = 0
    for case in vectors["inclusion"]:
        if case["valid"]:
            tree = leaves[: case["size"]]
            if merkle.root(tree).hex() == case["root"]:
                path = merkle.inclusion_path(tree, case["index"])
                assert path == _hashes(case["path"]), case["note"]
                built += 1
    assert built == 36


def test_inclusion_of_a_leaf_outside_the_tree_cannot_be_built():
    for leaves, index in (([], 0), ([b"a"], 1), ([b"a"], -1)):
        try:
            merkle.inclusion_path(leaves, index)
        except IndexError:
            continue
        raise AssertionError("a path to no leaf")


def test_inclusion_verdicts_are_those_of_the_vectors():
    refused = 0
    for case in _load()["inclusion"]:
        root, leaf = _hashes([case["root"], case["leaf"]])
        path = _hashes(case["path"])
        arguments = (root, leaf, case["index"], case["size"], path)
        assert _passes(merkle.verify_inclusion, *arguments) == case["valid"], case["note"]
        refused += not case["valid"]
    assert refused == 26


def test_consistency_verdicts_are_those_of_the_vectors():
    refused = 0
    for case in _load()["consistency"]:
        old_root, new_root = _hashes([case["old_root"], case["new_root"]])
        path = _hashes(case["path"])
        arguments = (case["old_size"], old_root, case["new_size"], new_root, path)
        assert _passes(merkle.verify_consistency, *arguments) == case["valid"], case["note"]
        refused += not case["valid"]
    assert refused == 26


_HOSTILE_NUMBERS = (None, True, 1.0, "1", b"1", [1], -1, -(1 << 300), 1 << 64, 1 << 3000)
_HOSTILE_HASHES = (None, 0, True, "a" * 32, b"", bytes(31), bytes(33), bytearray(32), [_ZERO])
_HOSTILE_PATHS = (None, 0, "ab", b"", _ZERO, {}, [None], ["a" * 32], [bytes(31)], [[_ZERO]])


def test_arguments_of_wrong_type_or_range_are_refused_by_inclusion():
    good = [merkle.leaf_hash(b"a"), b"a", 0, 1, []]
    assert _passes(merkle.verify_inclusion, *good)
    hostile = (_HOSTILE_HASHES, (None, 1, "a", bytearray(b"a"), [97]), _HOSTILE_NUMBERS)
    for place, values in enumerate(hostile + (_HOSTILE_NUMBERS, _HOSTILE_PATHS)):
        for value in values:
            bad = good[:place] + [value] + good[place + 1 :]
            assert not _passes(merkle.verify_inclusion, *bad), (place, value)


def test_arguments_of_wrong_type_or_range_are_refused_by_consistency():
    one = merkle.leaf_hash(b"a")
    good = [1, one, 2, merkle.node_hash(one, _ZERO), [_ZERO]]
    assert _passes(merkle.verify_consistency, *good)
    hostile = (_HOSTILE_NUMBERS, _HOSTILE_HASHES, _HOSTILE_NUMBERS, _HOSTILE_HASHES)
    for place, values in enumerate(hostile + (_HOSTILE_PATHS,)):
        for value in values:
            if place == 0 and value is True:
                continue
            bad = good[:place] + [value] + good[place + 1 :]
            assert not _passes(merkle.verify_consistency, *bad), (place, value)
    assert not _passes(merkle.verify_consistency, True, *good[1:])


def test_path_for_the_largest_size_is_verified():
    size = merkle.MAX_SIZE
    root = merkle.leaf_hash(b"a")
    for _ in range(64):
        root = merkle.node_hash(root, _ZERO)
    merkle.verify_inclusion(root, b"a", 0, size, [_ZERO] * 64)
    assert not _passes(merkle.verify_inclusion, root, b"a", 0, size, [_ZERO] * 63)
    assert not _passes(merkle.verify_inclusion, root, b"a", 0, size, [_ZERO] * 65)


def test_size_beyond_64_bits_is_refused_though_its_path_is_right():
    # The last leaf of a tree of 2^64 + 1 hangs directly under the root.
    root = merkle.node_hash(_ZERO, merkle.leaf_hash(b"a"))
    merkle.verify_inclusion(root, b"a", 1 << 63, (1 << 63) + 1, [_ZERO])
    assert not _passes(merkle.verify_inclusion, root, b"a", 1 << 64, (1 << 64) + 1, [_ZERO])


def test_path_longer_than_any_tree_needs_is_refused_before_it_is_hashed():
    # A million entries would take a second to hash on a host, and minutes on a board.
    path = [_ZERO] * (merkle.MAX_PATH + 1)
    hashed = []
    original = merkle.node_hash
    merkle.node_hash = lambda left, right: hashed.append(1) or original(left, right)
    try:
        assert not _passes(merkle.verify_inclusion, _ZERO, b"a", 0, merkle.MAX_SIZE, path)
        assert not _passes(merkle.verify_consistency, 1, _ZERO, merkle.MAX_SIZE, _ZERO, path)
    finally:
        merkle.node_hash = original
    assert hashed == []


def test_tree_of_many_leaves_is_built_without_recursion():
    leaves = [b"%d" % i for i in range(1500)]
    root = merkle.root(leaves)
    for index in (0, 1023, 1024, 1499):
        path = merkle.inclusion_path(leaves, index)
        merkle.verify_inclusion(root, leaves[index], index, len(leaves), path)
