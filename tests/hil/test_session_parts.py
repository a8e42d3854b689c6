"""What a session leans on without running one."""

import asyncio

import pytest

from hil import session


def test_all_work_ends_before_the_first_error_comes_up():
    ended: list[str] = []

    async def work(name: str, turns: int, error: Exception | None) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        ended.append(name)
        if error is not None:
            raise error

    async def everything() -> None:
        await session._all(
            [
                work("slow", 9, None),
                work("wrong", 1, ValueError("first in the list")),
                work("also wrong", 0, OSError("first in time")),
            ]
        )

    with pytest.raises(ValueError, match="first in the list"):
        asyncio.run(everything())
    assert sorted(ended) == ["also wrong", "slow", "wrong"]


def test_cancelled_work_has_ended_when_the_cancellation_comes_up():
    ended: list[int] = []

    async def work(number: int, started: asyncio.Barrier) -> None:
        try:
            await started.wait()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # a process is waited for
            ended.append(number)

    async def everything() -> None:
        started = asyncio.Barrier(3)
        task = asyncio.create_task(session._all([work(1, started), work(2, started)]))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(ended) == [1, 2]

    asyncio.run(everything())
