"""Whole sessions: real MicroPython meters, a real broker, the gateway's program, both chains."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hil import clusters, faults, micropython, traces
from hil.broker import BrokerError, Tls
from hil.report import make_report
from hil.session import Plan, Session
from ledger.audit import audit
from ledger.protocol import tally
from ledger.regional.view import LedgerView
from tests.broker import make_certificates

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tools.cli"]

try:
    micropython.interpreter()
except micropython.InterpreterNotFoundError as missing:
    pytestmark = pytest.mark.skip(reason=str(missing))


class Silent:
    """A view that shows nothing."""

    def update(self, progress):
        """Ignore."""


def plan(folder: Path, rounds: int, meters: int = 4, **more) -> Plan:
    recording = traces.sample_day()
    chosen = [meter for meter in recording.meters if meter.phase == "L1"][:meters]
    return Plan(
        recording,
        clusters.split_clusters(chosen),
        rounds,
        folder,
        first=18 * 60,
        window_rounds=3,
        **more,
    )


def play(session: Session) -> None:
    try:
        asyncio.run(session.run(Silent()))
    except BrokerError as e:
        pytest.skip(str(e))


def processes_below(folder: Path) -> list[str]:
    """Give the command lines of processes that mention a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line and "gridwitness demo" not in line:
                found.append(line)
    return found


def test_a_lost_broker_and_gateway_cost_no_reading(tmp_path):
    async def script(index: int, session: Session) -> None:
        if index == 2:
            online = session.progress.meters.values
            session.broker.kill()
            await session.until(lambda: not any(m.online for m in online()), 60, "still online")
            session.broker.start()
            await session.until(lambda: all(m.online for m in online()), 60, "not back")
        if index == 4:
            await session.sites.stop()
            await session.start_gateway()

    session = Session(plan(tmp_path, 7, script=script))
    play(session)
    report = make_report(session)
    assert report.readings == {
        "published": 28,
        "accepted": 28,
        "rejected": 0,
        "unconfirmed": 0,
    }
    assert audit(session.directory).ok


def test_meter_that_is_killed_goes_on_with_its_boot_count_and_registers(tmp_path):
    async def script(index: int, session: Session) -> None:
        if index == 3:
            await session.restart_meter("S05")

    session = Session(plan(tmp_path, 6, script=script))
    play(session)
    ledger = LedgerView(session.directory.regional, 60)
    address = next(a for a, name in session.names.items() if name == "S05")
    readings = [r for r in ledger.readings() if r.address == address]
    ledger.close()
    assert [(r.reading.boot, r.reading.seq) for r in readings] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (2, 2),
        (2, 3),
    ]
    assert {r.outcome for r in readings} == {tally.ACCEPTED}
    for before, after in itertools.pairwise(readings):
        assert after.reading.previous == before.digest


def test_meter_joins_and_another_leaves_by_two_of_three_operators(tmp_path):
    told: list[str] = []

    def member(session: Session, *words: object) -> None:
        done = subprocess.run(
            [*COMMAND, "member", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
        told.append(done.stdout + done.stderr)
        assert done.returncode == 0, told

    async def script(index: int, session: Session) -> None:
        region = session.directory.path
        if index == 2:
            meter = await session.add_meter("S10", "c1")
            request = tmp_path / "request.cose"
            request.write_bytes(meter.enrolment)
            words = ("join", region, "--request", request, "--cluster", "c1")
            await asyncio.to_thread(member, session, *words)
        if index == 6:
            address = next(a for a, name in session.names.items() if name == "S08")
            words = ("leave", region, "--meter", address.hex())
            await asyncio.to_thread(member, session, *words)

    session = Session(plan(tmp_path, 12, script=script))
    play(session)
    state = session.directory.open_regional(read_only=True)
    try:
        names = session.names
        members = {names[a]: m for a, m in state.state.members.items()}
        assert members["S10"].active_from > session.first_round
        assert members["S10"].votes_from > session.first_round + 12  # the next epoch
        assert members["S08"].active_until is not None
        assert state.state.registry.changes == 2
    finally:
        state.close()
    ledger = LedgerView(session.directory.regional, 60)
    joined = [r for r in ledger.readings() if names[r.address] == "S10"]
    left = [r for r in ledger.readings() if names[r.address] == "S08"]
    ledger.close()
    assert joined
    assert joined[-1].outcome == tally.ACCEPTED
    assert joined[-1].drawn == 3  # the whole cluster without the one that left
    assert 6 <= len(left) < 12
    assert audit(session.directory).ok


@pytest.mark.parametrize("kind", ["nats", "mosquitto"])
def test_everything_works_over_tls(tmp_path, kind):
    own = make_certificates(tmp_path / "certificates")
    tls = Tls(own.cert, own.key, own.ca)
    session = Session(plan(tmp_path, 3, broker=kind, tls=tls, heap="400k"))
    play(session)
    report = make_report(session)
    assert report.readings["accepted"] == report.readings["published"] == 12


def test_falsified_input_is_rejected_and_honest_meters_are_not(tmp_path):
    fault = faults.ScaledVoltage("S06", first=6, permille=1080)
    session = Session(plan(tmp_path, 10, meters=6, faults=(fault,)))
    play(session)
    report = make_report(session)
    assert fault.attempts == 4
    assert report.readings["rejected"] == 4
    assert report.false_rejections == 0
    assert [attack.stopped for attack in report.attacks] == [4]


def test_demo_prints_its_summary_and_leaves_nothing_behind(tmp_path):
    keep, summary = tmp_path / "kept", tmp_path / "summary.json"
    done = subprocess.run(
        [*COMMAND, "demo", "--meters=12", "--rounds=30", f"--keep={keep}", f"--json={summary}"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not visible here" in done.stdout
    report = json.loads(summary.read_text())
    assert (report["meters"], report["rounds"], report["blocks"]) == (12, 30, 30)
    assert report["witnessed_height"] == 29
    readings = report["readings"]
    assert readings["published"] == 360
    assert readings["accepted"] + readings["rejected"] + readings["unconfirmed"] == 360
    assert report["false_rejections"] == 0
    assert report["wide_area"] == {"height": 6, "summaries": 6}
    assert report["audit"]["ok"]
    assert report["audit"]["records"] == 720
    attacks = {a["name"]: (a["attempts"], a["stopped"]) for a in report["attacks"]}
    assert len(attacks) == 7
    assert all(attempts == stopped > 0 for attempts, stopped in attacks.values()), attacks
    # the attacks reached the gateway, which counted each of them
    refused = report["gateway"]
    assert refused["rejected.bad-signature"] == attacks["forged signature"][0]
    assert refused["blocks.made"] == 30  # counted to the end
    assert refused["rejected.unknown-signer"] == attacks["unregistered key"][0]
    assert refused["duplicate.in_chain"] >= attacks["old reading, same bytes"][0]
    assert processes_below(keep) == []
    assert audit(Session(plan(keep, 1)).directory).ok


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_demo_leaves_no_process(tmp_path, number):
    keep = tmp_path / "kept"
    demo = subprocess.Popen(
        [*COMMAND, "demo", "--meters=12", "--rounds=200", f"--keep={keep}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "block   3" in line:
            break
    demo.send_signal(number)
    # whoever is impatient does it again: that must not cut the ending short
    with contextlib.suppress(subprocess.TimeoutExpired):
        demo.wait(0.1)
    if demo.poll() is None:
        demo.send_signal(number)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "all processes have ended" in errors
    assert processes_below(keep) == []
