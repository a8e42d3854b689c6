"""Which broker the link goes to next, and how it gets there, on both interpreters."""

import asyncio

from firmware.meter import clock, link, stream
from firmware.meter.link import Brokers, Link
from ledger.protocol.settings import Settings

A, B, C = ("a", 1883), ("b", 8883), ("c", 1)


def test_broker_that_works_is_kept():
    brokers = Brokers([A, B])
    for _ in range(5):
        brokers.ended(True, 0)
        assert brokers.now() == A


def test_session_that_did_not_last_gives_the_next_its_turn():
    brokers = Brokers([A, B, C])
    seen = []
    for _ in range(7):
        seen.append(brokers.now())
        brokers.ended(False, 0)
    assert seen == [A, B, C, A, B, C, A]


def test_broker_found_later_is_kept_when_its_session_ends():
    brokers = Brokers([A, B])
    brokers.ended(False, 0)
    brokers.ended(True, 0)
    assert brokers.now() == B


def test_wait_doubles_when_all_had_their_turn():
    brokers = Brokers([A, B])
    waits = [brokers.ended(False, 255) for _ in range(6)]
    assert waits[0] == waits[1] < waits[2] == waits[3] < waits[4] == waits[5]
    assert brokers.ended(True, 255) == waits[0]


def test_one_broker_waits_as_ever():
    brokers = Brokers([A])
    waits = [brokers.ended(False, 255) for _ in range(4)]
    assert waits == [link.next_wait_ms(failures, 255) for failures in range(4)]


class _Refusing:
    """A connection that nobody takes; notes where it was to go."""

    def __init__(self, asked):
        self._asked = asked

    async def open(self, host, port, ssl, server_hostname):
        self._asked.append((host, port, server_hostname))
        raise OSError("refused")

    def close(self, orderly):
        pass


class _Outbox:
    ready = None

    def restart(self):
        pass


async def _network():
    pass


def test_every_broker_is_asked_under_its_own_name():
    asked = []
    before, stream.Stream = stream.Stream, lambda: _Refusing(asked)
    settings = Settings(bytes(32), 60, 11, 8, [], 1, [], "c1", [], "pi-1,pi-2:8883", 1883)

    async def main():
        done = asyncio.Event()

        def fault(name, text):
            if len(asked) == 3:
                done.set()

        nothing = lambda *_: None  # noqa: E731
        made = Link(settings, bytes(16), _Outbox(), _network, nothing, nothing, nothing, fault)
        task = asyncio.create_task(made.run())
        began = clock.ticks_ms()
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        return clock.ticks_diff(clock.ticks_ms(), began)

    try:
        assert asyncio.run(main()) < 5000
    finally:
        stream.Stream = before
    assert asked == [("pi-1", 1883, "pi-1"), ("pi-2", 8883, "pi-2"), ("pi-1", 1883, "pi-1")]
