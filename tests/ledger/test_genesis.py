"""Genesis bytes: one encoding, checked limits, one declared error (SPEC 11.1, 13.1)."""

import dataclasses
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.genesis import (
    MAX_POWER,
    MAX_VALIDATORS,
    GenesisValidator,
    Parameters,
    RegionGenesis,
    WideGenesis,
    addresses,
    check_validator_key,
)
from ledger.protocol import cbor, cose
from ledger.protocol.errors import InvalidKey, MalformedRecord, ProtocolError
from tests.ledger.keys_of import ed25519, signer
from tests.ledger.regional.generate import Region

REGION = Region(4, cluster_size=2)
GENESIS, WIDE = REGION.genesis, REGION.wide_genesis
KEYS = [signer(f"genesis {i}").public_key for i in range(40)]
OFF_CURVE = b"\x02" + b"\xff" * 32
VALIDATORS = tuple(
    GenesisValidator(f"node-{i}", ed25519(f"node {i}"), 10 + i) for i in range(MAX_VALIDATORS + 1)
)
SERVED = dataclasses.replace(GENESIS, validators=VALIDATORS[:4])
MANAGED = dataclasses.replace(
    WIDE, operators=tuple(KEYS[:3]), threshold=2, validators=VALIDATORS[:4]
)


def changed(genesis, at: int, value) -> bytes:
    fields = cbor.loads(genesis.encode())
    fields[at] = value
    return cbor.dumps(fields)


@pytest.mark.parametrize(
    ("genesis", "kind"),
    [
        (GENESIS, RegionGenesis),
        (SERVED, RegionGenesis),
        (WIDE, WideGenesis),
        (MANAGED, WideGenesis),
        (dataclasses.replace(MANAGED, validators=()), WideGenesis),
        (dataclasses.replace(WIDE, validators=VALIDATORS[:1]), WideGenesis),
    ],
)
def test_bytes_are_decoded_to_the_same_genesis(genesis, kind):
    data = genesis.encode()
    assert kind.decode(data) == genesis
    assert kind.decode(data).encode() == data
    assert genesis.digest == kind.decode(data).digest == sha256(data).digest()
    assert genesis.chain == sha256(data).digest()[:8]


def test_layout_is_the_clauses():
    fields = cbor.loads(GENESIS.encode())
    assert fields[:3] == [1, 1, "test"]
    assert fields[4] == [60, 11, 8, 5]
    assert fields[5:8] == [list(GENESIS.operators), 2, list(GENESIS.gateways)]
    assert fields[8] == [[key, cluster] for key, cluster in GENESIS.members]
    assert cbor.loads(WIDE.encode())[:3] == [2, 1, "wide"]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 2), (0, True), (1, 2), (1, True), (1, 0),
        (2, "x" * 65), (2, b"x"),
        (3, -1), (3, 1 << 40), (3, True),
        (4, [0, 11, 8, 5]), (4, [86_401, 11, 8, 5]), (4, [60, 2, 8, 5]), (4, [60, 256, 8, 5]),
        (4, [60, 11, 0, 5]), (4, [60, 11, 65_536, 5]), (4, [60, 11, 8, 0]),
        (4, [60, 11, 8, 65_536]), (4, [60, 11, 8]), (4, [60, 11, 8, 5, 1]), (4, None),
        (5, []), (5, KEYS[:33]), (5, [KEYS[0]] * 2), (5, [KEYS[0][:32]]), (5, None),
        (6, 0), (6, 4), (6, True),
        (7, []), (7, KEYS[:17]), (7, [KEYS[0]] * 2),
        (8, [[KEYS[0], "a"], [KEYS[0], "b"]]), (8, [[KEYS[0]]]), (8, [[KEYS[0], ""]]),
        (8, [[KEYS[0], "a/b"]]), (8, [[KEYS[0], "a" * 33]]), (8, [[KEYS[0], "é"]]), (8, None),
    ],
)  # fmt: skip
def test_regional_field_out_of_its_range_is_malformed(at, value):
    with pytest.raises(MalformedRecord):
        RegionGenesis.decode(changed(GENESIS, at, value))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 1), (0, True), (1, True), (1, 2), (2, "x" * 65), (3, 1 << 40), (4, None),
        (4, [[bytes(7), [KEYS[0]]]]), (4, [[bytes(8), []]]), (4, [[bytes(8)]]),
        (4, [[bytes(8), KEYS[:17]]]), (4, [[bytes(8), [KEYS[0]] * 2]]),
        (4, [[bytes(8), [KEYS[0]]], [bytes(8), [KEYS[1]]]]),
    ],
)  # fmt: skip
def test_wide_field_out_of_its_range_is_malformed(at, value):
    with pytest.raises(MalformedRecord):
        WideGenesis.decode(changed(WIDE, at, value))


