"""TCP ports of 127.0.0.1 that nobody uses at the moment, for what lives and dies on this machine.

Another program may take them before they are used: who needs to be sure looks and starts again.
"""

import random
import socket

HOST = "127.0.0.1"
# below what Linux gives to outgoing connections (net.ipv4.ip_local_port_range)
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200


def free_port() -> int:
    """Give a free port; raises OSError where none is found."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Give the first of some free ports in a row; raises OSError where none are found."""
    for _ in range(_TRIES):
        first = random.SystemRandom().randrange(_FIRST, _LAST - count)
        if all(_is_free(first + number) for number in range(count)):
            return first
    raise OSError(f"{HOST} has no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
