"""Free ports: in a row, nobody's at the moment, and never the same for two that ask at once."""

import os
import socket
import subprocess
import sys

import pytest

from hil import ports

CHILD = """
from hil import ports
ports._FIRST, ports._LAST = {range}
print(ports.free_ports(2), flush=True)
input()
"""
BLOCK = ports._BLOCK


@pytest.fixture
def two_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave two blocks of ports to choose from, which nobody has; gives the first port."""
    for first in range(ports._FIRST, ports._LAST - 2 * BLOCK, BLOCK):
        held = len(ports._given)
        if all(ports._is_ours(block) for block in (first, first + BLOCK)) and all(
            ports._is_free(port) for port in range(first, first + 2 * BLOCK)
        ):
            os.close(ports._given.pop())
            os.close(ports._given.pop())
            break
        while len(ports._given) > held:
            os.close(ports._given.pop())
    monkeypatch.setattr(ports, "_FIRST", first)
    monkeypatch.setattr(ports, "_LAST", first + 2 * BLOCK)
    return first


def test_two_processes_get_different_ports_until_one_of_them_ends(two_blocks: int) -> None:
    script = CHILD.format(range=(two_blocks, two_blocks + 2 * BLOCK))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        theirs = int(child.stdout.readline())
        ours = ports.free_ports(2)
        assert {ours, theirs} == {two_blocks, two_blocks + BLOCK}
        with pytest.raises(OSError, match="no 2 free ports in a row"):
            ports.free_ports(2)
        child.communicate("\n")
    assert ports.free_ports(2) == theirs


def test_port_that_is_in_use_is_not_given(two_blocks: int) -> None:
    with socket.socket() as user:
        user.bind((ports.HOST, two_blocks + 1))
        assert ports.free_ports(2) == two_blocks + BLOCK
