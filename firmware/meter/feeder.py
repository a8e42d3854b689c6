"""What the neighbourhood says a meter's voltage should be: a small model of the feeder, learnt.

Along a low-voltage feeder a meter m shows (mV)

    U_m = reference + centre_m - sum over j of coupling_mj * I_j - share_m * gradient + rest_m

``reference`` is what all have in common: the busbar, tap changes and transients of the whole
feeder. ``centre`` is the meter's own place and gain error; ``coupling`` the resistance of the
cable that m shares with j, which j's current (I_j) makes itself felt over; ``gradient`` what the
other phases do along the cable by the neutral, each meter with a ``share`` of it. ``rest`` is what
nothing explains: that is what the rules of firmware.meter.voltage judge.

Reference and gradient are the line of least absolute rests through the round's meters, found by
medians in turn (Huber, Robust Statistics, 1981): a minority can move neither far, though two that
sit where few others do can bend the gradient.
Couplings and shares are learnt from the *changes* between two rounds by normalised least mean
squares (Widrow and Hoff 1960; Haykin, Adaptive Filter Theory, ch. 7): a level that is wrong for
good teaches nothing.

Everything is integers below 2^30, which MicroPython keeps without allocating: voltages mV, currents
in 1/16 A, couplings in 1/16 milliohm, centres and spreads in 1/256 mV, shares in 1/16384. Nothing
here allocates once it is made, but for ``export``.

Left out: reactances (a coupling is the resistance that an ordinary power factor sees) and meters of
several phases in one cluster, whose differences stay in the rest and widen its spread.
"""

from array import array

from firmware.meter.history import ROUNDS
from ledger.protocol.errors import MalformedRecord

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


# With more meters than this only a meter's own current is taken into account: the work of a round
# rises with the square of their number.
_COUPLED = const(16)
_PASSES = const(3)
# More than a third of all meters off by this much at once are a model that is wrong: several phases
# in one cluster, or another cable. If it stays wrong it will show again within 4,096 rounds, three
# days of minutes.
_APART_PERMILLE = const(10)
_DOUBT_ROUNDS = const(4096)
_LEAST = const(4)  # of three voltages one liar makes the median of its choice a coin's toss
_DEAD_MV = const(50_000)
_MOST_MV = const(500_000)  # ledger.protocol.quantities
_MOST_AMPS = const(4095)  # 256 A

# A quarter of each error is learnt: five like events bring a coupling to three quarters.
_COUPLING_PACE = const(64)  # of 256
# Changes of less than 3 A together say more about noise than about the cable (in (A/16)^2).
_COUPLING_FLOOR = const(2304)
# IEC TR 60725: 95 % of customers see less than 0.47 ohm. Noise may make a coupling a bit negative.
_MOST_COUPLING = const(8000)
_LEAST_COUPLING = const(-1600)
_SHARE_ONE = const(16384)
_MOST_SHARE = const(8192)
_LEAST_SHARE = const(1024)  # what is smaller than a 16th says nothing about the gradient
_SHARE_PACE = const(10)
_SHARE_FLOOR = const(4_000_000)  # mV^2: below 2 V the gradient is mostly noise
_MOST_GRADIENT = const(32_000)
_FIRST_GRADIENT = const(1_000)
_WARM = const(32)
_PACE = const(256)
_MOST_LEARNT = const(1024)
# What a single round may teach (mV): more at first, when all of it may be cable.
_FIRST_STEP = const(3_000)
_LATER_STEP = const(1_000)
_CENTRE_STEP = const(500)


