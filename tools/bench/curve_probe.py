"""Times the board's P-256 code on MicroPython; run by ``meter``. Prints sign and verify in µs."""

import sys
import time

from ledger.protocol import p256


def _time_us(action, times):  # type: ignore[no-untyped-def] # runs on MicroPython alone
    start = time.ticks_us()
    for _ in range(times):
        action()
    return time.ticks_diff(time.ticks_us(), start) // times


def main(times: int) -> None:
    """Print ``sign <µs> verify <µs>``, averages of ``times`` runs with the key's table built."""
    secret, digest = bytes(range(1, 33)), bytes(32)
    key = p256.PublicKey(p256.public_key(secret))
    while key.step():
        pass
    signature = p256.sign(secret, digest)
    key.verify(digest, signature)
    sign = _time_us(lambda: p256.sign(secret, digest), times)
    verify = _time_us(lambda: key.verify(digest, signature), times)
    print("sign", sign, "verify", verify)


if __name__ == "__main__":
    main(int(sys.argv[1]))
