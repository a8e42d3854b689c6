"""The one place that knows how this board counts time.

Ticks are milliseconds that never run back, for waiting; Unix time is for the broker's certificate
and, on a board that measures by itself, for readings. Readings of the rig bring their own time.

MicroPython counts seconds from 1970 or from 2000, by port; ``unix_s`` tells from ``gmtime(0)``.
"""

import time

try:
    from time import ticks_add, ticks_diff, ticks_ms
except ImportError:
    from time import monotonic_ns  # type: ignore[attr-defined, unused-ignore]

    def ticks_ms() -> int:  # type: ignore[no-redef, unused-ignore]
        """Give milliseconds of a clock that never runs back."""
        return monotonic_ns() // 1_000_000

    def ticks_diff(later: int, earlier: int) -> int:  # type: ignore[no-redef, unused-ignore]
        """Give the milliseconds from one tick to another."""
        return later - earlier

    def ticks_add(start: int, delta_ms: int) -> int:  # type: ignore[no-redef, unused-ignore]
        """Give a tick some milliseconds later."""
        return start + delta_ms


__all__ = ["ticks_add", "ticks_diff", "ticks_ms", "unix_s"]

_SECONDS_1970_TO_2000 = 946_684_800
_OFFSET_S = _SECONDS_1970_TO_2000 if time.gmtime(0)[0] == 2000 else 0


def unix_s() -> int:
    """Give the board's own clock as Unix seconds; right only after something has set it."""
    return int(time.time()) + _OFFSET_S
