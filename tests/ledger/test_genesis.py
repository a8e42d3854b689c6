"""Genesis bytes: one encoding, checked limits, one declared error (SPEC 11.1, 13.1)."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.genesis import Parameters, RegionGenesis, WideGenesis, addresses
from ledger.protocol import cbor, cose
from ledger.protocol.errors import InvalidKey, MalformedRecord, ProtocolError
from tests.ledger.regional.generate import Region, signer

REGION = Region(4, cluster_size=2)
GENESIS, WIDE = REGION.genesis, REGION.wide_genesis
KEYS = [signer(f"genesis {i}").public_key for i in range(40)]
OFF_CURVE = b"\x02" + b"\xff" * 32


def changed(genesis, at: int, value) -> bytes:
    fields = cbor.loads(genesis.encode())
    fields[at] = value
    return cbor.dumps(fields)


@pytest.mark.parametrize(("genesis", "kind"), [(GENESIS, RegionGenesis), (WIDE, WideGenesis)])
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
    genesis = data.draw(st.sampled_from([GENESIS, WIDE]))
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


def test_addresses_are_of_the_keys():
    table = addresses(GENESIS.operators)
    assert table == {cose.address_of(key): key for key in GENESIS.operators}


def test_parameters_have_the_documented_defaults():
    assert Parameters().encode() == [60, 11, 96, 15]
    assert Parameters.decode(Parameters().encode()) == Parameters()
