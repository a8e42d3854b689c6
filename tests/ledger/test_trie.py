"""The state trie against the formulas as tools.vectors.merkle writes them down."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ledger import trie as module
from ledger.protocol.errors import BadProof
from ledger.trie import EMPTY_ROOT, Proof, Snapshot, Trie, verify
from tools.vectors import merkle as naive

_VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "trie.json").read_text(encoding="utf-8")
)

hashes = st.binary(min_size=32, max_size=32)
keys = st.binary(max_size=2)
contents = st.dictionaries(keys, st.binary(max_size=40), max_size=40)
# Paths alike in almost all bits, so that inner nodes lie close and at every depth.
near_paths = st.sets(st.integers(0, 255), max_size=3).map(
    lambda bits: sum(1 << bit for bit in bits).to_bytes(32, "big")
)


def _of(content: dict[bytes, bytes]) -> Trie:
    trie = Trie()
    for key, value in content.items():
        trie.set(key, value)
    return trie


def _expected(content: dict[bytes, bytes]) -> bytes:
    return naive.trie_root([naive.trie_leaf(*entry) for entry in content.items()])


def _accepted(root: bytes, key: bytes, value: bytes | None, proof: Proof) -> bool:
    try:
        verify(root, key, value, proof)
    except BadProof:
        return False
    return True


@contextmanager
def _keys_as_paths() -> Iterator[None]:
    """Lets a key of 32 bytes be its own path: SHA-256 would take for ever to find deep ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "_sha256", lambda data: data if len(data) == 32 else sha256(data).digest()
        )
        yield


# ---------------------------------------------------------------------------------------- vectors


def test_roots_are_those_of_the_vectors() -> None:
    trie = Trie()
    roots = [trie.root().hex()]
    for key, value in _VECTORS["entries"]:
        trie.set(bytes.fromhex(key), bytes.fromhex(value))
        roots.append(trie.root().hex())
    assert roots == _VECTORS["roots"]
    assert roots[0] == EMPTY_ROOT.hex()


@pytest.mark.parametrize("case", _VECTORS["proofs"], ids=lambda case: case["note"])
def test_proof_verdicts_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    root, key = bytes.fromhex(case["root"]), bytes.fromhex(case["key"])
    value = None if case["value"] is None else bytes.fromhex(case["value"])

    def check() -> None:
        verify(root, key, value, Proof.decode(_unhex(case["proof"])))

    if case["valid"]:
        check()
    else:
        with pytest.raises(BadProof):
            check()


def _unhex(item: Any) -> Any:
    return [_unhex(part) for part in item] if isinstance(item, list) else bytes.fromhex(item)


def test_wrong_turn_vector_fails_by_the_committed_bit_alone() -> None:
    case = next(case for case in _VECTORS["proofs"] if "wrong turn" in case["note"])
    proof = Proof.decode(_unhex(case["proof"]))
    with pytest.raises(BadProof, match="does not lead"):
        verify(bytes.fromhex(case["root"]), bytes.fromhex(case["key"]), None, proof)
    # Without the bit in the hash the false proof and the true trie come to the same root.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_INNER", [b"\x12"] * 256)
        trie = _of({bytes.fromhex(k): bytes.fromhex(v) for k, v in _VECTORS["entries"]})
        verify(trie.root(), bytes.fromhex(case["key"]), None, _relinked(trie, case, proof))


def _relinked(trie: Trie, case: dict[str, Any], proof: Proof) -> Proof:
    """The false proof with the siblings that they are under the changed node formula."""
    true = trie.prove(bytes.fromhex(case["key"]))
    return Proof(proof.bits, (*true.siblings[:-1], proof.siblings[-1]), proof.other)


# ----------------------------------------------------------------------------------------- content


@given(contents)
def test_root_is_the_naive_recomputation(content: dict[bytes, bytes]) -> None:
    assert _of(content).root() == _expected(content)


@given(contents, st.randoms(use_true_random=False))
def test_root_does_not_depend_on_the_order_of_insertion(
    content: dict[bytes, bytes], order: random.Random
) -> None:
    shuffled = list(content.items())
    order.shuffle(shuffled)
    assert _of(dict(shuffled)).root() == _of(content).root()


