"""The rules by which a meter judges a neighbour's reading, each in one small class.

A rule has ``CODE`` (the verdict it rejects with), ``CELLS`` (how many 64-bit cells it keeps of a
neighbour), ``judge(case, cells)`` which gives ACCEPT, ABSTAIN (it could not be checked) or CODE and
changes nothing but ``case``, and ``learn(case, cells, verdict)`` which is called afterwards with
what all rules together came to. Cells start at 0. Integers only: mV, mA, mW, mHz, mWh, s.

``ORDER`` is the order of the specification; the first rule that rejects gives the reason.

Left out: a level that is wrong from the first reading on, or that drifts more slowly than the
centre follows, looks like the place of the meter. A power that was measured at one instant says
little about the energy of a long interval, so its rule only catches what persists.
"""

from firmware.meter.history import import_current_ma
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
    forgery; so is a wrong ``previous`` where the reading before is known. A slot that is older than
    all that is remembered may be a replay or not: nobody can tell, so it is not judged.
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
        if not case.in_order and not case.memory.reaches(reading.boot, reading.seq):
            return ABSTAIN
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


# ----------------------------------------------------------------------------- voltage

# The reference impedance of a single-phase supply in IEC TR 60725, 0.40 + j0.25 ohm with the
# neutral, is 0.47 ohm; it holds at the customer, so the shared cable is in it.
_SUPPLY_MOHM = const(470)
# Below this own voltage the phase of this meter is dead and says nothing about its neighbours.
_DEAD_MV = const(50_000)


def explained_mv(first_ma: int, second_ma: int) -> int:
    """Give the fall of voltage (mV) that drawing ``first`` and feeding in ``second`` can make."""
    return _SUPPLY_MOHM * (max(first_ma, 0) - min(second_ma, 0)) // 1000


def unexplained_mv(
    difference_mv: int, neighbour_ma: int, own_ma: int, earlier_mv: "tuple[int, int]" = (0, 0)
) -> int:
    """Give what is left of a difference of voltages after what loads can explain.

    The neighbour's voltage falls by what the neighbour draws, and the difference rises by what this
    meter draws; feeding in does the opposite. ``earlier_mv`` adds to both sides (low, high).
    """
    low = explained_mv(neighbour_ma, own_ma) + earlier_mv[0]
    high = explained_mv(own_ma, neighbour_ma) + earlier_mv[1]
    if difference_mv > high:
        return difference_mv - high
    if difference_mv < -low:
        return difference_mv + low
    return 0


def _difference(case: Case) -> "int | None":
    """Give neighbour's minus own voltage (mV), or None where one is missing or this one dead."""
    voltage = case.reading.value(quantities.VOLTAGE)
    if voltage is None or case.own is None or case.own.voltage is None:
        return None
    if case.own.voltage < _DEAD_MV:
        return None
    return voltage - int(case.own.voltage)


def _neighbour_ma(case: Case) -> int:
    reading = case.reading
    return import_current_ma(
        reading.value(quantities.VOLTAGE),
        reading.value(quantities.CURRENT),
        reading.value(quantities.ACTIVE_POWER),
    )


_COUNT = const(0)
_CENTRE = const(1)  # in 1/256 mV: a smaller step than 1 mV must not get lost
_SPREAD = const(2)
_OUTSIDE = const(3)

# EN 50160 allows 10 % to either side, so two meters of one transformer can differ by that at most
# before anything is learnt.
_FIRST_PERMILLE = const(100)
# Over a computed day of 55 neighbours (IEEE European feeder, two source voltages) at most 5.1 V of
# 240 V were left unexplained, and more than 4 V for at most 4 minutes on end.
_HARD_PERMILLE = const(35)
_SOFT_PERMILLE = const(17)
_SOFT_ROUNDS = const(6)
# On a weaker cable the bounds follow the mean deviation, up to twice the figures above.
_HARD_SPREADS = const(8)
_SOFT_SPREADS = const(4)
_LEARNING = const(32)
_PACE = const(64)
# A load of one minute must not move the centre: deviations count up to this.
_STEP_LIMIT_MV = const(500)


