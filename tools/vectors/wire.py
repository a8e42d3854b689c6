"""Wire version 1 written a second time, from docs/SPEC.md alone, for the test vectors.

Nothing of ledger.protocol is used here: CBOR, COSE, addresses and digests are built again, and
signatures are made by the `ecdsa` package, so that the vectors judge the project's code instead of
repeating it. It writes only; it reads nothing.
"""

from hashlib import sha256

import ecdsa
from ecdsa.util import sigencode_string, sigencode_string_canonize

CHAIN_BYTES = 8
ORDER = int(ecdsa.NIST256p.order)


class Raw(bytes):
    """Bytes that stand in an encoding as they are: for what must be refused."""


def head(major: int, n: int) -> bytes:
    """CBOR's initial byte and argument in the shortest form (RFC 8949 section 4.2.1)."""
    if n < 24:
        return bytes([major << 5 | n])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << 8 * size:
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise ValueError("beyond 64 bits")


def long_head(major: int, n: int, size: int) -> bytes:
    """The same in a form of `size` argument bytes, which may be too long."""
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + n.to_bytes(size, "big")


def cbor(value: object) -> bytes:
    """Deterministic CBOR of the profile; Raw goes in untouched."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, bool) or value is None:
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list | tuple):
        return head(4, len(value)) + b"".join(cbor(item) for item in value)
    raise TypeError(f"{type(value).__name__} is not of the profile")


def digest(label: str) -> bytes:
    """A 32-byte value that depends on its name only."""
    return sha256(b"gridwitness vector " + label.encode()).digest()


class Key:
    """A key pair made from a name: `secret`, `public_key` (33), `address` (16)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.secret = digest("key " + name)
        self._key = ecdsa.SigningKey.from_string(self.secret, curve=ecdsa.NIST256p)
        self.public_key = bytes(self._key.get_verifying_key().to_string("compressed"))
        self.address = sha256(self.public_key).digest()[:16]

    def sign(self, to_be_signed: bytes) -> bytes:
        """r || s over SHA-256 of the bytes, nonce by RFC 6979, low s."""
        return bytes(
            self._key.sign_deterministic(
                to_be_signed, hashfunc=sha256, sigencode=sigencode_string_canonize
            )
        )

    def sign_with_nonce(self, to_be_signed: bytes, nonce: int, *, high_s: bool = False) -> bytes:
        """r || s with a given nonce, as a secure element with its own randomness would sign."""
        raw = bytes(
            self._key.sign_digest(
                sha256(to_be_signed).digest(), sigencode=sigencode_string, k=nonce
            )
        )
        s = int.from_bytes(raw[32:], "big")
        if (s > ORDER // 2) != high_s:
            s = ORDER - s
        return raw[:32] + s.to_bytes(32, "big")


def protected(kid: bytes) -> bytes:
    """The protected header {1: -7, 4: kid}."""
    return b"\xa2\x01\x26\x04" + cbor(kid)


def sig_structure(kid: bytes, payload: bytes) -> bytes:
    """The exact bytes that are signed (RFC 9052 section 4.4)."""
    return cbor(["Signature1", protected(kid), b"", payload])


def sign1(
    header: bytes, payload: object, signature: object, *, unprotected: bytes = b"\xa0"
) -> bytes:
    """A COSE_Sign1 of any parts, under tag 18."""
    return b"\xd2" + cbor([header, Raw(unprotected), payload, signature])


def seal(key: Key, payload: bytes) -> bytes:
    """The envelope of a payload."""
    signature = key.sign(sig_structure(key.address, payload))
    return sign1(protected(key.address), payload, signature)


def record_digest(key: Key, payload: bytes) -> bytes:
    """A record's digest: SHA-256 over its Sig_structure."""
    return sha256(sig_structure(key.address, payload)).digest()


def signed(key: Key, payload: bytes) -> dict[str, object]:
    """All that a vector tells about a signed payload."""
    to_be_signed = sig_structure(key.address, payload)
    return {
        "secret": key.secret,
        "public_key": key.public_key,
        "address": key.address,
        "payload": payload,
        "payload_digest": sha256(payload).digest(),
        "to_be_signed": to_be_signed,
        "digest": sha256(to_be_signed).digest(),
        "signature": key.sign(to_be_signed),
        "envelope": seal(key, payload),
    }
