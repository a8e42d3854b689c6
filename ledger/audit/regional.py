"""The regional chain, re-done from genesis.

Every stored block's records go through the same application as in a gateway, over a database of
its own, and must give the same block. Gateways' orders to close a round are not kept: the head's
signature stands in their place, so that one is checked first and the orders are taken as given. So
is what the engine convicted validators of, for its evidence stays with the engine.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ledger.audit import pruned
from ledger.audit.report import REGIONAL, AuditReport, wrong, wrong_record
from ledger.audit.signatures import Ahead
from ledger.audit.stored import Comparison, Row, Stored
from ledger.engine.abci import Decision, Misbehaviour, TxResult, UpgradeNeeded
from ledger.genesis import RegionGenesis, addresses
from ledger.protocol import cose, records, tally
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadSignature, MalformedRecord
from ledger.regional import codes
from ledger.regional.application import RegionalApplication
from ledger.regional.blocks import (
    TABLES,
    WAITING_MISBEHAVIOUR,
    Block,
    Result,
    decode_misbehaviour,
    place_of,
    record_id,
)
from ledger.regional.compact import Compact
from ledger.store import Database
from ledger.verify import Verifier

Progress = Callable[[int, int], None]
"""``progress(blocks done, blocks in all)``."""

_HEADS = "SELECT height, round, digest, payload, envelope FROM heads ORDER BY height"
_NO_SIGNATURE = bytes(cose.SIGNATURE_BYTES)
_MOST_ENGINE_HEIGHT_BYTES = 8
_UNREADABLE = "it cannot be rebuilt from what is kept"

_HEAD_FIELDS = (
    ("chain", "region"),
    ("height", "height"),
    ("round", "round"),
    ("time", "time"),
    ("previous", "link to the head before"),
    ("records_root", "records root"),
    ("record_count", "record count"),
    ("results_root", "results root"),
    ("state_root", "state root"),
    ("history_root", "history root"),
)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One row: what is kept, and the envelope's bytes, or why they cannot be rebuilt from it."""

    id: int
    packed: object
    raw: bytes | MalformedRecord


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """The rows of one block as they are in the file; nothing is checked."""

    height: int
    head: Row
    records: list[StoredRecord]


