"""What the figures are compared to, measured in the same run."""

import shutil
import subprocess
from collections.abc import Iterable

from tools.bench.figure import Skipped

_LIMIT_S = 60


def parse_verifications(lines: Iterable[str]) -> float:
    """Give verifications per CPU-second from ``openssl speed -mr``; raises ValueError.

    The line counted is ``+R6:<verifications>:<bits>:<seconds of CPU>``.
    """
    for line in lines:
        if line.startswith("+R6:"):
            _, count, _, seconds = line.split(":")
            return int(count) / float(seconds)
    raise ValueError("no line +R6 in what openssl printed")


def openssl_verifications(seconds: int) -> float:
    """Give how many P-256 signatures openssl checks in a second of CPU; raises Skipped."""
    program = shutil.which("openssl")
    if program is None:
        raise Skipped("openssl is not installed: apt-get install openssl")
    command = [program, "speed", "-mr", "-seconds", str(seconds), "ecdsap256"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    try:
        return parse_verifications((done.stdout + done.stderr).splitlines())
    except ValueError as e:
        raise Skipped(f"openssl speed ecdsap256: {e}") from None
