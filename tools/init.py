"""``gridwitness init DIR``: a new region's genesis, keys and gateway configuration."""

import argparse
from pathlib import Path

from gateway import provision
from gateway.schema import ConfigError
from ledger.genesis import Parameters
from ledger.protocol import cose
from ledger.protocol.errors import ProtocolError
from ledger.protocol.records import is_cluster_name
from ledger.region import RegionDirectory
from tools.errors import CommandError
from tools.options import named_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = Parameters()
    parser.add_argument("dir", type=named_path, metavar="DIR", help="folder of the new region")
    parser.add_argument("--name", default="region", help="name of the region (%(default)s)")
    parser.add_argument(
        "--operators", type=int, default=3, help="how many operators, 1 to 32 (%(default)s)"
    )
    parser.add_argument(
        "--threshold", type=int, default=2, help="how many approve a change (%(default)s)"
    )
    parser.add_argument(
        "--member",
        nargs=2,
        action="append",
        default=[],
        metavar=("REQUEST", "CLUSTER"),
        help="a meter's enrolment request (file) and its cluster; may be repeated",
    )
    parser.add_argument(
        "--round-s",
        type=int,
        default=defaults.round_s,
        help="length of a round in seconds (%(default)s)",
    )
    parser.add_argument(
        "--committee",
        type=int,
        default=defaults.committee,
        help="seats in a large cluster (%(default)s)",
    )
    parser.add_argument(
        "--open-rounds",
        type=int,
        default=defaults.open_rounds,
        help="rounds until unconfirmed (%(default)s)",
    )
    parser.add_argument(
        "--window-rounds",
        type=int,
        default=defaults.window_rounds,
        help="rounds a summary (%(default)s)",
    )


_LIMITS = {
    "round_s": (1, 86_400),
    "committee": (3, 255),
    "open_rounds": (1, 0xFFFF),
    "window_rounds": (1, 0xFFFF),
    "operators": (1, 32),
}


def check_options(options: argparse.Namespace) -> tuple[Parameters, list[tuple[bytes, str]]]:
    """Give a region's parameters and its members, as (key, cluster); raises CommandError."""
    for name, (low, high) in _LIMITS.items():
        if not low <= getattr(options, name) <= high:
            option = "--" + name.replace("_", "-")
            raise CommandError(f"{option} {getattr(options, name)}: give {low} to {high}")
    if not 1 <= options.threshold <= options.operators:
        raise CommandError(f"--threshold {options.threshold}: give 1 to {options.operators}")
    if not (1 <= len(options.name) <= 64 and options.name.isprintable()):
        raise CommandError(f"--name {options.name!r}: give 1 to 64 printable characters")
    members = [(read_request(Path(file)), cluster) for file, cluster in options.member]
    _check_members(members)
    parameters = Parameters(
        options.round_s, options.committee, options.open_rounds, options.window_rounds
    )
    return parameters, members


def run(options: argparse.Namespace) -> int:
    """Make the region; raises CommandError."""
    parameters, members = check_options(options)
    directory = RegionDirectory(options.dir.absolute())
    try:
        genesis = provision.create_region(
            directory,
            options.name,
            parameters,
            operators=options.operators,
            threshold=options.threshold,
            members=members,
        )
    except FileExistsError as e:
        raise CommandError(f"{e}; name a new folder") from e
    except (OSError, ConfigError) as e:
        raise CommandError(f"the region cannot be made in {options.dir}: {e}") from e
    print(f"region {genesis.name}, id {genesis.chain.hex()}, {len(members)} members")
    print(f"genesis {genesis.digest.hex()}   (give this to whoever audits)")
    print(f"operators' keys in {directory.keys}: move them to their operators, off this machine")
    print(f"next: set [mqtt] in {directory.config}, then")
    print(f"  python -m gateway --config {directory.config}")
    return 0


def read_request(path: Path) -> bytes:
    """Give the public key of a meter's enrolment request; raises CommandError."""
    try:
        with path.open("rb") as file:
            raw = file.read(cose.MAX_RECORD_BYTES + 1)
        return provision.open_enrolment(raw)[1].public_key
    except OSError as e:
        raise CommandError(f"{path}: cannot be read: {e.strerror}") from e
    except ProtocolError as e:
        raise CommandError(f"{path}: is not a meter's enrolment request: {e}") from e


def _check_members(members: list[tuple[bytes, str]]) -> None:
    for _, cluster in members:
        if not is_cluster_name(cluster):
            raise CommandError(
                f"--member: {cluster!r} is no cluster name: 1 to 32 letters, digits, '-', '_'"
            )
    if len({key for key, _ in members}) != len(members):
        raise CommandError("--member: one meter is named twice")
