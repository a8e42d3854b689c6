"""Nothing but an envelope or the declared error comes of any bytes (SPEC section 3)."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import cose, p256
from ledger.protocol.errors import BadSignature, MalformedRecord
from tests.ledger.protocol.strategies import mutations, seeds
from tools.vectors import wire as reference

SEEDS = seeds("cose", "valid", "malformed", "bad_signature", key="envelope")
SIGNER = reference.Key("fuzz")
KEY = p256.PublicKey(SIGNER.public_key)


@given(st.binary(max_size=200) | mutations(SEEDS))
def test_any_bytes_are_an_envelope_or_malformed(data):
    try:
        envelope = cose.Envelope.parse(data)
    except MalformedRecord:
        return
    again = cose.join(envelope.kid, envelope.payload, envelope.signature)
    assert again.raw == envelope.raw == data
    assert again.digest == envelope.digest


@given(mutations(SEEDS))
def test_any_envelope_verifies_or_is_a_bad_signature(data):
    try:
        envelope = cose.Envelope.parse(data)
        envelope.verify(KEY)
    except (MalformedRecord, BadSignature):
        return
    raise AssertionError("somebody else's signature was taken for this key's")


@given(st.binary(max_size=930))
def test_sealed_payloads_are_those_of_the_second_implementation(payload):
    envelope = cose.seal(SIGNER.secret, SIGNER.address, payload)
    assert envelope.raw == reference.seal(SIGNER, payload)
    assert envelope.digest == reference.record_digest(SIGNER, payload)
    cose.Envelope.parse(envelope.raw).verify(KEY)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_no_flipped_bit_keeps_the_signature(payload, data):
    raw = bytearray(cose.seal(SIGNER.secret, SIGNER.address, payload).raw)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        cose.Envelope.parse(bytes(raw)).verify(KEY)
    except (MalformedRecord, BadSignature):
        return
    raise AssertionError("an altered envelope was taken")