@given(contents, contents)
def test_delete_restores_the_root(content: dict[bytes, bytes], added: dict[bytes, bytes]) -> None:
    trie = _of(content)
    before = trie.root()
    added = {key: value for key, value in added.items() if key not in content}
    for key, value in added.items():
        trie.set(key, value)
    trie.root()
    for key in added:
        trie.delete(key)
    assert trie.root() == before
    assert len(trie) == len(content)


@given(contents)
def test_iteration_is_in_the_order_of_the_keys_hashes(content: dict[bytes, bytes]) -> None:
    ordered = sorted(content.items(), key=lambda entry: sha256(entry[0]).digest())
    assert list(_of(content)) == ordered


def test_iteration_shows_the_state_at_its_first_step() -> None:
    trie = _of({b"a": b"1", b"b": b"2", b"c": b"3"})
    before = list(trie)
    seen = []
    for key, value in trie:
        seen.append((key, value))
        trie.delete(key)
        trie.set(b"new " + key, b"")
    assert seen == before


def test_deleting_an_absent_key_raises_key_error_and_changes_nothing() -> None:
    trie = Trie()
    with pytest.raises(KeyError):
        trie.delete(b"a")
    trie.set(b"a", b"1")
    before = trie.root()
    with pytest.raises(KeyError):
        trie.delete(b"b")
    assert (trie.root(), len(trie)) == (before, 1)


def test_empty_value_is_present() -> None:
    trie = _of({b"a": b""})
    assert trie.get(b"a") == b""
    verify(trie.root(), b"a", b"", trie.prove(b"a"))
    assert not _accepted(trie.root(), b"a", None, trie.prove(b"a"))


def test_many_updates_hash_each_changed_inner_node_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trie = _of({b"%d" % i: b"0" for i in range(500)})
    trie.root()
    hashed: list[bytes] = []

    def counted(data: bytes) -> bytes:
        if len(data) == 66 and data[0] == 0x12:
            hashed.append(data)
        return sha256(data).digest()

    monkeypatch.setattr(module, "_sha256", counted)
    for turn in range(3):
        for i in range(500):
            trie.set(b"%d" % i, b"%d" % (turn + 1))
    assert hashed == []
    trie.root()
    assert len(hashed) == 499
    trie.root()
    trie.set(b"7", b"3")  # the value that it has
    trie.root()
    assert len(hashed) == 499
    trie.set(b"7", b"other")
    trie.root()
    assert len(hashed) == 499 + len(trie.prove(b"7").bits)


# ------------------------------------------------------------------------------------------ proofs


@given(contents, keys)
def test_proof_is_the_naive_one_and_verifies(content: dict[bytes, bytes], asked: bytes) -> None:
    trie = _of(content)
    leaves = [naive.trie_leaf(*entry) for entry in content.items()]
    for key in [*content, asked]:
        proof = trie.prove(key)
        assert proof.encode() == naive.trie_proof(leaves, sha256(key).digest())
        verify(trie.root(), key, content.get(key), proof)


@given(contents, keys, st.binary(max_size=40), keys)
def test_proof_of_another_value_key_or_absence_is_refused(
    content: dict[bytes, bytes], key: bytes, value: bytes, other: bytes
) -> None:
    trie = _of(content)
    root, proof, true = trie.root(), trie.prove(key), content.get(key)
    for claim in {value, value + b"x", b"", None} - {true}:
        assert not _accepted(root, key, claim, proof)
    for claim in {true, value, None} - {content.get(other)}:
        assert not _accepted(root, other, claim, proof)


@given(contents, keys, st.data())
def test_proof_with_any_changed_byte_is_refused(
    content: dict[bytes, bytes], key: bytes, data: st.DataObject
) -> None:
    trie = _of(content)
    parts = _flat(trie.root(), trie.prove(key))
    places = [(i, j) for i, part in enumerate(parts) for j in range(len(part))]
    i, j = data.draw(st.sampled_from(places))
    changed = bytearray(parts[i])
    changed[j] ^= data.draw(st.integers(1, 255))
    parts[i] = bytes(changed)
    has_other = trie.prove(key).other is not None

    def check() -> None:
        root, proof = _unflat(parts, has_other=has_other)
        verify(root, key, content.get(key), proof)

    with pytest.raises(BadProof):
        check()


