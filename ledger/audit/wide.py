"""The wide-area chain, re-done from its genesis.

What was kept goes through the same application again, block by block. The summaries of the region
at hand are also made anew from its regional chain.
"""

from collections.abc import Iterator
from dataclasses import fields

from ledger.audit.report import WIDE, AuditReport, wrong, wrong_record
from ledger.audit.stored import Comparison, Row, Stored
from ledger.genesis import WideGenesis
from ledger.protocol.cose import Envelope
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import RegionalApplication
from ledger.regional.summary import summarise
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import WideApplication
from ledger.wide.store import TABLES
from ledger.wide.summary import Summary


class WideAudit:
    """Re-does one wide-area chain; raises Wrong at the first wrong thing.

    ``regional`` is the region's chain as re-done before.
    """

    def __init__(
        self,
        genesis: WideGenesis,
        stored: Stored,
        regional: RegionalApplication,
        report: AuditReport,
    ) -> None:
        self._genesis = genesis
        self._stored = stored
        self._report = report
        self._regional = regional
        self._windows = dict(regional.blocks.windows_after(0))
        self._own = Database(None, TABLES)
        self.app = WideApplication(genesis, self._own, Verifier())

    def close(self) -> None:
        """Let go of the working copy."""
        self._own.close()

    def run(self) -> None:
        """Check everything; raises Wrong."""
        if self._stored.meta("genesis") != self._genesis.encode():
            raise wrong(WIDE, None, "the ledger was begun with another genesis")
        kept = self._stored.rows("SELECT number, block, code, envelope FROM kept ORDER BY number")
        row = next(kept, None)
        for height, app_hash in self._stored.rows(
            "SELECT height, app_hash FROM blocks ORDER BY height"
        ):
            block: list[Row] = []
            while row is not None and row[1] == height:
                block.append(row)
                row = next(kept, None)
            self._redo(int(str(height)), block, app_hash)
        if row is not None:
            why = f"record {row[0]} is kept for block {ascii(row[1])[:20]}, which is not there"
            raise wrong(WIDE, None, why)
        self._report.conflicts = sum(
            self.app.state.region(region).conflict is not None
            for region, _ in self._genesis.regions
        )
        self._compare_tables()
        self._stored.check_pages()

    def _redo(self, height: int, block: list[Row], app_hash: object) -> None:
        if height != self.app.height + 1:
            why = "the block is missing" if height > self.app.height else "no block has this height"
            raise wrong(WIDE, min(height, self.app.height + 1), why)
        raws = list(self._check_numbers(height, block))
        results = self.app.finalize_block(height, raws).tx_results
        self.app.commit()
        for row, raw, result in zip(block, raws, results, strict=True):
            number = int(str(row[0]))
            if result.code not in (codes.OK, codes.CONFLICT):
                why = f"{codes.NAMES[result.code]}: {result.log}"
                raise wrong_record(WIDE, height, number, raw, why)
            if row[2] != result.code:
                why = f"it is kept as {_name(row[2])}, and it is {_name(result.code)}"
                raise wrong_record(WIDE, height, number, raw, why)
            self._report.signatures += 1
            if result.code == codes.OK:
                self._check_own(height, number, raw)
                self._report.summaries += 1
        if self.app.app_hash != app_hash:
            raise wrong(WIDE, height, "the application hash does not follow from the summaries")
        self._report.wide_height = height

    def _check_numbers(self, height: int, block: list[Row]) -> Iterator[bytes]:
        for number, (found, _, _, raw) in enumerate(block, self.app.log.size):
            if found != number:
                raise wrong(WIDE, height, f"record {number} is missing")
            if not isinstance(raw, bytes):
                raise wrong_record(WIDE, height, number, raw, "it is not bytes")
            yield raw

    def _check_own(self, height: int, number: int, raw: bytes) -> None:
        """Check a summary of the region at hand against its regional chain."""
        payload = Envelope.parse(raw).payload
        summary = Summary.decode(payload)
        if summary.region != self._regional.genesis.chain:
            return
        if summary.to_height > self._report.blocks:
            why = f"the regional chain here has {self._report.blocks} signed blocks"
            raise wrong_record(WIDE, height, number, raw, why)
        blob = self._windows.get(summary.to_height)
        if blob is None:
            why = f"no window of the regional chain ends at block {summary.to_height}"
            raise wrong_record(WIDE, height, number, raw, why)
        made = summarise(
            self._regional, summary.to_height, Aggregate.decode(blob), self._genesis.chain
        )
        if made.payload() != payload:
            raise wrong_record(WIDE, height, number, raw, _difference(summary, made))

    def _compare_tables(self) -> None:
        compare = Comparison(self._stored, self._own, WIDE).table
        compare("kept", ("number",), lambda row: f"record {row[0]}")
        compare("summaries", ("region", "to_height"), lambda row: f"the summary up to {row[1]}")
        compare("blocks", ("height",), lambda row: f"block {row[0]}")
        compare("history", ("level", "place"), lambda row: f"the log's node {row[0]}, {row[1]}")
        compare("state", ("key",), _name_state)
        compare("meta", ("name",), lambda row: f"{row[0]}")


def _name(code: object) -> str:
    return codes.NAMES.get(code, str(code)) if isinstance(code, int) else ascii(code)[:20]


def _difference(stored: Summary, made: Summary) -> str:
    for field in fields(Summary):
        found, expected = getattr(stored, field.name), getattr(made, field.name)
        if found != expected:
            name = field.name.replace("_", " ")
            return f"its {name} is {_show(found)}; the regional chain gives {_show(expected)}"
    return "it is encoded in another way than it is made"


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _name_state(row: Row) -> str:
    key = row[0]
    return f"the state entry {key.hex()}" if isinstance(key, bytes) else "a state entry"
