"""Free ports: in a row, nobody's at the moment, and never the same for two that ask at once."""

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator

import pytest

from hil import ports

CHILD = """
from hil import ports
ports._FIRST, ports._LAST = {range}
print(ports.free_ports(2), flush=True)
input()
"""
BLOCK = ports._BLOCK
FIRST = 18_000  # below what anybody is given; so these tests must not meet each other
pytestmark = pytest.mark.xdist_group("ports")


@pytest.fixture
def two_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Leave two blocks of ports to choose from; gives the first port."""
    monkeypatch.setattr(ports, "_given", deque())
    monkeypatch.setattr(ports, "_FIRST", FIRST)
    monkeypatch.setattr(ports, "_LAST", FIRST + 2 * BLOCK)
    yield FIRST
    for descriptor in ports._given:
        os.close(descriptor)


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
