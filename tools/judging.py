"""Runs what docs/judging.md shows and writes its tables and pictures anew.

    python -m tools.judging [--jobs N]

Each table stands in the page between ``<!-- table: NAME -->`` and ``<!-- end -->``; the text around
them is written by hand. The recordings of the IEEE European feeder must lie beside the project.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hil import falsehoods, roc, traces
from hil.enrich import Errors
from hil.evaluation import Plan, Result, Score, capture_rate, make_tasks, merge
from tools.errors import CommandError
from tools.evaluate import COLUMNS, per_honest, row_of, run_tasks
from tools.svg import Chart, Line, caught_curves, draw

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "judging.md"
PICTURES = ROOT / "docs" / "judging"
FEEDER = ROOT.parent / "shared" / "data" / "lv_neighbours"

TARGETS = (
    "scale:-2%,scale:+2%,offset:-3V,offset:+3V,freeze:all,replay:1h,replay:6h,dropout:20%,"
    "clock:-15min,clock:+15min,scale:-1%,scale:+1%,drift:-1%/h,drift:+1%/h"
)
OTHERS = (
    "scale:+0.5%,scale:+5%,freeze:voltage,drift:+0.2%/h,noise:1%,noise:2%,rounding:1V,rounding:5V,"
    "phase:other,theft:30%,theft:90%,collude:10%,collude:30%"
)
FROM_START = "scale:+10%,scale:+2%,offset:-3V,offset:-5V,freeze:all,replay:1h,clock:+15min"
_ROC = "scale:+0.3%,scale:+0.5%,scale:+1%,scale:+2%,drift:+5%/h,noise:1%"
_WORSE = Errors(voltage_gain_ppm=10_000, voltage_noise_mv=200, voltage_step_mv=100)
_COMMITTEES = (
    (100, 10, 11),
    (100, 20, 11),
    (100, 30, 11),
    (100, 20, 7),
    (100, 20, 21),
    (54, 16, 11),
)
_DRAWS = 10_000
_TRIALS = 5

ATTACKS = COLUMNS
HONEST = ("recording", "meters", "rounds", "honest readings", "false rejections", "unconfirmed")
OFFLINE = ("offline", "honest readings", "accepted", "unconfirmed", "rejected")
CAPTURE = ("candidates", "bad", "seats", "captured, drawn", "captured, formula")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def put(page: str, name: str, content: str) -> str:
    """Put a table into the page; raises CommandError where the page has no place for it."""
    start = f"<!-- table: {name} -->\n"
    before, found, rest = page.partition(start)
    old, end, after = rest.partition("<!-- end -->")
    if not found or not end or "<!-- table:" in old or start in after:
        raise CommandError(f"{PAGE.name} has no place, or two, for the table {name!r}")
    return f"{before}{start}{content}\n{end}{after}"


def places(page: str) -> list[str]:
    """Give the names of the tables that the page has places for."""
    return re.findall(r"<!-- table: (.+?) -->", page)


class Work:
    """Runs plans and keeps what they gave for the tables."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._started = time.monotonic()
        self.honest: list[list[str]] = []

    def show(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table into the page."""
        page = put(PAGE.read_text("utf-8"), name, table(columns, rows))
        PAGE.write_text(page, "utf-8")

    def draw(self, name: str, picture: str) -> None:
        """Write a picture beside the page."""
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / name).write_text(picture, "utf-8")

    def run(self, name: str, plan: Plan) -> Result:
        """Run a plan and note its honest figures."""
        tasks = make_tasks(plan)
        result = merge(plan, run_tasks(tasks, self._jobs))
        print(f"{time.monotonic() - self._started:5.0f} s  {name}", flush=True)
        honest = result.honest
        share = f"{100 * honest.unconfirmed / honest.readings:.2f} %"
        meters = str(len(plan.recording.meters))
        figures = [str(honest.readings), per_honest(honest), share]
        if not plan.offline:
            self.honest.append([name, meters, str(plan.end), *figures])
        return result


def _plan(recording: traces.Recording, attacks: str, last: int | None = None) -> Plan:
    return Plan(recording, tuple(falsehoods.parse(attacks)), trials=_TRIALS, last=last)


def _rows(scores: Sequence[Score]) -> list[list[str]]:
    return [row_of(score) for score in scores]


def run_all(work: Work) -> None:
    """Run every experiment of the page."""
    feeder = {name: traces.load_recording(FEEDER, f"eulv_{name}") for name in "AB"}
    work.show("capture", CAPTURE, _capture_rows())
    _run_offline(work, feeder["A"])
    _run_from_start(work, feeder["A"])
    work.draw("roc.svg", _draw_roc(feeder["A"]))
    _run_worse(work, feeder)
    second = work.run("IEEE feeder B, 18 h", _plan(feeder["B"], TARGETS, last=1080))
    first = work.run("IEEE feeder A", _plan(feeder["A"], f"{TARGETS},{OTHERS}"))
    work.draw("caught.svg", caught_curves(first, 60))
    count = len(second.scores)
    for score, more in zip(first.scores[:count], second.scores, strict=True):
        score.add(more)
    work.show("targets", ATTACKS, _rows(first.scores[:count]))
    work.show("others", ATTACKS, _rows(first.scores[count:]))
    work.show("honest", HONEST, work.honest)


def _run_worse(work: Work, feeder: dict[str, traces.Recording]) -> None:
    """Worse meters, and another feeder with other houses: the project's sample day."""
    attacks = "scale:+2%,offset:+3V,freeze:all,replay:1h,scale:+1%,drift:+1%/h"
    worse = Plan(
        feeder["B"],
        tuple(falsehoods.parse(attacks)),
        _TRIALS,
        learning=360,
        errors=_WORSE,
        last=600,
    )
    result = work.run("IEEE feeder B, 10 h, class 1, 0.2 V noise, 0.1 V steps", worse)
    work.show("worse", ATTACKS, _rows(result.scores))
    sample = work.run("sample day", _plan(traces.sample_day(), attacks))
    work.show("sample", ATTACKS, _rows(sample.scores))


def _run_from_start(work: Work, recording: traces.Recording) -> None:
    plan = Plan(
        recording,
        tuple(falsehoods.parse(FROM_START)),
        trials=3,
        learning=0,
        rounds=300,
        last=320,
        seed=2,
    )
    result = work.run("IEEE feeder A, first 320 min", plan)
    work.show("from start", ATTACKS, _rows(result.scores))


def _run_offline(work: Work, recording: traces.Recording) -> None:
    rows = []
    for percent in (0, 10, 20, 30):
        plan = Plan(recording, offline=percent / 100, last=128, seed=3)
        honest = work.run(f"IEEE feeder A, {percent} % offline, 128 min", plan).honest
        accepted = honest.readings - honest.unconfirmed - honest.false_rejections
        shares = [f"{100 * n / honest.readings:.1f} %" for n in (accepted, honest.unconfirmed)]
        rows.append([f"{percent} %", str(honest.readings), *shares, str(honest.false_rejections)])
    work.show("offline", OFFLINE, rows)


def _draw_roc(recording: traces.Recording) -> str:
    plan = Plan(recording, tuple(falsehoods.parse(_ROC)), trials=24, last=1100)
    lines = [Line(curve.falsehood.label, curve.points) for curve in roc.curves(plan)]
    x_label = "share of honest readings above the bound (voltage, one voter)"
    half = len(lines) // 2
    charts = [Chart("constant errors", x_label, 1e-4, 1, lines[: half + 1])]
    charts.append(Chart("drift and noise", x_label, 1e-4, 1, lines[half + 1 :]))
    return draw(charts, "Share of false meters above the bound within 10 rounds")


def _capture_rows() -> list[list[str]]:
    rows = []
    for meters, bad, seats in _COMMITTEES:
        drawn, formula = capture_rate(meters, bad, seats, _DRAWS, seed=1)
        rows.append([str(meters), str(bad), str(seats), f"{drawn:.4f}", f"{formula:.4f}"])
    return rows


def main() -> int:
    """Run and write; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2)
    options = parser.parse_args()
    if not FEEDER.is_dir():
        print("the recordings of LV neighbours are not beside the project: put them into "
              "../shared/data/lv_neighbours", file=sys.stderr)  # fmt: skip
        return 2
    work = Work(options.jobs)
    run_all(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
