"""Telling systemd that the service is ready and alive (sd_notify(3)), where systemd asks for it."""

import os
import socket


class Notifier:
    """Sends states to the socket that ``NOTIFY_SOCKET`` names; without one it does nothing."""

    def __init__(self, address: str | None = None) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        # a leading @ stands for the abstract namespace
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None

    def send(self, state: str) -> None:
        """Send one state, such as ``READY=1`` or ``WATCHDOG=1``; a deaf manager is no fault."""
        if self._socket is None:
            return
        try:
            self._socket.sendto(state.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
