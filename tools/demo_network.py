"""``gridwitness demo-network``: two regions, four validators, and faults that they bear.

Real meters, gateways and CometBFT nodes. At the end the control centre asks a substation's node for
a region's figures and checks them down to one meter's signature, with the project's own commands
``figure`` and ``verify``; it trusts the genesis alone.
"""

import argparse
import asyncio
import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from gateway.network.create import PORTS
from gateway.network.program import find_checked
from hil import clusters, grid, traces
from hil.broker import BrokerError
from hil.grid import Grid, GridPlan
from hil.meters import MeterError
from hil.micropython import InterpreterNotFoundError, interpreter
from hil.nodes import NetworkError
from hil.ports import free_ports
from hil.report import LIMITS, Report, make_report
from hil.session import SessionError
from ledger.audit import audit, audit_wide
from ledger.engine.comet.rpc import RpcError
from ledger.protocol import tally
from ledger.region import RegionDirectory
from ledger.regional.view import LedgerView
from tools.errors import CommandError
from tools.live_grid import GridView
from tools.options import PipeConsole, named_path
from tools.play import check_output, prepare_folder, print_attacks, run_until_signal, write_json

_FIRST_ROW = 17 * 60
_WINDOW_ROUNDS = 5
_REGIONS = {"north": "L1", "south": "L2"}  # each the meters of one phase of the sample feeder
_COMMAND_LIMIT_S = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--meters", type=int, default=6, help="how many meters a region has, 4 to 8 (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help="how many rounds, 20 to 420 (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of what the rig makes (%(default)s)"
    )
    parser.add_argument("--keep", type=named_path, metavar="DIR", help="keep everything in DIR")
    parser.add_argument("--json", type=named_path, metavar="FILE", help="write the summary to FILE")


@dataclass
class Summary:
    """The machine-readable summary: the sums of ``demo``'s, the network's, and each region's own.

    ``figure`` is what the control centre verified. ``wide_area`` counts apart the summaries of the
    two regions and those of the probe: a third, made region, which measures finality.
    """

    meters: int = 0
    rounds: int = 0
    blocks: int = 0
    readings: dict[str, int] = field(default_factory=dict)
    false_rejections: int = 0
    honest: dict[str, int] = field(default_factory=dict)
    attacks: list[dict[str, Any]] = field(default_factory=list)
    wide_area: dict[str, int] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    figure: dict[str, Any] = field(default_factory=dict)
    regions: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Centre:
    """The control centre: asks a substation's node, trusts the genesis, verifies to a reading.

    ``kept`` says that the proof stays where it is, for who wants to verify it again.
    """

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self.found: dict[str, Any] = {"ok": False}
        self.sentences = ""

    def ask(self, played: Grid) -> None:
        """Ask and verify, as two commands of their own; what came is in ``found``."""
        name, session = list(played.sessions.items())[-1]
        reading = _accepted_reading(session.directory)
        file = played.plan.folder / "figure.proof"
        trust = ["--trust", str(played.folder.genesis_file)]
        node = played.network.nodes[grid.KILLED].member.url
        asked = ["--node", node, "--region", session.chain.hex()]
        asked += ["--ledger", str(session.directory.path), "--reading", reading.hex()]
        code, text = _run_command("figure", *asked, *trust, "-o", str(file))
        if code == 0:
            # the last two lines tell how to verify the file, which is gone where none is kept
            self.sentences = text if self._kept else "\n".join(text.splitlines()[:-2])
            code, text = _run_command("verify", str(file), *trust, "--json")
        if code != 0:
            self.found = {"ok": False, "failure": text.strip()[-500:]}
            return
        asked_of = {"name": name, "node": grid.KILLED, "proof_bytes": file.stat().st_size}
        self.found = asked_of | json.loads(text)


