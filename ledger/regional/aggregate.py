"""What a region adds up over one window of rounds, from settled readings alone (SPEC 11.7).

Energy is the difference of the registers of consecutive accepted readings of a meter, so a gap is
bridged by the next accepted reading and nothing is counted twice. Outcomes of readings of an
earlier window are adjustments that name their window. A summary has room for the oldest
``MAX_ADJUSTMENTS`` of them; the rest goes over to the next window's.
"""

from dataclasses import dataclass, field

from ledger.protocol import cbor, quantities, records, tally
from ledger.regional.state import Member
from ledger.wide.summary import MAX_ADJUSTMENTS, MAX_ENERGY

Extremes = tuple[int, int] | None


def _widen(extremes: Extremes, value: int | None) -> Extremes:
    if value is None:
        return extremes
    if extremes is None:
        return value, value
    return min(extremes[0], value), max(extremes[1], value)


def _plausible(reading: records.Reading, code: int) -> int | None:
    """Give a quantity, or None where it is absent or, votes or no votes, cannot be."""
    value = reading.value(code)
    return value if value is not None and quantities.in_range(code, value) else None


def _add_rise(energy: int, before: int | None, now: int | None) -> int:
    if before is None or now is None:
        return energy
    return min(MAX_ENERGY, energy + max(0, now - before))


@dataclass(slots=True)
class Aggregate:
    """One window so far: rounds [window * W, (window + 1) * W), heights from ``from_height`` on.

    Energies in mWh, power in mW, voltage in mV, frequency in mHz. ``adjustments`` maps an earlier
    window to [accepted, rejected, unconfirmed]. ``witnessed`` is the witnessed height at the
    window's end.
    """

    window: int
    from_height: int
    energy_in: int = 0
    energy_out: int = 0
    power: Extremes = None
    voltage: Extremes = None
    frequency: Extremes = None
    accepted: int = 0
    rejected: int = 0
    unconfirmed: int = 0
    members: int = 0
    alarms: int = 0
    witnessed: int = 0
    adjustments: dict[int, list[int]] = field(default_factory=dict)

    def settle(self, outcome: int, window: int, reading: records.Reading, member: Member) -> None:
        """Count a settled reading of a window; an accepted one moves the member's register."""
        if outcome == tally.EQUIVOCATED:
            self.alarms += 1
            return
        place = {tally.ACCEPTED: 0, tally.REJECTED: 1, tally.UNCONFIRMED: 2}[outcome]
        if window != self.window:
            self.adjustments.setdefault(window, [0, 0, 0])[place] += 1
        elif place == 0:
            self.accepted += 1
        elif place == 1:
            self.rejected += 1
        else:
            self.unconfirmed += 1
        if outcome == tally.ACCEPTED:
            self._accept(reading, member)

    def _accept(self, reading: records.Reading, member: Member) -> None:
        self.power = _widen(self.power, _plausible(reading, quantities.ACTIVE_POWER))
        self.voltage = _widen(self.voltage, _plausible(reading, quantities.VOLTAGE))
        self.frequency = _widen(self.frequency, _plausible(reading, quantities.FREQUENCY))
        self._count_energy(reading, member)

    def _count_energy(self, reading: records.Reading, member: Member) -> None:
        energy_in = _plausible(reading, quantities.ENERGY_IMPORT)
        energy_out = _plausible(reading, quantities.ENERGY_EXPORT)
        if energy_in is None and energy_out is None:
            return
        time, before_in, before_out = member.register or (-1, None, None)
        if reading.time <= time:
            return  # a late one: the difference of its neighbours in time has counted it
        if reading.flags & records.REGISTER_RESET:
            before_in = before_out = None
        self.energy_in = _add_rise(self.energy_in, before_in, energy_in)
        self.energy_out = _add_rise(self.energy_out, before_out, energy_out)
        # a register that this reading leaves out goes on from where it was
        member.register = (
            reading.time,
            before_in if energy_in is None else energy_in,
            before_out if energy_out is None else energy_out,
        )

    def encode(self) -> bytes:
        """Give the bytes that the store keeps."""
        extremes = [None if e is None else list(e) for e in self.extremes]
        counts = [self.accepted, self.rejected, self.unconfirmed, self.members, self.alarms]
        counts.append(self.witnessed)
        late = [[window, *self.adjustments[window]] for window in sorted(self.adjustments)]
        energy = [self.window, self.from_height, self.energy_in, self.energy_out]
        return cbor.dumps([*energy, extremes, counts, late])

    @classmethod
    def decode(cls, blob: bytes) -> "Aggregate":
        """Take bytes of our own store apart."""
        f = cbor.loads(blob)
        extremes: list[Extremes] = [None if e is None else (e[0], e[1]) for e in f[4]]
        aggregate = cls(*f[:4], *extremes, *f[5])
        aggregate.adjustments = {row[0]: list(row[1:]) for row in f[6]}
        return aggregate

    def left_over(self) -> dict[int, list[int]]:
        """Give the adjustments that this window's summary has no room for."""
        late = sorted(self.adjustments)[MAX_ADJUSTMENTS:]
        return {window: list(self.adjustments[window]) for window in late}

    @property
    def extremes(self) -> tuple[Extremes, Extremes, Extremes]:
        """Give (power, voltage, frequency)."""
        return self.power, self.voltage, self.frequency
