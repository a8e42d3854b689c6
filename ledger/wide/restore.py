"""The wide-area chain from entries alone: what a snapshot carries, what a pruned copy still shows.

The entries and the state are bound to the application hash. The bodies of summaries may be absent;
those that are there are checked with their signatures, and so is every change of the network, whose
bodies never are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain as joined

from ledger.engine.abci import Refused
from ledger.genesis import WideGenesis, addresses
from ledger.merkle import Log
from ledger.network import NETWORK_KEY, NetworkRules, RegionGateways, decode_record
from ledger.protocol import cbor, records
from ledger.protocol.cose import MAX_RECORD_BYTES, Envelope
from ledger.protocol.errors import MalformedRecord
from ledger.snapshot import BadSnapshot, Row, StateRoom, fields
from ledger.verify import Verifier
from ledger.wide import codes
from ledger.wide.entries import (
    MAX_PLACE,
    SUMMARIES,
    Entry,
    decode_misbehaviour,
    entry_of_approval,
    entry_of_misbehaviour,
    entry_of_summary,
)
from ledger.wide.state import (
    GENESIS_KEY,
    LOG_KEY,
    MOST_OFFERS,
    Offers,
    State,
    gateways_key,
    majority,
    offers_key,
    region_key,
)
from ledger.wide.store import WideStore
from ledger.wide.summary import Summary

_STATE = 1
_KEPT = 2
_MOST_KEY_BYTES = 1 + records.CHAIN_BYTES
_MOST_REGION_BYTES = 1024  # sixteen gateways' keys or offers, fifteen numbers and digests
_MOST_NETWORK_BYTES = 1 << 19  # validators, and what operators approve adds up
_LEAF_FIELDS = 15


@dataclass(slots=True)
class _Reported:
    """What entries tell of a region."""

    summaries: int = 0
    to_height: int = 0
    last: bytes = records.NO_DIGEST
    conflict: bytes | None = None


class Walk:
    """Goes along the entries from the first one and checks each as far as it can be."""

    def __init__(self, genesis: WideGenesis, verifier: Verifier) -> None:
        self._verifier = verifier
        self._rules = NetworkRules.of(genesis)
        self._chain = genesis.chain
        self._digest = genesis.digest
        self._network = self._rules.load(None)
        self._first_network = self._network
        self._gateways = {region: addresses(keys) for region, keys in genesis.regions}
        self._given: dict[bytes, bytes] = {}
        self._regions: dict[bytes, _Reported] = {}
        # at most one a gateway in force, and 16 of those a region
        self._offers: dict[bytes, Offers] = {}

    def take(self, entry: Entry, body: bytes | None) -> None:
        """Check the next entry; raises a ProtocolError."""
        if entry.code in SUMMARIES:
            self._take_summary(entry, body)
        elif body is None:
            raise MalformedRecord("a body is missing that is never pruned")
        elif entry.code == codes.NETWORK_CHANGE:
            self._take_approval(entry, body)
        else:
            misbehaviour = decode_misbehaviour(body)
            _check_same(entry, entry_of_misbehaviour(misbehaviour))
            self._network = self._rules.punish(self._network, misbehaviour)

    def check_state(self, state: State, keys: set[bytes]) -> None:
        """Check every leaf but the log's, as far as entries tell; raises MalformedRecord.

        ``keys`` are those of all leaves of ``state``.
        """
        expected = {GENESIS_KEY: self._digest}
        if self._network != self._first_network:
            expected[NETWORK_KEY] = self._network.encode()
        expected |= {gateways_key(region): value for region, value in self._given.items()}
        expected |= {offers_key(region): held.encode() for region, held in self._offers.items()}
        for key, value in expected.items():
            if state.get(key) != value:
                raise MalformedRecord(f"the state's leaf {key.hex()} is another one")
        for region, reported in self._regions.items():
            _check_region(state.get(region_key(region)), reported)
        known = {*expected, *map(region_key, self._regions)}
        if keys - {LOG_KEY} != known:
            raise MalformedRecord("the state has a leaf that no entry makes")

    def _take_summary(self, entry: Entry, body: bytes | None) -> None:
        gateways = self._gateways.get(entry.region)
        if gateways is None:
            raise MalformedRecord("a summary of an unknown region")
        region = self._regions.get(entry.region, _Reported())
        if body is not None:
            self._check_summary(entry, body, gateways, region)
        if entry.gateway and (len(gateways) == 1 or entry.gateway not in gateways):
            raise MalformedRecord("an entry names a gateway that the region does not have")
        if entry.code == codes.OFFERED:
            self._take_offer(entry, region, majority(len(gateways)))
            return
        self._regions[entry.region] = region
        if entry.code == codes.CONFLICT:
            if len(gateways) > 1 and not entry.gateway:
                raise MalformedRecord("a conflict of one gateway of several does not say which")
            if region.conflict is not None or not region.summaries:
                raise MalformedRecord("a conflict that the rules do not keep")
            region.conflict = entry.digest
        elif entry.place <= region.to_height:
            raise MalformedRecord("a region's heights run back")
        else:
            offers = self._offers.get(entry.region, Offers())
            if offers.count(entry.digest) != majority(len(gateways)) - 1:
                raise MalformedRecord("a summary in effect that no majority of gateways handed in")
            if offers.rows:
                self._offers[entry.region] = Offers()
            region.summaries += 1
            region.to_height, region.last = entry.place, entry.digest

    def _take_offer(self, entry: Entry, region: _Reported, needed: int) -> None:
        offers = self._offers.get(entry.region, Offers())
        newest, times = offers.of(entry.gateway)
        if entry.place <= region.to_height or newest == entry.digest or times >= MOST_OFFERS:
            raise MalformedRecord("an offer that the rules do not keep")
        offers = offers.after(entry.gateway, entry.digest)
        if offers.count(entry.digest) >= needed:
            raise MalformedRecord("an offer that makes a majority is in effect")
        self._offers[entry.region] = offers

    def _check_summary(
        self, entry: Entry, body: bytes, gateways: dict[bytes, bytes], region: _Reported
    ) -> None:
        envelope = Envelope.parse(body)
        summary = Summary.decode(envelope.payload)
        made = entry_of_summary(envelope, summary, entry.code, several=len(gateways) > 1)
        _check_same(entry, made)
        key = gateways.get(envelope.kid)
        if summary.chain != self._chain or key is None:
            raise MalformedRecord("a summary of another chain, or not of the region's gateway")
        continues = summary.from_height == region.to_height
        if continues != (entry.code != codes.CONFLICT) or summary.from_height > region.to_height:
            raise MalformedRecord("a summary does not begin where its region's last one ends")
        offered, _ = self._offers.get(entry.region, Offers()).of(envelope.kid)
        if entry.code == codes.OK and offered == entry.digest:
            raise MalformedRecord("a majority is counted with one gateway twice")
        self._verifier.check(envelope, key)

    def _take_approval(self, entry: Entry, body: bytes) -> None:
        envelope = Envelope.parse(body)
        try:
            change = decode_record(envelope.payload)
            key = self._rules.check(self._network, envelope, change)
        except Refused as e:
            raise MalformedRecord(f"an approval is refused: {e.log}") from None
        _check_same(entry, entry_of_approval(envelope, change))
        self._verifier.check(envelope, key)
        self._network, in_force = self._rules.approve(self._network, envelope, change)
        if in_force is not None and isinstance(in_force.what, RegionGateways):
            given = in_force.what
            self._gateways[given.chain] = addresses(given.gateways)
            self._given[given.chain] = cbor.dumps(list(given.gateways))
            if given.chain in self._offers:
                self._offers[given.chain] = Offers()


def _check_same(entry: Entry, made: Entry) -> None:
    if entry != made:
        raise MalformedRecord("an entry is not that of its body")


def _check_region(leaf: bytes | None, reported: _Reported) -> None:
    if leaf is None:
        raise MalformedRecord("a region's leaf is missing")
    f = records.array(cbor.loads(leaf), _LEAF_FIELDS, _LEAF_FIELDS, "region's leaf")
    found = [f[0], f[1], f[3], f[14]]
    wanted = [reported.summaries, reported.to_height, reported.last, reported.conflict]
    if found != wanted:
        raise MalformedRecord("a region's leaf does not fit to its entries")


# snapshots


def state_row(key: object, value: object) -> Row:
    """Give the row of a leaf."""
    return [_STATE, key, value]


def kept_row(*values: object) -> Row:
    """Give the row of an entry's four fields and its body."""
    return [_KEPT, *values]


