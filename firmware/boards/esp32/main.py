"""ESP32 with 4 MB of flash: this file is the board's main.py, which MicroPython runs at start."""

from firmware.boards.memory import keep_in_one_piece

_WATCHDOG_MS = 20_000


def main() -> None:
    """Run the meter."""
    keep_in_one_piece()
    from firmware.boards import wlan

    wlan.run(wlan.WlanBoard("esp32", _WATCHDOG_MS))


if __name__ == "__main__":
    main()
