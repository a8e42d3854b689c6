"""COSE_Sign1 with ES256, the envelope of every record (RFC 9052 section 4.2; SPEC section 3).

The protected header is always ``{1: -7, 4: kid}`` and the unprotected one empty, so the envelope
has one fixed layout and is taken apart by offsets; nothing else is accepted. External data is
empty: any COSE library verifies the bytes.

Not here: whether the signer is a member. Checking the signature needs the signer's key, which the
caller finds by ``Envelope.kid``.
"""

from hashlib import sha256

from ledger.protocol import p256
from ledger.protocol.errors import MalformedRecord

ADDRESS_BYTES = 16
SIGNATURE_BYTES = 64
MAX_RECORD_BYTES = 1024

_TAG_ARRAY = b"\xd2\x84"  # tag 18, array of four
_PROTECTED_HEAD = b"\xa2\x01\x26\x04\x50"  # {1: -7, 4: bytes(16)}
_PREFIX = _TAG_ARRAY + b"\x55" + _PROTECTED_HEAD
_KID_AT = len(_PREFIX)
_EMPTY_MAP = b"\xa0"
_PAYLOAD_AT = _KID_AT + ADDRESS_BYTES + 1
_SIGNATURE_HEAD = b"\x58\x40"
_CONTEXT = b"\x84\x6aSignature1\x55" + _PROTECTED_HEAD  # Sig_structure up to the kid
_NO_EXTERNAL_DATA = b"\x40"


def address_of(public_key: bytes) -> bytes:
    """Give the 16-byte address of a 33-byte compressed SEC1 public key (SPEC 3.5)."""
    return sha256(public_key).digest()[:ADDRESS_BYTES]


def _bytes_head(n: int) -> bytes:
    if n < 24:
        return bytes((0x40 | n,))
    if n < 0x100:
        return bytes((0x58, n))
    return b"\x59" + n.to_bytes(2, "big")


def signature_input(kid: bytes, payload: bytes) -> bytes:
    """Give the Sig_structure (RFC 9052 section 4.4), the exact bytes that are hashed and signed."""
    return _CONTEXT + kid + _NO_EXTERNAL_DATA + _bytes_head(len(payload)) + payload


def digest_of(kid: bytes, payload: bytes) -> bytes:
    """Give a record's 32-byte digest: SHA-256 over its Sig_structure (SPEC 3.6)."""
    return sha256(signature_input(kid, payload)).digest()


def payload_digest(payload: bytes) -> bytes:
    """Give SHA-256 over a payload alone: what ``prev`` and ``parent`` name (SPEC 3.7)."""
    return sha256(payload).digest()


class Envelope:
    """One COSE_Sign1 as it came: ``raw``, ``kid`` (16), ``payload``, ``signature`` (64).

    ``digest`` is the record's own (SPEC 3.6). Parsing checks the layout only; ``verify`` checks the
    signature.
    """

    def __init__(self, raw: bytes, kid: bytes, payload: bytes, signature: bytes) -> None:
        self.raw = raw
        self.kid = kid
        self.payload = payload
        self.signature = signature
        self.digest = digest_of(kid, payload)

    @staticmethod
    def parse(raw: bytes, max_bytes: int = MAX_RECORD_BYTES) -> "Envelope":
        """Take an envelope apart; raises MalformedRecord for any other layout or length."""
        if len(raw) > max_bytes:
            raise MalformedRecord("record longer than " + str(max_bytes) + " bytes")
        if raw[:_KID_AT] != _PREFIX or raw[_PAYLOAD_AT - 1 : _PAYLOAD_AT] != _EMPTY_MAP:
            raise MalformedRecord("not the COSE_Sign1 header of version 1")
        end = len(raw) - len(_SIGNATURE_HEAD) - SIGNATURE_BYTES
        if end <= _PAYLOAD_AT or raw[end : end + 2] != _SIGNATURE_HEAD:
            raise MalformedRecord("COSE_Sign1 without a 64-byte signature")
        for head_bytes in (1, 2, 3):
            start = _PAYLOAD_AT + head_bytes
            n = end - start
            if n >= 0 and raw[_PAYLOAD_AT:start] == _bytes_head(n):
                return Envelope(
                    bytes(raw),
                    bytes(raw[_KID_AT : _KID_AT + ADDRESS_BYTES]),
                    bytes(raw[start:end]),
                    bytes(raw[end + 2 :]),
                )
        raise MalformedRecord("COSE_Sign1 payload length does not fit")

    def verify(self, key: "p256.PublicKey") -> None:
        """Check the signature with the signer's key; raises BadSignature (high-s included)."""
        key.verify(self.digest, self.signature)


def seal(secret: bytes, kid: bytes, payload: bytes) -> Envelope:
    """Sign a payload with a 32-byte secret; ``kid`` is the address of its public key."""
    return join(kid, payload, p256.sign(secret, digest_of(kid, payload)))


def join(kid: bytes, payload: bytes, signature: bytes) -> Envelope:
    """Put an envelope together from its parts (a secure element signs elsewhere)."""
    raw = _PREFIX + kid + _EMPTY_MAP + _bytes_head(len(payload)) + payload
    return Envelope(raw + _SIGNATURE_HEAD + signature, kid, payload, signature)
