"""P-256 ECDSA by ``cryptography`` (OpenSSL), the default on CPython; see ``p256`` for the seam.

RFC 6979 nonces need cryptography 43 on OpenSSL 3.2. Where either is older (a system package),
signing alone falls to the plain-Python code, whose bytes are the same; verifying stays here.
"""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from ledger.protocol import _p256_pure
from ledger.protocol._p256_host import HostKey
from ledger.protocol._p256_pure import (
    DEFAULT_TEETH,
    check_digest,
    join_signature,
    secret_scalar,
    split_signature,
)
from ledger.protocol.errors import BadSignature, InvalidKey

BACKEND = "cryptography"

_CURVE = ec.SECP256R1()
_PREHASHED = utils.Prehashed(hashes.SHA256())
_VERIFY = ec.ECDSA(_PREHASHED)


def _deterministic() -> ec.ECDSA | None:
    """Give the algorithm with RFC 6979 nonces, or None where this build has none."""
    try:
        algorithm = ec.ECDSA(_PREHASHED, deterministic_signing=True)
        ec.derive_private_key(1, _CURVE).sign(bytes(32), algorithm)
    except (TypeError, UnsupportedAlgorithm):
        return None
    return algorithm


_SIGN = _deterministic()


def public_key(secret: bytes) -> bytes:
    """Give the 33-byte compressed SEC1 public key of a 32-byte secret; raises InvalidKey."""
    key = ec.derive_private_key(secret_scalar(secret), _CURVE).public_key()
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def sign(secret: bytes, digest: bytes) -> bytes:
    """Sign a 32-byte SHA-256 digest: r ‖ s, 64 bytes, s low, nonce by RFC 6979.

    Raises InvalidKey for a secret that is 0 or not below n, ValueError for another digest length.
    """
    d = secret_scalar(secret)
    check_digest(digest)
    if _SIGN is None:
        return _p256_pure.sign(secret, digest)
    der = ec.derive_private_key(d, _CURVE).sign(digest, _SIGN)
    return join_signature(*utils.decode_dss_signature(der))


class PublicKey(HostKey):
    """A public key, loaded once; raises InvalidKey as ``_p256_pure.PublicKey`` does."""

    def __init__(self, sec1: bytes, teeth: int = DEFAULT_TEETH) -> None:
        super().__init__(sec1, teeth)
        try:
            self._key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, self.sec1)
        except ValueError as error:
            raise InvalidKey("public key is not on the curve") from error

    def verify(self, digest: bytes, signature: bytes) -> None:
        """Check a 64-byte r ‖ s over a 32-byte digest.

        Raises BadSignature for a wrong length, r or s outside [1, n-1], high s, and a signature
        that does not fit; ValueError for another digest length.
        """
        check_digest(digest)
        r, s = split_signature(signature)
        try:
            self._key.verify(utils.encode_dss_signature(r, s), digest, _VERIFY)
        except InvalidSignature as error:
            raise BadSignature("signature does not fit") from error
