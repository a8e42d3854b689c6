"""Free TCP ports in a row, for networks that live and die on this machine."""

import random
import socket

from tools.errors import CommandError

_HOST = "127.0.0.1"
# below what Linux gives to outgoing connections (net.ipv4.ip_local_port_range)
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200


def free_ports(count: int) -> int:
    """Give the first of some ports in a row that nobody uses at the moment; raises CommandError."""
    for _ in range(_TRIES):
        first = random.SystemRandom().randrange(_FIRST, _LAST - count)
        probes = [socket.socket() for _ in range(count)]
        try:
            for number, probe in enumerate(probes):
                probe.bind((_HOST, first + number))
        except OSError:
            continue
        else:
            return first
        finally:
            for probe in probes:
                probe.close()
    raise CommandError(f"no {count} free ports in a row were found")
