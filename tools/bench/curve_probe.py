# mypy: disable-error-code="attr-defined"
# ticks_us and ticks_diff are MicroPython's alone.
"""Times the board's P-256 code on MicroPython; run by ``meter``. Prints sign and verify in µs."""

import sys
import time

from ledger.protocol import p256


def main(times: int) -> None:
    """Print ``sign <µs> verify <µs>``, averages of ``times`` runs with the key's table built."""
    secret, digest = bytes(range(1, 33)), bytes(32)
    key = p256.PublicKey(p256.public_key(secret))
    while key.step():
        pass
    signature = p256.sign(secret, digest)
    key.verify(digest, signature)
    start = time.ticks_us()
    for _ in range(times):
        p256.sign(secret, digest)
    signed = time.ticks_us()
    for _ in range(times):
        key.verify(digest, signature)
    verified = time.ticks_us()
    sign, verify = time.ticks_diff(signed, start), time.ticks_diff(verified, signed)
    print("sign", sign // times, "verify", verify // times)


if __name__ == "__main__":
    main(int(sys.argv[1]))