def amps(current_ma: int) -> int:
    """Give a current (mA) in 1/16 A, bounded to 256 A."""
    return max(-_MOST_AMPS, min(_MOST_AMPS, (current_ma * 16 + 500) // 1000))


def _nearest(numerator: int, denominator: int) -> int:
    return (numerator + (denominator >> 1)) // denominator


class Feeder:
    """The model of ``count`` meters, known by slot; slot 0 is this meter."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._width = count if count <= _COUPLED else 1
        self._centre = array("i", bytes(4 * count))
        self._spread = array("i", bytes(4 * count))
        self._share = array("h", bytes(2 * count))
        self._coupling = array("h", bytes(2 * count * self._width))
        self._learnt = array("h", bytes(2 * count))
        self._places = array("i", bytes(4 * count))
        # the newest round: voltages (0: absent), rests, currents and how they changed
        self._volts = [0] * count
        self._rest = [0] * count
        self._before = [0] * count
        self._held = bytearray(count)
        self._amps = array("h", bytes(2 * count))
        self._steps = array("h", bytes(2 * count))
        # the rounds kept
        self._rounds = [-1] * ROUNDS
        self._reference = array("i", bytes(4 * ROUNDS))
        self._gradient = array("i", bytes(4 * ROUNDS))
        self._own_rest = array("i", bytes(4 * ROUNDS))
        self._currents = array("h", bytes(2 * ROUNDS * count))
        self._last_gradient = 0
        self._doubt = 0
        self._row = [0] * count
        self._weights = [0] * count

    # ------------------------------------------------------------------------- a round

    def begin(self) -> None:
        """Start the newest round: nobody is there yet; what was drawn last is drawn on."""
        for i in range(self.count):
            self._volts[i] = 0
            self._steps[i] = 0

    def put(self, slot: int, voltage_mv: int, current_ma: int) -> None:
        """Put a meter's voltage and current into the round; dead or impossible ones are absent."""
        if not _DEAD_MV <= voltage_mv <= _MOST_MV:
            return
        self._volts[slot] = voltage_mv
        now = amps(current_ma)
        self._steps[slot] = max(-_MOST_AMPS, min(_MOST_AMPS, now - self._amps[slot]))
        self._amps[slot] = now

    def fit(self, round_: int) -> bool:
        """Find reference and gradient of the round; gives whether enough meters were there.

        Both are medians of what the other leaves, in turn, which comes to the least sum of absolute
        rests: liars would have to outweigh the others to move either.
        """
        self._rounds[round_ % ROUNDS] = -1
        there = 0
        for i in range(self.count):
            if self._volts[i]:
                self._rest[i] = self._place(i, self._volts[i], self._amps, 0, self._amps[i])
                there += 1
        if there < _LEAST:
            return False
        self._find_line(round_, self._are_known())
        return True

    def _find_line(self, round_: int, known: bool) -> None:
        """Take reference and gradient off the rests, in turn, and keep them for the round."""
        reference = self._take_common(known)
        gradient = 0
        for _ in range(_PASSES):
            part = self._weigh(self._rest, self._volts)
            gradient += part
            for i in range(self.count):
                self._rest[i] -= self._share[i] * part // _SHARE_ONE
            common = self._take_common(known)
            reference += common
            if not part and not common:
                break
        self._keep(round_ % ROUNDS, round_, reference, gradient)
        self._ask_itself(reference)

    def _ask_itself(self, reference: int) -> None:
        """Doubt the model where more than a third of the meters differ from it at once."""
        self._doubt = max(0, self._doubt - 1)
        there = apart = 0
        for i in range(self.count):
            if self._volts[i] and self._learnt[i] >= _WARM:
                there += 1
                if abs(self._rest[i]) * 1000 > _APART_PERMILLE * reference:
                    apart += 1
        if apart * 3 > there:
            self._doubt = _DOUBT_ROUNDS

    def _take_common(self, known: bool) -> int:
        """Take off the rests what they have in common, by the meters known; gives it."""
        used = 0
        for i in range(self.count):
            if self._volts[i] and (self._learnt[i] or not known):
                self._row[used] = self._rest[i]
                used += 1
        common = self._median(used)
        for i in range(self.count):
            self._rest[i] -= common
        return common

    def _keep(self, at: int, round_: int, reference: int, gradient: int) -> None:
        """Keep the round for readings that come late."""
        self._rounds[at] = round_
        self._reference[at] = reference
        self._gradient[at] = max(-_MOST_GRADIENT, min(_MOST_GRADIENT, gradient))
        self._own_rest[at] = self._rest[0] if self._volts[0] else 0
        first = at * self.count
        for i in range(self.count):
            self._currents[first + i] = self._amps[i]

    def rest(self, slot: int, round_: int, voltage_mv: int, current_ma: int) -> "int | None":
        """Give what nothing explains of a voltage (mV) of one of the rounds kept, or None."""
        at = round_ % ROUNDS
        if self._rounds[at] != round_ or not self._learnt[slot]:
            return None
        voltage_mv = max(0, min(_MOST_MV, voltage_mv))
        own = amps(current_ma)
        place = self._place(slot, voltage_mv, self._currents, at * self.count, own)
        moved = self._share[slot] * self._gradient[at] // _SHARE_ONE
        return place - self._reference[at] - moved

    def learn(self, round_: int, trusted: "bytearray") -> None:
        """Learn from the newest round's meters whose byte in ``trusted`` is set."""
        at = round_ % ROUNDS
        if self._rounds[at] != round_:
            for i in range(self.count):
                self._held[i] = 0
            return
        gradient = self._gradient[at]
        step = gradient - self._last_gradient
        self._last_gradient = gradient
        squares = _COUPLING_FLOOR
        for i in range(self.count):
            squares += self._steps[i] * self._steps[i]
        for i in range(self.count):
            if self._volts[i] and trusted[i]:
                if self._held[i]:
                    self._learn_changes(i, squares, step)
                self._learn_level(i)
                self._before[i] = self._rest[i]
                self._held[i] = 1
            else:
                self._held[i] = 0
        self._scale_shares()
        self._find_places()

    # -------------------------------------------------------------------------- bounds

    def spread_mv(self, slot: int) -> int:
        """Give the mean size of a meter's rest (mV)."""
        return self._spread[slot] >> 8

    def place_mv(self, slot: int) -> int:
        """Give how far a meter's place lies from the middle of all places (mV).

        What lies along the gradient is taken off: where that has its zero is nobody's error.
        """
        return self._places[slot]

    def own_rest_mv(self, round_: int) -> int:
        """Give this meter's own rest in one of the rounds kept (mV)."""
        return self._own_rest[round_ % ROUNDS]

    def doubts(self) -> bool:
        """Tell whether the model has been wrong lately: then what it says is coarse."""
        return self._doubt > 0

    def learnt(self, slot: int) -> int:
        """Give from how many rounds of a meter was learnt, up to 1,024."""
        return self._learnt[slot]

    def forget(self, slot: int) -> None:
        """Learn a meter's place anew: another meter, or the same one after a repair."""
        self._centre[slot] = self._spread[slot] = 0
        self._share[slot] = 0
        self._learnt[slot] = 0
        self._held[slot] = 0
        self._amps[slot] = 0
        if self._width == 1:
            self._coupling[slot] = 0
            return
        for j in range(self._width):
            self._coupling[slot * self._width + j] = 0
            self._coupling[j * self._width + slot] = 0

    # -------------------------------------------------------------- other meters, restarts

    def rearranged(self, former: "list[int]") -> "Feeder":
        """Give the model for other slots: ``former`` has each one's slot here, -1 of newcomers."""
        other = Feeder(len(former))
        for i in range(len(former)):
            if former[i] >= 0:
                self._copy(other, i, former[i], former)
        return other

    def _copy(self, other: "Feeder", to: int, slot: int, former: "list[int]") -> None:
        """Copy what was learnt of a slot into another model."""
        other._centre[to] = self._centre[slot]
        other._spread[to] = self._spread[slot]
        other._share[to] = self._share[slot]
        other._learnt[to] = self._learnt[slot]
        if other._width == 1:
            own = slot if self._width == 1 else slot * self._width + slot
            other._coupling[to] = self._coupling[own]
            return
        if self._width == 1:
            other._coupling[to * other._width + to] = self._coupling[slot] if self.count > 1 else 0
            return
        for j in range(len(former)):
            if former[j] >= 0:
                value = self._coupling[slot * self._width + former[j]]
                other._coupling[to * other._width + j] = value

    def export(self) -> bytes:
        """Give what restore() takes: all that was learnt, not the rounds."""
        parts = [self._centre, self._spread, self._share, self._learnt, self._coupling]
        return b"".join([bytes(part) for part in parts])

    def restore(self, data: bytes) -> None:
        """Take up what export() of as many meters gave; raises MalformedRecord."""
        parts = [self._centre, self._spread, self._share, self._learnt, self._coupling]
        widths = [4, 4, 2, 2, 2]
        if len(data) != sum([len(parts[i]) * widths[i] for i in range(5)]):
            raise MalformedRecord("learnt: a feeder of other size")
        at = 0
        for i in range(5):
            part = parts[i]
            values = array("i" if widths[i] == 4 else "h", data[at : at + len(part) * widths[i]])
            for j in range(len(part)):
                part[j] = values[j]
            at += len(part) * widths[i]
        for i in range(self.count):
            self._learnt[i] = max(0, min(_MOST_LEARNT, self._learnt[i]))

    # ------------------------------------------------------------------------- details

    def _are_known(self) -> bool:
        """Tell whether enough of the round's meters have a centre to measure newcomers by."""
        known = 0
        for i in range(self.count):
            if self._volts[i] and self._learnt[i]:
                known += 1
        return known >= _LEAST

    def _place(self, slot: int, voltage_mv: int, currents: "Any", first: int, own: int) -> int:
        """Give a voltage without the meter's centre and what loads take off it (mV)."""
        coupling = self._coupling
        if self._width == 1:
            fall = coupling[slot] * own
        else:
            row = slot * self._width
            fall = coupling[row + slot] * (own - currents[first + slot])
            for j in range(self._width):
                fall += coupling[row + j] * currents[first + j]
        return voltage_mv - (self._centre[slot] >> 8) + (fall >> 8)

    def _median(self, used: int) -> int:
        """Give the median of the first numbers of the row, which it puts into order."""
        row = self._row
        for i in range(1, used):
            value = row[i]
            j = i
            while j and row[j - 1] > value:
                row[j] = row[j - 1]
                j -= 1
            row[j] = value
        return (row[used >> 1] + row[(used - 1) >> 1]) >> 1

    def _weigh(self, rests: "Any", there: "Any") -> int:
        """Give the weighted median of what the meter's rests say that the gradient is (mV).

        Those count whose number in ``there`` is not 0. A meter weighs as much as its share, up to a
        quarter of all: none can choose it alone.
        """
        used = total = 0
        for i in range(self.count):
            weight = abs(self._share[i])
            if there[i] and weight >= _LEAST_SHARE:
                rest = max(-_MOST_GRADIENT, min(_MOST_GRADIENT, rests[i]))
                self._insert(used, rest * _SHARE_ONE // self._share[i], weight)
                used += 1
                total += weight
        most = total >> 2
        total = 0
        for i in range(used):
            self._weights[i] = min(self._weights[i], most)
            total += self._weights[i]
        half = total >> 1
        for i in range(used):
            half -= self._weights[i]
            if half < 0:
                return max(-_MOST_GRADIENT, min(_MOST_GRADIENT, self._row[i]))
        return 0

    def _insert(self, used: int, value: int, weight: int) -> None:
        """Put a number and its weight in their place among the first of the row."""
        row = self._row
        weights = self._weights
        j = used
        while j and row[j - 1] > value:
            row[j] = row[j - 1]
            weights[j] = weights[j - 1]
            j -= 1
        row[j] = value
        weights[j] = weight

    def _learn_changes(self, slot: int, squares: int, step: int) -> None:
        """Learn couplings and share from how the rest changed since the round before."""
        most = _FIRST_STEP if self._learnt[slot] < _PACE else _LATER_STEP
        error = max(-most, min(most, self._rest[slot] - self._before[slot]))
        if self._width == 1:
            squares = self._steps[slot] * self._steps[slot] + _COUPLING_FLOOR
            self._learn_coupling(slot, error * _COUPLING_PACE, self._steps[slot], squares)
        else:
            row = slot * self._width
            for j in range(self._width):
                if self._steps[j]:
                    self._learn_coupling(row + j, error * _COUPLING_PACE, self._steps[j], squares)
        if step and self._share[slot]:
            step = max(-_MOST_GRADIENT, min(_MOST_GRADIENT, step))
            slope = (step * step + _SHARE_FLOOR) // _SHARE_ONE
            change = _nearest(error * step, slope * _SHARE_PACE)
            self._share[slot] = max(-_MOST_SHARE, min(_MOST_SHARE, self._share[slot] + change))

    def _learn_coupling(self, at: int, gain: int, step: int, squares: int) -> None:
        value = self._coupling[at] - _nearest(gain * step, squares)
        self._coupling[at] = max(_LEAST_COUPLING, min(_MOST_COUPLING, value))

    def _learn_level(self, slot: int) -> None:
        """Move centre and spread towards the round's rest, in small steps once they are known."""
        count = self._learnt[slot]
        rest = self._rest[slot]
        if count >= _WARM:
            rest = max(-_CENTRE_STEP, min(_CENTRE_STEP, rest))
        change = (rest << 8) // (count + 1 if count < _WARM else _PACE)
        self._centre[slot] += change
        self._rest[slot] -= change >> 8
        if count:
            off = (abs(rest) << 8) - self._spread[slot]
            self._spread[slot] += off // (count if count < _WARM else _PACE)
        if count < _MOST_LEARNT:
            self._learnt[slot] = count + 1

    def _find_places(self) -> None:
        """Find the places: centres without their middle and without their part of the gradient."""
        used = 0
        for i in range(self.count):
            if self._learnt[i]:
                self._row[used] = self._centre[i] >> 8
                used += 1
        middle = self._median(used) if used >= _LEAST else 0
        for i in range(self.count):
            self._places[i] = (self._centre[i] >> 8) - middle if used >= _LEAST else 0
        gradient = self._weigh(self._places, self._learnt)
        for i in range(self.count):
            self._places[i] -= self._share[i] * gradient // _SHARE_ONE

    def _scale_shares(self) -> None:
        """Keep the shares' sum; before there are any, the first large rests are their pattern."""
        total = largest = 0
        for i in range(self.count):
            total += abs(self._share[i])
            if self._held[i] and self._learnt[i] >= 8:
                largest = max(largest, abs(self._rest[i]))
        if total:
            for i in range(self.count):
                scaled = self._share[i] * (self.count << 12) // total
                self._share[i] = max(-_MOST_SHARE, min(_MOST_SHARE, scaled))
        elif largest >= _FIRST_GRADIENT:
            for i in range(self.count):
                if self._held[i] and self._learnt[i] >= 8:
                    self._share[i] = self._rest[i] * _MOST_SHARE // largest
