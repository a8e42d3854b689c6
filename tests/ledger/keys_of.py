"""Key pairs made from names, always the same."""

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.keys import Signer


def signer(name: str) -> Signer:
    """Give the P-256 key pair of a name."""
    return Signer(sha256(b"gridwitness test key " + name.encode()).digest())


def ed25519(name: str) -> bytes:
    """Give the public key of a validator's name."""
    seed = sha256(name.encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
