"""The wide-area chain, re-done from its genesis.

What was kept goes through the same application again, block by block. The summaries of the region
at hand, if there is one, are also made anew from its regional chain.

Where bodies of summaries were pruned, nothing can be re-done. Then every entry is held against the
log and the state against the newest application hash, the bodies that are there are checked with
their signatures, network changes are followed, and each region's leaf is held against its entries.
Energies and counts in the leaves, and the application hashes of older blocks, stay unchecked.

What the engine said of validators' misbehaviour is unsigned: the evidence is in CometBFT's blocks.
"""

from collections.abc import Iterator
from dataclasses import fields

from ledger.audit.report import WIDE, AuditReport, wrong, wrong_record
from ledger.audit.stored import Comparison, Row, Stored
from ledger.engine.abci import Misbehaviour, TxResult, UpgradeNeeded
from ledger.genesis import WideGenesis
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import MalformedRecord, ProtocolError
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import RegionalApplication
from ledger.regional.summary import summarise
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.application import WideApplication
from ledger.wide.entries import SUMMARIES, Entry, decode_misbehaviour
from ledger.wide.restore import kept_row, state_row
from ledger.wide.store import TABLES
from ledger.wide.summary import Summary

_KEPT = "SELECT number, block, subject, place, code, digest, envelope FROM kept ORDER BY number"
_PRUNED = "SELECT count(*) FROM kept WHERE envelope IS NULL AND code NOT IN (26, 27)"


