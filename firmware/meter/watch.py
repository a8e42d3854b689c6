"""Keeps the meter's tasks alive and knows whether they are: beats, restarts, counted faults.

Each task beats at least once in its limit, also while it only waits. A task that ends by an error
is counted, told of and started again; whoever feeds the hardware watchdog asks ``late`` first.
"""

import asyncio

from firmware.meter import clock

try:
    from typing import Any, Callable
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


_RESTART_S = const(1)
# A task that failed so often within ten minutes of running is given up, and counts as late.
_MOST_FAILURES = const(10)
_GOOD_RUN_MS = const(600_000)


async def wait(event: "asyncio.Event", limit_ms: int) -> bool:
    """Wait for an event at most so long, clear it, and give whether it came."""
    try:
        await asyncio.wait_for(event.wait(), limit_ms / 1000)
    except asyncio.TimeoutError:
        return False
    event.clear()
    return True


async def _pause() -> None:
    await asyncio.sleep(_RESTART_S)


class Faults:
    """Counts faults by name and tells of the 1st, 2nd, 4th, 8th ... of each.

    Whoever floods the meter with broken messages must not flood its log.
    """

    def __init__(self, tell: "Callable[[str], None]") -> None:
        self._tell = tell
        self.counts: "dict[str, int]" = {}

    def note(self, name: str, detail: str = "") -> None:
        """Count a fault; names are few and fixed, details are free text."""
        count = self.counts.get(name, 0) + 1
        self.counts[name] = count
        if not count & (count - 1):
            text = name if count == 1 else name + " (" + str(count) + " times)"
            self._tell(text + (": " + detail if detail else ""))


class Watch:
    """Starts tasks and knows their last beat; ``on_give_up(name)`` hears of a task given up."""

    def __init__(self, faults: Faults, on_give_up: "Callable[[str], None] | None" = None) -> None:
        self._faults = faults
        self._on_give_up = on_give_up
        self._beats: "dict[str, tuple[Any, int]]" = {}
        self._tasks: "list[Any]" = []
        self._given_up: "str | None" = None

    def start(self, name: str, job: "Callable[[], Any]", limit_ms: int = 0) -> None:
        """Run the coroutine function ``job`` as a task that must beat every ``limit_ms``.

        0 is for a task that waits for others as long as they like: it never counts as late.
        """
        if limit_ms:
            self._beats[name] = (clock.ticks_ms(), limit_ms)
        self._tasks.append(asyncio.create_task(self._keep(name, job)))

    def beat(self, name: str) -> None:
        """Note that a task is alive."""
        self._beats[name] = (clock.ticks_ms(), self._beats[name][1])

    def late(self) -> "str | None":
        """Give the name of a task that was given up or whose beat is overdue, or None."""
        if self._given_up is not None:
            return self._given_up
        now = clock.ticks_ms()
        for name in self._beats:
            last, limit_ms = self._beats[name]
            if clock.ticks_diff(now, last) > limit_ms:
                return name
        return None

    async def stop(self) -> None:
        """Cancel every task, the newest first, and wait until it is gone."""
        while self._tasks:
            task = self._tasks.pop()
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
        self._beats = {}

    async def _keep(self, name: str, job: "Callable[[], Any]") -> None:
        failures = 0
        while failures < _MOST_FAILURES:
            started = clock.ticks_ms()
            try:
                await job()
                return
            except Exception as error:  # noqa: BLE001 - the task's edge: told, counted, begun anew
                self._faults.note("task " + name + " failed", repr(error))
            if clock.ticks_diff(clock.ticks_ms(), started) > _GOOD_RUN_MS:
                failures = 0
            failures += 1
            await _pause()
        self._given_up = name
        if self._on_give_up:
            self._on_give_up(name)