def export(store: WideStore) -> Iterator[Row]:
    """Give the rows of a snapshot: [1, key, value] of the state, then [2, ...entry, body]."""
    for key, value in store.state_rows():
        yield state_row(key, value)
    for entry, body in store.entries():
        yield kept_row(*entry, body)


def restore(
    genesis: WideGenesis,
    store: WideStore,
    verifier: Verifier,
    position: tuple[int, bytes],
    rows: Iterator[Row],
) -> None:
    """Write the rows of a snapshot at (engine height, application hash) into an empty chain.

    Inside a transaction of the caller's, to be dropped when this raises: BadSnapshot or another
    ProtocolError.
    """
    height, app_hash = position
    if not 0 < height <= MAX_PLACE:
        raise BadSnapshot("no block has this height")
    state, keys, first = _take_state(store, rows)
    # from here on the leaves are what the chain wrote: its validators vouch for the hash
    if state.root() != app_hash:
        raise BadSnapshot("the state is not that of the application hash")
    walk = Walk(genesis, verifier)
    log = Log(store)
    size = _log_size(state)
    for row in joined(first, rows):
        if log.size >= size:
            raise BadSnapshot("there are more entries than the state's log has")
        _take_kept(store, log, walk, height, row)
    leaf = cbor.dumps([log.size, log.root()]) if log.size else None
    if state.get(LOG_KEY) != leaf:
        raise BadSnapshot("the entries are not those of the state's log")
    walk.check_state(state, keys)
    store.put_block(height, app_hash, 0)


