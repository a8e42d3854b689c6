"""The summary, record type 7: what a region reports to the wide area for one window (SPEC 13.2).

Not for meters: it is decoded here and not by ``ledger.protocol.records.decode``.
"""

from dataclasses import dataclass
from typing import Any

from ledger.protocol import records
from ledger.protocol.errors import MalformedRecord

MAX_ADJUSTMENTS = 32
"""What fits into a record of 1,024 bytes with every other field at its longest."""

MAX_ENERGY = (1 << 63) - 1
_MOST = 1 << 62
_MAX_COUNT = 0xFFFFFFFF

Extremes = tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Type 7: heights (``from_height``, ``to_height``] of a region, rounds ``from_round`` to
    ``to_round`` (both included), as its gateway sums them up.

    ``chain`` is the wide-area chain's id, ``region`` the regional chain's. Energies are in mWh,
    ``power`` in mW, ``voltage`` in mV and ``frequency`` in mHz as (lowest, highest) of accepted
    readings, or None without any. Counts are of readings settled in these heights and of rounds of
    this window; ``adjustments`` are (window, accepted, rejected, unconfirmed) of earlier ones.
    ``witnessed_height`` and ``witnessed_digest`` name the newest witnessed head as of
    ``to_height`` (height 0 and the genesis digest before the first). ``log_size`` and ``log_root``
    are those of the RFC 9162 log of all heads up to ``to_height``.
    """

    chain: bytes
    region: bytes
    from_height: int
    to_height: int
    from_round: int
    to_round: int
    energy_in: int
    energy_out: int
    power: Extremes
    voltage: Extremes
    frequency: Extremes
    accepted: int
    rejected: int
    unconfirmed: int
    members: int
    alarms: int
    witnessed_height: int
    witnessed_digest: bytes
    log_size: int
    log_root: bytes
    adjustments: tuple[tuple[int, int, int, int], ...] = ()

    def payload(self) -> bytes:
        """Give the CBOR payload."""
        fields: list[Any] = [self.region, self.from_height, self.to_height]
        fields += [self.from_round, self.to_round, self.energy_in, self.energy_out]
        fields += [_pair(e) for e in (self.power, self.voltage, self.frequency)]
        fields.append([self.accepted, self.rejected, self.unconfirmed, self.members])
        fields += [self.alarms, [self.witnessed_height, self.witnessed_digest]]
        fields += [[self.log_size, self.log_root], [list(row) for row in self.adjustments]]
        return records.encode(records.SUMMARY, self.chain, fields)

    @classmethod
    def decode(cls, payload: bytes) -> "Summary":
        """Take a payload apart; raises MalformedRecord."""
        kind, chain, fields = records.split(payload)
        if kind != records.SUMMARY:
            raise MalformedRecord(f"record type {kind} is not a summary")
        return cls.parse(chain, fields)

    @classmethod
    def parse(cls, chain: bytes, fields: list[Any]) -> "Summary":
        """Take the fields after type, version and chain apart; raises MalformedRecord."""
        f = records.array(fields, 15, 15, "summary")
        from_height = records.integer(f[1], 0, records.MAX_ROUND - 1, "from height")
        to_height = records.integer(f[2], from_height + 1, records.MAX_ROUND, "to height")
        from_round = records.integer(f[3], 0, records.MAX_ROUND, "from round")
        counts = records.array(f[10], 4, 4, "counts")
        accepted, rejected, unconfirmed, members = (_count(n, "count") for n in counts)
        witnessed = records.array(f[12], 2, 2, "witnessed head")
        log = records.array(f[13], 2, 2, "log")
        return cls(
            chain=chain,
            region=records.octets(f[0], records.CHAIN_BYTES, "region"),
            from_height=from_height,
            to_height=to_height,
            from_round=from_round,
            to_round=records.integer(f[4], from_round, _last_round(), "to round"),
            energy_in=records.integer(f[5], 0, MAX_ENERGY, "energy in"),
            energy_out=records.integer(f[6], 0, MAX_ENERGY, "energy out"),
            power=_extremes(f[7], "power"),
            voltage=_extremes(f[8], "voltage"),
            frequency=_extremes(f[9], "frequency"),
            accepted=accepted,
            rejected=rejected,
            unconfirmed=unconfirmed,
            members=members,
            alarms=_count(f[11], "alarms"),
            # the newest witnessed head and the log are of these heights, not of later ones
            witnessed_height=records.integer(witnessed[0], 0, to_height, "witnessed height"),
            witnessed_digest=records.octets(witnessed[1], records.DIGEST_BYTES, "witnessed head"),
            log_size=records.integer(log[0], to_height, to_height, "log size (the to height)"),
            log_root=records.octets(log[1], records.DIGEST_BYTES, "log root"),
            adjustments=_adjustments(f[14]),
        )


def _last_round() -> int:
    # a window may reach beyond the last round that a record can name
    return records.MAX_ROUND + 0xFFFF


def _pair(extremes: Extremes) -> list[int] | None:
    return None if extremes is None else list(extremes)


def _count(value: Any, name: str) -> int:
    return records.integer(value, 0, _MAX_COUNT, name)


def _extremes(value: Any, name: str) -> Extremes:
    if value is None:
        return None
    low, high = records.array(value, 2, 2, name)
    records.integer(low, -_MOST, _MOST, name)
    return low, records.integer(high, low, _MOST, name)


def _adjustments(value: Any) -> tuple[tuple[int, int, int, int], ...]:
    rows = []
    newest = -1
    for item in records.array(value, 0, MAX_ADJUSTMENTS, "adjustments"):
        row = records.array(item, 4, 4, "adjustment")
        newest = records.integer(row[0], newest + 1, records.MAX_ROUND, "window (in rising order)")
        accepted, rejected, unconfirmed = (_count(n, "adjustment") for n in row[1:])
        rows.append((newest, accepted, rejected, unconfirmed))
    return tuple(rows)
