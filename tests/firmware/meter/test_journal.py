"""The journal on real filesystems: a littlefs that loses power, and a process that is killed."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.meter.journal import Journal
from firmware.meter.storage import Cell, Counter
from hil.micropython import environment
from tests.firmware import programs

LITTLEFS = Path(programs.__file__).with_name("littlefs_cuts.py")

# Says each number when it is stored; numbers go on where the folder's newest entry ends.
APPENDER = """
import sys
from firmware.meter.journal import Journal
from firmware.meter.storage import Cell, Counter

folder = sys.argv[1]
boot = Counter(folder + "/boot").next()
print("boot", boot)
head = Cell(folder + "/head")
journal = Journal(folder + "/journal", 40, segment_bytes=1024, segments=12)
number = 0
for key, record in journal:
    number = int.from_bytes(key, "big")
while True:
    number += 1
    key = number.to_bytes(4, "big")
    journal.append(key, key * 30, lost=journal.lost)
    head.write(key)
    print("stored", number)
    if number % 5 == 0:
        journal.remove(key)
"""


def _littlefs(*arguments: str) -> int:
    done = subprocess.run(
        programs.command("micropython", LITTLEFS, *arguments),
        env=environment(programs.ROOT),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout)


def test_power_cut_at_every_flash_operation_of_a_littlefs_loses_nothing_that_was_stored() -> None:
    assert _littlefs("cuts", "1") > 200


def test_a_thousand_rounds_cost_less_than_three_erases_each() -> None:
    assert _littlefs("wear") < 3_000


@pytest.mark.parametrize("kind", programs.BOTH)
def test_killed_process_leaves_all_that_it_said_was_stored(kind: str, tmp_path: Path) -> None:
    program = tmp_path / "appender.py"
    program.write_text(APPENDER, encoding="ascii")
    newest = 0
    for boot in range(1, 9):
        process = programs.start(kind, program, str(tmp_path))
        try:
            assert process.stdout.readline().split() == [b"boot", str(boot).encode()]
            for _ in range(7 * boot):
                newest = int(process.stdout.readline().split()[1])
            process.kill()
            for line in process.stdout.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    newest = int(line.split()[1])
        finally:
            programs.end(process)
        journal = Journal(str(tmp_path / "journal"), 40, segment_bytes=1024, segments=12)
        found = dict(journal)
        for number in range(max(1, newest - 30), newest + 1):
            key = number.to_bytes(4, "big")
            if number % 5:
                assert found[key] == key * 30
        head = Cell(str(tmp_path / "head")).read()
        assert head is not None
        assert int.from_bytes(head, "big") in (newest, newest + 1)
    assert Counter(str(tmp_path / "boot")).next() == 9


@given(st.lists(st.binary(max_size=200), max_size=3), st.integers(0, 255))
def test_any_bytes_in_the_segment_files_open_without_an_error(
    tmp_path_factory: pytest.TempPathFactory, segments: list[bytes], flipped: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal: Any = Journal(str(folder), 8, segment_bytes=512, segments=3)
    journal.append(b"first", b"record")
    whole = (folder / "00000000.seg").read_bytes()
    at = flipped % len(whole)
    segments = [*segments, whole[:at] + bytes([whole[at] ^ flipped]) + whole[at + 1 :]]
    for number, data in enumerate(segments):
        (folder / f"{number:08x}.seg").write_bytes(data)
    journal = Journal(str(folder), 8, segment_bytes=512, segments=3)
    journal.append(b"key", b"record")
    journal = Journal(str(folder), 8, segment_bytes=512, segments=3)
    assert list(journal)[-1] == (b"key", b"record")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_in_a_cell_read_as_a_value_or_none(
    tmp_path_factory: pytest.TempPathFactory, zero: bytes, one: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cell")
    (folder / "c.0").write_bytes(zero)
    (folder / "c.1").write_bytes(one)
    cell = Cell(os.fspath(folder / "c"))
    assert cell.read() is None
    assert cell.damaged
    cell.write(b"value")
    assert cell.read() == b"value"