@pytest.mark.parametrize("at", [5, 7, 8])
def test_key_that_is_no_point_is_refused(at):
    value = [[OFF_CURVE, "a"]] if at == 8 else [OFF_CURVE]
    fields = cbor.loads(changed(GENESIS, at, value))
    fields[6] = 1
    with pytest.raises(InvalidKey):
        RegionGenesis.decode(cbor.dumps(fields))
    with pytest.raises(InvalidKey):
        WideGenesis.decode(changed(WIDE, 4, [[bytes(8), [OFF_CURVE]]]))


def test_limits_are_allowed():
    fields = [1, 1, "x" * 64, (1 << 40) - 1, [86_400, 255, 65_535, 65_535], KEYS[:32], 32]
    data = cbor.dumps([*fields, KEYS[:16], [[KEYS[39], "a" * 32]]])
    assert RegionGenesis.decode(data).encode() == data
    small = cbor.dumps([1, 1, "", 0, [1, 3, 1, 1], KEYS[:1], 1, KEYS[:1], []])
    assert RegionGenesis.decode(small).encode() == small
    # an operator may run a gateway, and a meter may be anything
    same = cbor.dumps([1, 1, "", 0, [1, 3, 1, 1], KEYS[:1], 1, KEYS[:1], [[KEYS[0], "a"]]])
    assert RegionGenesis.decode(same).operators == (KEYS[0],)


@pytest.mark.parametrize("decode", [RegionGenesis.decode, WideGenesis.decode])
def test_bytes_that_are_not_one_canonical_value_are_malformed(decode):
    data = (GENESIS if decode == RegionGenesis.decode else WIDE).encode()
    for spoiled in (b"", data[:-1], data + b"\0", b"\x98" + bytes([data[0] & 31]) + data[1:]):
        with pytest.raises(MalformedRecord):
            decode(spoiled)
    for other in (b"\x01", b"\x80", b"\xf6", cbor.dumps([1, 1])):
        with pytest.raises(MalformedRecord):
            decode(other)


def test_every_field_is_in_the_digest():
    digests = {GENESIS.digest}
    for at, value in ((2, "tesu"), (3, 1), (4, [61, 11, 8, 5]), (5, KEYS[:2]), (6, 1), (8, [])):
        digests.add(RegionGenesis.decode(changed(GENESIS, at, value)).digest)
    assert len(digests) == 7