class WideAudit:
    """Re-does one wide-area chain; raises Wrong at the first wrong thing.

    ``regional`` is the region's chain as re-done before; None where none is at hand.
    """

    def __init__(
        self,
        genesis: WideGenesis,
        stored: Stored,
        regional: RegionalApplication | None,
        report: AuditReport,
    ) -> None:
        self._genesis = genesis
        self._stored = stored
        self._report = report
        self._regional = regional
        self._windows = {} if regional is None else dict(regional.blocks.windows_after(0))
        self._own = Database(None, TABLES)
        self.app = WideApplication(genesis, self._own, Verifier())

    def close(self) -> None:
        """Let go of the working copy."""
        self._own.close()

    def run(self) -> None:
        """Check everything; raises Wrong."""
        if self._stored.meta("genesis") != self._genesis.encode():
            raise wrong(WIDE, None, "the ledger was begun with another genesis")
        ((pruned,),) = self._stored.rows(_PRUNED)
        self._report.pruned_summaries = int(str(pruned))
        if pruned:
            self._follow()
        else:
            self._redo_all()
        self._report.conflicts = sum(
            self.app.state.region(region).conflict is not None for region in self.app.regions()
        )
        self._compare_tables(whole=not pruned)
        self._stored.check_pages()

    # with every body

    def _redo_all(self) -> None:
        kept = self._stored.rows(_KEPT)
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

    def _redo(self, height: int, block: list[Row], app_hash: object) -> None:
        if height <= self.app.height:
            raise wrong(WIDE, height, "no block has this height")
        steps = list(self._read_steps(height, block))
        try:
            told = iter(self.app.apply(height, steps).tx_results)
        except UpgradeNeeded as e:
            raise wrong(WIDE, height, f"it cannot be checked with this program: {e}") from None
        self.app.commit()
        for row, step in zip(block, steps, strict=True):
            self._check_row(height, row, next(told) if isinstance(step, bytes) else None)
        if self.app.app_hash != app_hash:
            raise wrong(WIDE, height, "the application hash does not follow from the summaries")
        self._report.wide_height = height

    def _read_steps(self, height: int, block: list[Row]) -> Iterator[Misbehaviour | bytes]:
        for number, row in enumerate(block, self.app.log.size):
            if row[0] != number:
                raise wrong(WIDE, height, f"record {number} is missing")
            raw = row[6]
            if not isinstance(raw, bytes):
                raise wrong_record(WIDE, height, number, raw, "it is not bytes")
            if row[4] != codes.MISBEHAVIOUR:
                yield raw
                continue
            try:
                yield decode_misbehaviour(raw)
            except MalformedRecord as e:
                raise wrong_record(WIDE, height, number, raw, str(e)) from None

    def _check_row(self, height: int, row: Row, result: TxResult | None) -> None:
        number, raw = int(str(row[0])), row[6]
        if result is not None and result.code not in SUMMARIES:
            why = f"{codes.NAMES[result.code]}: {result.log}"
            raise wrong_record(WIDE, height, number, raw, why)
        entry = self.app.store.entry(number)
        assert entry is not None, "what was let in is not kept"
        if row[4] != entry.code:
            why = f"it is kept as {_name(row[4])}, and it is {_name(entry.code)}"
            raise wrong_record(WIDE, height, number, raw, why)
        if row[2:6] != tuple(entry):
            why = "its entry is not the one that it makes"
            raise wrong_record(WIDE, height, number, raw, why)
        self._count(entry, signed=result is not None)
        if entry.code == codes.OK:
            self._check_own(height, number, entry, raw)

    def _count(self, entry: Entry, *, signed: bool) -> None:
        self._report.signatures += signed
        self._report.summaries += entry.code == codes.OK

    # without some

    def _follow(self) -> None:
        newest = list(
            self._stored.rows("SELECT height, app_hash FROM blocks ORDER BY height DESC LIMIT 1")
        )
        if not newest or not isinstance(newest[0][1], bytes):
            raise wrong(WIDE, None, "there is no block with an application hash")
        height, app_hash = int(str(newest[0][0])), newest[0][1]
        place: list[Row] = []
        try:
            self.app.restore(height, app_hash, self._rows_of_all(height, place))
        except ProtocolError as e:
            if not place:
                raise wrong(WIDE, None, str(e)) from None
            row = place[-1]
            raise wrong_record(WIDE, int(str(row[1])), int(str(row[0])), row[6], str(e)) from None
        for row in self._stored.rows(_KEPT):
            entry = Entry.checked(*row[2:6])
            has_body = isinstance(row[6], bytes)
            self._count(entry, signed=has_body and entry.code != codes.MISBEHAVIOUR)
            if entry.code == codes.OK:
                self._check_own(int(str(row[1])), int(str(row[0])), entry, row[6])
        self._report.wide_height = height

    def _rows_of_all(self, height: int, place: list[Row]) -> Iterator[list[object]]:
        """Give the rows as a snapshot has them; ``place`` gets each row of ``kept``."""
        for key, value in self._stored.rows("SELECT key, value FROM state ORDER BY key"):
            yield state_row(key, value)
        before = 0
        for number, row in enumerate(self._stored.rows(_KEPT)):
            block = row[1]
            if row[0] != number:
                raise wrong(WIDE, None, f"record {number} is missing")
            if not isinstance(block, int) or not before <= block <= height:
                why = f"record {number} is kept for block {ascii(block)[:20]}, which is not there"
                raise wrong(WIDE, None, why)
            before = block
            place[:] = [row]
            yield kept_row(*row[2:])
        place.clear()

    # the region at hand

    def _check_own(self, height: int, number: int, entry: Entry, raw: object) -> None:
        """Check a summary of the region at hand against its regional chain, pruned or not."""
        regional = self._regional
        if regional is None or entry.subject != regional.genesis.chain:
            return
        if entry.place > self._report.blocks:
            why = f"the regional chain here has {self._report.blocks} signed blocks"
            raise wrong_record(WIDE, height, number, raw, why)
        blob = self._windows.get(entry.place)
        if blob is None and regional.blocks.first_body() > 1:
            return  # begun from a snapshot, which has the newest window alone
        if blob is None:
            why = f"no window of the regional chain ends at block {entry.place}"
            raise wrong_record(WIDE, height, number, raw, why)
        made = summarise(regional, entry.place, Aggregate.decode(blob), self._genesis.chain)
        if payload_digest(made.payload()) != entry.digest:
            why = "the regional chain gives another one"
            if isinstance(raw, bytes):
                why = _difference(Summary.decode(Envelope.parse(raw).payload), made)
            raise wrong_record(WIDE, height, number, raw, why)

    def _compare_tables(self, *, whole: bool) -> None:
        compare = Comparison(self._stored, self._own, WIDE).table
        if whole:
            compare("kept", ("number",), lambda row: f"record {row[0]}")
            compare("blocks", ("height",), lambda row: f"block {row[0]}")
        compare("summaries", ("region", "to_height"), lambda row: f"the summary up to {row[1]}")
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
