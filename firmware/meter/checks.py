"""The rules by which a meter judges a neighbour's reading, each in one small class.

A rule has ``CODE`` (the verdict it rejects with), ``CELLS`` (how many cells it keeps of a
neighbour) of ``TYPE`` ("i" for 32, "q" for 64 bits), ``judge(case, cells)`` which gives ACCEPT,
ABSTAIN (it could not be checked) or CODE and changes nothing but ``case``, and ``learn(case,
cells, verdict)``, for a rule with cells, which is called afterwards with what all rules together
came to. Cells start at 0. Integers only: mV, mA, mW, mHz, mWh, s.

``ORDER`` is the order in which they run; the first rule that rejects gives the reason. A rule of
one's own is one more class there. Those on voltage are in firmware.meter.voltage.

Left out: a power that was measured at one instant says little about the energy of a long interval,
so its rule only catches what persists.
"""

from firmware.meter.history import Values
from firmware.meter.voltage import (
    VoltageAgreement,
    VoltageChange,
    VoltageLevel,
    VoltageOffset,
)
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
    ``memory`` tells what is known of its slot (firmware.meter.judge.Memory), ``feeder`` and
    ``slot`` what the neighbourhood says (firmware.meter.feeder.Feeder, or None), ``values`` are
    the reading's by name. VoltageAgreement fills in ``rest`` (mV, or None), what nothing explains
    of its voltage, ``nominal``, what the neighbourhood makes one expect, and ``agreed``, whether
    its word fits this meter's own voltage. Sequence, the first rule, ``in_order`` (the reading
    comes after every one known of this neighbour) and ``newest_round`` (that of the newest one
    known, -1 if there is none).
    """

    def __init__(self, reading: "records.Reading", digest: bytes, round_s: int) -> None:
        self.reading = reading
        self.values = Values(reading.values)
        self.digest = digest
        self.round_s = round_s
        self.round = reading.time // round_s
        self.own: "Any" = None
        self.memory: "Any" = None
        self.feeder: "Any" = None
        self.slot = 0
        self.nominal = 0
        self.rest: "int | None" = None
        self.agreed = False
        self.forgotten = False
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
    TYPE = "q"
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
    TYPE = "i"
    CELLS = 0

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare rounds."""
        newest = case.newest_round
        if newest >= 0 and (case.round <= newest if case.in_order else case.round >= newest):
            return self.CODE
        if case.own is None or case.reading.flags & records.CLOCK_UNSYNCHRONISED:
            return ABSTAIN
        return ACCEPT


# ------------------------------------------------------------------------------ values


