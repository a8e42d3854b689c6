"""The rules by which a meter judges a neighbour's reading, each in one small class.

A rule has ``CODE`` (the verdict it rejects with), ``CELLS`` (how many 64-bit cells it keeps of a
neighbour), ``judge(case, cells)`` which gives ACCEPT, ABSTAIN (it could not be checked) or CODE and
changes nothing but ``case``, and ``learn(case, cells, verdict)`` which is called afterwards with
what all rules together came to. Cells start at 0. Integers only: mV, mA, mW, mHz, mWh, s.

``ORDER`` is the order in which they run; the first rule that rejects gives the reason. A rule of
one's own is one more class there. Those on voltage are in firmware.meter.voltage.

Left out: a power that was measured at one instant says little about the energy of a long interval,
so its rule only catches what persists.
"""

from firmware.meter.voltage import VoltageChange, VoltageLevel
from ledger.protocol import quantities, records
from ledger.protocol.records import ABSTAIN, ACCEPT

try:
    from typing import Any
except ImportError:
    pass

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


class Case:
    """One reading to be judged, and what it is held against.

    ``own`` is this meter's round (firmware.meter.history.Own) or None, ``round`` the reading's;
    ``memory`` tells what is known of its slot (firmware.meter.judge.Memory). Sequence, the first
    rule, fills in ``in_order`` (the reading comes after every one known of this neighbour) and
    ``newest_round`` (that of the newest one known, -1 if there is none).
    """

    def __init__(self, reading: "records.Reading", digest: bytes, round_s: int) -> None:
        self.reading = reading
        self.digest = digest
        self.round_s = round_s
        self.round = reading.time // round_s
        self.own: "Any" = None
        self.memory: "Any" = None
        self.in_order = True
        self.newest_round = -1
        # what a rule's judge() leaves for its own learn(); the judge keeps it apart for each rule
        self.scratch = 0


# ------------------------------------------------------------------- sequence and time

_BOOT = const(0)
_SEQ = const(1)
_TIME = const(2)


class Sequence:
    """Boot and seq rise, and each reading names the one before it.

    Cells: boot, seq and time of the newest reading. A slot seen before with other content is a
    forgery; so is a wrong ``previous`` where the reading before is known.
    """

    CODE = records.REJECT_SEQUENCE
    CELLS = 3

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare the slot with those known."""
        reading = case.reading
        case.in_order = (reading.boot, reading.seq) > (cells[_BOOT], cells[_SEQ])
        if cells[_BOOT]:
            case.newest_round = cells[_TIME] // case.round_s
        if case.memory.other_content(reading.boot, reading.seq, case.digest):
            return self.CODE
        if reading.seq > 1:
            before = case.memory.digest_of(reading.boot, reading.seq - 1)
            if before is not None and before != reading.previous[: len(before)]:
                return self.CODE
        return ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Move on, unless order or time is what was wrong."""
        if case.in_order and verdict not in (self.CODE, records.REJECT_TIME):
            cells[_BOOT] = case.reading.boot
            cells[_SEQ] = case.reading.seq
            cells[_TIME] = case.reading.time


class Time:
    """One reading a round, rounds rise with the sequence, and this meter has values of the round.

    Without own values of the round, or with a clock that its owner says is not set, there is
    nothing to hold the reading against.
    """

    CODE = records.REJECT_TIME
    CELLS = 0

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare rounds."""
        newest = case.newest_round
        if newest >= 0 and (case.round <= newest if case.in_order else case.round >= newest):
            return self.CODE
        if case.own is None or case.reading.flags & records.CLOCK_UNSYNCHRONISED:
            return ABSTAIN
        return ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Nothing: Sequence keeps the time."""


# ------------------------------------------------------------------------------ values