def _flat(root: bytes, proof: Proof) -> list[bytes]:
    return [root, proof.bits, *proof.siblings, *(proof.other or ())]


def _unflat(parts: list[bytes], *, has_other: bool) -> tuple[bytes, Proof]:
    root, bits, *rest = parts
    split = len(rest) - 2 * has_other
    return root, Proof(bits, tuple(rest[:split]), (rest[-2], rest[-1]) if has_other else None)


@given(contents, keys)
def test_proof_survives_its_encoding_and_cbor(content: dict[bytes, bytes], key: bytes) -> None:
    proof = _of(content).prove(key)
    assert Proof.decode(proof.encode()) == proof
    assert Proof.decode(cbor2.loads(cbor2.dumps(proof.encode()))) == proof


def test_empty_trie_proves_absence_and_nothing_else() -> None:
    proof = Trie().prove(b"a")
    verify(EMPTY_ROOT, b"a", None, proof)
    assert not _accepted(EMPTY_ROOT, b"a", b"", proof)
    assert not _accepted(_of({b"b": b""}).root(), b"a", None, proof)


# ---------------------------------------------------------------------- every depth, with near keys


@given(st.dictionaries(near_paths, st.binary(max_size=8), max_size=30), near_paths)
def test_paths_alike_in_almost_all_bits_prove_and_verify(
    content: dict[bytes, bytes], asked: bytes
) -> None:
    with _keys_as_paths():
        trie = _of(content)
        leaves = [(key, sha256(value).digest()) for key, value in content.items()]
        assert trie.root() == naive.trie_root(leaves)
        for key in [*content, asked]:
            proof = trie.prove(key)
            assert proof.encode() == naive.trie_proof(leaves, key)
            verify(trie.root(), key, content.get(key), proof)
        assert list(trie) == sorted(content.items())
        for key in content:
            trie.delete(key)
        assert trie.root() == EMPTY_ROOT


def test_deepest_trie_of_256_levels_works() -> None:
    paths = [bytes(32), *((1 << bit).to_bytes(32, "big") for bit in range(256))]
    with _keys_as_paths():
        trie = _of(dict.fromkeys(paths, b"value"))
        proof = trie.prove(bytes(32))
        assert proof.bits == bytes(range(256))
        verify(trie.root(), bytes(32), b"value", Proof.decode(proof.encode()))
        trie.delete(bytes(32))
        verify(trie.root(), bytes(32), None, trie.prove(bytes(32)))


# --------------------------------------------------------------------------- one answer for a root

small_hashes = st.sampled_from([bytes([i]) * 32 for i in range(3)])


@given(st.data())
def test_root_made_by_a_liar_still_allows_one_answer_for_each_key(data: st.DataObject) -> None:
    # A tree of inner nodes with any bits and leaves anywhere, as no honest trie has them. Every
    # way down that an honest search cannot take must be refused.
    key = data.draw(st.sampled_from([b"a", b"b", b"c"]))
    path = sha256(key).digest()
    leaf = data.draw(st.tuples(small_hashes | st.just(path), small_hashes))
    bits = sorted(data.draw(st.sets(st.integers(0, 255), min_size=1, max_size=4)))
    siblings = [data.draw(small_hashes) for _ in bits]
    sides = [data.draw(st.integers(0, 1)) for _ in bits]
    digest = sha256(b"\x11" + leaf[0] + leaf[1]).digest()
    for bit, sibling, side in zip(reversed(bits), reversed(siblings), reversed(sides), strict=True):
        pair = sibling + digest if side else digest + sibling
        digest = sha256(bytes([0x12, bit]) + pair).digest()
    own_way = all(naive._bit(path, bit) == side for bit, side in zip(bits, sides, strict=True))
    proof = Proof(bytes(bits), tuple(siblings), leaf)
    assert _accepted(digest, key, None, proof) == (own_way and leaf[0] != path)


def test_absence_under_an_empty_subtree_is_refused() -> None:
    # No honest trie has one below the top.
    root = sha256(b"\x12\x07" + EMPTY_ROOT + EMPTY_ROOT).digest()
    with pytest.raises(BadProof):
        verify(root, b"a", None, Proof(b"\x07", (EMPTY_ROOT,), None))


# ---------------------------------------------------------------------------------- hostile bytes

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
    | st.binary(max_size=40) | hashes,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)  # fmt: skip
