"""The audit of one wide-area node's ledger, where no region's chain is at hand.

Everything is re-done from genesis as ``ledger.audit`` does it; what cannot be compared here is
whether the summaries are those that a regional chain gives.
"""

import time

from ledger.audit.report import WIDE, AuditReport, Wrong, wrong
from ledger.audit.stored import Stored
from ledger.audit.wide import WideAudit
from ledger.genesis import Parameters, RegionGenesis
from ledger.keys import Signer
from ledger.region import RegionDirectory
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database, StoreError
from ledger.verify import Verifier
from ledger.wide import store as wide_store


def audit_wide(directory: RegionDirectory) -> AuditReport:
    """Audit the wide-area chain of a node's folder; raises RegionError.

    Whatever the ledger holds, the outcome is the report.
    """
    start = time.monotonic()
    genesis = directory.load_wide_genesis()
    report = AuditReport(genesis=genesis.digest.hex())
    with Database(None, TABLES) as database:
        nowhere = RegionalApplication(_nowhere(), database, Verifier())
        try:
            stored = _open(directory)
            try:
                audit = WideAudit(genesis, stored, nowhere, report)
                try:
                    audit.run()
                finally:
                    audit.close()
            finally:
                stored.close()
        except Wrong as e:
            report.failure = e.failure
    report.seconds = time.monotonic() - start
    return report


def _open(directory: RegionDirectory) -> Stored:
    try:
        return Stored(directory.wide, wide_store.TABLES, WIDE)
    except StoreError as e:
        raise wrong(WIDE, None, str(e)) from None


def _nowhere() -> RegionGenesis:
    """Give a region that no wide-area chain knows."""
    key = Signer.generate().public_key
    return RegionGenesis("nowhere", 0, Parameters(), (key,), 1, (key,))