@settings(max_examples=300)
@given(st.data())
def test_mutated_genesis_gives_a_value_with_these_bytes_or_one_declared_error(data):
    genesis = data.draw(st.sampled_from([GENESIS, WIDE, SERVED, MANAGED]))
    raw = bytearray(genesis.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        if data.draw(st.booleans()):
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            raw[at : at + 1] = data.draw(st.binary(max_size=3))
    for decode in (RegionGenesis.decode, WideGenesis.decode):
        try:
            found = decode(bytes(raw))
        except ProtocolError:
            continue
        assert found.encode() == bytes(raw)


@given(st.binary(max_size=300))
def test_random_bytes_give_one_declared_error(raw):
    for decode in (RegionGenesis.decode, WideGenesis.decode):
        with pytest.raises(ProtocolError):
            decode(raw)


# version 2: validators, and operators of a wide-area chain


def test_layout_of_version_2_is_the_clauses():
    validators = [[f"node-{i}", ed25519(f"node {i}"), 10 + i] for i in range(4)]
    served, managed = cbor.loads(SERVED.encode()), cbor.loads(MANAGED.encode())
    assert served[:2] == [1, 2]
    assert served[2:] == [*cbor.loads(GENESIS.encode())[2:], validators]
    assert managed[:2] == [2, 2]
    assert managed[2:] == [*cbor.loads(WIDE.encode())[2:], KEYS[:3], 2, validators]


def test_version_1_is_written_where_there_is_nothing_to_add():
    assert cbor.loads(dataclasses.replace(SERVED, validators=()).encode())[1] == 1
    assert dataclasses.replace(SERVED, validators=()).digest == GENESIS.digest
    bare = dataclasses.replace(MANAGED, operators=(), threshold=0, validators=())
    assert bare.encode() == WIDE.encode()


FIRST, SECOND = (list(v) for v in VALIDATORS[:2])
BROKEN_VALIDATORS = {
    "none": [],
    "null": None,
    "too many": [list(v) for v in VALIDATORS],
    "one name twice": [FIRST, [FIRST[0], *SECOND[1:]]],
    "one key twice": [FIRST, [SECOND[0], FIRST[1], 1]],
    "two fields": [FIRST[:2]],
    "four fields": [[*FIRST, 1]],
    "no name": [["", *FIRST[1:]]],
    "name of 33": [["a" * 33, *FIRST[1:]]],
    "name with a dot": [["a.b", *FIRST[1:]]],
    "name as bytes": [[b"a", *FIRST[1:]]],
    "power 0": [[*FIRST[:2], 0]],
    "power beyond the limit": [[*FIRST[:2], MAX_POWER + 1]],
    "power true": [[*FIRST[:2], True]],
    "key of 31 bytes": [["a", FIRST[1][:31], 1]],
    "key of a meter": [["a", KEYS[0], 1]],
}


@pytest.mark.parametrize("value", BROKEN_VALIDATORS.values(), ids=list(BROKEN_VALIDATORS))
def test_broken_validators_are_malformed(value):
    with pytest.raises(MalformedRecord):
        RegionGenesis.decode(changed(SERVED, 9, value))
    if value != []:
        with pytest.raises(MalformedRecord):
            WideGenesis.decode(changed(MANAGED, 7, value))


@pytest.mark.parametrize(
    ("at", "value"),
    [(5, []), (5, None), (5, KEYS[:33]), (5, [KEYS[0]] * 2), (6, 0), (6, 4), (6, True), (6, None)],
)
def test_wide_operators_out_of_their_range_are_malformed(at, value):
    with pytest.raises(MalformedRecord):
        WideGenesis.decode(changed(MANAGED, at, value))


def test_version_2_with_nothing_added_is_malformed():
    """Else one genesis had two encodings."""
    with pytest.raises(MalformedRecord, match="names operators or validators"):
        WideGenesis.decode(cbor.dumps([2, 2, *cbor.loads(WIDE.encode())[2:], [], 0, []]))


def test_length_and_version_belong_together():
    served, managed = cbor.loads(SERVED.encode()), cbor.loads(MANAGED.encode())
    for version in (1, 3, True, None):
        with pytest.raises(MalformedRecord):
            RegionGenesis.decode(cbor.dumps([1, version, *served[2:]]))
        with pytest.raises(MalformedRecord):
            WideGenesis.decode(cbor.dumps([2, version, *managed[2:]]))
    for fields, decode in ((served, RegionGenesis.decode), (managed, WideGenesis.decode)):
        for spoiled in (fields[:-1], [*fields, 0]):
            with pytest.raises(MalformedRecord):
                decode(cbor.dumps(spoiled))


def test_hundred_validators_are_allowed():
    full = dataclasses.replace(SERVED, validators=VALIDATORS[:MAX_VALIDATORS])
    assert RegionGenesis.decode(full.encode()) == full


NO_POINTS = {
    "not on the curve": (2).to_bytes(32, "little"),
    "y beyond the field": ((1 << 255) - 1).to_bytes(32, "little"),
    "another encoding of a point": ((1 << 255) - 19 + 3).to_bytes(32, "little"),
    "the neutral point": (1).to_bytes(32, "little"),
    "order 2": ((1 << 255) - 20).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 4, other sign": bytes(31) + b"\x80",
    # RFC 8032's curve has four points of order 8, with two y; this is one of their encodings
    "order 8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
}


@pytest.mark.parametrize("key", NO_POINTS.values(), ids=list(NO_POINTS))
def test_validator_key_that_anybody_or_nobody_can_sign_for_is_refused(key):
    with pytest.raises(InvalidKey):
        check_validator_key(key)
    with pytest.raises(InvalidKey):
        RegionGenesis.decode(changed(SERVED, 9, [["a", key, 1]]))
    with pytest.raises(InvalidKey):
        WideGenesis.decode(changed(MANAGED, 7, [["a", key, 1]]))


@given(st.binary(min_size=32, max_size=32))
def test_key_of_any_secret_is_taken(seed):
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    check_validator_key(key)


def test_addresses_are_of_the_keys():
    table = addresses(GENESIS.operators)
    assert table == {cose.address_of(key): key for key in GENESIS.operators}


def test_parameters_have_the_documented_defaults():
    assert Parameters().encode() == [60, 11, 96, 15]
    assert Parameters.decode(Parameters().encode()) == Parameters()
