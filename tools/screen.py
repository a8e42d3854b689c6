"""What the live pictures of ``demo``, ``replay`` and ``demo-network`` share."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live


class Screen:
    """A picture that is drawn over in a terminal; elsewhere there is none, and lines are printed.

    What a dumb terminal cannot draw over is told in lines too, as in a file. A context manager.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        draws = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False) if draws else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._end()
        if self._live is not None:
            self._live.stop()

    def _end(self) -> None:
        """Do what is left before the picture stays as it is."""

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started:6.1f} s"
