"""The envelope (SPEC section 3) on both interpreters, against the shared vectors."""

from ledger.protocol import cose, p256
from ledger.protocol.errors import BadSignature, MalformedRecord
from tests.vector_files import load, raised, unhex


def test_bytes_to_be_signed_and_digests_are_those_of_the_vectors():
    for case in load("cose")["valid"]:
        kid, payload = unhex(case["address"]), unhex(case["payload"])
        assert cose.signature_input(kid, payload) == unhex(case["to_be_signed"]), case["note"]
        assert cose.digest_of(kid, payload) == unhex(case["digest"]), case["note"]
        assert cose.payload_digest(payload) == unhex(case["payload_digest"]), case["note"]


def test_addresses_are_those_of_the_vectors():
    for case in load("cose")["valid"]:
        public_key = p256.public_key(unhex(case["secret"]))
        assert public_key == unhex(case["public_key"]), case["note"]
        assert cose.address_of(public_key) == unhex(case["address"]), case["note"]


def test_envelopes_come_apart_into_their_parts():
    for case in load("cose")["valid"]:
        raw = unhex(case["envelope"])
        for data in (raw, bytearray(raw), memoryview(raw)):
            envelope = cose.Envelope.parse(data)
            assert type(envelope.raw) is bytes, case["note"]
            assert envelope.raw == raw, case["note"]
            assert envelope.kid == unhex(case["address"]), case["note"]
            assert envelope.payload == unhex(case["payload"]), case["note"]
            assert envelope.signature == unhex(case["signature"]), case["note"]
            assert envelope.digest == unhex(case["digest"]), case["note"]


def test_sealing_gives_the_envelopes_of_the_vectors():
    for case in load("cose")["valid"]:
        if case.get("deterministic", True):
            kid, payload = unhex(case["address"]), unhex(case["payload"])
            envelope = cose.seal(unhex(case["secret"]), kid, payload)
            assert envelope.raw == unhex(case["envelope"]), case["note"]
            assert envelope.digest == unhex(case["digest"]), case["note"]


def test_parts_join_to_the_envelopes_of_the_vectors():
    for case in load("cose")["valid"]:
        parts = [unhex(case[name]) for name in ("address", "payload", "signature")]
        assert cose.join(*parts).raw == unhex(case["envelope"]), case["note"]


def test_signatures_of_the_vectors_verify_whatever_the_nonce():
    for case in load("cose")["valid"]:
        key = p256.PublicKey(unhex(case["public_key"]))
        cose.Envelope.parse(unhex(case["envelope"])).verify(key)


def test_any_other_layout_is_refused():
    for case in load("cose")["malformed"]:
        raw = unhex(case["envelope"])
        assert raised(MalformedRecord, cose.Envelope.parse, raw), case["reason"]


def test_wrong_signatures_are_refused_after_parsing():
    for case in load("cose")["bad_signature"]:
        key = p256.PublicKey(unhex(case["public_key"]))
        envelope = cose.Envelope.parse(unhex(case["envelope"]))
        assert raised(BadSignature, envelope.verify, key), case["reason"]


def test_every_cut_of_an_envelope_is_refused():
    raw = unhex(load("cose")["valid"][-1]["envelope"])
    for end in range(len(raw)):
        assert raised(MalformedRecord, cose.Envelope.parse, raw[:end]), end


def test_every_flipped_bit_outside_payload_kid_and_signature_is_refused():
    raw = unhex(load("cose")["valid"][-1]["envelope"])
    fixed = list(range(8)) + [24, 25, len(raw) - 66, len(raw) - 65]
    for at in fixed:
        for bit in range(8):
            bad = bytearray(raw)
            bad[at] ^= 1 << bit
            assert raised(MalformedRecord, cose.Envelope.parse, bytes(bad)), (at, bit)


def test_the_longest_record_is_a_limit_of_the_caller():
    raw = unhex(load("cose")["valid"][-1]["envelope"])
    cose.Envelope.parse(raw, len(raw))
    assert raised(MalformedRecord, cose.Envelope.parse, raw, len(raw) - 1)