def _log_size(state: State) -> int:
    leaf = state.get(LOG_KEY)
    if leaf is None:
        return 0
    size, _ = records.array(cbor.loads(leaf, 3), 2, 2, "log's leaf")
    return records.integer(size, 0, MAX_PLACE, "log's size")


def _take_state(store: WideStore, rows: Iterator[Row]) -> tuple[State, set[bytes], list[Row]]:
    """Write the leaves; gives them as a state, with their keys and the row that came behind."""
    leaves: dict[bytes, bytes] = {}
    behind: list[Row] = []
    newest = b""
    room = StateRoom()
    for row in rows:
        if not _is_kind(row, _STATE):
            behind.append(row)
            break
        key, value = fields(row, bytes, bytes)
        most = _MOST_NETWORK_BYTES if key == NETWORK_KEY else _MOST_REGION_BYTES
        room.take(key, value, _MOST_KEY_BYTES, most)
        if key <= newest:
            raise BadSnapshot("leaves of the state are out of order")
        newest = key
        leaves[key] = value
    store.put_state(leaves.items())
    return State(leaves.items()), set(leaves), behind


def _is_kind(row: Row, kind: int) -> bool:
    # True equals 1 in Python
    return type(row[0]) is int and row[0] == kind


def _take_kept(store: WideStore, log: Log, walk: Walk, height: int, row: Row) -> None:
    if not _is_kind(row, _KEPT):
        raise BadSnapshot("a row is of no kind that stands here")
    *entry_fields, body = fields(row, bytes, int, int, bytes, (bytes, type(None)))
    entry = Entry.checked(*entry_fields)
    if body is not None and len(body) > MAX_RECORD_BYTES:
        raise BadSnapshot("a body is longer than a record")
    walk.take(entry, body)
    if entry.code == codes.OK:
        store.put_summary(entry.subject, entry.place, log.size)
    store.keep(log.size, height, entry, body)
    log.append(entry.encode())
