"""P-256 ECDSA of Gridwitness (ES256, RFC 9053 section 2.1): the one seam to a curve.

``public_key(secret)``, ``sign(secret, digest)`` and ``PublicKey(sec1)`` with ``sec1`` and
``verify(digest, signature)``. Secrets and digests are 32 bytes, public keys 33 (compressed SEC1),
signatures 64 (r ‖ s). Nonces are RFC 6979's and s is low, so a signature's bytes are the same on
every backend; verifiers refuse high s and do not rely on the nonce's origin.

MicroPython uses ``_p256_pure``; CPython uses ``cryptography``, else ``ecdsa``, else the same plain
code. ``BACKEND`` tells which: "pure", "cryptography" or "ecdsa". What a board needs besides, one
table a key (``teeth``, ``step``, ``table``, ``from_table``; see ``_p256_pure.PublicKey``), is there
on all of them; the others have nothing to build.
"""

import sys

TYPE_CHECKING = False  # true to type checkers: PublicKey is the board's, a test compares the others

if TYPE_CHECKING or sys.implementation.name == "micropython":
    from ledger.protocol._p256_pure import BACKEND, PublicKey, public_key, sign
else:
    try:
        from ledger.protocol._p256_cryptography import BACKEND, PublicKey, public_key, sign
    except ImportError:
        try:
            from ledger.protocol._p256_ecdsa import BACKEND, PublicKey, public_key, sign
        except ImportError:
            from ledger.protocol._p256_pure import BACKEND, PublicKey, public_key, sign

__all__ = ["BACKEND", "PublicKey", "public_key", "sign"]