def _run_command(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=_COMMAND_LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def _accepted_reading(directory: RegionDirectory) -> bytes:
    """Give the digest of a reading from the middle of what was accepted early."""
    view = LedgerView(directory.regional, directory.load_genesis().parameters.round_s)
    try:
        accepted = [r.digest for r in view.readings() if r.outcome == tally.ACCEPTED]
    finally:
        view.close()
    return accepted[len(accepted) // 3]


def run(options: argparse.Namespace) -> int:
    """Play the demo; gives 1 where anything promised did not come out. Raises CommandError."""
    if not 4 <= options.meters <= 8:
        raise CommandError(f"--meters {options.meters}: a region takes 4 to 8")
    recording = traces.sample_day()
    if not 20 <= options.rounds <= recording.rounds - _FIRST_ROW:
        raise CommandError(f"--rounds {options.rounds}: the demo takes 20 to 420")
    if not 0 <= options.seed < 1 << 32:
        raise CommandError(f"--seed {options.seed}: give 0 to {(1 << 32) - 1}")
    check_output(options.json)
    find_checked()
    try:
        interpreter()
    except InterpreterNotFoundError as e:
        raise CommandError(str(e)) from e
    folder = prepare_folder(options.keep)
    try:
        regions = {
            name: clusters.split_clusters(
                [meter for meter in recording.meters if meter.phase == phase][: options.meters]
            )
            for name, phase in _REGIONS.items()
        }
        plan = GridPlan(
            recording,
            regions,
            options.rounds,
            folder,
            free_ports(len(grid.VALIDATORS) * PORTS),
            first=_FIRST_ROW,
            seed=options.seed,
            window_rounds=_WINDOW_ROUNDS,
        )
        return _play(plan, options.json, kept=options.keep is not None)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        elif (folder / "network").exists():
            network = shlex.quote(str(folder / "network"))
            print(f"kept in {folder}: try gridwitness network run {network}")


def _play(plan: GridPlan, json_file: Path | None, *, kept: bool) -> int:
    started = time.monotonic()
    console = PipeConsole()
    centre = Centre(kept=kept)
    try:
        with GridView(console) as view:
            played = Grid(plan, view.say, centre.ask)
            view.grid = played
            run_until_signal(
                lambda: played.run({name: view.region(name) for name in played.sessions})
            )
    except (SessionError, MeterError, BrokerError, NetworkError, RpcError) as e:
        print(f"gridwitness: {e}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; all processes have ended", file=sys.stderr)
        return 130
    summary, reports = _summarise(played, centre)
    summary.seconds = round(time.monotonic() - started, 1)
    console.print(_table(summary))
    print_attacks(console, played.outcome.attacks)
    console.print(f"The control centre asked {grid.KILLED}, and trusts the genesis alone:")
    console.print(centre.sentences, highlight=False, markup=False, soft_wrap=kept)
    console.print(LIMITS)
    wrong = _broken_promises(summary, reports, played)
    for sentence in wrong:
        print(f"gridwitness: {sentence}", file=sys.stderr)
    write_json(json_file, vars(summary))
    return 1 if wrong else 0


# ------------------------------------------------------------------------------ what came of it


def _summarise(played: Grid, centre: Centre) -> tuple[Summary, dict[str, Report]]:
    reports = {name: make_report(session) for name, session in played.sessions.items()}
    outcome = played.outcome
    summary = Summary(rounds=played.plan.rounds, figure=centre.found)
    for name, report in reports.items():
        audited = audit(played.sessions[name].directory)
        report.audit = {"ok": audited.ok, "records": audited.records}
        summary.meters += report.meters
        summary.blocks += report.blocks
        summary.false_rejections += report.false_rejections
        for sums, more in ((summary.readings, report.readings), (summary.honest, report.honest)):
            for key, value in more.items():
                sums[key] = sums.get(key, 0) + value
        # the network is one for both regions: what is not a region's own is not told of each
        own = report.as_json()
        summary.regions[name] = {k: own[k] for k in own if k not in ("seconds", "wide_area")}
    wide = {
        name: audit_wide(RegionDirectory(played.folder.paths(name).path))
        for name in grid.VALIDATORS
    }
    first = wide[grid.VALIDATORS[0]]
    summary.audit = {
        "ok": all(report.audit["ok"] for report in reports.values())
        and all(report.ok for report in wide.values()),
        "records": sum(report.audit["records"] for report in reports.values()),
        "equal": len({(r.wide_height, r.summaries, r.conflicts) for r in wide.values()}) == 1,
    }
    summary.wide_area = {
        "height": first.wide_height,
        "summaries": first.summaries,
        "conflicts": first.conflicts,
        "of_regions": sum(outcome.summaries.values()),
        "of_probe": first.summaries - sum(outcome.summaries.values()),
    }
    summary.network = {
        "validators": list(grid.VALIDATORS),
        "heights": outcome.heights,
        "app_hashes_equal": outcome.app_hashes_equal,
        "compared_blocks": outcome.compared_blocks,
        "killed": grid.KILLED,
        "caught_up_blocks": outcome.caught_up_blocks,
        "outvoted": grid.ALTERED,
        "outvoted_at": outcome.outvoted_at,
        "finality_ms_median": outcome.finality_ms_median,
        "finality_samples": len(outcome.finality_ms),
    }
    summary.attacks = [vars(attack) for attack in outcome.attacks]
    return summary, reports


def _broken_promises(summary: Summary, reports: dict[str, Report], played: Grid) -> list[str]:
    """Give a sentence for each thing that was promised and did not come out."""
    windows = played.plan.rounds // _WINDOW_ROUNDS
    checks = {
        "an audit failed": summary.audit["ok"],
        "the audits of the nodes differ": summary.audit["equal"],
        "the nodes' application hashes differ": summary.network["app_hashes_equal"],
        "the killed validator did not catch up": summary.network["caught_up_blocks"] > 0,
        "no finality was measured": summary.network["finality_ms_median"] is not None,
        "the evidence of a contradicting summary is missing": summary.wide_area["conflicts"] == 1,
        "a region's summaries are missing": all(
            count >= windows for count in played.outcome.summaries.values()
        ),
        "honest readings were rejected": summary.false_rejections == 0,
        "honest readings were not accepted": all(
            r.honest["accepted"] >= 0.99 * r.honest["readings"] for r in reports.values()
        ),
        "an attack was not stopped": all(
            attack.stopped == attack.attempts > 0 for attack in played.outcome.attacks
        ),
        f"the figure could not be verified: {summary.figure.get('failure', '')}": bool(
            summary.figure.get("ok") and summary.figure.get("reading")
        ),
    }
    return [sentence for sentence, held in checks.items() if not held]


def _table(summary: Summary) -> Table:
    readings, honest, network = summary.readings, summary.honest, summary.network
    share = 100 * honest["accepted"] / max(1, honest["readings"])
    heights = ", ".join(f"{name} {height}" for name, height in network["heights"].items())
    table = Table(title="Summary", show_header=False, title_justify="left")
    rows = [
        ("regions, meters, rounds", f"{len(summary.regions)}, {summary.meters}, {summary.rounds}"),
        ("readings published", str(readings["published"])),
        ("  accepted", str(readings["accepted"])),
        ("  rejected, unconfirmed", f"{readings['rejected']}, {readings['unconfirmed']}"),
        ("honest readings accepted from round 5 on", f"{share:.2f} %"),
        ("wide-area chain", f"{summary.wide_area['of_regions']} summaries of the two regions"),
        ("  of a probe, for finality", f"{summary.wide_area['of_probe']} summaries"),
        ("validators' heights", heights),
        ("application hashes equal", "yes" if network["app_hashes_equal"] else "NO"),
        (f"{network['killed']} killed, caught up", f"{network['caught_up_blocks']} blocks"),
        (f"{network['outvoted']} altered, outvoted", f"at block {network['outvoted_at']}"),
        ("finality, median", f"{network['finality_ms_median']} ms"),
        ("audits", "passed, equal on all nodes" if summary.audit["ok"] else "FAILED"),
        ("control centre", _figure_row(summary.figure)),
        ("seconds", f"{summary.seconds:.1f}"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _figure_row(figure: dict[str, Any]) -> str:
    if not figure.get("ok"):
        return "the figure could NOT be verified"
    return f"figure of {figure['name']} from {figure['node']}, verified to a meter's signature"
