"""systemd hears that the gateway is ready and lives; without systemd nothing happens."""

import socket
from pathlib import Path

from gateway.notify import Notifier


def test_states_reach_the_named_socket(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        notifier = Notifier(str(path))
        notifier.send("READY=1")
        assert manager.recv(100) == b"READY=1"
        notifier.close()


def test_abstract_socket_is_named_with_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0gridwitness-test-notify")
        notifier = Notifier("@gridwitness-test-notify")
        notifier.send("WATCHDOG=1")
        assert manager.recv(100) == b"WATCHDOG=1"
        notifier.close()


def test_nobody_listening_is_no_fault(tmp_path: Path) -> None:
    for address in ("", str(tmp_path / "nobody")):
        notifier = Notifier(address)
        notifier.send("READY=1")
        notifier.close()