class Range:
    """Every value is one that a low-voltage meter can show (ledger.protocol.quantities)."""

    CODE = records.REJECT_RANGE
    CELLS = 0

    def judge(self, case: Case, cells: "Any") -> int:
        """Look each value up."""
        for code, value in case.reading.values:
            if not quantities.in_range(code, value):
                return self.CODE
        return ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Nothing to learn."""


_KNOWN = const(0)
_IMPORT = const(1)
_EXPORT = const(2)
_SINCE = const(3)
_POWER = const(4)
_ASTRAY = const(5)

# No low-voltage service connected without transformers passes more than 3 x 100 A at 240 V.
_LIMIT_MW = const(72_000_000)
# Coarse registers count in steps of 10 Wh.
_STEP_MWH = const(10_000)
# Between two instants any household appliance may have run and stopped again (3 kW), and a
# modulated heater may have stood at another point of its cycle (a quarter of the power).
_SLACK_MW = const(3_000_000)
# One interval off is a shower between two samples; three in a row on the same side are not.
_ASTRAY_ROUNDS = const(3)
_MISSING = -(1 << 62)


class Registers:
    """Registers never run back, count no more than a connection can pass, and agree with power.

    Cells: whether known, import, export, time, power, and for how many intervals in a row the
    energy has lain above (positive) or below (negative) what the power at both ends allows.
    A reset that is announced is not judged: the reading stays unconfirmed, the next goes on there.
    """

    CODE = records.REJECT_REGISTER
    CELLS = 6

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare with the newest registers known."""
        case.scratch = 0
        reading = case.reading
        energy = reading.value(quantities.ENERGY_IMPORT)
        if energy is None:
            return ABSTAIN
        if reading.flags & records.REGISTER_RESET:
            return ABSTAIN
        if not cells[_KNOWN]:
            return ACCEPT
        bought = energy - cells[_IMPORT]
        sold = (reading.value(quantities.ENERGY_EXPORT) or 0) - cells[_EXPORT]
        elapsed = reading.time - cells[_SINCE]
        if not case.in_order:
            bought, sold, elapsed = -bought, -sold, -elapsed
        if bought < 0 or sold < 0:
            return self.CODE
        if bought + sold > _LIMIT_MW * elapsed // 3600 + _STEP_MWH:
            return self.CODE
        case.scratch = self._astray(case, cells, bought - sold, elapsed)
        return self.CODE if abs(case.scratch) >= _ASTRAY_ROUNDS else ACCEPT

    def _astray(self, case: Case, cells: "Any", net_mwh: int, elapsed: int) -> int:
        """Give the new count of intervals whose energy does not fit the power."""
        power = case.reading.value(quantities.ACTIVE_POWER)
        before = cells[_POWER]
        astray: int = cells[_ASTRAY]
        # over a gap nothing is known about the power in between
        if (
            power is None
            or before == _MISSING
            or not 0 < elapsed <= case.reading.interval_s * 3 // 2
        ):
            return astray
        slack = _SLACK_MW + max(abs(power), abs(before)) // 4
        net_mws = net_mwh * 3600
        step_mws = _STEP_MWH * 3600
        if net_mws > (max(power, before) + slack) * elapsed + step_mws:
            return max(astray, 0) + 1
        if net_mws < (min(power, before) - slack) * elapsed - step_mws:
            return min(astray, 0) - 1
        return 0

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Go on from registers that are not in doubt; what is astray goes on being counted."""
        if not case.in_order or verdict in (
            records.REJECT_SEQUENCE,
            records.REJECT_TIME,
            records.REJECT_RANGE,
        ):
            return
        if verdict == self.CODE and abs(case.scratch) < _ASTRAY_ROUNDS:
            return
        reading = case.reading
        energy = reading.value(quantities.ENERGY_IMPORT)
        if energy is None:
            return
        power = reading.value(quantities.ACTIVE_POWER)
        cells[_KNOWN] = 1
        cells[_IMPORT] = energy
        cells[_EXPORT] = reading.value(quantities.ENERGY_EXPORT) or 0
        cells[_SINCE] = reading.time
        cells[_POWER] = _MISSING if power is None else power
        cells[_ASTRAY] = case.scratch


# Meters within 1 mHz of offset and 3 mHz of noise differ by less; an old value differs by more in
# most cases (the grid wanders by 18 mHz in minutes).
_FREQUENCY_MHZ = const(20)


# Every second old value lies within the bound by chance. So two wrong values within four rounds
# also discredit the right ones after them, until eight rounds were right.
_SUSPECT = const(4)
_MOST_SUSPECT = const(12)


class Frequency:
    """The grid has one frequency: within 20 mHz of the round's median (or of this meter's own).

    Cells: suspicion, which a wrong value raises by four and a right one lowers by one. Above four
    nothing is believed.
    """

    CODE = records.REJECT_FREQUENCY
    CELLS = 1

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare with the round's frequency."""
        case.scratch = cells[0]
        frequency = case.reading.value(quantities.FREQUENCY)
        if frequency is None or case.own is None or case.own.frequency is None:
            return ABSTAIN
        if abs(frequency - case.own.frequency) > _FREQUENCY_MHZ:
            case.scratch = min(cells[0] + _SUSPECT, _MOST_SUSPECT)
            return self.CODE
        case.scratch = max(cells[0] - 1, 0)
        return ACCEPT if cells[0] <= _SUSPECT else self.CODE

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Keep the suspicion; readings out of order neither raise nor lower it."""
        if case.in_order:
            cells[0] = case.scratch


# ----------------------------------------------------------------------------- pattern

_VOLTAGE = const(0)
_FREQUENCY = const(1)
_OWN_VOLTAGE = const(2)
_OWN_FREQUENCY = const(3)
_REPEATS = const(4)

# With steps of 0.1 V and 1 mHz an honest pair repeats in about 1 round of 80, so four times on end
# happens once in 40 million rounds.
_FROZEN_REPEATS = const(4)


class Frozen:
    """Voltage and frequency do not stand still together while this meter's own move.

    Cells: the neighbour's and the own voltage and frequency of the last round, and the repeats.
    """

    CODE = records.REJECT_FROZEN
    CELLS = 5

    def judge(self, case: Case, cells: "Any") -> int:
        """Count repeats of the same pair."""
        case.scratch = cells[_REPEATS]
        voltage = case.reading.value(quantities.VOLTAGE)
        frequency = case.reading.value(quantities.FREQUENCY)
        if case.own is None or voltage is None or frequency is None:
            return ABSTAIN
        if not case.in_order:
            return ACCEPT  # the pattern is one of consecutive rounds
        if voltage != cells[_VOLTAGE] or frequency != cells[_FREQUENCY]:
            case.scratch = 0
        elif (
            case.own.voltage != cells[_OWN_VOLTAGE]
            or case.own.own_frequency != cells[_OWN_FREQUENCY]
        ):
            case.scratch += 1
        return self.CODE if case.scratch >= _FROZEN_REPEATS else ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Keep the round's values, whatever they were judged."""
        if not case.in_order or verdict in (records.REJECT_SEQUENCE, records.REJECT_TIME):
            return
        if case.own is None:
            return
        cells[_REPEATS] = case.scratch
        cells[_VOLTAGE] = case.reading.value(quantities.VOLTAGE) or 0
        cells[_FREQUENCY] = case.reading.value(quantities.FREQUENCY) or 0
        cells[_OWN_VOLTAGE] = case.own.voltage or 0
        cells[_OWN_FREQUENCY] = case.own.own_frequency or 0


ORDER = (
    Sequence(),
    Time(),
    Range(),
    Registers(),
    Frequency(),
    VoltageLevel(),
    VoltageChange(),
    Frozen(),
)
