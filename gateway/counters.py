"""Counts of what happened since the start, from all threads, and the log's form."""

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

_LINES_A_MINUTE = 30


class Counters:
    """Named counts; names are ``area.what``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, n: int = 1) -> None:
        """Count ``n`` more."""
        with self._lock:
            self._counts[name] += n

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        """Give all counts by name, in the order of names."""
        with self._lock:
            return dict(sorted(self._counts.items()))


class FloodFilter(logging.Filter):
    """Lets ``_LINES_A_MINUTE`` lines of one event pass in a minute, so a peer cannot fill the card.

    The next line that passes after some were held back says how many.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line passes."""
        now = self._clock()
        since, lines = self._seen.get(record.msg, (now, 0))
        if now - since >= 60:
            held_back = lines - _LINES_A_MINUTE
            since, lines = now, 0
            if held_back > 0:
                record.msg += f" held_back={held_back}"
                self._seen[record.msg.rsplit(" held_back=", 1)[0]] = (since, 1)
                return True
        self._seen[record.msg] = (since, lines + 1)
        return lines < _LINES_A_MINUTE


def start_log(level: str) -> None:
    """Write one line an event to standard error: ``2026-01-31T12:00:00Z info event=…``."""
    handler = logging.StreamHandler(sys.stderr)
    form = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    handler.addFilter(FloodFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(number, logging.getLevelName(number).lower())
