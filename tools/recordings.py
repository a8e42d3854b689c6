"""Options that name a recording, and what is asked of one before meters judge on it."""

import argparse

from hil import traces
from tools.errors import CommandError
from tools.options import named_path

_MIN_METERS = 4
_LONGEST_STEP_S = 86_400
_LEAST_V, _MOST_V = 80, 500  # of the middle value: one dead phase or a blackout is no wrong table


def add_recording(parser: argparse.ArgumentParser) -> None:
    """Declare the options; docs/recordings.md describes the files."""
    parser.add_argument(
        "--meters", type=named_path, required=True, metavar="CSV", help="meter list"
    )
    parser.add_argument("--voltage", type=named_path, required=True, metavar="CSV", help="volts")
    parser.add_argument("--power", type=named_path, required=True, metavar="CSV", help="kilowatts")
    parser.add_argument("--busbar", type=named_path, metavar="CSV", help="transformer's busbar")


def read_recording(options: argparse.Namespace) -> traces.Recording:
    """Read the recording that the options name; raises CommandError."""
    try:
        recording = traces.read_recording(
            options.meters, options.voltage, options.power, busbar=options.busbar
        )
    except traces.TraceError as e:
        raise CommandError(str(e)) from e
    _check(recording)
    return recording


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
