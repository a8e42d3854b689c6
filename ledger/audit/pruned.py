"""A regional chain whose old bodies are not here: pruned, or begun from a snapshot.

It cannot be re-done from genesis. What is checked instead: heads hang together, give the log and
are signed; records, results and state that are here are those of the heads' roots; every record's
signature; what waits is let in by the rules. Not checked are outcomes, windows and what changed the
state: a majority of the region's nodes vouched for these when the heads were made.
"""

from collections.abc import Iterator
from typing import Any

from ledger.audit.report import REGIONAL, Wrong, wrong
from ledger.audit.stored import Stored
from ledger.genesis import RegionGenesis
from ledger.protocol import cbor
from ledger.protocol.errors import MalformedRecord, ProtocolError
from ledger.regional import restore
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import RegionalApplication
from ledger.regional.blocks import record_id
from ledger.regional.compact import Compact
from ledger.regional.restore import Restoring
from ledger.snapshot import Row
from ledger.store import Database
from ledger.verify import Verifier

UNCHECKED = (
    "the records of the blocks below {} are not here, so outcomes, windows and the way to the "
    "state could not be re-done from genesis: ask a node that has every block"
)

# what decoding values raises that no program of ours has written
_ODD = (ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)
_FIRST_BYTES = 4


def first_body(stored: Stored) -> int | None:
    """Give the first height whose records are all here; None where they all are. Raises Wrong."""
    value = stored.meta("pruned")
    if value is None:
        return None
    if not isinstance(value, bytes) or len(value) != _FIRST_BYTES:
        raise wrong(REGIONAL, None, "the first block that is whole is no number")
    first = int.from_bytes(value, "big")
    if not 1 < first <= stored.count("heads"):
        raise wrong(REGIONAL, None, f"there is no block {first}, from which on all are whole")
    return first


def take(
    genesis: RegionGenesis,
    stored: Stored,
    first: int,
    heads: Iterator[bytes],
    *,
    own: Database,
    verifier: Verifier,
) -> tuple[RegionalApplication, Restoring]:
    """Take what is here over into ``own``, checked; raises Wrong.

    ``heads`` gives the payloads, signatures checked.
    """
    application = RegionalApplication(genesis, own, verifier)
    blocks = application.blocks
    with own.transaction():
        blocks.put_state([(key, None) for key, _ in blocks.state_rows()])
        restoring = Restoring(blocks, genesis, None, verifier, first=first)
        try:
            for row in _rows(stored, genesis, first, heads):
                restoring.take(row)
            restoring.end()
        except ProtocolError as e:
            raise wrong(REGIONAL, None, str(e)) from None
        except _ODD as e:
            raise _unreadable(e) from None
        _take_windows(stored, application)
    try:
        return RegionalApplication(genesis, own, verifier), restoring
    except _ODD as e:
        raise _unreadable(e) from None


def _rows(
    stored: Stored, genesis: RegionGenesis, first: int, heads: Iterator[bytes]
) -> Iterator[Row]:
    for payload in heads:
        yield [restore.HEAD, payload]
    for row in stored.rows("SELECT key, value FROM state ORDER BY key"):
        yield [restore.STATE, *row]
    border = record_id(first, 0)
    compact = Compact(stored.rows, lambda: genesis.digest)
    records = "SELECT id, packed FROM records WHERE id{}? ORDER BY id"
    for id_, raw in stored.rows(records.format("<"), [border]):
        yield [restore.KEPT, id_, raw, _path(stored, id_)]
    for id_, packed in stored.rows(records.format(">="), [border]):
        if not isinstance(id_, int):
            raise MalformedRecord("a record without a number")
        yield [restore.BODY, id_, compact.unpack(id_, packed).raw]
    for row in stored.rows("SELECT * FROM results ORDER BY height, id"):
        yield [restore.RESULT, *row]


def _path(stored: Stored, id_: object) -> Any:
    found = next(stored.rows("SELECT path FROM paths WHERE id=?", [id_]), None)
    if found is None or not isinstance(found[0], bytes):
        raise MalformedRecord("the path of a record of an older block is missing")
    return cbor.loads(found[0], 64)


def _take_windows(stored: Stored, application: RegionalApplication) -> None:
    """Take windows over as they are, if they are windows: the wide area's check compares them."""
    for to_height, blob in stored.rows("SELECT * FROM windows ORDER BY to_height"):
        try:
            if not isinstance(to_height, int) or not isinstance(blob, bytes):
                raise MalformedRecord("no window")
            if Aggregate.decode(blob).encode() != blob or not 0 < to_height < 1 << 32:
                raise MalformedRecord("no window")
        except _ODD:
            raise wrong(REGIONAL, None, f"the window up to block {to_height} is none") from None
        application.blocks.put_window(to_height, blob)


def _unreadable(e: Exception) -> Wrong:
    return wrong(REGIONAL, None, f"what is stored cannot be read: {type(e).__name__}: {e}")
