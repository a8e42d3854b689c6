"""Keys of operators and gateways on a host: made, stored (mode 0600), loaded, used to sign."""

import os
from pathlib import Path

from ledger.protocol import cose, p256
from ledger.protocol.errors import InvalidKey

_SECRET_BYTES = 32


class Signer:
    """A P-256 key pair with its address; ``seal`` signs payloads."""

    def __init__(self, secret: bytes) -> None:
        """Raise InvalidKey when ``secret`` is not 32 bytes in [1, n-1]."""
        self._secret = secret
        self.public_key = p256.public_key(secret)
        self.address = cose.address_of(self.public_key)

    def __repr__(self) -> str:
        return f"Signer({self.address.hex()})"

    def seal(self, payload: bytes) -> cose.Envelope:
        """Sign a payload into its envelope."""
        return cose.seal(self._secret, self.address, payload)

    @classmethod
    def generate(cls) -> "Signer":
        """Make a new key from the system's randomness."""
        while True:
            try:
                return cls(os.urandom(_SECRET_BYTES))
            except InvalidKey:  # one draw in 2**32 is out of range
                continue

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Read a key file; raises OSError, or InvalidKey naming the file."""
        try:
            return cls(bytes.fromhex(path.read_text("ascii").strip()))
        except (UnicodeDecodeError, ValueError) as e:
            raise InvalidKey(f"{path} is not a key file (64 hex digits): {e}") from None

    def save(self, path: Path) -> None:
        """Write the key file, readable by its owner only; raises FileExistsError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(self._secret.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
