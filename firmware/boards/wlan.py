"""What Wi-Fi boards share: the network, the clock, the watchdog, the reset at the end.

``wifi.json`` in the board's root is ``{"ssid": ..., "password": ..., "country": "DE"}``; without it
the board waits, and says so.
"""

import asyncio
import json

import machine
import network

from firmware.meter import program

try:
    from typing import Any
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


FLASH = "/gridwitness"
_WIFI_FILE = "/wifi.json"
_JOIN_S = const(20)
_POLL_S = 0.2  # five times a second


class WlanBoard(program.Board):
    """A board with Wi-Fi; ``watchdog_ms`` is how long it may go without being fed."""

    def __init__(self, hardware: str, watchdog_ms: int) -> None:
        self.hardware = hardware
        self._watchdog_ms = watchdog_ms
        self._watchdog: "Any" = None
        self._wlan: "Any" = network.WLAN(network.STA_IF)
        self._clock_set = False

    def feed(self) -> None:
        """Feed the watchdog; the first call starts it, and nothing stops it again."""
        if self._watchdog is None:
            self._watchdog = machine.WDT(timeout=self._watchdog_ms)
        self._watchdog.feed()

    async def network(self) -> None:
        """Join the network of wifi.json and set the clock once; raises OSError."""
        if not self._wlan.isconnected():
            await self._join()
        if not self._clock_set:
            self._set_clock()

    async def _join(self) -> None:
        wlan = self._wlan
        wifi = _wifi()
        # Off and on again: after some failures a driver stays in a state from which it never joins.
        wlan.active(False)
        wlan.active(True)
        if wifi.get("country"):
            network.country(wifi["country"])
        wlan.connect(wifi["ssid"], wifi["password"])
        for _ in range(_JOIN_S * 5):
            if wlan.isconnected():
                return
            await asyncio.sleep(_POLL_S)
        raise OSError("cannot join " + str(wifi["ssid"]))

    def _set_clock(self) -> None:
        """Set the clock by SNTP; TLS looks at the dates of certificates."""
        import ntptime

        try:
            ntptime.timeout = 2
            ntptime.settime()
            self._clock_set = True
        except (OSError, OverflowError):
            pass  # no time server here: the next session asks again


def _wifi() -> "dict[str, Any]":
    try:
        with open(_WIFI_FILE) as file:
            wifi: "Any" = json.load(file)
    except ValueError:
        raise OSError(_WIFI_FILE + " is not JSON")
    if not isinstance(wifi, dict) or "ssid" not in wifi or "password" not in wifi:
        raise OSError(_WIFI_FILE + " needs ssid and password")
    return dict(wifi)


def run(board: WlanBoard) -> None:
    """Run the meter; resets the board if a task hung or the program broke, not if it was stopped.

    Ctrl-C and the rig's stop end it with the watchdog running where it was started: the board
    resets some seconds later unless somebody feeds it.
    """
    try:
        status = asyncio.run(program.run(FLASH, board))
    except KeyboardInterrupt:
        return
    except Exception as error:  # noqa: BLE001 - the program's edge: a board has nobody else
        import sys

        sys.print_exception(error)
        status = 1
    if status:
        machine.reset()
