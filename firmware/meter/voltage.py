"""The rules on a neighbour's voltage: it moves with the neighbourhood's, and with this meter's own.

Two yardsticks, for each is weak where the other is strong. VoltageAgreement and VoltageOffset hold
a reading against what all meters of the round say together (firmware.meter.feeder): fine, but
known only when most neighbours are there, and as true as their majority. VoltageLevel and
VoltageChange hold it against this meter's own voltage, which nobody can forge for it: coarse, but
always there. So they count while the neighbourhood is not known, and where its word does not fit
this meter's own voltage.

Interface and words are those of firmware.meter.checks; voltages mV.

Left out: an error within the class of the meters, be it there from the start or come slowly. Heavy
load that a meter claims, and pays for in its registers, widens what is believed of its voltage.
"""

from ledger.protocol import records
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


def _difference(case: "Any") -> "int | None":
    """Give neighbour's minus own voltage (mV), or None where one is missing or this one dead."""
    voltage = case.values.voltage
    if voltage is None or case.own is None or case.own.voltage is None:
        return None
    if case.own.voltage < _DEAD_MV:
        return None
    return voltage - int(case.own.voltage)


# ------------------------------------------------------------- against the neighbourhood

_SUM = const(0)

# Voltmeters of class 1 and readings rounded to 0.1 V leave 0.1 to 0.2 V of rest on a computed
# feeder, and what the model does not know some tenths more: a third of a percent is none of both.
_SLACK_PER_10000 = const(33)
# A mean deviation is 0.8 of a normal standard deviation: six of them are five sigmas.
_SLACK_SPREADS = const(6)
# Page's rule: the sum of what exceeds the slack. Ten slacks are ten rounds at twice the slack.
SUM_SLACKS = const(10)
_REMEMBERED_SLACKS = const(3)
# At once: more than two meters of class 1 differ by (IEC 61557-12; root of the sum of squares) ...
_AT_ONCE_PER_10000 = const(150)
# ... and on weak cables, with their longer tails, what twelve mean deviations are.
_AT_ONCE_SPREADS = const(12)
_TAUGHT = const(32)
# While little is known bounds are wider: three times after 32 rounds, a quarter more after 256.
_UNTAUGHT = const(64)
# Where the model is in doubt: four times 1.5 % are the 6 % that phases of one feeder differ by.
_DOUBTFUL = const(4)
_WORD = const(1_000_000)


