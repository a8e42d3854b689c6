"""The rig channel over a port in memory, on both interpreters."""

import asyncio

from firmware.meter.rig import LineClosed, RigChannel
from ledger.protocol import frame


class _Port:
    """Gives prepared pieces, then the end of input; notes what is written, one byte a turn."""

    def __init__(self, pieces=()):
        self.pieces = list(pieces)
        self.written = bytearray()

    async def read(self):
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data):
        for byte in data:
            self.written.append(byte)
            await asyncio.sleep(0)


def test_frames_come_one_by_one_however_they_were_cut():
    line = frame.encode(1, b"one") + frame.encode(3, b"two") + frame.encode(3, b"")
    port = _Port([line[:4], line[4:5], line[5:-3], line[-3:]])

    async def main():
        channel = RigChannel(port)
        frames = []
        for _ in range(3):  # MicroPython has no await inside a comprehension
            frames.append(await channel.recv())
        return frames

    assert asyncio.run(main()) == [(1, b"one"), (3, b"two"), (3, b"")]


def test_end_of_input_raises_line_closed_after_the_last_frame():
    async def main():
        channel = RigChannel(_Port([frame.encode(3, b"last") + b"half a fra"]))
        first = await channel.recv()
        try:
            await channel.recv()
        except LineClosed:
            return first
        raise AssertionError("no end")

    assert asyncio.run(main()) == (3, b"last")


def test_noise_is_counted_and_passed_over():
    async def main():
        channel = RigChannel(_Port([b"Traceback (most", b" recent\r\n", frame.encode(1, b"x")]))
        return await channel.recv(), channel.errors

    assert asyncio.run(main()) == ((1, b"x"), 1)


def test_frames_of_several_tasks_do_not_mix():
    port = _Port()

    async def main():
        channel = RigChannel(port)
        await asyncio.gather(*[channel.send(n, bytes([n]) * 20) for n in (1, 2, 3)])

    asyncio.run(main())
    frames = frame.Decoder().feed(bytes(port.written))
    assert sorted(frames) == [(n, bytes([n]) * 20) for n in (1, 2, 3)]