class VoltageLevel:
    """The neighbour's voltage keeps its place beside this meter's.

    Cells: count of readings learnt from, centre (mV * 256) and mean deviation (mV * 256) of the
    difference, and for how many rounds in a row it has lain outside of the soft bound. Far outside
    is rejected at once, a little outside when it lasts. Nothing is learnt from what is rejected.
    """

    CODE = records.REJECT_VOLTAGE
    CELLS = 4

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare the difference with its centre."""
        case.scratch = cells[_OUTSIDE]
        difference = _difference(case)
        if difference is None:
            return ABSTAIN
        own = case.own.voltage
        if not cells[_COUNT]:
            return ACCEPT if abs(difference) * 1000 <= _FIRST_PERMILLE * own else self.CODE
        rest = abs(
            unexplained_mv(
                difference - (cells[_CENTRE] >> 8), _neighbour_ma(case), case.own.current
            )
        )
        spread = cells[_SPREAD]
        learning = cells[_COUNT] < _LEARNING
        if rest <= _bound(own, _SOFT_PERMILLE, spread * _SOFT_SPREADS >> 8, learning):
            case.scratch = 0
            return ACCEPT
        if case.in_order:
            case.scratch += 1
        hard = _bound(own, _HARD_PERMILLE, spread * _HARD_SPREADS >> 8, learning)
        return self.CODE if rest > hard or case.scratch >= _SOFT_ROUNDS else ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Follow the difference, in small steps once it is known."""
        cells[_OUTSIDE] = case.scratch
        difference = _difference(case)
        if verdict != ACCEPT or difference is None or not case.in_order:
            return
        count = cells[_COUNT]
        if not count:
            cells[_CENTRE] = difference << 8
        else:
            weight = count + 1 if count < _LEARNING else _PACE
            off = difference - (cells[_CENTRE] >> 8)
            if count >= _LEARNING:
                off = max(-_STEP_LIMIT_MV, min(_STEP_LIMIT_MV, off))
            cells[_CENTRE] += (off << 8) // weight
            cells[_SPREAD] += ((abs(off) << 8) - cells[_SPREAD]) // weight
        if count < _LEARNING:
            cells[_COUNT] = count + 1


def _bound(own_mv: int, permille: int, learnt_mv: int, learning: bool) -> int:
    """Give a bound (mV): the usual one, wider where the cable is weaker or while learning."""
    usual = own_mv * permille // 1000
    bound = min(max(usual, learnt_mv), 2 * usual)
    return max(bound, usual * 3 // 2) if learning else bound


_HELD = const(0)
_LAST = const(1)
_LAST_ROUND = const(2)
_FALL = const(3)
_RISE = const(4)

# Two rounds that lie 5 V to either side of the centre are still honest.
_CHANGE_PERMILLE = const(45)


class VoltageChange:
    """From one round to the next the difference changes no more than loads explain.

    This needs no learnt level, so it sees a factor that is switched on in the first minutes. Cells:
    whether known, the last difference (mV), its round, and how much loads could lower and raise it.
    """

    CODE = records.REJECT_VOLTAGE
    CELLS = 5

    def judge(self, case: Case, cells: "Any") -> int:
        """Compare with the difference of the round before."""
        difference = _difference(case)
        if difference is None:
            return ABSTAIN
        if not cells[_HELD] or case.round != cells[_LAST_ROUND] + 1:
            return ACCEPT
        # what could lower the difference then can have ended now, and raises it
        rest = unexplained_mv(
            difference - cells[_LAST],
            _neighbour_ma(case),
            case.own.current,
            (cells[_RISE], cells[_FALL]),
        )
        return self.CODE if abs(rest) * 1000 > _CHANGE_PERMILLE * case.own.voltage else ACCEPT

    def learn(self, case: Case, cells: "Any", verdict: int) -> None:
        """Keep the round's difference; a rejected one is no measure for the next."""
        difference = _difference(case)
        if difference is None or not case.in_order:
            return
        if verdict == ACCEPT:
            neighbour = _neighbour_ma(case)
            cells[_HELD] = 1
            cells[_LAST] = difference
            cells[_FALL] = explained_mv(neighbour, case.own.current)
            cells[_RISE] = explained_mv(case.own.current, neighbour)
            cells[_LAST_ROUND] = case.round
        elif cells[_HELD] and verdict == self.CODE:
            cells[_LAST_ROUND] = case.round  # hold the next against the last good one


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
