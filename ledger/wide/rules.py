"""Rules of the wide-area chain: what a transaction is, what a summary may follow (SPEC 13.3)."""

from ledger.engine.abci import Refused
from ledger.network import NetworkChange, decode_record
from ledger.protocol import records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import MalformedRecord
from ledger.wide import codes
from ledger.wide.state import MOST_OFFERS, Offers, Region, State
from ledger.wide.store import WideStore
from ledger.wide.summary import Summary


def decode(payload: bytes) -> Summary | NetworkChange:
    """Take the payload of a transaction apart; raises MalformedRecord or Refused."""
    kind, chain, fields = records.split(payload)
    if kind == records.NETWORK_CHANGE:
        return decode_record(payload)
    if kind == records.SUMMARY:
        return Summary.parse(chain, fields)
    raise MalformedRecord(f"record type {kind} is no transaction of this chain")


def check_new(
    state: State, store: WideStore, envelope: Envelope, summary: Summary, *, several: bool
) -> None:
    """Check a summary against what its region has reported; raises Refused.

    ``several``: the region has more than one gateway. One that contradicts the region passes, once:
    it is evidence.
    """
    region = state.region(summary.region)
    if summary.from_height > region.to_height:
        log = f"the next summary of this region starts after height {region.to_height}"
        raise Refused(codes.GAP, log)
    if summary.from_height == region.to_height:
        _check_forward(summary, region)
        if several:
            _check_offer(state.offers(summary.region), envelope)
    elif is_kept(state, store, envelope.payload, summary):
        raise Refused(codes.DUPLICATE, "the summary is in the chain")
    elif region.conflict is not None:
        raise Refused(codes.KNOWN_CONFLICT, "this region has contradicted itself before")


def is_kept(state: State, store: WideStore, payload: bytes, summary: Summary) -> bool:
    """Tell whether a summary is in effect or its region's evidence; not so one that is offered."""
    digest = payload_digest(payload)
    if digest == state.region(summary.region).conflict:
        return True
    number = store.find(summary.region, summary.to_height)
    entry = None if number is None else store.entry(number)
    return entry is not None and entry.digest == digest


def _check_offer(offers: Offers, envelope: Envelope) -> None:
    """Refuse what a gateway offers already, or a changed mind too many; raises Refused."""
    offered, times = offers.of(envelope.kid)
    if offered == payload_digest(envelope.payload):
        raise Refused(codes.DUPLICATE, "this gateway offers it already: it waits for others")
    if times >= MOST_OFFERS:
        log = f"this gateway has offered {times} summaries, and none has taken effect since"
        raise Refused(codes.TOO_MANY_OFFERS, log)


def _check_forward(summary: Summary, region: Region) -> None:
    """Refuse a summary that takes back what its region has reported; raises Refused.

    That the log does not shrink follows from its size being the to-height.
    """
    if summary.from_round <= region.to_round:
        raise Refused(codes.BACKWARDS, f"rounds up to {region.to_round} are reported")
    if summary.witnessed_height < region.witnessed_height:
        raise Refused(codes.BACKWARDS, "the witnessed height goes back")
    same_height = region.summaries and summary.witnessed_height == region.witnessed_height
    if same_height and summary.witnessed_digest != region.witnessed_digest:
        raise Refused(codes.BACKWARDS, "another head than before is witnessed at the same height")
