"""What this meter itself measured in its last rounds: the yardstick for its neighbours' readings.

Eight rounds reach back far enough for the readings that neighbours send again after a short loss of
their link; for anything older the voter abstains.

Left out: nothing here is kept over a restart.
"""

from ledger.protocol import quantities

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


ROUNDS = const(8)
_TENTH_MHZ = const(100)
_MIN_MEDIAN = const(3)  # of three values the middle one cannot be chosen by a single liar


def import_current_ma(voltage: "int | None", current: "int | None", power: "int | None") -> int:
    """Give the current (mA) that a meter draws, negative where it feeds in.

    The direction is active power's. A claimed current counts up to twice what the active power
    needs at this voltage (a power factor of one half): beyond that a meter could claim current, and
    with it a low voltage, without paying for energy.
    """
    if power is None or not voltage or voltage < 0:
        return 0
    most = abs(power) * 2000 // voltage
    drawn = most // 2 if current is None or current < 0 else min(current, most)
    return drawn if power >= 0 else -drawn


class Values:
    """A reading's values by name (thousandths, None where absent) and the current that it draws."""

    def __init__(self, values: "list[tuple[int, int]]") -> None:
        self.voltage: "int | None" = None
        self.frequency: "int | None" = None
        self.power: "int | None" = None
        self.bought: "int | None" = None
        self.sold: "int | None" = None
        current = None
        for code, value in values:
            if code == quantities.VOLTAGE:
                self.voltage = value
            elif code == quantities.CURRENT:
                current = value
            elif code == quantities.ACTIVE_POWER:
                self.power = value
            elif code == quantities.FREQUENCY:
                self.frequency = value
            elif code == quantities.ENERGY_IMPORT:
                self.bought = value
            elif code == quantities.ENERGY_EXPORT:
                self.sold = value
        self.current = import_current_ma(self.voltage, current, self.power)


class Own(Values):
    """This meter's values of one round and the grid's frequency.

    ``current`` is the one drawn (mA), negative where it feeds in. ``frequency`` is the value that
    neighbours are held against: the median of the round once three readings are in, before that
    this meter's own. Values of whole tenths of a hertz, as simple instruments show, do not count
    where there are enough others; ``coarse`` if there are no
    others. ``moved`` tells whether voltage or frequency differ from the round before.
    """

    def __init__(self, round_: int, time: int, values: "list[tuple[int, int]]") -> None:
        Values.__init__(self, values)
        self.round = round_
        self.time = time
        self.own_frequency = self.frequency
        self.coarse = False
        self.moved = True

    def compare(self, frequencies: "list[int]") -> None:
        """Take the neighbours' frequencies (mHz) of the round into the median."""
        row = quantities.BY_CODE[quantities.FREQUENCY]
        known = [value for value in frequencies if row.low <= value <= row.high]
        if self.own_frequency is not None:
            known.append(self.own_frequency)
        if len(known) < _MIN_MEDIAN:
            return
        fine = [value for value in known if value % _TENTH_MHZ]
        self.coarse = not fine
        if len(fine) >= _MIN_MEDIAN:
            known = fine
        known.sort()
        middle = len(known) // 2
        self.frequency = (known[middle] + known[-1 - middle]) // 2


class History:
    """The last ``ROUNDS`` rounds of this meter."""

    def __init__(self) -> None:
        self._ring: "list[Any]" = [None] * ROUNDS

    def add(self, own: Own) -> None:
        """Take a round in; the one eight rounds earlier goes."""
        before = self.find(own.round - 1)
        if before is not None:
            same = before.voltage == own.voltage and before.own_frequency == own.own_frequency
            own.moved = not same
        self._ring[own.round % ROUNDS] = own

    def find(self, round_: int) -> "Own | None":
        """Give a round's values, or None where this meter has none (any more)."""
        own: "Own | None" = self._ring[round_ % ROUNDS]
        return own if own is not None and own.round == round_ else None
