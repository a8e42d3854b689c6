"""A meter as a process of the rig: its messages are decoded, what cannot be read is counted."""

import asyncio

import pytest

from firmware.meter import rig_messages
from hil import micropython
from hil.meters import MeterError, ProcessMeter
from ledger.protocol import frame

try:
    micropython.interpreter()
except micropython.InterpreterNotFoundError as missing:
    pytestmark = pytest.mark.skip(reason=str(missing))

#: Writes what it is given and ends when its input does.
PROGRAM = """
import sys
sys.stdout.buffer.write({!r})
sys.stdin.buffer.read()
"""


def meter(tmp_path, output: bytes, taken: list) -> ProcessMeter:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(output))
    return ProcessMeter("m1", tmp_path / "m1", lambda _, message: taken.append(message), program)


def run(meter: ProcessMeter) -> None:
    async def start_and_stop() -> None:
        await meter.start()
        await meter.stop()

    asyncio.run(start_and_stop())


def rig(message: bytes) -> bytes:
    return frame.encode(frame.CHANNEL_RIG, message)


def test_messages_are_handed_over_in_their_order(tmp_path):
    taken: list = []
    run(meter(tmp_path, rig(rig_messages.link(True)) + rig(rig_messages.unreceipted(3)), taken))
    assert [message[0] for message in taken] == [rig_messages.LINK, rig_messages.UNRECEIPTED]
    assert taken[1][1] == 3


def test_damaged_frames_and_unknown_messages_are_counted_and_cost_no_other(tmp_path):
    taken: list = []
    broken = bytearray(rig(rig_messages.link(True)))
    broken[5] ^= 1
    output = rig(b"no message") + bytes(broken) + rig(rig_messages.link(False))
    one = meter(tmp_path, output, taken)
    run(one)
    assert one.damaged == 2
    assert taken == [rig_messages.decode(rig_messages.link(False))]


def test_enrolment_that_nobody_signed_is_counted_and_not_believed(tmp_path):
    taken: list = []
    one = meter(tmp_path, rig(rig_messages.enrol(b"not an envelope")), taken)
    run(one)
    assert (one.damaged, one.public_key, taken) == (1, b"", [])


def test_other_channels_are_not_the_rigs(tmp_path):
    taken: list = []
    one = meter(tmp_path, frame.encode(frame.CHANNEL_LOG, b"a line for people"), taken)
    run(one)
    assert (one.damaged, taken) == (0, [])


def test_meter_that_does_not_enrol_is_an_error_with_its_log(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys\nsys.stderr.write('no entropy here')\nsys.stdin.buffer.read()\n")

    async def enrol() -> None:
        one = ProcessMeter("m1", tmp_path / "m1", lambda *_: None, program)
        await one.start()
        try:
            await one.enrolled(0.5)
        finally:
            await one.stop()

    with pytest.raises(MeterError, match="m1 did not enrol: no entropy here"):
        asyncio.run(enrol())
