"""Signatures are checked once, and only what was checked goes unchecked."""

import pytest

from ledger import verify
from ledger.protocol import cose, p256, records
from ledger.protocol.errors import BadSignature, InvalidKey, MalformedRecord
from ledger.verify import Verifier
from tests.ledger.regional.generate import FIRST_ROUND, Region, signer

KEY, OTHER = signer("one"), signer("other")
PAYLOAD = records.Close(bytes(8), 7).payload()


@pytest.fixture
def checks(monkeypatch):
    """Count the signatures that are really checked."""
    counted = []
    real = p256.PublicKey.verify

    def verify_(self, digest, signature):
        counted.append(digest)
        real(self, digest, signature)

    monkeypatch.setattr(p256.PublicKey, "verify", verify_)
    return counted


def test_right_signature_passes_and_others_raise():
    verifier, good = Verifier(), KEY.seal(PAYLOAD)
    verifier.check(good, KEY.public_key)
    with pytest.raises(BadSignature):
        verifier.check(good, OTHER.public_key)
    for at in (0, 31, 32, 63):
        spoiled = bytearray(good.signature)
        spoiled[at] ^= 1
        with pytest.raises(BadSignature):
            verifier.check(cose.join(KEY.address, PAYLOAD, bytes(spoiled)), KEY.public_key)


def test_signature_over_another_kid_or_payload_raises():
    verifier, good = Verifier(), KEY.seal(PAYLOAD)
    for kid, payload in ((OTHER.address, PAYLOAD), (KEY.address, PAYLOAD[:-1] + b"\x08")):
        with pytest.raises(BadSignature):
            verifier.check(cose.join(kid, payload, good.signature), KEY.public_key)


@pytest.mark.parametrize(
    "key", [b"", bytes(33), b"\x04" + bytes(32), b"\x02" + b"\xff" * 32, b"\x02" + bytes(31)]
)
def test_key_that_is_no_point_raises_and_is_not_kept(key):
    verifier = Verifier()
    for _ in range(2):
        with pytest.raises(InvalidKey):
            verifier.key(key)


def test_keys_are_loaded_once():
    verifier = Verifier()
    assert verifier.key(KEY.public_key) is verifier.key(KEY.public_key)


def test_admitted_envelope_counts_as_checked_from_then_on(checks):
    """CometBFT shows it again: in proposals, in its block."""
    verifier, good = Verifier(), KEY.seal(PAYLOAD)
    verifier.admit(good, records.decode(PAYLOAD))
    for _ in range(3):
        verifier.check(good, KEY.public_key)
    assert checks == []
    with pytest.raises(BadSignature):
        verifier.check(good, OTHER.public_key)


def test_envelope_admitted_after_its_check_is_not_kept_for_ever():
    verifier, good = Verifier(), KEY.seal(PAYLOAD)
    verifier.check(good, KEY.public_key)
    verifier.admit(good, records.decode(PAYLOAD))
    verifier.check(good, KEY.public_key)
    assert verifier._admitted == {}


def test_record_is_decoded_once_and_refused_bytes_each_time():
    verifier, good, asked = Verifier(), KEY.seal(PAYLOAD), []

    def decode(payload):
        asked.append(payload)
        return records.decode(payload)

    assert verifier.open(good.raw, decode) is verifier.open(good.raw, decode)
    assert asked == [PAYLOAD]
    bad = KEY.seal(b"\x80").raw
    for _ in range(2):
        with pytest.raises(MalformedRecord):
            verifier.open(bad, decode)
    assert asked == [PAYLOAD, b"\x80", b"\x80"]


def test_admission_is_of_the_very_bytes(checks):
    """The same content under another signature was never looked at."""
    verifier, good = Verifier(), KEY.seal(PAYLOAD)
    verifier.admit(good, records.decode(PAYLOAD))
    forged = cose.join(good.kid, good.payload, OTHER.seal(PAYLOAD).signature)
    with pytest.raises(BadSignature):
        verifier.check(forged, KEY.public_key)
    assert len(checks) == 1


def test_open_gives_what_was_admitted_and_parses_the_rest():
    verifier, good = Verifier(), KEY.seal(PAYLOAD)
    envelope, record = verifier.open(good.raw)
    assert (envelope.kid, envelope.payload, envelope.digest) == (KEY.address, PAYLOAD, good.digest)
    assert record.round == 7
    marked = records.decode(PAYLOAD)
    verifier.admit(good, marked)
    assert verifier.open(good.raw) == (good, marked)
    for raw in (good.raw[:-1], good.raw + b"\0", b"", KEY.seal(b"\x80").raw):
        with pytest.raises(MalformedRecord):
            verifier.open(raw)


def test_memory_is_bounded_and_forgetting_only_costs_a_check(monkeypatch, checks):
    monkeypatch.setattr(verify, "_MOST_ADMITTED", 10)
    monkeypatch.setattr(verify, "_MOST_KEYS", 4)
    monkeypatch.setattr(verify, "_MOST_OPENED_BYTES", 1000)
    region, verifier = Region(25), Verifier()
    envelopes = [region.reading(meter, FIRST_ROUND) for meter in region.meters]
    for envelope, meter in zip(envelopes, region.meters, strict=True):
        verifier.admit(envelope, records.decode(envelope.payload))
        verifier.key(meter.key.public_key)
        verifier.open(region.ballot(meter, FIRST_ROUND, region.genesis.digest, []).raw)
    assert 0 < sum(map(len, verifier._opened)) <= 1000
    assert len(verifier._admitted) <= 10
    assert len(verifier._keys) <= 4
    for envelope, meter in zip(envelopes, region.meters, strict=True):
        verifier.check(envelope, meter.key.public_key)
    assert 0 < len(checks) <= 25
