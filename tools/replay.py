"""``gridwitness replay``: one's own recordings through real meters into both chains."""

import argparse
from pathlib import Path

from hil import clusters, traces
from hil.session import Plan
from tools.errors import CommandError
from tools.options import named_path
from tools.play import play

_WINDOW_S = 900
_MIN_METERS = 4
_LONGEST_STEP_S = 86_400
_LEAST_V, _MOST_V = 80, 500  # of the middle value: one dead phase or a blackout is no wrong table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; docs/recordings.md describes the files."""
    parser.add_argument(
        "--meters", type=named_path, required=True, metavar="CSV", help="meter list"
    )
    parser.add_argument("--voltage", type=named_path, required=True, metavar="CSV", help="volts")
    parser.add_argument("--power", type=named_path, required=True, metavar="CSV", help="kilowatts")
    parser.add_argument("--busbar", type=named_path, metavar="CSV", help="transformer's busbar")
    parser.add_argument("--out", type=named_path, metavar="DIR", help="keep the region in DIR")
    parser.add_argument("--rounds", type=int, help="how many rows to play (default: all)")
    parser.add_argument(
        "--speed", type=float, help="1 is real time, 60 a minute a second; default: all it can"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of what the recording lacks (%(default)s)"
    )
    parser.add_argument(
        "--broker", choices=("nats", "mosquitto"), default="nats", help="(%(default)s)"
    )
    parser.add_argument("--json", type=named_path, metavar="FILE", help="write the summary to FILE")


def run(options: argparse.Namespace) -> int:
    """Play a recording; raises CommandError."""
    try:
        recording = traces.read_recording(
            options.meters, options.voltage, options.power, busbar=options.busbar
        )
    except traces.TraceError as e:
        raise CommandError(str(e)) from e
    _check(recording)
    count = recording.rounds if options.rounds is None else options.rounds
    if not 1 <= count <= recording.rounds:
        raise CommandError(f"--rounds {count}: the recording has rows for 1 to {recording.rounds}")
    if options.speed is not None and not 0.01 <= options.speed <= 100_000:
        raise CommandError(f"--speed {options.speed}: give 0.01 to 100000, or leave it out")
    if not 0 <= options.seed < 1 << 32:
        raise CommandError(f"--seed {options.seed}: give 0 to {(1 << 32) - 1}")

    def make_plan(folder: Path) -> Plan:
        return Plan(
            recording,
            clusters.split_clusters(recording.meters),
            count,
            folder,
            round_wall_s=recording.step_s / options.speed if options.speed else None,
            seed=options.seed,
            window_rounds=max(1, _WINDOW_S // recording.step_s),
            broker=options.broker,
            name=recording.name,
        )

    return play(make_plan, keep=options.out, json_file=options.json)


def _check(recording: traces.Recording) -> None:
    """Refuse what could be played, but to no end; raises CommandError."""
    if len(recording.meters) < _MIN_METERS:
        raise CommandError(
            f"--meters: {len(recording.meters)} in the list, and a reading is never accepted "
            f"without three other meters: give {_MIN_METERS} or more"
        )
    if recording.step_s > _LONGEST_STEP_S:
        raise CommandError(
            f"--voltage: one row in {recording.step_s} s; a round lasts a day at most"
        )
    volts = sorted(v / 1000 for row in recording.voltage_mv for v in row if v is not None)
    middle = volts[len(volts) // 2] if volts else 0.0
    if not _LEAST_V <= middle <= _MOST_V:
        raise CommandError(
            f"--voltage: half of the values are below {middle:g}: the table must hold volts, "
            "phase to neutral"
        )
