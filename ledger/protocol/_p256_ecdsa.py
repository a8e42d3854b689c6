"""P-256 ECDSA by ``ecdsa`` (plain Python), the fallback on CPython; see ``p256`` for the seam.

Thirty times slower than ``cryptography`` and, as its authors say, not safe against timing: it is
for machines without a ``cryptography`` wheel and, in tests, the independent second opinion.
"""

from hashlib import sha256

from ecdsa import NIST256p, SigningKey, VerifyingKey
from ecdsa.errors import MalformedPointError
from ecdsa.keys import BadSignatureError
from ecdsa.util import sigdecode_string, sigencode_string_canonize

from ledger.protocol._p256_host import HostKey
from ledger.protocol._p256_pure import (
    DEFAULT_TEETH,
    check_digest,
    secret_scalar,
    split_signature,
)
from ledger.protocol.errors import BadSignature, InvalidKey

BACKEND = "ecdsa"


def _signing_key(secret: bytes) -> SigningKey:
    return SigningKey.from_secret_exponent(secret_scalar(secret), NIST256p, sha256)


def public_key(secret: bytes) -> bytes:
    """Give the 33-byte compressed SEC1 public key of a 32-byte secret; raises InvalidKey."""
    return bytes(_signing_key(secret).verifying_key.to_string("compressed"))


def sign(secret: bytes, digest: bytes) -> bytes:
    """Sign a 32-byte SHA-256 digest: r ‖ s, 64 bytes, s low, nonce by RFC 6979.

    Raises InvalidKey for a secret that is 0 or not below n, ValueError for another digest length.
    """
    key = _signing_key(secret)
    check_digest(digest)
    return bytes(key.sign_digest_deterministic(digest, sha256, sigencode=sigencode_string_canonize))


class PublicKey(HostKey):
    """A public key, loaded once; raises InvalidKey as ``_p256_pure.PublicKey`` does."""

    def __init__(self, sec1: bytes, teeth: int = DEFAULT_TEETH) -> None:
        super().__init__(sec1, teeth)
        try:
            self._key = VerifyingKey.from_string(self.sec1, NIST256p, sha256)
        except MalformedPointError as error:
            raise InvalidKey("public key is not on the curve") from error

    def verify(self, digest: bytes, signature: bytes) -> None:
        """Check a 64-byte r ‖ s over a 32-byte digest.

        Raises BadSignature for a wrong length, r or s outside [1, n-1], high s, and a signature
        that does not fit; ValueError for another digest length.
        """
        check_digest(digest)
        split_signature(signature)
        digest, signature = bytes(digest), bytes(signature)
        try:
            self._key.verify_digest(signature, digest, sigdecode_string)
        # TypeError: ecdsa 0.19.2 takes x of the point at infinity, which anybody can bring about
        # for a known key (Wycheproof's PointDuplication); both arguments are bytes for certain.
        except (BadSignatureError, TypeError) as error:
            raise BadSignature("signature does not fit") from error
