"""The rig of a network, as far as it needs no node: configuration, ports, waiting."""

import tomllib
from pathlib import Path

import pytest

from hil.network import Network
from hil.nodes import Member, NetworkError, configure
from hil.ports import free_ports

CONFIG = """\
# a comment
moniker = "node"
[rpc]
laddr = "tcp://127.0.0.1:1"
[p2p]
laddr = "tcp://127.0.0.1:2"
persistent_peers = ""
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(CONFIG)
    return tmp_path


def read(home: Path) -> dict[str, object]:
    return tomllib.loads((home / "config" / "config.toml").read_text())


def test_setting_is_replaced_in_its_own_section(home: Path) -> None:
    configure(home, {"p2p.laddr": '"here"', "moniker": '"other"'})
    assert read(home) == {
        "moniker": "other",
        "rpc": {"laddr": "tcp://127.0.0.1:1"},
        "p2p": {"laddr": "here", "persistent_peers": ""},
    }


def test_setting_or_section_that_is_missing_is_added(home: Path) -> None:
    configure(home, {"rpc.unsafe": "true", "consensus.timeout_commit": '"1s"', "fast": "false"})
    found = read(home)
    assert found["rpc"] == {"laddr": "tcp://127.0.0.1:1", "unsafe": True}
    assert found["consensus"] == {"timeout_commit": "1s"}
    assert found["fast"] is False


def test_nobody_waits_longer_than_the_limit_or_the_network(tmp_path: Path) -> None:
    ports = free_ports(2)
    network = Network([Member("a", tmp_path, ports, ports + 1)], program="none")
    with pytest.raises(NetworkError, match=r"nothing came.*a at -1"):
        network.wait(lambda: False, 0.1, "nothing came")
    with pytest.raises(NetworkError, match="not every node came to height 1"):
        network.wait_height(1, limit_s=0.1)


def test_nodes_that_do_not_answer_are_not_quiet(tmp_path: Path) -> None:
    ports = free_ports(2)
    network = Network([Member("a", tmp_path, ports, ports + 1)], program="none")
    with pytest.raises(NetworkError, match="do not come to rest"):
        network.wait_quiet(limit_s=0.1)
