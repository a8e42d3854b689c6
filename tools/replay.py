"""``gridwitness replay``: one's own recordings through real meters into both chains."""

import argparse
from pathlib import Path

from hil import clusters
from hil.session import Plan
from tools.errors import CommandError
from tools.options import named_path
from tools.play import play
from tools.recordings import add_recording, read_recording

_WINDOW_S = 900


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; docs/recordings.md describes the files."""
    add_recording(parser)
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
    recording = read_recording(options)
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