almost = st.tuples(
    st.binary(max_size=4) | junk,
    st.lists(hashes, max_size=4) | junk,
    st.just([]) | st.lists(hashes, min_size=2, max_size=2) | junk,
).map(list)


@given(junk | almost)
def test_decode_of_anything_gives_a_proof_or_bad_proof(item: object) -> None:
    try:
        proof = Proof.decode(item)
    except BadProof:
        return
    assert proof.encode() == item


@given(almost, hashes | junk, st.binary(max_size=4) | junk, st.binary(max_size=4) | junk)
def test_verify_of_anything_decoded_is_refused(
    item: object, root: Any, key: Any, value: Any
) -> None:
    try:
        proof = Proof.decode(item)
        verify(root, key, value, proof)
    except BadProof:
        return
    raise AssertionError("a proof out of thin air")


@pytest.mark.parametrize("key", [None, 1, "a", bytearray(b"a"), [b"a"]])
def test_key_and_value_that_are_no_bytes_are_refused(key: Any) -> None:
    trie = _of({b"a": b"a"})
    proof = trie.prove(b"a")
    assert not _accepted(trie.root(), key, b"a", proof)
    assert not _accepted(trie.root(), b"a", key, proof)


@pytest.mark.parametrize(
    ("bits", "siblings", "other"),
    [
        (None, (), None),
        ([0], (bytes(32),), None),
        (bytearray(b"\x00"), (bytes(32),), None),
        (b"\x00", [bytes(32)], None),
        (b"\x00", (), None),
        (b"", (bytes(32),), None),
        (b"\x00\x00", (bytes(32),) * 2, None),
        (b"\x01\x00", (bytes(32),) * 2, None),
        (b"\x00", (bytes(31),), None),
        (b"\x00", (bytearray(32),), None),
        (b"", (), ()),
        (b"", (), (bytes(32),)),
        (b"", (), (bytes(32),) * 3),
        (b"", (), (bytes(32), bytes(33))),
        (b"", (), [bytes(32)] * 2),
        (b"", (), True),
    ],
)
def test_ill_formed_proof_cannot_be_made(bits: Any, siblings: Any, other: Any) -> None:
    with pytest.raises(BadProof):
        Proof(bits, siblings, other)


# ------------------------------------------------------------------------------------- snapshots


def test_trie_opened_on_a_snapshot_goes_its_own_way() -> None:
    trie = _of({b"a": b"1", b"b": b"2"})
    committed = Trie(trie.snapshot())
    before = committed.root()
    trie.set(b"a", b"tentative")
    trie.delete(b"b")
    assert (committed.root(), committed.get(b"a"), len(committed)) == (before, b"1", 2)
    verify(before, b"b", b"2", committed.prove(b"b"))
    committed.set(b"c", b"3")
    assert trie.get(b"c") is None


class TrieBesideDict(RuleBasedStateMachine):
    """Any sequence of updates and rollbacks, to older and to newer states, beside plain dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.trie = Trie()
        self.model: dict[bytes, bytes] = {}
        self.saved: list[tuple[Snapshot, dict[bytes, bytes], bytes]] = []

    @rule(key=keys, value=st.binary(max_size=3))
    def set(self, key: bytes, value: bytes) -> None:
        self.trie.set(key, value)
        self.model[key] = value

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model)))
        self.trie.delete(key)
        del self.model[key]

    @rule(hash_first=st.booleans())
    def snapshot(self, hash_first: bool) -> None:
        if hash_first:
            self.trie.root()
        self.saved.append((self.trie.snapshot(), dict(self.model), _expected(self.model)))

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        token, model, root = data.draw(st.sampled_from(self.saved))
        self.trie.rollback(token)
        self.model = dict(model)
        assert self.trie.root() == root

    @rule()
    def check_root(self) -> None:
        assert self.trie.root() == _expected(self.model)

    @rule(key=keys)
    def check_proof(self, key: bytes) -> None:
        assert self.trie.get(key) == self.model.get(key)
        verify(_expected(self.model), key, self.model.get(key), self.trie.prove(key))

    @invariant()
    def content_is_the_models(self) -> None:
        assert len(self.trie) == len(self.model)
        assert dict(self.trie) == self.model


TestTrieBesideDict = TrieBesideDict.TestCase
