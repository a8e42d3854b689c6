"""Tasks: who is late, who is begun anew, who is given up; and how faults are told."""

import asyncio

from firmware.meter import watch as watch_module
from firmware.meter.watch import Faults, Watch, wait


class Clock:
    """Stands for the ticks of firmware.meter.clock."""

    now = 0

    def ticks_ms(self):
        return self.now

    def ticks_diff(self, later, earlier):
        return later - earlier


def run(coroutine_function):
    """Run a test with a clock of its own and without waits between restarts."""
    clock = Clock()
    before = watch_module.clock, watch_module._pause
    watch_module.clock = clock
    watch_module._pause = _no_pause
    try:
        asyncio.run(coroutine_function(clock))
    finally:
        watch_module.clock, watch_module._pause = before


async def _no_pause():
    await asyncio.sleep(0)


async def _for_ever():
    await asyncio.Event().wait()


def test_task_is_late_after_its_limit_and_not_before():
    async def body(clock):
        watch = Watch(Faults(print))
        watch.start("a", _for_ever, 100)
        watch.start("b", _for_ever, 1000)
        clock.now = 100
        assert watch.late() is None
        clock.now = 101
        assert watch.late() == "a"
        watch.beat("a")
        assert watch.late() is None
        await watch.stop()

    run(body)


def test_task_without_a_limit_is_never_late():
    async def body(clock):
        watch = Watch(Faults(print))
        watch.start("a", _for_ever)
        clock.now = 10**9
        assert watch.late() is None
        await watch.stop()

    run(body)


def test_failing_task_is_begun_anew_told_and_at_last_given_up():
    told = []
    begun = []

    async def job():
        begun.append(1)
        raise ValueError("no")

    async def body(clock):
        watch = Watch(Faults(told.append))
        watch.start("a", job, 1000)
        for _ in range(200):
            await asyncio.sleep(0)
        assert watch.late() == "a"
        await watch.stop()

    run(body)
    assert len(begun) == 10
    assert told[0] == "task a failed: ValueError('no')" or told[0].startswith("task a failed: Val")
    assert len(told) == 4  # 1, 2, 4, 8


def test_stop_leaves_no_task_behind():
    ended = []

    async def job():
        try:
            await _for_ever()
        finally:
            ended.append(1)

    async def body(clock):
        watch = Watch(Faults(print))
        for name in "abc":
            watch.start(name, job, 1000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await watch.stop()
        assert len(ended) == 3

    run(body)


def test_faults_are_told_at_powers_of_two():
    told = []
    faults = Faults(told.append)
    for _ in range(9):
        faults.note("bad", "x")
    assert told == ["bad: x", "bad (2 times): x", "bad (4 times): x", "bad (8 times): x"]
    assert faults.counts == {"bad": 9}


def test_wait_tells_whether_the_event_came_and_clears_it():
    async def body(clock):
        event = asyncio.Event()
        assert not await wait(event, 1)
        event.set()
        assert await wait(event, 1000)
        assert not await wait(event, 1)

    run(body)
