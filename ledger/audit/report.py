"""What an audit found: counts, and the first wrong thing."""

from dataclasses import asdict, dataclass

from ledger.protocol import records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import MalformedRecord

REGIONAL = "regional"
WIDE = "wide-area"

_KIND_NAMES = {
    records.READING: "reading",
    records.BALLOT: "ballot",
    records.HEAD: "head",
    records.REGISTRY_CHANGE: "registry change",
    records.SUMMARY: "summary",
    records.NETWORK_CHANGE: "network change",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The first wrong thing: a sentence, and where it is as far as that can be told.

    ``chain`` is REGIONAL or WIDE, ``record`` counts from 0 in its block, ``signer`` is an address
    as 32 hex digits, ``slot`` the record's own naming of its place ("boot 1, seq 7, round 29").
    """

    sentence: str
    chain: str
    block: int | None = None
    record: int | None = None
    kind: str | None = None
    signer: str | None = None
    slot: str | None = None

    def __str__(self) -> str:
        return self.sentence


@dataclass(slots=True)
class AuditReport:
    """The counts of what was checked until the end or the first wrong thing.

    ``unsigned`` is 1 where no gateway has signed the newest block yet: what a gateway leaves behind
    that is cut off between a block and its signature. It follows from its records, but nobody
    vouches for it. ``first_body`` is the first regional block whose records are here, and
    ``unchecked`` a sentence on what could not be checked without the others. ``pruned_summaries``
    are those whose bodies this copy has let go: with any, the totals of regions and the application
    hashes of older blocks could not be checked. ``conflicts`` counts the regions whose gateways
    signed contradicting summaries.
    """

    genesis: str = ""
    blocks: int = 0
    unsigned: int = 0
    records: int = 0
    signatures: int = 0
    witnessed_height: int = 0
    wide_height: int = 0
    summaries: int = 0
    pruned_summaries: int = 0
    conflicts: int = 0
    first_body: int = 1
    unchecked: str = ""
    seconds: float = 0.0
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        """Tell whether everything checked was right."""
        return self.failure is None

    def as_json(self) -> dict[str, object]:
        """Give the report as values of JSON."""
        return {"ok": self.ok, **asdict(self), "seconds": round(self.seconds, 3)}


class Wrong(Exception):
    """Ends an audit with its failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.sentence)
        self.failure = failure


def wrong(chain: str, block: int | None, why: str) -> Wrong:
    """Give the failure of a block as a whole, or of a chain's tables."""
    where = f"{chain} chain" if block is None else f"{chain} chain, block {block}"
    return Wrong(Failure(sentence=f"{where}: {why}", chain=chain, block=block))


def wrong_record(chain: str, block: int | None, index: int, raw: object, why: str) -> Wrong:
    """Give the failure of a record; ``block`` None is a record that waits for a block."""
    kind, signer, slot = _describe(raw)
    where = "waiting records" if block is None else f"block {block}"
    what = kind + (f" of {signer}" if signer else "") + (f", {slot}" if slot else "")
    return Wrong(
        Failure(
            sentence=f"{chain} chain, {where}, record {index} ({what}): {why}",
            chain=chain,
            block=block,
            record=index,
            kind=kind,
            signer=signer,
            slot=slot,
        )
    )


def _describe(raw: object) -> tuple[str, str | None, str | None]:
    """Give (kind, signer, slot) of a record as far as its bytes tell."""
    if not isinstance(raw, bytes):
        return "not a record", None, None
    try:
        envelope = Envelope.parse(raw)
    except MalformedRecord:
        return "unreadable record", None, None
    signer = envelope.kid.hex()
    try:
        kind, _, fields = records.split(envelope.payload)
    except MalformedRecord:
        return "unreadable record", signer, None
    return _KIND_NAMES.get(kind, f"record of type {kind}"), signer, _slot(kind, fields)


def _slot(kind: int, fields: list[object]) -> str | None:
    names = {
        records.READING: (("boot", 0), ("seq", 1), ("time", 2)),
        records.BALLOT: (("round", 0),),
        records.HEAD: (("height", 0), ("round", 1)),
        records.REGISTRY_CHANGE: (("number", 0),),
        records.SUMMARY: (("heights after", 1), ("to", 2)),
        records.NETWORK_CHANGE: (("number", 0),),
    }.get(kind)
    if names is None or any(i >= len(fields) or not _is_int(fields[i]) for _, i in names):
        return None
    return ", ".join(f"{name} {fields[i]}" for name, i in names)


def _is_int(value: object) -> bool:
    return isinstance(value, int)
