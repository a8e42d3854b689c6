"""Raspberry Pi Pico W (rp2): this file is the board's main.py, which MicroPython runs at start.

Importing it does nothing; on the board it is the main program. docs/firmware.md tells how to flash.
"""

from firmware.boards import wlan

# The RP2040's watchdog counts to 8,388 ms (errata RP2040-E1 halves the register's range).
_WATCHDOG_MS = 8300


class PicoW(wlan.WlanBoard):
    """The Pico W; its flash is littlefs, and 4 KB is an erase block."""

    hardware = "rp2 pico-w"


if __name__ == "__main__":
    wlan.run(PicoW(_WATCHDOG_MS))