class Range:
    """Every value is one that a low-voltage meter can show (ledger.protocol.quantities)."""

    CODE = records.REJECT_RANGE
    TYPE = "i"
    CELLS = 0

    def judge(self, case: Case, cells: "Any") -> int:
        """Look each value up."""
        for code, value in case.reading.values:
            if not quantities.in_range(code, value):
                return self.CODE
        return ACCEPT


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
    TYPE = "q"
    CELLS = 6

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare with the newest registers known."""
        case.scratch = 0
        reading = case.reading
        energy = case.values.bought
        if energy is None:
            return ABSTAIN
        if reading.flags & records.REGISTER_RESET:
            return ABSTAIN
        if not cells[_KNOWN]:
            return ACCEPT
        bought = energy - cells[_IMPORT]
        sold = (case.values.sold or 0) - cells[_EXPORT]
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
        power = case.values.power
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
        energy = case.values.bought
        if energy is None:
            return
        power = case.values.power
        cells[_KNOWN] = 1
        cells[_IMPORT] = energy
        cells[_EXPORT] = case.values.sold or 0
        cells[_SINCE] = reading.time
        cells[_POWER] = _MISSING if power is None else power
        cells[_ASTRAY] = case.scratch


_SUM = const(0)
_COARSE = const(1)
_BETTER = const(2)

# Crystals of 20 ppm are off by 1 mHz, and noise of 3 mHz leaves nine once in 400 readings: what
# exceeds that is summed up, and one value of more than 20 mHz is enough. The grid wanders by 18 mHz
# in minutes, so old values are off by more in most rounds. Of an instrument that is better than
# that, less is borne: twice its mean deviation.
_SLACK_MHZ = const(9)
_LEAST_SLACK_MHZ = const(3)
_ENOUGH_MHZ = const(20)
_WORST_MEAN = const(1024)  # 4 mHz, in 1/256
_PACE = const(64)
# Every second old value lies within the bound by chance: after wrong values the right ones are not
# believed either, for about ten rounds.
_REMEMBERED_SLACKS = const(9)
# Simple instruments show tenths of a hertz. A fine one does so eight times on end once in 10^16.
_TENTH_MHZ = const(100)
_COARSE_ROUNDS = const(8)


class Frequency:
    """The grid has one frequency: that of the round's median, or of this meter where that is all.

    Deviations beyond instruments' errors are summed up (Page 1954, as in VoltageAgreement). Cells:
    the sum (mHz); how many values on end were whole tenths of a hertz: such a meter may be off by
    half a tenth, and its frequency proves little; and by how much the mean deviation is below 4
    mHz.
    """

    CODE = records.REJECT_FREQUENCY
    TYPE = "i"
    CELLS = 3

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare with the round's frequency."""
        case.scratch = cells[_SUM]
        frequency = case.values.frequency
        if frequency is None or case.own is None or case.own.frequency is None:
            return ABSTAIN
        slack = max(_LEAST_SLACK_MHZ, _SLACK_MHZ - (cells[_BETTER] >> 7))
        enough = _ENOUGH_MHZ - slack
        if cells[_COARSE] >= _COARSE_ROUNDS or case.own.coarse:
            slack += _TENTH_MHZ // 2
        total = max(0, cells[_SUM] + abs(frequency - case.own.frequency) - slack)
        case.scratch = min(total, _REMEMBERED_SLACKS * slack)
        return self.CODE if total > enough else ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Keep the sum; readings out of order neither raise nor lower it."""
        frequency = case.values.frequency
        if not case.in_order or frequency is None:
            return
        cells[_SUM] = case.scratch
        if verdict == ACCEPT:
            off = min(abs(frequency - case.own.frequency) << 8, _WORST_MEAN)
            cells[_BETTER] += (_WORST_MEAN - off - cells[_BETTER]) // _PACE
        tenths = min(cells[_COARSE] + 1, _COARSE_ROUNDS)
        cells[_COARSE] = 0 if frequency % _TENTH_MHZ else tenths


# ----------------------------------------------------------------------------- pattern

_VOLTAGE = const(0)
_FREQUENCY = const(1)
_REPEATS = const(2)

# With steps of 0.1 V and 1 mHz an honest pair repeats in about 1 round of 80, so four times on end
# happens once in 40 million rounds.
_FROZEN_REPEATS = const(4)


def _within(code: int, value: "int | None") -> int:
    """Give a value that fits a cell: one that no meter can show stands as 0."""
    return value if value is not None and quantities.in_range(code, value) else 0


class Frozen:
    """Voltage and frequency do not stand still together while this meter's own move.

    Cells: the neighbour's voltage and frequency of the last round, and the repeats.
    """

    CODE = records.REJECT_FROZEN
    TYPE = "i"
    CELLS = 3

    def judge(self, case: Case, cells: "Any") -> int:
        """Count repeats of the same pair."""
        case.scratch = cells[_REPEATS]
        voltage = case.values.voltage
        frequency = case.values.frequency
        if case.own is None or voltage is None or frequency is None:
            return ABSTAIN
        if not case.in_order:
            return ACCEPT  # the pattern is one of consecutive rounds
        if voltage != cells[_VOLTAGE] or frequency != cells[_FREQUENCY]:
            case.scratch = 0
        elif case.own.moved:
            case.scratch += 1
        return self.CODE if case.scratch >= _FROZEN_REPEATS else ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Keep the round's values, whatever they were judged."""
        if not case.in_order or verdict in (records.REJECT_SEQUENCE, records.REJECT_TIME):
            return
        if case.own is None:
            return
        cells[_REPEATS] = case.scratch
        cells[_VOLTAGE] = _within(quantities.VOLTAGE, case.values.voltage)
        cells[_FREQUENCY] = _within(quantities.FREQUENCY, case.values.frequency)


_HELD_MV = const(0)
_FIRST_REST = const(1)
_TIMES = const(2)
_STEP_MV = const(3)

# The coarsest voltmeters show volts.
_COARSEST_MV = const(1000)
# How far (of 10,000) the expected voltage must have moved for a value that stands still to be
# wrong.
_MOVED_PER_10000 = const(15)
_MOVED_SPREADS = const(4)


def _step_of(value: int, coarsest: int) -> int:
    """Give the largest power of ten up to ``coarsest`` that divides a value."""
    while value % coarsest:
        coarsest //= 10
    return coarsest


class FrozenVoltage:
    """A voltage does not stand still while the neighbourhood says that it should have moved.

    This sees a voltage that is frozen alone, with a live frequency. Cells: the voltage, what was
    left of it unexplained when it was first shown, how often it was shown again, and the coarsest
    step that all voltages seen are multiples of.
    """

    CODE = records.REJECT_FROZEN
    TYPE = "i"
    CELLS = 4

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare how the expected voltage moved since the value was first shown."""
        voltage = case.values.voltage
        if case.rest is None or not case.in_order or voltage != cells[_HELD_MV]:
            return ACCEPT
        if cells[_TIMES] < _FROZEN_REPEATS - 1:
            return ACCEPT
        still = max(
            case.nominal * _MOVED_PER_10000 // 10_000,
            case.feeder.spread_mv(case.slot) * _MOVED_SPREADS,
        )
        moved = abs(case.rest - cells[_FIRST_REST])
        return self.CODE if moved > still + cells[_STEP_MV] else ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Count repeats of the value."""
        voltage = _within(quantities.VOLTAGE, case.values.voltage)
        if case.rest is None or not case.in_order or not voltage:
            return
        cells[_STEP_MV] = _step_of(voltage, cells[_STEP_MV] or _COARSEST_MV)
        if voltage == cells[_HELD_MV]:
            cells[_TIMES] += 1
        else:
            cells[_HELD_MV] = voltage
            cells[_FIRST_REST] = case.rest
            cells[_TIMES] = 0


ORDER = (
    Sequence(),
    Time(),
    Range(),
    Registers(),
    Frequency(),
    VoltageAgreement(),
    VoltageOffset(),
    VoltageLevel(),
    VoltageChange(),
    Frozen(),
    FrozenVoltage(),
)
