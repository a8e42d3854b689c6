"""The durable queues: nothing that was acknowledged is lost, nothing is kept twice."""

import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.queue import Message, Queue, QueueFull
from ledger.store import StoreError

REGION = b"regional"


def messages(*numbers: int) -> list[Message]:
    return [Message(f"topic/{n}", bytes([n % 256]) * 3) for n in numbers]


def open_queue(path: Path, rows: int = 1000) -> Queue:
    return Queue(path, inbox_rows=rows, outbox_rows=3)


def test_messages_come_back_oldest_first_after_reopening(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "q.sqlite")
    rows = queue.append(messages(1, 2)) + queue.append(messages(3))
    queue.close()
    queue = open_queue(tmp_path / "q.sqlite")
    assert queue.waiting == 3
    assert queue.inbox() == list(zip(rows, messages(1, 2, 3), strict=True))
    queue.forget(rows[:2])
    assert queue.inbox() == [(rows[2], messages(3)[0])]
    assert queue.waiting == 1
    queue.close()


def test_row_numbers_are_never_used_again(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "q.sqlite")
    rows = queue.append(messages(1, 2))
    queue.forget(rows)
    queue.close()
    queue = open_queue(tmp_path / "q.sqlite")
    assert queue.append(messages(3))[0] > rows[-1]
    queue.close()


def test_full_inbox_takes_all_or_none() -> None:
    queue = Queue(None, inbox_rows=3, outbox_rows=1)
    queue.append(messages(1, 2))
    with pytest.raises(QueueFull):
        queue.append(messages(3, 4))
    assert queue.waiting == 2
    assert queue.room() == 1
    queue.append(messages(3))
    queue.close()


def test_summary_is_kept_once_for_its_region_and_heights() -> None:
    queue = Queue(None, inbox_rows=3, outbox_rows=9)
    queue.put(REGION, 0, 15, b"first")
    queue.put(REGION, 0, 15, b"again")
    queue.put(REGION, 15, 30, b"second")
    assert queue.newest(REGION) == 30
    assert queue.newest(b"another!") == 0
    first, second = queue.oldest(9)
    assert queue.oldest(1) == [first]
    assert first.tx == b"first"
    queue.done(first)
    assert queue.outgoing == 1
    assert (second.after, second.last, second.tx) == (15, 30, b"second")
    queue.done(second)
    assert queue.oldest(9) == []
    assert queue.newest(REGION) == 30
    queue.close()


def test_outbox_is_bounded() -> None:
    queue = Queue(None, inbox_rows=3, outbox_rows=1)
    queue.put(REGION, 0, 15, b"tx")
    with pytest.raises(QueueFull):
        queue.put(REGION, 15, 30, b"tx")
    queue.close()


def test_second_owner_is_refused(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "q.sqlite")
    with pytest.raises(StoreError, match="only one may own it"):
        open_queue(tmp_path / "q.sqlite")
    queue.close()


def test_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "q.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(StoreError):
        open_queue(tmp_path / "q.sqlite")


def test_full_disk_is_a_store_error_and_the_queue_goes_on(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "q.sqlite")
    connection: sqlite3.Connection = queue._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    big = [Message("topic", bytes(1024)) for _ in range(100)]
    with pytest.raises(StoreError, match="cannot be written"):
        queue.append(big)
    assert queue.inbox() == []
    connection.execute(f"PRAGMA max_page_count={pages + 1000}")
    assert len(queue.append(big)) == 100
    queue.close()


APPENDER = """
import os, struct, sys
from pathlib import Path
from gateway.queue import Message, Queue
queue = Queue(Path(sys.argv[1]), inbox_rows=10**6, outbox_rows=10)
n = queue.waiting
while True:
    queue.append([Message("t", struct.pack(">I", n + i)) for i in range(7)])
    n += 7
    os.write(1, struct.pack(">I", n))
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    rng = random.Random(7)
    path = tmp_path / "q.sqlite"
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        # killed after some acknowledgements, at whatever the child does at that moment
        for _ in range(rng.randrange(1, 60)):
            acknowledged = struct.unpack(">I", child.stdout.read(4))[0]
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read()
        child.stdout.close()
        child.wait(10)
        if len(rest) >= 4:
            acknowledged = struct.unpack(">I", rest[len(rest) // 4 * 4 - 4 : len(rest) // 4 * 4])[0]
        queue = Queue(path, inbox_rows=10**6, outbox_rows=10)
        numbers = [struct.unpack(">I", m.payload)[0] for _, m in queue.inbox()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= acknowledged
        assert len(numbers) % 7 == 0
        queue.close()