class RegionalAudit:
    """Re-does one regional chain; raises Wrong at the first wrong thing."""

    def __init__(self, genesis: RegionGenesis, stored: Stored, report: AuditReport) -> None:
        self._genesis = genesis
        self._stored = stored
        self._report = report
        self._verifier = Verifier()
        self._operators = addresses(genesis.operators)
        self._gateways = addresses(genesis.gateways)
        self._compact = Compact(stored.rows, lambda: genesis.digest)
        self._own = Database(None, TABLES)
        self.app = RegionalApplication(genesis, self._own, self._verifier)

    def close(self) -> None:
        """Let go of the working copy."""
        self._own.close()

    def run(self, progress: Progress | None = None) -> None:
        """Check everything; raises Wrong."""
        if self._stored.meta("genesis") != self._genesis.encode():
            raise wrong(REGIONAL, None, "the ledger was begun with another genesis")
        first = pruned.first_body(self._stored)
        if first is None:
            self._redo_all(progress)
        else:
            self._check_pruned(first, progress)
        self._stored.check_pages()

    def _redo_all(self, progress: Progress | None) -> None:
        blocks = self._stored.count("heads")
        with Ahead(self._blocks(), _raws, self._key_of, self._verifier) as ahead:
            for block in ahead:
                self._redo(block)
                if progress is not None:
                    progress(self._report.blocks + self._report.unsigned, blocks)
        self._redo_waiting()
        self._compare_tables()

    # a chain whose old bodies are not here

    def _check_pruned(self, first: int, progress: Progress | None) -> None:
        report = self._report
        self.app, taken = pruned.take(
            self._genesis,
            self._stored,
            first,
            self._heads(progress),
            own=self._own,
            verifier=self._verifier,
        )
        report.records = taken.records
        report.signatures += taken.signatures
        report.witnessed_height = self.app.state.registry.witnessed
        report.first_body = first
        report.unchecked = pruned.UNCHECKED.format(first)
        self._redo_waiting()
        compare = Comparison(self._stored, self._own, REGIONAL).table
        compare("slots", ("slot", "id"), lambda row: f"the slot of {_place(row[1])}")
        compare("digests", ("digest", "id"), lambda row: f"the digest of {_place(row[1])}")
        compare("history", ("level", "place"), lambda row: f"the log's node {row[0]}, {row[1]}")
        compare("pending", ("position",), lambda row: f"waiting record {row[0]}")

    def _heads(self, progress: Progress | None) -> Iterator[bytes]:
        blocks = self._stored.count("heads")
        for row in self._stored.rows(_HEADS):
            stored = StoredBlock(int(str(row[0])), row, [])
            _, payload = self._check_head(stored)
            if self._check_signature(stored, payload) is None:
                self._report.unsigned += 1
            else:
                self._report.blocks += 1
                self._report.signatures += 1
            if progress is not None:
                progress(self._report.blocks + self._report.unsigned, blocks)
            yield payload

    # reading

    def _blocks(self) -> Iterator[StoredBlock]:
        rows = map(self._unpack, self._stored.rows("SELECT id, packed FROM records ORDER BY id"))
        row = next(rows, None)
        for head in self._stored.rows(_HEADS):
            height = int(str(head[0]))
            found: list[StoredRecord] = []
            while row is not None and row.id < record_id(height + 1, 0):
                found.append(row)
                row = next(rows, None)
            yield StoredBlock(height, head, found)
        if row is not None:
            height, index = place_of(row.id)
            raise wrong_record(REGIONAL, height, index, row.raw, "there is no block of this height")

    def _unpack(self, row: Row) -> StoredRecord:
        id_, packed = int(str(row[0])), row[1]
        try:
            return StoredRecord(id_, packed, self._compact.unpack(id_, packed).raw)
        except MalformedRecord as e:
            return StoredRecord(id_, packed, e)

    def _key_of(self, address: bytes) -> bytes | None:
        member = self.app.state.members.get(address)
        if member is not None:
            return member.public_key
        return self._operators.get(address) or self._gateways.get(address)

    # one block

    def _redo(self, stored: StoredBlock) -> None:
        height = self.app.height + 1
        if stored.height != height:
            why = "the block is missing" if stored.height > height else "no block has this height"
            raise wrong(REGIONAL, min(stored.height, height), why)
        head, payload = self._check_head(stored)
        signer = self._check_signature(stored, payload)
        self._check_numbers(stored, head)
        block = self._execute(stored, head, signer)
        if block.head.payload() != payload:
            raise wrong(REGIONAL, height, _difference(head, block.head))
        self._check_packed(stored)
        for result in block.results:
            self._check_result(height, result)
        self._count(block, signer)

    def _check_head(self, stored: StoredBlock) -> tuple[records.Head, bytes]:
        _, round_, digest, payload, _ = stored.head
        try:
            if not isinstance(payload, bytes):
                raise MalformedRecord("it is not bytes")
            head = records.decode(payload)
            if not isinstance(head, records.Head):
                raise MalformedRecord("it is another record")
        except MalformedRecord as e:
            raise wrong(REGIONAL, stored.height, f"the head cannot be read: {e}") from None
        if (digest, round_) != (cose.payload_digest(payload), head.round):
            why = "the head is stored under another digest or round than its own"
            raise wrong(REGIONAL, stored.height, why)
        return head, payload

    def _check_signature(self, stored: StoredBlock, payload: bytes) -> bytes | None:
        """Give the address of the gateway that signed the head, or None; raises Wrong."""
        raw = stored.head[4]
        height = stored.height
        if self._report.unsigned:
            why = f"the head of block {height - 1} is not signed, and it is not the newest"
            raise wrong(REGIONAL, height, why)
        if raw is None:
            return None
        try:
            if not isinstance(raw, bytes):
                raise MalformedRecord("it is not bytes")
            envelope = Envelope.parse(raw)
        except MalformedRecord as e:
            raise wrong(REGIONAL, height, f"the signed head cannot be read: {e}") from None
        key = self._gateways.get(envelope.kid)
        if key is None:
            why = f"the head is signed by {envelope.kid.hex()}, which is no gateway of the region"
            raise wrong(REGIONAL, height, why)
        if envelope.payload != payload:
            raise wrong(REGIONAL, height, "another head is signed than the one stored")
        try:
            self._verifier.check(envelope, key)
        except BadSignature as e:
            raise wrong(REGIONAL, height, f"the head's signature is wrong: {e}") from None
        return envelope.kid

    def _check_numbers(self, stored: StoredBlock, head: records.Head) -> None:
        """Check that the block has the records 0 to count - 1."""
        for index, record in enumerate(stored.records):
            place = place_of(record.id)
            if place == (stored.height, index) and index < head.record_count:
                continue
            if place == (stored.height, index):
                why = f"the head counts {head.record_count} records"
                raise wrong_record(REGIONAL, stored.height, index, record.raw, why)
            if place[0] != stored.height:
                why = "there is no block of this height"
                raise wrong_record(REGIONAL, place[0], place[1], record.raw, why)
            raise wrong(REGIONAL, stored.height, f"record {index} is missing")
        if len(stored.records) < head.record_count:
            raise wrong(REGIONAL, stored.height, f"record {len(stored.records)} is missing")

    def _execute(self, stored: StoredBlock, head: records.Head, signer: bytes | None) -> Block:
        closes = self._orders(head.round, signer)
        # what cannot be rebuilt is refused in its place, so that the first wrong record is named
        raws = [r.raw if isinstance(r.raw, bytes) else b"" for r in stored.records]
        decision = Decision(misbehaviour=self._convictions(stored.height))
        results = self._finalize(stored.height, [*raws, *closes], decision)
        made = self.app.made()
        self._check_records(stored, head.round, made, results)
        if results[-1].code != codes.OK:
            raise wrong(REGIONAL, stored.height, f"the round cannot be closed: {results[-1].log}")
        return made[0]

    def _orders(self, round_: int, signer: bytes | None) -> list[bytes]:
        """Give the orders of a majority of gateways, as if they had been checked."""
        closers = self.app.delivery.closers()
        if signer in closers:
            closers = [signer, *(gateway for gateway in closers if gateway != signer)]
        order = records.Close(self._genesis.chain, round_)
        closes = []
        for gateway in closers[: len(closers) // 2 + 1]:
            close = cose.join(gateway, order.payload(), _NO_SIGNATURE)
            self._verifier.admit(close, order)
            closes.append(close.raw)
        return closes

    def _convictions(self, height: int) -> tuple[Misbehaviour, ...]:
        sql = "SELECT misbehaviour FROM convictions WHERE height=? ORDER BY place"
        return tuple(_misbehaviour(height, row[0]) for row in self._stored.rows(sql, [height]))

    def _finalize(self, height: int, txs: list[bytes], decision: Decision) -> tuple[TxResult, ...]:
        try:
            results = self.app.finalize_block(height, txs, decision).tx_results
        except UpgradeNeeded as e:
            raise wrong(REGIONAL, height, f"this program cannot check it: {e}") from None
        self.app.commit()
        return results

    def _check_records(
        self, stored: StoredBlock, round_: int, made: list[Block], results: tuple[TxResult, ...]
    ) -> None:
        """Check that the records were let in and lie in the block's order, one after the other.

        A ballot can be wrong because of a reading that it refers to, which comes before it.
        """
        order = [envelope.raw for block in made for envelope, _ in block.records]
        due = set(order)
        for index, (record, result) in enumerate(zip(stored.records, results, strict=False)):
            raw = record.raw
            if isinstance(raw, MalformedRecord):
                raise wrong_record(REGIONAL, stored.height, index, raw, f"{_UNREADABLE}: {raw}")
            if result.code != codes.OK:
                raise wrong_record(REGIONAL, stored.height, index, raw, _refusal(result))
            if made and raw not in due:
                why = f"it belongs to a round after {round_}, the block's"
                raise wrong_record(REGIONAL, stored.height, index, raw, why)
            if made and raw != order[index]:
                why = "it is not in its place in the block's order"
                raise wrong_record(REGIONAL, stored.height, index, raw, why)

    def _check_packed(self, stored: StoredBlock) -> None:
        """Check that the records are kept in the one form in which they are packed."""
        packed = self.app.blocks.packed_of(stored.height)
        for index, (record, expected) in enumerate(zip(stored.records, packed, strict=True)):
            if record.packed != expected:
                why = "it is kept in another form than this program packs it"
                raise wrong_record(REGIONAL, stored.height, index, record.raw, why)

    def _check_result(self, height: int, result: Result) -> None:
        row = next(
            self._stored.rows(
                "SELECT outcome, drawn, accepts, rejects, abstains FROM results"
                " WHERE id=? AND height=?",
                (result.record_id, height),
            ),
            None,
        )
        if row == result.counts:
            return
        block, index = place_of(result.record_id)
        votes = _show_counts(result.counts)
        found = "none is stored" if row is None else f"stored is {_show_counts(row)}"
        why = f"the votes on record {index} of block {block} give {votes}, {found}"
        raise wrong(REGIONAL, height, why)

    def _count(self, block: Block, signer: bytes | None) -> None:
        report = self._report
        report.records += len(block.records)
        report.signatures += len(block.records)
        if signer is None:
            report.unsigned += 1
        else:
            report.blocks += 1
            report.signatures += 1
        report.witnessed_height = self.app.state.registry.witnessed

    # what is not in blocks

    def _redo_waiting(self) -> None:
        rows = self._stored.rows(
            "SELECT position, envelope FROM pending ORDER BY position",
        )
        raws, found = [], []
        for index, (position, raw) in enumerate(rows):
            if isinstance(position, int) and position >= WAITING_MISBEHAVIOUR:
                found.append(_misbehaviour(None, raw))
            else:
                raws.append(_bytes(index, raw))
        decision = Decision(misbehaviour=tuple(found))
        results = self._finalize(self.app.height + 1, raws, decision)
        for index, (raw, result) in enumerate(zip(raws, results, strict=True)):
            if result.code != codes.OK:
                raise wrong_record(REGIONAL, None, index, raw, _refusal(result))
        self._report.signatures += len(raws)
        height = self._stored.meta("engine-height")
        if height is not None and not (
            isinstance(height, bytes) and len(height) <= _MOST_ENGINE_HEIGHT_BYTES
        ):
            raise wrong(REGIONAL, None, "the engine's height is not a number")

    def _compare_tables(self) -> None:
        compare = Comparison(self._stored, self._own, REGIONAL).table
        compare("signers", ("number",), lambda row: f"the address of signer {row[0]}")
        compare("slots", ("slot", "id"), lambda row: f"the slot of {_place(row[1])}")
        compare("digests", ("digest", "id"), lambda row: f"the digest of {_place(row[1])}")
        compare("results", ("id", "height"), lambda row: f"a result of {_place(row[0])}")
        compare("history", ("level", "place"), lambda row: f"the log's node {row[0]}, {row[1]}")
        compare("state", ("key",), _name_state)
        compare("convictions", ("height", "place"), lambda row: f"a conviction of block {row[0]}")
        compare("paths", ("id",), lambda row: f"the path of {_place(row[0])}")
        compare("windows", ("to_height",), lambda row: f"the window up to block {row[0]}")
        compare("pending", ("position",), lambda row: f"waiting record {row[0]}")
        # where the engine stands is not part of the chain
        compare("meta", ("name",), lambda row: f"{row[0]}", where="name != 'engine-height'")


def _raws(stored: StoredBlock) -> Iterable[object]:
    yield stored.head[4]
    for record in stored.records:
        yield record.raw


def _bytes(index: int, raw: object) -> bytes:
    if isinstance(raw, bytes):
        return raw
    raise wrong_record(REGIONAL, None, index, raw, "it is not bytes")


def _misbehaviour(height: int | None, data: object) -> Misbehaviour:
    try:
        if not isinstance(data, bytes):
            raise MalformedRecord("it is not bytes")
        return decode_misbehaviour(data)
    except MalformedRecord as e:
        raise wrong(REGIONAL, height, f"a validator's conviction cannot be read: {e}") from None


def _refusal(result: TxResult) -> str:
    return f"{codes.NAMES.get(result.code, str(result.code))}: {result.log}"


def _difference(stored: records.Head, made: records.Head) -> str:
    for field, name in _HEAD_FIELDS:
        if getattr(stored, field) != getattr(made, field):
            found, expected = _show(getattr(stored, field)), _show(getattr(made, field))
            return f"the head's {name} is {found}; from the records follows {expected}"
    return "the head is encoded in another way than it is made"


def _show(value: "bytes | int") -> str:
    return value.hex()[:16] + "…" if isinstance(value, bytes) else str(value)


def _show_counts(counts: tuple[object, ...]) -> str:
    outcome, drawn, *votes = counts
    name = tally.OUTCOME_NAMES.get(outcome, outcome) if isinstance(outcome, int) else outcome
    accepts, rejects, abstains = votes
    return f"{name} ({drawn} drawn: {accepts} for, {rejects} against, {abstains} abstained)"


def _place(id_: object) -> str:
    if not isinstance(id_, int):
        return "a record without a number"
    height, index = place_of(id_)
    return f"record {index} of block {height}"


def _name_state(row: Row) -> str:
    key = row[0]
    if not isinstance(key, bytes):
        return "a state entry without a key"
    names = {
        b"m": "member",
        b"o": "the open reading",
        b"a": "the registry change",
        b"g": "gateway",
    }
    name = names.get(key[:1])
    return "the state's counters" if name is None else f"the state of {name} {key[1:].hex()}"
