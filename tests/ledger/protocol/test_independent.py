"""Libraries that know nothing of this project take our records as the standards say.

cwt (COSE, RFC 9052) and ecdsa (P-256) read what ledger.protocol sealed, and ledger.protocol reads
what they sealed; the vectors go through them as well.
"""

import json
import subprocess
import sys
from hashlib import sha256

import ecdsa
import pytest
from ecdsa.util import sigdecode_string, sigencode_string_canonize
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import cose, p256
from tests.vector_files import load
from tools.vectors.wire import Key

PAYLOADS = [b"", b"\x80", bytes(23), bytes(24), bytes(255), bytes(256), bytes(range(256)) * 3]


def _vectors():
    return load("cose")["valid"] + load("records")["valid"] + load("heads")["heads"]


def test_ecdsa_takes_every_signature_of_the_vectors():
    for case in _vectors():
        key = ecdsa.VerifyingKey.from_string(
            bytes.fromhex(case["public_key"]), curve=ecdsa.NIST256p, hashfunc=sha256
        )
        signature, signed = bytes.fromhex(case["signature"]), bytes.fromhex(case["to_be_signed"])
        assert key.verify(signature, signed, sigdecode=sigdecode_string)


@given(st.binary(min_size=1, max_size=8), st.binary(max_size=200))
def test_ecdsa_takes_what_we_seal_and_makes_the_same_signature(name, payload):
    secret = sha256(name).digest()
    public_key = p256.public_key(secret)
    envelope = cose.seal(secret, cose.address_of(public_key), payload)
    signed = cose.signature_input(envelope.kid, payload)
    other = ecdsa.SigningKey.from_string(secret, curve=ecdsa.NIST256p, hashfunc=sha256)
    assert other.get_verifying_key().to_string("compressed") == public_key
    assert other.get_verifying_key().verify(envelope.signature, signed, sigdecode=sigdecode_string)
    assert envelope.signature == other.sign_deterministic(
        signed, sigencode=sigencode_string_canonize
    )


# What cwt does, in a process of its own, for it needs an older cbor2. Lines in, lines out.
_PEER = """
import json, sys
from cwt import COSE, COSEKey
def key(case, private):
    point = bytes.fromhex(case["point"])
    jwk = {1: 2, -1: 1, -2: point[1:33], -3: point[33:], 2: bytes.fromhex(case["kid"]), 3: -7}
    if private:
        jwk[-4] = bytes.fromhex(case["secret"])
    return COSEKey.new(jwk)
for line in sys.stdin:
    case = json.loads(line)
    try:
        if "envelope" in case:
            answer = COSE.new().decode(bytes.fromhex(case["envelope"]), key(case, False)).hex()
        else:
            header = {1: -7, 4: bytes.fromhex(case["kid"])}
            payload = bytes.fromhex(case["payload"])
            answer = COSE.new().encode(payload, key(case, True), protected=header, unprotected={})
            answer = answer.hex()
    except Exception as e:
        answer = "refused: " + type(e).__name__
    print(json.dumps(answer))
"""


def _ask_cwt(environment, cases):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PEER],
        input="".join(json.dumps(case) + "\n" for case in cases),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases)
    return answers


def _point(public_key):
    key = ecdsa.VerifyingKey.from_string(public_key, curve=ecdsa.NIST256p)
    return "04" + key.to_string().hex()


@pytest.fixture(scope="module")
def signer():
    return Key("independent")


def test_cwt_reads_every_envelope_of_the_vectors(cwt_environment):
    cases = [case for case in _vectors() if case["payload"]]
    questions = [
        {
            "envelope": case["envelope"],
            "kid": case["address"],
            "point": _point(bytes.fromhex(case["public_key"])),
        }
        for case in cases
    ]
    assert _ask_cwt(cwt_environment, questions) == [case["payload"] for case in cases]


def test_cwt_refuses_the_bad_signatures_that_are_not_ours_alone_to_refuse(cwt_environment):
    # High s is ECDSA's but not ours; what is left no COSE library takes.
    cases = [c for c in load("cose")["bad_signature"] if c["reason"] != "high s"]
    point = _point(bytes.fromhex(cases[0]["public_key"]))
    kid = Key("envelope").address.hex()
    questions = [{"envelope": c["envelope"], "kid": kid, "point": point} for c in cases]
    for case, answer in zip(cases, _ask_cwt(cwt_environment, questions), strict=True):
        assert answer.startswith("refused"), case["reason"]


def test_we_read_what_cwt_seals(cwt_environment, signer):
    questions = [
        {
            "payload": payload.hex(),
            "kid": signer.address.hex(),
            "secret": signer.secret.hex(),
            "point": _point(signer.public_key),
        }
        for payload in PAYLOADS
        if payload
    ]
    key = p256.PublicKey(signer.public_key)
    for question, answer in zip(questions, _ask_cwt(cwt_environment, questions), strict=True):
        raw = _with_low_s(bytes.fromhex(answer))
        envelope = cose.Envelope.parse(raw)
        assert envelope.payload.hex() == question["payload"]
        assert envelope.kid == signer.address
        envelope.verify(key)


def _with_low_s(raw):
    """Turn a high s, which cwt may make and the profile refuses, into its low twin."""
    order = int(ecdsa.NIST256p.order)
    s = int.from_bytes(raw[-32:], "big")
    return raw[:-32] + min(s, order - s).to_bytes(32, "big")
