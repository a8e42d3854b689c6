"""``gridwitness evaluate``: how the meters' own judging does on a recording, with false meters."""

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hil import evaluation, falsehoods
from hil.enrich import Errors
from tools.errors import CommandError
from tools.options import PipeConsole, named_path
from tools.play import check_output, write_json
from tools.recordings import add_recording, read_recording

_LEARNING = 480
_POLL_S = 0.5
_LINE_S = 20  # between lines where there is no terminal
_MOST_JOBS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recording(parser)
    parser.add_argument(
        "--attacks",
        default="all",
        metavar="LIST",
        help=f"all (%(default)s), none, or some of {', '.join(falsehoods.DEFAULTS)}, "
        "with a size if need be: scale:+2%%,freeze,replay:1h",
    )
    parser.add_argument("--trials", type=int, default=20, help="for each attack (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of trials and errors (%(default)s)")
    parser.add_argument(
        "--learning",
        type=int,
        help=f"honest rounds before an attack; 0: false from the start (at most {_LEARNING}, or a "
        "third of the recording)",
    )
    parser.add_argument("--rounds", type=int, default=60, help="of each attack (%(default)s)")
    parser.add_argument(
        "--offline", type=float, default=0, metavar="PERCENT", help="of meters (%(default)s)"
    )
    parser.add_argument(
        "--cluster-size", type=int, default=12, metavar="N", help="at most (%(default)s)"
    )
    parser.add_argument(
        "--committee", type=int, default=11, metavar="K", help="seats (%(default)s)"
    )
    parser.add_argument(
        "--gain", type=float, default=0.2, metavar="PERCENT", help="meters' class (%(default)s)"
    )
    parser.add_argument("--noise-mv", type=int, default=50, metavar="MV", help="(%(default)s)")
    parser.add_argument("--step-mv", type=int, default=10, metavar="MV", help="(%(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=1, help=f"processes, 1 to {_MOST_JOBS} (%(default)s)"
    )
    parser.add_argument("--json", type=named_path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--plot", type=named_path, metavar="FILE", help="draw an SVG into FILE")


def run(options: argparse.Namespace) -> int:
    """Evaluate and print; raises CommandError."""
    check_output(options.json)
    check_output(options.plot)
    plan = _plan(options)
    try:
        tasks = evaluation.make_tasks(plan)
    except ValueError as e:
        raise CommandError(f"{e}: give fewer --rounds or less --learning") from e
    results = run_tasks(tasks, options.jobs)
    result = evaluation.merge(plan, results)
    write_json(options.json, result.as_json())
    if options.plot is not None:
        _write_plot(options.plot, result, plan)
    _print(PipeConsole(), result)
    return 0


def _plan(options: argparse.Namespace) -> evaluation.Plan:
    recording = read_recording(options)
    if not 1 <= options.jobs <= _MOST_JOBS:
        raise CommandError(f"--jobs {options.jobs}: give 1 to {_MOST_JOBS}")
    for name, low, high in (
        ("trials", 1, 10_000),
        ("rounds", 1, recording.rounds - 1),
        ("offline", 0, 90),
        ("cluster_size", 4, 60),
        ("committee", 3, 255),
        ("gain", 0, 10),
        ("noise_mv", 0, 10_000),
        ("step_mv", 1, 10_000),
        ("seed", 0, (1 << 32) - 1),
    ):
        if not low <= getattr(options, name) <= high:
            flag = name.replace("_", "-")
            raise CommandError(f"--{flag} {getattr(options, name)}: give {low} to {high}")
    learning = options.learning
    if learning is None:
        learning = min(_LEARNING, recording.rounds // 3)
    if not 0 <= learning < recording.rounds:
        raise CommandError(f"--learning {learning}: give 0 to {recording.rounds - 1}")
    return evaluation.Plan(
        recording,
        _falsehoods(options.attacks),
        trials=options.trials,
        learning=learning,
        rounds=options.rounds,
        seed=options.seed,
        errors=Errors(
            voltage_gain_ppm=round(options.gain * 10_000),
            voltage_noise_mv=options.noise_mv,
            voltage_step_mv=options.step_mv,
        ),
        cluster_size=options.cluster_size,
        seats=options.committee,
        offline=options.offline / 100,
    )


def _falsehoods(text: str) -> tuple[falsehoods.Falsehood, ...]:
    if text == "none":
        return ()
    try:
        return tuple(falsehoods.parse(text))
    except falsehoods.FalsehoodError as e:
        raise CommandError(f"--attacks: {e}") from e


# ------------------------------------------------------------------------------- the work

_counters: list["Synchronized[int]"] = []  # in a worker: the one that the command looks at


def _begin(done: "Synchronized[int]") -> None:
    """Start a worker: it counts its rounds where the command sees them, and is polite."""
    _counters.append(done)
    os.nice(10)


def _work(task: evaluation.Task) -> evaluation.Result:
    (done,) = _counters

    def count(rounds: int) -> None:
        with done.get_lock():
            done.value += rounds

    return evaluation.run_task(task, count)


def run_tasks(tasks: list[evaluation.Task], jobs: int) -> list[evaluation.Result]:
    """Run tasks, in so many processes, with a progress line on standard error."""
    total = sum(task.steps for task in tasks)
    with _progress(total) as advance:
        if jobs == 1:
            return [evaluation.run_task(task, advance) for task in tasks]
        context = get_context("spawn")
        done = context.Value("q", 0)
        with ProcessPoolExecutor(jobs, context, _begin, (done,)) as pool:
            longest = sorted(tasks, key=lambda task: -task.steps)
            futures = {task.cluster.name: pool.submit(_work, task) for task in longest}
            shown = 0
            while not all(future.done() for future in futures.values()):
                time.sleep(_POLL_S)
                advance(done.value - shown)
                shown = done.value
            return [futures[task.cluster.name].result() for task in tasks]


@contextmanager
def _progress(total: int) -> Iterator[evaluation.Progress]:
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("judging"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            line = bar.add_task("judging", total=total)
            yield lambda rounds: bar.advance(line, rounds)
        return
    started = told = time.monotonic()
    played = 0

    def advance(rounds: int) -> None:
        nonlocal played, told
        played += rounds
        now = time.monotonic()
        if now - told >= _LINE_S:
            told = now
            console.print(f"{now - started:5.0f} s  judged {100 * played // total} %")

    yield advance


# -------------------------------------------------------------------------------- output


def _write_plot(path: Path, result: evaluation.Result, plan: evaluation.Plan) -> None:
    from tools.svg import caught_curves

    try:
        path.write_text(caught_curves(result, plan.rounds), "utf-8")
    except OSError as e:
        raise CommandError(f"{path} cannot be written: {e.strerror}") from e


def per_honest(honest: evaluation.Honest) -> str:
    """Give false rejections per honest reading, or the bound that none in so many leaves.

    The bound is the rule of three: with none in n, less than 3/n with 95 % confidence.
    """
    if not honest.readings:
        return "-"
    if honest.false_rejections:
        return f"{honest.false_rejections / honest.readings:.1e}"
    return f"0 of {honest.readings} (< {3 / honest.readings:.0e})"


def row_of(score: evaluation.Score) -> list[str]:
    """Give the cells of an attack's row, under ``COLUMNS``."""
    kind, size = score.falsehood.kind, score.falsehood.size
    if not score.meters:
        return [kind, size, "-", "-", "-", "-", "-"]
    figures = score.as_json()
    median: Any = figures["rounds_to_first_rejection_median"]
    return [
        kind,
        size,
        f"{score.caught()} of {score.meters}",
        f"{100 * score.caught(10) / score.meters:.0f} %",
        "-" if median is None else f"{median:g}",
        f"{100 * score.rejected / score.readings:.0f} %",
        f"{score.others.false_rejections} of {score.others.readings}",
    ]


COLUMNS = (
    "attack",
    "size",
    "meters caught",
    "within 10 rounds",
    "median round",
    "false readings rejected",
    "honest rejected meanwhile",
)


def _print(console: Console, result: evaluation.Result) -> None:
    honest = result.honest
    console.print(
        f"honest meters: {honest.readings} readings; false rejections {per_honest(honest)}; "
        f"unconfirmed {100 * honest.unconfirmed / max(1, honest.readings):.2f} %",
        soft_wrap=True,
    )
    if not result.scores:
        return
    table = Table(box=None, padding=(0, 1))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right")
    for score in result.scores:
        table.add_row(*row_of(score))
    console.print(table)
    for text in dict.fromkeys(score.could_know for score in result.scores):
        labels = [s.falsehood.label for s in result.scores if s.could_know == text]
        console.print(f"{text}: {', '.join(labels)}", soft_wrap=True)
