"""``gridwitness demo-network``: what it promises comes out, and it leaves nothing behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hil import micropython
from tests.cometbft import needs_cometbft
from tests.hil.wide_network import NAMES

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tools.cli", "demo-network"]

pytestmark = needs_cometbft

try:
    micropython.interpreter()
except micropython.InterpreterNotFoundError as missing:
    pytestmark = pytest.mark.skip(reason=str(missing))


def processes_below(folder: Path) -> list[str]:
    """Give the command lines of processes that mention a folder, or that run in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = str((entry / "cwd").readlink())
        except OSError:
            continue
        if (str(folder) in line or where.startswith(str(folder))) and "demo-network" not in line:
            found.append(line)
    return found


def test_demo_shows_what_it_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    keep, file = tmp_path / "kept", tmp_path / "summary.json"
    done = subprocess.run(
        [*COMMAND, "--meters=4", "--rounds=20", f"--keep={keep}", f"--json={file}"],
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "signed by its key" in done.stdout
    summary = json.loads(file.read_text())
    network = summary["network"]
    assert network["validators"] == list(NAMES)
    assert network["app_hashes_equal"]
    assert len(set(network["heights"].values())) == 1
    assert network["caught_up_blocks"] >= 3
    assert 0 < network["finality_ms_median"] < 10_000
    assert summary["readings"]["published"] == 2 * 4 * 20
    assert summary["false_rejections"] == 0
    assert summary["audit"]["ok"] and summary["audit"]["equal"]
    counts = summary["wide_area"]
    assert counts["conflicts"] == 1
    assert counts["of_regions"] + counts["of_probe"] == counts["summaries"]
    assert counts["of_probe"] >= network["finality_samples"] > 0
    assert all("seconds" not in region for region in summary["regions"].values())
    (hint,) = [line for line in done.stdout.splitlines() if "gridwitness verify" in line]
    words = [sys.executable, "-m", "tools.cli", *shlex.split(hint)[1:]]
    checked = subprocess.run(words, capture_output=True, timeout=60, check=False, cwd=ROOT)
    assert checked.returncode == 0, checked.stderr
    assert all(attack["stopped"] == attack["attempts"] == 1 for attack in summary["attacks"])
    assert summary["figure"]["ok"]
    assert summary["figure"]["figures"]["to_height"] == 20
    assert summary["figure"]["reading"]["outcome"] == "accepted"
    assert processes_below(keep) == []


def test_stopping_the_demo_leaves_no_process(tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    demo = subprocess.Popen(
        [*COMMAND, "--meters=4", f"--keep={keep}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "is killed" in line:
            break
    assert len(processes_below(keep)) > 8
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "all processes have ended" in errors
    assert processes_below(keep) == []
