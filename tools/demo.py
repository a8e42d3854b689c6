"""``gridwitness demo``: the main job on the project's own sample day, with attacks that fail."""

import argparse
import itertools
import shutil
from pathlib import Path

from hil import clusters, faults, traces
from hil.report import Attack
from hil.session import Plan, Session
from ledger.audit import audit
from ledger.protocol import cose, quantities, records
from ledger.region import RegionDirectory
from ledger.regional.blocks import TABLES, Blocks, record_id
from ledger.regional.compact import Compact
from ledger.store import Database
from tools.errors import CommandError
from tools.options import named_path
from tools.play import play

_FIRST_ROW = 17 * 60  # the evening peak begins: voltages move
_MIN_METERS = 12
_MIN_ROUNDS = 30
_WINDOW_ROUNDS = 5
_LEARNING = 12  # rounds before the first attack


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--meters", type=int, default=24, help="how many meters, 12 to 24 (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=60, help="how many rounds, 30 to 420 (%(default)s)"
    )
    parser.add_argument(
        "--round-seconds",
        type=float,
        help="wall time a round; without it rounds close as fast as they go",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of what the rig makes (%(default)s)"
    )
    parser.add_argument(
        "--broker", choices=("nats", "mosquitto"), default="nats", help="(%(default)s)"
    )
    parser.add_argument("--keep", type=named_path, metavar="DIR", help="keep the region in DIR")
    parser.add_argument("--json", type=named_path, metavar="FILE", help="write the summary to FILE")


def run(options: argparse.Namespace) -> int:
    """Play the demo; raises CommandError."""
    recording = traces.sample_day()
    most = len(recording.meters)
    if not _MIN_METERS <= options.meters <= most:
        raise CommandError(f"--meters {options.meters}: the demo takes {_MIN_METERS} to {most}")
    last = recording.rounds - _FIRST_ROW
    if not _MIN_ROUNDS <= options.rounds <= last:
        raise CommandError(f"--rounds {options.rounds}: the demo takes {_MIN_ROUNDS} to {last}")
    if options.round_seconds is not None and not 0.5 <= options.round_seconds <= 3600:
        raise CommandError(f"--round-seconds {options.round_seconds}: give 0.5 to 3600")
    if not 0 <= options.seed < 1 << 32:
        raise CommandError(f"--seed {options.seed}: give 0 to {(1 << 32) - 1}")

    def make_plan(folder: Path) -> Plan:
        groups = clusters.split_clusters(_choose(recording.meters, options.meters))
        return Plan(
            recording,
            groups,
            options.rounds,
            folder,
            first=_FIRST_ROW,
            round_wall_s=options.round_seconds,
            seed=options.seed,
            window_rounds=_WINDOW_ROUNDS,
            faults=_attacks(groups, options.rounds, options.seed),
            broker=options.broker,
            name="demo",
        )

    return play(make_plan, keep=options.keep, json_file=options.json, extra=tamper)


def _choose(meters: tuple[traces.Meter, ...], count: int) -> list[traces.Meter]:
    """Take meters phase by phase, so that neighbours on one phase stay together."""
    by_phase = sorted(meters, key=lambda meter: (meter.phase or "", meter.cable_m or 0.0))
    return list(itertools.islice(by_phase, count))


def _attacks(
    groups: tuple[clusters.Cluster, ...], rounds: int, seed: int
) -> tuple[faults.Fault, ...]:
    """Cast the attacks: different meters, each after the neighbours have learnt a little."""
    names = [name for group in groups for name in group.meters]
    scaled, old, resent, forged = names[1], names[-2], names[0], names[-1]
    middle = _LEARNING + (rounds - _LEARNING) // 2
    some = tuple(range(_LEARNING, rounds - 2, 4))
    return (
        faults.ScaledVoltage(scaled, middle, permille=1080),
        faults.OldValues(old, _LEARNING + 1, count=4, age=10),
        faults.LostInput(names[3], _LEARNING + 6, count=4),
        faults.SameBytes(resent, some),
        faults.ForgedSignature(forged, some),
        faults.Stranger(names[2], groups[0].name, some, seed),
    )


def tamper(session: Session) -> list[Attack]:
    """Alter one stored reading in a copy of the ledger and let the audit look for it."""
    original = session.directory
    copy = RegionDirectory(session.rig_folder / "altered-copy")
    shutil.copytree(original.regional.parent, copy.regional.parent)
    shutil.copy(original.genesis, copy.genesis)
    shutil.copy(original.wide_genesis, copy.wide_genesis)
    with Database(copy.regional, TABLES) as database:
        height, index = _alter(database, copy.load_genesis().digest)
    result = audit(copy)
    failure = result.failure
    found = failure is not None and (failure.block, failure.record) == (height, index)
    sentence = f"in a copy of the ledger; the audit says: {failure}"
    return [Attack("stored reading altered", 1, int(found), sentence)]


def _alter(database: Database, genesis: bytes) -> tuple[int, int]:
    """Raise the energy register of a stored reading by 1 kWh; gives its (height, index)."""
    blocks = Blocks(database)
    readings = [
        (height, index, envelope)
        for height in range(1, blocks.height() + 1)
        for index, envelope in enumerate(blocks.envelopes_of(height))
        if records.split(envelope.payload)[0] == records.READING
    ]
    height, index, envelope = readings[len(readings) // 2]
    reading = records.decode(envelope.payload)
    assert isinstance(reading, records.Reading)
    reading.values = [
        (code, value + 1_000_000 if code == quantities.ENERGY_IMPORT else value)
        for code, value in reading.values
    ]
    altered = cose.join(envelope.kid, reading.payload(), envelope.signature)
    compact = Compact(database.connection.execute, lambda: genesis)
    (packed,) = compact.pack(height, [(altered, reading)])
    row = (packed, record_id(height, index))
    database.connection.execute("UPDATE records SET packed=? WHERE id=?", row)
    return height, index
