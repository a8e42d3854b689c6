"""Counters count from all threads; the log writes a line an event and cannot be flooded."""

import logging
import threading

from gateway.counters import Counters, FloodFilter


def test_no_count_is_lost_between_threads() -> None:
    counters = Counters()

    def work() -> None:
        for _ in range(5000):
            counters.add("a")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.add("b", 3)
    assert counters.snapshot() == {"a": 20_000, "b": 3}
    assert counters["absent"] == 0


def line(message: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "file", 1, message, ("argument",), None)


def test_flood_of_one_event_is_held_back_and_counted() -> None:
    now = 0.0
    flood = FloodFilter(lambda: now)
    passed = [flood.filter(line("event=rejected code=%s")) for _ in range(100)]
    assert sum(passed) == 30
    assert flood.filter(line("event=closed code=%s"))
    now = 60.0
    record = line("event=rejected code=%s")
    assert flood.filter(record)
    assert record.getMessage() == "event=rejected code=argument held_back=70"
    again = line("event=rejected code=%s")
    assert flood.filter(again)
    assert again.getMessage() == "event=rejected code=argument"
