"""ESP32: this file is the board's main.py, which MicroPython runs at start.

Importing it does nothing; on the board it is the main program. docs/firmware.md tells how to flash.
"""

from firmware.boards import wlan

_WATCHDOG_MS = 20_000


class Esp32(wlan.WlanBoard):
    """An ESP32 with 4 MB of flash, littlefs."""

    hardware = "esp32"


if __name__ == "__main__":
    wlan.run(Esp32(_WATCHDOG_MS))
