"""Raspberry Pi Pico W: this file is the board's main.py, which MicroPython runs at start."""

from firmware.boards import memory

# The RP2040's watchdog counts to 8,388 ms: its 24 bits count every microsecond twice (RP2040-E1).
_WATCHDOG_MS = 8300


def main() -> None:
    """Run the meter."""
    memory.before_imports()
    from firmware.boards import wlan

    memory.after_imports()
    wlan.run(wlan.WlanBoard("rp2 pico-w", _WATCHDOG_MS))


if __name__ == "__main__":
    main()
