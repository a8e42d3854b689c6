"""The rig channel between this process and a real program on either interpreter."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from ledger.protocol import frame
from tests.firmware import programs

ECHO = """
import asyncio
from firmware.meter.rig import LineClosed, RigChannel

async def main():
    rig = RigChannel()
    try:
        while True:
            channel, payload = await rig.recv()
            await rig.send(channel, payload)
    except LineClosed:
        pass

asyncio.run(main())
"""

# Sends more than a pipe holds while nobody reads, and says on standard error that another task
# still had 20 turns after the pipe was full.
FLOOD = """
import asyncio, sys
from firmware.meter.rig import RigChannel

sent = 0

async def flood(rig):
    global sent
    for n in range(300):
        await rig.send(2, n.to_bytes(2, "big") + bytes(1000))
        sent += 1

async def main():
    rig = RigChannel()
    flooding = asyncio.create_task(flood(rig))
    before, turns = -1, 0
    while turns < 20:
        await asyncio.sleep(0.005)
        turns = turns + 1 if sent == before else 0
        before = sent
    sys.stderr.write("full at %d\\n" % sent)
    await flooding

asyncio.run(main())
"""

Start = Callable[[str, str], "Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def run(kind: str, text: str) -> "Popen[bytes]":
        program = tmp_path / "program.py"
        program.write_text(text, encoding="ascii")
        started.append(programs.start(kind, program))
        return started[-1]

    yield run
    for process in started:
        programs.end(process)


def _frames(process: "Popen[bytes]", count: int) -> list[tuple[int, bytes]]:
    decoder = frame.Decoder()
    got: list[tuple[int, bytes]] = []
    while len(got) < count:
        data = process.stdout.read(4096)
        assert data, process.stderr.read().decode()
        got += decoder.feed(data)
    assert decoder.errors == 0
    return got


@pytest.mark.parametrize("kind", programs.BOTH)
def test_a_thousand_frames_come_back_whole_and_in_order(start: Start, kind: str) -> None:
    draw = random.Random(1)
    sent = [(draw.randrange(256), draw.randbytes(draw.randrange(400))) for _ in range(1000)]
    line = b"".join(frame.encode(channel, payload) for channel, payload in sent)
    process = start(kind, ECHO)
    writer = threading.Thread(target=process.stdin.write, args=(line,))
    writer.start()
    try:
        assert _frames(process, 1000) == sent
    finally:
        writer.join(10)


@pytest.mark.parametrize("kind", programs.BOTH)
def test_a_frame_is_answered_without_waiting_for_more(start: Start, kind: str) -> None:
    process = start(kind, ECHO)
    for n in range(50):
        process.stdin.write(frame.encode(3, bytes([n, 0, 2, 3]) * 50))
        assert _frames(process, 1) == [(3, bytes([n, 0, 2, 3]) * 50)]


@pytest.mark.parametrize("kind", programs.BOTH)
def test_end_of_standard_input_ends_the_program(start: Start, kind: str) -> None:
    process = start(kind, ECHO)
    process.stdin.write(frame.encode(3, b"last") + b"\x05half")
    assert _frames(process, 1) == [(3, b"last")]
    process.stdin.close()
    assert process.wait(10) == 0, process.stderr.read().decode()


@pytest.mark.parametrize("kind", programs.BOTH)
def test_host_that_does_not_read_holds_up_no_other_task(start: Start, kind: str) -> None:
    process = start(kind, FLOOD)
    words = process.stderr.readline().split()
    assert words[:2] == [b"full", b"at"], words
    assert int(words[2]) < 300, "the pipe never filled"
    got = _frames(process, 300)
    assert [payload[:2] for _, payload in got] == [n.to_bytes(2, "big") for n in range(300)]
    assert process.wait(10) == 0
