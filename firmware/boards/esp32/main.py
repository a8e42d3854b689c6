"""ESP32 with 4 MB of flash: this file is the board's main.py, which MicroPython runs at start."""

from firmware.boards import memory

_WATCHDOG_MS = 20_000


def main() -> None:
    """Run the meter."""
    memory.before_imports()
    from firmware.boards import wlan

    memory.after_imports()
    wlan.run(wlan.WlanBoard("esp32", _WATCHDOG_MS))


if __name__ == "__main__":
    main()