def slack_mv(feeder: "Any", slot: int, nominal_mv: int) -> int:
    """Give how much rest (mV) of a meter is nothing; what exceeds it is summed up."""
    usual = nominal_mv * _SLACK_PER_10000 // 10_000
    taught: int = feeder.learnt(slot)
    if feeder.doubts():
        usual *= _DOUBTFUL
    slack = max(usual, feeder.spread_mv(slot) * _SLACK_SPREADS)
    return int(slack * (taught + _UNTAUGHT) // taught)


def at_once_mv(feeder: "Any", slot: int, nominal_mv: int) -> int:
    """Give how much rest (mV) of a meter is too much for a single reading."""
    usual = nominal_mv * _AT_ONCE_PER_10000 // 10_000
    taught: int = feeder.learnt(slot)
    if feeder.doubts():
        usual *= _DOUBTFUL
    most = max(usual, feeder.spread_mv(slot) * _AT_ONCE_SPREADS)
    return int(most * (taught + _UNTAUGHT) // taught)


class VoltageAgreement:
    """What loads, gradient and the meter's place leave over of its voltage is small, or soon gone.

    Far off is rejected at once; a little off when it lasts, by cumulative sums in both directions
    (E. S. Page, Continuous inspection schemes, Biometrika 41, 1954), which see a drift too. Cell:
    the sum (mV), positive for too high and negative for too low.
    """

    CODE = records.REJECT_DRIFT
    TYPE = "i"
    CELLS = 1

    def judge(self, case: "Any", cells: "Any") -> int:
        """Compare with the neighbourhood; without one the other rules must do."""
        case.scratch = cells[_SUM]
        voltage = case.values.voltage
        if voltage is None or case.feeder is None:
            return ACCEPT
        rest = case.feeder.rest(case.slot, case.round, voltage, case.values.current)
        taught = case.feeder.learnt(case.slot)
        if rest is None or taught < _TAUGHT:
            return ACCEPT
        case.rest = rest
        case.nominal = voltage - rest
        case.agreed = self._agrees(case)
        if abs(rest) > at_once_mv(case.feeder, case.slot, case.nominal):
            return records.REJECT_VOLTAGE  # for itself: it does not discredit those after it
        slack = slack_mv(case.feeder, case.slot, case.nominal)
        if case.in_order:
            case.scratch = self._summed(cells[_SUM], rest, slack)
        return self.CODE if abs(case.scratch) > SUM_SLACKS * slack else ACCEPT

    def _agrees(self, case: "Any") -> bool:
        """Tell whether the neighbourhood's word fits what this meter measured itself."""
        own = abs(case.feeder.own_rest_mv(case.round))
        hard = case.nominal * _AT_ONCE_PER_10000 // 10_000
        return own <= max(hard, case.feeder.spread_mv(0) * _AT_ONCE_SPREADS)

    def _summed(self, before: int, rest: int, slack: int) -> int:
        """Give the new sum; it is bounded so that a meter that was repaired is soon believed."""
        up = max(0, before) + rest - slack
        down = max(0, -before) - rest - slack
        most = (SUM_SLACKS + _REMEMBERED_SLACKS) * slack
        if up >= down:
            return min(most, max(0, up))
        return -min(most, max(0, down))

    def learn(self, case: "Any", cells: "Any", verdict: int) -> None:
        """Keep the sum; the model learns once the round is judged (firmware.meter.voter)."""
        if case.in_order:
            cells[_SUM] = max(-_WORD, min(_WORD, case.scratch))


_NEARER = const(0)

# Meters whose voltage is of performance class 1 (IEC 61557-12) err by 1 %; so does the middle of
# them at worst, and half a percent is how well a place is known.
_CLASS_PER_10000 = const(250)
_SETTLED = const(256)
_REPAIRED_ROUNDS = const(8)


class VoltageOffset:
    """Without load all meters of a feeder show one voltage: places differ by the meters' classes.

    Loads are taken off before places are learnt, so a place that differs by more is an error of
    the meter, be it there from its first reading on, or come too slowly for the sums. Cell: for
    how many rounds on end a rejected meter has been nearer to the middle than its place: it was
    repaired.
    """

    CODE = records.REJECT_VOLTAGE
    TYPE = "i"
    CELLS = 1

    def judge(self, case: "Any", cells: "Any") -> int:
        """Compare the place with the middle of all places, once both are known well."""
        feeder = case.feeder
        if feeder is None or feeder.learnt(case.slot) < _SETTLED:
            return ACCEPT
        most = case.nominal * _CLASS_PER_10000 // 10_000
        return self.CODE if abs(feeder.place_mv(case.slot)) > most else ACCEPT

    def learn(self, case: "Any", cells: "Any", verdict: int) -> None:
        """Forget a place that was wrong once the meter has been right for some rounds.

        Who was right moves away from the middle by lying, and is not forgotten for it.
        """
        if case.rest is None or not case.in_order:
            return
        place = abs(case.feeder.place_mv(case.slot))
        now = abs(case.feeder.place_mv(case.slot) + case.rest)
        within = now * 20_000 <= case.nominal * _CLASS_PER_10000
        if verdict in (self.CODE, records.REJECT_DRIFT) and now < place and within:
            cells[_NEARER] += 1
        else:
            cells[_NEARER] = 0
        if cells[_NEARER] >= _REPAIRED_ROUNDS:
            case.feeder.forget(case.slot)
            case.forgotten = True
            cells[_NEARER] = 0


# ------------------------------------------------------------------ against the own voltage

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
    TYPE = "i"
    CELLS = 4

    def judge(self, case: "Any", cells: "Any") -> int:
        """Compare the difference with its centre."""
        case.scratch = cells[_OUTSIDE]
        difference = _difference(case)
        if difference is None:
            return ABSTAIN
        if case.agreed:
            case.scratch = 0
            return ACCEPT
        own = case.own.voltage
        if not cells[_COUNT]:
            return ACCEPT if abs(difference) * 1000 <= _FIRST_PERMILLE * own else self.CODE
        rest = abs(
            unexplained_mv(
                difference - (cells[_CENTRE] >> 8), case.values.current, case.own.current
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

    def learn(self, case: "Any", cells: "Any", verdict: int) -> None:
        """Follow the difference, in small steps once it is known."""
        if case.forgotten:
            cells[_COUNT] = cells[_SPREAD] = case.scratch = 0
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
_CELL = const(0x3FFFFFFF)


class VoltageChange:
    """From one round to the next the difference changes no more than loads explain.

    This needs no learnt level, so it sees a factor that is switched on in the first minutes. Cells:
    whether known, the last difference (mV), its round, and how much loads could lower and raise it.
    """

    CODE = records.REJECT_VOLTAGE
    TYPE = "i"
    CELLS = 5

    def judge(self, case: "Any", cells: "Any") -> int:
        """Compare with the difference of the round before."""
        difference = _difference(case)
        if difference is None:
            return ABSTAIN
        if case.agreed or not cells[_HELD] or case.round & _CELL != cells[_LAST_ROUND] + 1 & _CELL:
            return ACCEPT
        # what could lower the difference then can have ended now, and raises it
        rest = unexplained_mv(
            difference - cells[_LAST],
            case.values.current,
            case.own.current,
            (cells[_RISE], cells[_FALL]),
        )
        return self.CODE if abs(rest) * 1000 > _CHANGE_PERMILLE * case.own.voltage else ACCEPT

    def learn(self, case: "Any", cells: "Any", verdict: int) -> None:
        """Keep the round's difference; a rejected one is no measure for the next."""
        if case.forgotten:
            cells[_HELD] = 0
        difference = _difference(case)
        if difference is None or not case.in_order:
            return
        if verdict == ACCEPT:
            neighbour = case.values.current
            cells[_HELD] = 1
            cells[_LAST] = difference
            cells[_FALL] = explained_mv(neighbour, case.own.current)
            cells[_RISE] = explained_mv(case.own.current, neighbour)
            cells[_LAST_ROUND] = case.round & _CELL
        elif cells[_HELD] and verdict == self.CODE:
            cells[_LAST_ROUND] = case.round & _CELL  # hold the next against the last good one
