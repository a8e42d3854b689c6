"""What ``demo`` and ``replay`` share: run a session, audit it, print and write its summary."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hil.broker import BrokerError
from hil.meters import MeterError
from hil.micropython import InterpreterNotFoundError, interpreter
from hil.report import LIMITS, Attack, Report, make_report
from hil.session import Plan, Session, SessionError
from ledger.audit import AuditReport, audit
from ledger.region import RegionDirectory
from tools.errors import CommandError
from tools.live import SessionView
from tools.options import PipeConsole

MakePlan = Callable[[Path], Plan]
Extra = Callable[[Session], list[Attack]]


def check_output(path: Path | None) -> None:
    """Refuse an output file that could not be written, before anything runs.

    Raises CommandError.
    """
    if path is None:
        return
    if path.is_dir():
        raise CommandError(f"{path} is a directory: name a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a directory: make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise CommandError(f"{path} cannot be written: no permission")


def prepare_folder(path: Path | None) -> Path:
    """Give the folder to work in: a new or empty one that the user named, or a temporary one.

    Raises CommandError.
    """
    if path is None:
        try:
            return Path(tempfile.mkdtemp(prefix="gridwitness-"))
        except OSError as e:
            raise CommandError(f"no temporary folder can be made: {e}; name one in TMPDIR") from e
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise CommandError(f"{path} exists and is not empty: name a new folder")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise CommandError(f"{path} cannot be made: {e.strerror}") from e
    if not os.access(path, os.W_OK):
        raise CommandError(f"{path} cannot be written: no permission")
    return path.absolute()


def play(
    make_plan: MakePlan, *, keep: Path | None, json_file: Path | None, extra: Extra | None = None
) -> int:
    """Run a session to its end; gives the exit code. Raises CommandError."""
    check_output(json_file)
    try:
        interpreter()
    except InterpreterNotFoundError as e:
        raise CommandError(str(e)) from e
    folder = prepare_folder(keep)
    try:
        plan = make_plan(folder)
        return _play(plan, json_file, extra)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        elif RegionDirectory(folder).genesis.exists():
            print(f"kept in {folder}: try gridwitness show {shlex.quote(str(folder))}")


def _play(plan: Plan, json_file: Path | None, extra: Extra | None) -> int:
    started = time.monotonic()
    console = PipeConsole()
    session = Session(plan)
    try:
        with SessionView(session, console) as view:
            run_until_signal(lambda: session.run(view))
    except (SessionError, MeterError, BrokerError) as e:
        print(f"gridwitness: {e}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; all processes have ended", file=sys.stderr)
        return 130
    report = make_report(session)
    audited = audit(session.directory)
    report.audit = {
        "ok": audited.ok,
        "records": audited.records,
        "seconds": round(audited.seconds, 3),
    }
    report.wide_area = {"height": audited.wide_height, "summaries": audited.summaries}
    if extra is not None:
        report.attacks += extra(session)
    report.seconds = round(time.monotonic() - started, 1)
    _print(console, report, audited)
    write_json(json_file, report.as_json())
    return 0 if _is_good(report) else 1


def write_json(path: Path | None, value: object) -> None:
    """Write what came out where a file is named; raises CommandError."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    except OSError as e:
        raise CommandError(f"{path} cannot be written: {e.strerror}") from e


def run_until_signal(work: Callable[[], Awaitable[object]]) -> None:
    """Run what ``work`` gives to its end; the first Ctrl-C or signal cancels it.

    Raises CancelledError or KeyboardInterrupt then, when everything it started has ended.
    """

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()

        def stop() -> None:
            # once: a second Ctrl-C must not cut short what ends the processes
            if not stopping.is_set():
                stopping.set()
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop)
        await work()

    asyncio.run(main())


def _is_good(report: Report) -> bool:
    """Tell whether everything that a session promises came out."""
    accepted_share = report.honest["accepted"] >= 0.99 * report.honest["readings"]
    stopped = all(attack.stopped == attack.attempts > 0 for attack in report.attacks)
    return bool(report.audit["ok"]) and accepted_share and stopped and not report.false_rejections


def _print(console: Console, report: Report, audited: AuditReport) -> None:
    readings, honest = report.readings, report.honest
    share = 100 * honest["accepted"] / max(1, honest["readings"])
    table = Table(title="Summary", show_header=False, title_justify="left")
    rows = [
        ("meters, rounds", f"{report.meters}, {report.rounds}"),
        ("blocks, witnessed to", f"{report.blocks}, {report.witnessed_height}"),
        ("readings published", str(readings["published"])),
        ("  accepted", str(readings["accepted"])),
        ("  rejected", str(readings["rejected"])),
        ("  unconfirmed", str(readings["unconfirmed"])),
        ("honest readings accepted from round 5 on", f"{share:.2f} %"),
        ("honest readings rejected", str(report.false_rejections)),
        ("wide-area chain", f"{report.wide_area['summaries']} summaries"),
        ("audit", f"{'passed' if audited.ok else audited.failure}, {audited.records} records"),
        ("seconds", f"{report.seconds:.1f}"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    if report.attacks:
        print_attacks(console, report.attacks)
    console.print(LIMITS)


def print_attacks(console: Console, attacks: list[Attack]) -> None:
    """Print what was tried and how often it was stopped."""
    table = Table(title="Attacks", title_justify="left")
    for column in ("attack", "tried", "stopped", "what was done"):
        table.add_column(column, overflow="fold")
    for attack in attacks:
        style = "green" if attack.stopped == attack.attempts > 0 else "bold red"
        stopped = f"[{style}]{attack.stopped}[/]"
        table.add_row(attack.name, str(attack.attempts), stopped, attack.sentence)
    console.print(table)
