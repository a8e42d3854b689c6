"""The offline audit: everything re-done from genesis on what is stored.

It needs the region's folder and nothing else: no service, no network, no key. It trusts the
genesis alone, so pin its digest (``expected_genesis``) when the folder came from somebody else.

What it cannot see: that the newest blocks were cut off, in both chains alike. Ask a meter, another
gateway or the wide area for a newer head.
"""

import sqlite3
import time

from ledger.audit.regional import Progress, RegionalAudit
from ledger.audit.report import REGIONAL, WIDE, AuditReport, Failure, Wrong, wrong
from ledger.audit.stored import Stored
from ledger.audit.wide import WideAudit
from ledger.genesis import RegionGenesis
from ledger.region import RegionDirectory
from ledger.regional import blocks as regional_blocks
from ledger.store import StoreError
from ledger.wide import store as wide_store

__all__ = ["AuditReport", "Failure", "audit"]


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
    start = time.monotonic()
    genesis = directory.load_genesis()
    report = AuditReport(genesis=genesis.digest.hex())
    try:
        if expected_genesis is not None and expected_genesis != genesis.digest:
            why = f"the genesis has digest {genesis.digest.hex()}, not {expected_genesis.hex()}"
            raise wrong(REGIONAL, None, why)
        _audit(directory, genesis, report, progress)
    except Wrong as e:
        report.failure = e.failure
    except sqlite3.Error as e:
        raise StoreError(f"the audit cannot keep its working copy: {e}") from e
    report.seconds = time.monotonic() - start
    return report


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
                _audit_wide(directory, wide, regional, report)
        finally:
            regional.close()
            stored.close()
    finally:
        if wide is not None:
            wide.close()


def _audit_wide(
    directory: RegionDirectory, stored: Stored, regional: RegionalAudit, report: AuditReport
) -> None:
    wide = WideAudit(directory.load_wide_genesis(), stored, regional.app, report)
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
