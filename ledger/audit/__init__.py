"""The offline audit: everything re-done from genesis on what is stored.

It needs the folder of a region or a node and nothing else: no service, network or key. It trusts
the genesis alone, so pin its digest (``expected_genesis``) when the folder came from somebody else.

What it cannot see: that the newest blocks were cut off, in both chains alike. Ask a meter, another
gateway or the wide area for a newer head.
"""

import sqlite3
import time
from collections.abc import Callable

from ledger.audit.regional import Progress, RegionalAudit
from ledger.audit.report import REGIONAL, WIDE, AuditReport, Failure, Wrong, wrong
from ledger.audit.stored import Stored
from ledger.audit.wide import WideAudit
from ledger.genesis import RegionGenesis, WideGenesis
from ledger.region import RegionDirectory
from ledger.regional import blocks as regional_blocks
from ledger.regional.application import RegionalApplication
from ledger.store import StoreError
from ledger.wide import store as wide_store

__all__ = ["AuditReport", "Failure", "audit", "audit_wide"]

Genesis = RegionGenesis | WideGenesis

_NO_REGION = (
    "no region's chain is here: whether the summaries are what the regions' records give is "
    "unchecked"
)


def audit(
    directory: RegionDirectory,
    progress: Progress | None = None,
    *,
    expected_genesis: bytes | None = None,
) -> AuditReport:
    """Check a region's folder, also while its gateway runs; never writes to it.

    ``progress(done, all)`` is called after each regional block. ``expected_genesis`` is the
    32-byte digest that the genesis must have. Whatever the databases hold, the outcome is the
    report; a folder without a readable genesis raises RegionError, and a disk without room for
    the working copy StoreError.
    """
    genesis = directory.load_genesis()

    def check(report: AuditReport) -> None:
        _check_digest(genesis, expected_genesis, REGIONAL)
        _audit(directory, genesis, report, progress)

    return _make_report(genesis, check)


def audit_wide(directory: RegionDirectory, *, expected_genesis: bytes | None = None) -> AuditReport:
    """Check the wide-area chain alone, as in a node's folder; raises as ``audit`` does.

    What cannot be checked without the regions' chains, ``unchecked`` tells.
    """
    genesis = directory.load_wide_genesis()

    def check(report: AuditReport) -> None:
        _check_digest(genesis, expected_genesis, WIDE)
        report.unchecked = _NO_REGION
        stored = _open(directory, WIDE)
        try:
            _audit_wide(genesis, stored, None, report)
        finally:
            stored.close()

    return _make_report(genesis, check)


def _make_report(genesis: Genesis, check: Callable[[AuditReport], None]) -> AuditReport:
    start = time.monotonic()
    report = AuditReport(genesis=genesis.digest.hex())
    try:
        check(report)
    except Wrong as e:
        report.failure = e.failure
    except sqlite3.Error as e:
        raise StoreError(f"the audit cannot keep its working copy: {e}") from e
    report.seconds = time.monotonic() - start
    return report


def _check_digest(genesis: Genesis, expected: bytes | None, chain: str) -> None:
    if expected is not None and expected != genesis.digest:
        why = f"the genesis has digest {genesis.digest.hex()}, not {expected.hex()}"
        raise wrong(chain, None, why)


def _audit(
    directory: RegionDirectory,
    genesis: RegionGenesis,
    report: AuditReport,
    progress: Progress | None,
) -> None:
    has_wide = directory.wide.exists()
    # The wide area's moment is fixed first: then the regional chain holds all that it speaks of.
    wide = _open(directory, WIDE) if has_wide else None
    try:
        stored = _open(directory, REGIONAL)
        regional = RegionalAudit(genesis, stored, report)
        try:
            regional.run(progress)
            if wide is not None:
                _audit_wide(directory.load_wide_genesis(), wide, regional.app, report)
        finally:
            regional.close()
            stored.close()
    finally:
        if wide is not None:
            wide.close()


def _audit_wide(
    genesis: WideGenesis,
    stored: Stored,
    regional: RegionalApplication | None,
    report: AuditReport,
) -> None:
    wide = WideAudit(genesis, stored, regional, report)
    try:
        wide.run()
    finally:
        wide.close()


def _open(directory: RegionDirectory, chain: str) -> Stored:
    path, tables = directory.regional, regional_blocks.TABLES
    if chain == WIDE:
        path, tables = directory.wide, wide_store.TABLES
    try:
        return Stored(path, tables, chain)
    except StoreError as e:
        raise wrong(chain, None, str(e)) from None
