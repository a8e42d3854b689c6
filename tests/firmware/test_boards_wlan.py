"""The Wi-Fi boards' own part, over stand-ins for the chip's modules, which no host has."""

import asyncio
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest


class Wlan:
    """Joins after some looks, or never."""

    def __init__(self, joins_after: int) -> None:
        self.log: list[Any] = []
        self._left = joins_after
        self._asked = False

    def isconnected(self) -> bool:
        if self._asked:
            self._left -= 1
        return self._asked and self._left < 0

    def active(self, on: bool) -> None:
        self.log.append(on)

    def connect(self, ssid: str, password: str) -> None:
        self.log.append((ssid, password))
        self._asked = True


class Dog:
    def __init__(self, timeout: int) -> None:
        self.timeout = timeout
        self.fed = 0

    def feed(self) -> None:
        self.fed += 1


@pytest.fixture
def wlan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    network = types.ModuleType("network")
    network.STA_IF = 0  # type: ignore[attr-defined]
    network.WLAN = lambda _: Wlan(2)  # type: ignore[attr-defined]
    network.country = lambda _: None  # type: ignore[attr-defined]
    machine = types.ModuleType("machine")
    machine.WDT = Dog  # type: ignore[attr-defined]
    ntptime = types.ModuleType("ntptime")
    ntptime.settime = lambda: None  # type: ignore[attr-defined]
    for module in (network, machine, ntptime):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "firmware.boards.wlan", raising=False)
    from firmware.boards import wlan

    monkeypatch.setattr(wlan, "_WIFI_FILE", str(tmp_path / "wifi.json"))
    monkeypatch.setattr(wlan, "_POLL_S", 0)
    (tmp_path / "wifi.json").write_text(json.dumps({"ssid": "home", "password": "secret"}))
    yield wlan
    monkeypatch.delitem(sys.modules, "firmware.boards.wlan", raising=False)


def test_board_joins_the_network_of_its_file(wlan: Any) -> None:
    board = wlan.WlanBoard("x", 8000)
    asyncio.run(board.network())
    assert board._wlan.log == [False, True, ("home", "secret")]
    asyncio.run(board.network())
    assert len(board._wlan.log) == 3


def test_network_that_is_not_there_is_an_error_of_the_link(wlan: Any) -> None:
    board = wlan.WlanBoard("x", 8000)
    board._wlan = Wlan(10**9)
    with pytest.raises(OSError, match="home"):
        asyncio.run(board.network())


@pytest.mark.parametrize("text", [None, "", "{", '{"ssid": "x"}', "[]", "7"])
def test_missing_or_wrong_wifi_file_is_an_error_of_the_link(
    wlan: Any, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "wifi.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(OSError):
        asyncio.run(wlan.WlanBoard("x", 8000).network())


def test_time_server_that_is_not_there_does_not_stop_the_link(wlan: Any) -> None:
    asked = []

    def settime() -> None:
        asked.append(1)
        raise OSError

    sys.modules["ntptime"].settime = settime  # type: ignore[attr-defined]
    board = wlan.WlanBoard("x", 8000)
    asyncio.run(board.network())
    asyncio.run(board.network())
    assert len(asked) == 2


def test_first_feed_starts_the_watchdog(wlan: Any) -> None:
    board = wlan.WlanBoard("x", 8000)
    assert board._watchdog is None
    board.feed()
    board.feed()
    assert (board._watchdog.timeout, board._watchdog.fed) == (8000, 2)
