"""TCP ports of 127.0.0.1 that nobody uses at the moment, for what lives and dies on this machine.

No two processes that ask here at the same time get the same ports. Another program may take them
before they are used: who needs to be sure looks and starts again.
"""

import os
import random
import socket
from collections import deque

HOST = "127.0.0.1"
# below what Linux gives to outgoing connections (net.ipv4.ip_local_port_range)
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200
_BLOCK = 64  # ports that are given away together
_MOST_GIVEN = 16
# Descriptors of the names of this process's newest blocks (unix(7), abstract sockets): they go with
# the process, and older ones are in use by now, or never will be.
_given: deque[int] = deque()


def free_port() -> int:
    """Give a free port; raises OSError where none is found."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Give the first of some free ports in a row, at most 64; raises OSError without any."""
    assert 0 < count <= _BLOCK
    for _ in range(_TRIES):
        first = random.SystemRandom().randrange(_FIRST, _LAST, _BLOCK)
        if all(_is_free(first + number) for number in range(count)) and _is_ours(first):
            return first
    raise OSError(f"{HOST} has no {count} free ports in a row")


def _is_ours(first: int) -> bool:
    """Take a block of ports for this process, if no other one has it."""
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0gridwitness-ports-{first}")
        except OSError:
            return False
        _given.append(name.detach())
    if len(_given) > _MOST_GIVEN:
        os.close(_given.popleft())
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
