"""A board on a serial line: rig messages in frames over pyserial, USB or UART.

Boards are named by USB serial number, a device path or a pyserial URL, never by the order in which
the system found them. A board answers to a question within seconds or there is nobody.
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import serial
from serial.tools import list_ports

from firmware.meter import rig_messages
from ledger.protocol import frame
from ledger.protocol.errors import ProtocolError

_BAUD = 115_200
_READ_TIMEOUT_S = 0.1
_READ_BYTES = 4096


class LineError(OSError):
    """The line cannot be opened, or nobody answers on it; the message says what to try."""


def resolve(name: str) -> str:
    """Give what pyserial opens for a USB serial number, a device path or a URL.

    Raises LineError when a number belongs to no board, or to several.
    """
    if "/" in name or "://" in name or name.upper().startswith("COM"):
        return name
    found = [port for port in list_ports.comports() if port.serial_number == name]
    if len(found) == 1:
        return str(found[0].device)
    here = ", ".join(f"{port.serial_number} ({port.device})" for port in list_ports.comports())
    raise LineError(
        f"no board has the USB serial number {name}: "
        f"{'there is ' + here if here else 'no serial port is there'}"
    )


class SerialLine:
    """An open line to one board. Raises LineError."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._decoder = frame.Decoder()
        try:
            self._port = serial.serial_for_url(
                resolve(name), baudrate=_BAUD, timeout=_READ_TIMEOUT_S
            )
        except (serial.SerialException, ValueError) as e:
            raise LineError(f"{name} cannot be opened: {e}") from e

    def send(self, message: bytes) -> None:
        """Send a rig message."""
        try:
            self._port.write(frame.encode(frame.CHANNEL_RIG, message))
        except serial.SerialException as e:
            raise LineError(f"{self.name} takes nothing: {e}") from e

    def ask(self, message: bytes, answer: int, limit_s: float) -> list[Any]:
        """Send a message and give the next rig message of a kind; others are passed over."""
        self.send(message)
        for found in self._messages(time.monotonic() + limit_s):
            if found[0] == answer:
                return found
        raise LineError(
            f"nobody answers on {self.name}: does the board run the meter's program, and does "
            "no other program (mpremote, a terminal) hold the port?"
        )

    def _messages(self, deadline: float) -> Iterator[list[Any]]:
        while time.monotonic() < deadline:
            try:
                data = self._port.read(max(1, min(_READ_BYTES, self._port.in_waiting)))
            except serial.SerialException as e:
                raise LineError(f"{self.name} was lost: {e}") from e
            for channel, payload in self._decoder.feed(data):
                if channel == frame.CHANNEL_RIG:
                    try:
                        yield rig_messages.decode(payload)
                    except ProtocolError:
                        continue  # a newer program may say more than this one knows

    def close(self) -> None:
        """Let go of the port."""
        self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
