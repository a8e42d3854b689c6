"""``gridwitness audit DIR``: everything re-checked offline from genesis.

Of a node of a wide-area network, which has no region's chain, the wide-area chain is checked.
"""

import argparse
import json
import sys
from pathlib import Path

from ledger.audit import AuditReport, audit, audit_wide
from ledger.region import RegionDirectory, RegionError
from ledger.store import StoreError
from tools.errors import CommandError
from tools.options import named_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "dir", type=named_path, metavar="DIR", help="folder of a region or of a node, or a copy"
    )
    parser.add_argument("--genesis", metavar="HEX", help="the genesis digest that you trust")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(options: argparse.Namespace) -> int:
    """Audit; gives 0 when all is right and 1 when not. Raises CommandError."""
    expected = _digest(options.genesis)
    path: Path = options.dir.absolute()
    directory = RegionDirectory(path)
    if (path / "network.json").exists():
        raise CommandError(
            f"{path} is a network, and each node has a ledger of its own: name a node's folder, "
            f"{path}/nodes/NAME"
        )
    region = directory.genesis.exists() or directory.regional.exists()
    wide = directory.wide_genesis.exists() and not region
    show = sys.stderr.isatty() and not options.json and not wide
    try:
        if wide:
            report = audit_wide(directory, expected_genesis=expected)
        else:
            progress = _print_progress if show else None
            report = audit(directory, progress=progress, expected_genesis=expected)
    except (RegionError, StoreError) as e:
        raise CommandError(str(e)) from e
    if show:
        print(file=sys.stderr)
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    elif report.ok:
        _print_passed(report, _count_wide(report) if wide else _count(report))
        if expected is None:
            print("the genesis was taken as it is: give --genesis HEX to pin the one you trust")
    else:
        print(f"audit FAILED: {report.failure}")
    return 0 if report.ok else 1


def _count(report: AuditReport) -> str:
    return (
        f"{report.blocks} blocks, {report.records} records, "
        f"witnessed to {report.witnessed_height}, {report.summaries} summaries"
    )


def _count_wide(report: AuditReport) -> str:
    return (
        f"wide-area chain to block {report.wide_height}, {report.summaries} summaries, "
        f"{report.signatures} signatures"
    )


def _print_passed(report: AuditReport, counts: str) -> None:
    print(f"audit passed: {counts}, {report.seconds:.1f} s")
    if report.unsigned:
        print("the newest block is not signed by a gateway yet")
    if report.conflicts:
        print(f"CONFLICT: {report.conflicts} regions' gateways signed contradicting summaries")
    if report.unchecked:
        print(report.unchecked)
    if report.pruned_summaries:
        print(
            f"summaries whose bodies are not here: {report.pruned_summaries}; regions' totals and "
            "older application hashes are unchecked"
        )


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
