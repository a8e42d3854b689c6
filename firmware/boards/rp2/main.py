"""Raspberry Pi Pico W: this file is the board's main.py, which MicroPython runs at start."""

from firmware.boards.memory import keep_in_one_piece

# The RP2040's watchdog counts to 8,388 ms: its 24 bits count every microsecond twice (RP2040-E1).
_WATCHDOG_MS = 8300


def main() -> None:
    """Run the meter."""
    keep_in_one_piece()
    from firmware.boards import wlan

    wlan.run(wlan.WlanBoard("rp2 pico-w", _WATCHDOG_MS))


if __name__ == "__main__":
    main()
