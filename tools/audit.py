"""``gridwitness audit DIR``: everything re-checked offline from genesis."""

import argparse
import json
import sys

from ledger.audit import audit
from ledger.region import RegionDirectory, RegionError
from ledger.store import StoreError
from tools.errors import CommandError
from tools.options import named_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "dir", type=named_path, metavar="DIR", help="folder of the region, or a copy"
    )
    parser.add_argument("--genesis", metavar="HEX", help="the genesis digest that you trust")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(options: argparse.Namespace) -> int:
    """Audit; gives 0 when all is right and 1 when not. Raises CommandError."""
    expected = _digest(options.genesis)
    directory = RegionDirectory(options.dir.absolute())
    show = sys.stderr.isatty() and not options.json
    try:
        report = audit(
            directory, progress=_print_progress if show else None, expected_genesis=expected
        )
    except (RegionError, StoreError) as e:
        raise CommandError(str(e)) from e
    if show:
        print(file=sys.stderr)
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    elif report.ok:
        print(
            f"audit passed: {report.blocks} blocks, {report.records} records, "
            f"witnessed to {report.witnessed_height}, {report.summaries} summaries, "
            f"{report.seconds:.1f} s"
        )
        if report.unsigned:
            print("the newest block is not signed by a gateway yet")
        if report.conflicts:
            print(f"CONFLICT: {report.conflicts} regions' gateways signed contradicting summaries")
        if expected is None:
            print("the genesis was taken as it is: give --genesis HEX to pin the one you trust")
    else:
        print(f"audit FAILED: {report.failure}")
    return 0 if report.ok else 1


def _digest(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise CommandError(f"--genesis {text}: a genesis digest is 64 hex digits")
    return digest


def _print_progress(done: int, total: int) -> None:
    print(f"\rblock {done} of {total}", end="", file=sys.stderr, flush=True)
