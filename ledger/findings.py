"""What a proof file shows, in plain sentences and as JSON (SPEC 18.7).

Nothing is checked here: ``ledger.proof`` makes findings of what it has checked, and of nothing
else.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ledger.protocol import quantities, records, tally
from ledger.wide.state import Region
from ledger.wide.summary import Summary

_LAST_MOMENT = 253_402_300_799  # the end of year 9999


@dataclass(frozen=True)
class Header:
    """The header that everything else hangs on, and where the trust in it comes from.

    ``pinned`` is the trusted height where a height and hash was given, None where trust goes back
    to the genesis.
    """

    chain: str
    genesis: str
    height: int
    hash: bytes
    time_s: int
    pinned: int | None


@dataclass(frozen=True)
class SettledReading:
    """A reading of a block of the region, and what block ``settled`` says of it.

    The counts are of members of its committee. ``settled`` is None where no result was shown; with
    the outcome OPEN that block left it open, and a later one may have settled it.
    """

    envelope_digest: bytes
    meter: bytes
    reading: records.Reading
    block: int
    settled: int | None
    outcome: int
    drawn: int
    accepts: int
    rejects: int


@dataclass(frozen=True)
class Membership:
    """That the reading's meter is in the region's registry after a block."""

    block: int
    cluster: str
    suspended: bool


@dataclass(frozen=True)
class Findings:
    """All that a proof shows. ``leaf`` is None where the region has reported nothing yet.

    ``gateway`` is who signed the summary, None where that is not shown.
    """

    header: Header
    region: bytes
    leaf: Region | None
    summary: Summary | None = None
    gateway: bytes | None = None
    reading: SettledReading | None = None
    member: Membership | None = None

    def sentences(self) -> list[str]:
        """Give what is shown, a sentence each."""
        found = [_about_header(self.header), _about_region(self.region, self.leaf)]
        if self.leaf is not None and self.leaf.conflict is not None:
            found.append(
                f"CONFLICT: a gateway of region {self.region.hex()} has also signed a summary that"
                f" contradicts these figures (payload {self.leaf.conflict.hex()})."
            )
        if self.summary is not None:
            found.append(_about_summary(self.summary, self.gateway))
        if self.reading is not None:
            found += _about_reading(self.region, self.reading)
        if self.member is not None:
            found.append(_about_member(self.member))
        return found

    def as_json(self) -> dict[str, Any]:
        """Give the same as values for ``json.dumps``."""
        header = self.header
        return {
            "chain": header.chain,
            "height": header.height,
            "hash": header.hash.hex(),
            "time": header.time_s,
            "trusted_height": header.pinned,
            "region": self.region.hex(),
            "figures": None if self.leaf is None else _figures(self.leaf),
            "summary": None if self.summary is None else _summary_json(self.summary, self.gateway),
            "reading": None if self.reading is None else _reading_json(self.reading),
            "member": None
            if self.member is None
            else {
                "block": self.member.block,
                "cluster": self.member.cluster,
                "suspended": self.member.suspended,
            },
        }


def kwh(energy_mwh: int) -> str:
    """Give an energy in kWh."""
    return f"{energy_mwh / 1_000_000:,.3f} kWh"


def moment(time_s: int) -> str:
    """Give a time in words, whatever number it is."""
    if not 0 <= time_s <= _LAST_MOMENT:
        return f"{time_s} s after 1970"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _about_header(header: Header) -> str:
    if header.pinned is None:
        origin = f"the genesis {header.genesis!r}"
    else:
        origin = f"the trusted header at height {header.pinned}"
    return (
        f"The header at height {header.height} of chain {header.chain} ({moment(header.time_s)}) is"
        f" signed by more than two thirds of its validators, which follow from {origin}."
    )


def _about_region(region: bytes, leaf: Region | None) -> str:
    if leaf is None:
        return f"Region {region.hex()} has reported nothing up to then."
    counts = f"{leaf.accepted} readings accepted, {leaf.rejected} rejected"
    return (
        f"Region {region.hex()} has reported {kwh(leaf.energy_in)} in and"
        f" {kwh(leaf.energy_out)} out in its blocks 1 to {leaf.to_height}, in {leaf.summaries}"
        f" summaries: {counts}, {leaf.unconfirmed} unconfirmed; {leaf.members} members,"
        f" {leaf.alarms} alarms."
    )


def _about_summary(summary: Summary, gateway: bytes | None) -> str:
    by = "signed by a gateway that the chain knew then and this file does not name"
    if gateway is not None:
        by = f"signed by its gateway {gateway.hex()}"
    return (
        f"Its newest summary, {by}, tells {kwh(summary.energy_in)} in and"
        f" {kwh(summary.energy_out)} out in blocks {summary.from_height + 1} to"
        f" {summary.to_height}, of which block {summary.witnessed_height} and those before it are"
        " witnessed by more than two thirds of the members."
    )


def _about_reading(region: bytes, found: SettledReading) -> list[str]:
    reading = found.reading
    values = ", ".join(
        f"{quantities.BY_CODE[code].name} {value / 1000:,.3f} {quantities.BY_CODE[code].unit}"
        for code, value in reading.values
    )
    held = (
        f"Block {found.block} of region {region.hex()} holds reading"
        f" {found.envelope_digest.hex()} of meter {found.meter.hex()}, signed by its key:"
        f" {values} at {moment(reading.time)}."
    )
    if found.settled is None:
        return [held, "What became of it is not shown."]
    if found.outcome == tally.OPEN:
        still = f"It was still open after block {found.settled}"
        return [held, f"{still}; what became of it later is not shown."]
    return [held, f"In block {found.settled} it is {_outcome(found)}."]


def _outcome(found: SettledReading) -> str:
    name = tally.OUTCOME_NAMES[found.outcome]
    if found.outcome == tally.ACCEPTED:
        return f"accepted by {found.accepts} of the {found.drawn} members of its committee"
    if found.outcome == tally.REJECTED:
        return f"rejected by {found.rejects} of the {found.drawn} members of its committee"
    if found.outcome == tally.EQUIVOCATED:
        return "void: its meter has signed another reading for the same slot"
    return f"{name}: {found.accepts} of {found.drawn} accept and {found.rejects} reject"


def _about_member(member: Membership) -> str:
    state = "suspended" if member.suspended else "not suspended"
    return (
        f"After block {member.block} this meter is registered in cluster {member.cluster!r},"
        f" {state}."
    )


def _figures(leaf: Region) -> dict[str, Any]:
    return {
        "summaries": leaf.summaries,
        "to_height": leaf.to_height,
        "energy_in_mwh": leaf.energy_in,
        "energy_out_mwh": leaf.energy_out,
        "accepted": leaf.accepted,
        "rejected": leaf.rejected,
        "unconfirmed": leaf.unconfirmed,
        "members": leaf.members,
        "alarms": leaf.alarms,
        "witnessed_height": leaf.witnessed_height,
        "conflict": None if leaf.conflict is None else leaf.conflict.hex(),
    }


def _summary_json(summary: Summary, gateway: bytes | None) -> dict[str, Any]:
    return {
        "gateway": None if gateway is None else gateway.hex(),
        # the first block that it tells of, as the sentences do; the record has the one before
        "from_height": summary.from_height + 1,
        "to_height": summary.to_height,
        "energy_in_mwh": summary.energy_in,
        "energy_out_mwh": summary.energy_out,
        "witnessed_height": summary.witnessed_height,
    }


def _reading_json(found: SettledReading) -> dict[str, Any]:
    reading = found.reading
    settled = found.settled is not None and found.outcome != tally.OPEN
    return {
        "digest": found.envelope_digest.hex(),
        "meter": found.meter.hex(),
        "block": found.block,
        "time": reading.time,
        "values": {quantities.BY_CODE[code].name: value for code, value in reading.values},
        "settled": found.settled if settled else None,
        "open_after": None if settled else found.settled,
        "outcome": None if found.settled is None else tally.OUTCOME_NAMES[found.outcome],
        "drawn": found.drawn,
        "accepts": found.accepts,
        "rejects": found.rejects,
    }
