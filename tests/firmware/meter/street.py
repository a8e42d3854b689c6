"""A made-up street for the judge's tests: eight meters along one cable, one phase, integers only.

It runs on both interpreters. Every meter lies 0.02 ohm further down the cable than the one before;
appliances of up to 30 A come and go; the other phases pull the far end up and the near end down;
the busbar wanders, and now and then the transformer steps its tap.
"""

from hashlib import sha256

from firmware.meter.voter import Voter
from ledger.protocol import quantities as q
from ledger.protocol import records as r
from ledger.protocol import tally

CHAIN = bytes(8)
T = 60
FIRST = 1000
COUNT = 8
_MOHM = 20


class Dice:
    """A linear congruential generator (Numerical Recipes' constants): alike everywhere."""

    def __init__(self, seed):
        self._state = seed

    def roll(self, low, high):
        self._state = (self._state * 1664525 + 1013904223) & 0xFFFFFFFF
        return low + (self._state >> 8) % (high - low + 1)


class Street:
    """Gives round after round what each meter measures: [(voltage mV, current mA), ...]."""

    def __init__(self, seed=1, count=COUNT, tap_every=97):
        self._dice = Dice(seed)
        self._tap_every = tap_every
        self.count = count
        self.round = FIRST
        self.currents = [300] * count
        self._left = [0] * count
        self._busbar = 238_000
        self._other = 0
        self.energy = [1_000_000] * count

    def step(self):
        """Go on by one round and give its measurements."""
        dice = self._dice
        self.round += 1
        for i in range(self.count):
            self._left[i] -= 1
            if self._left[i] <= 0:
                on = dice.roll(0, 3) == 0
                self.currents[i] = dice.roll(4_000, 30_000) if on else dice.roll(200, 900)
                self._left[i] = dice.roll(3, 25)
        self._busbar += dice.roll(-150, 150)
        if self.round % self._tap_every == 0:
            self._busbar += 4_000 if self._busbar < 238_000 else -4_000
        self._other += dice.roll(-400, 400) - self._other // 20
        return [(self._voltage(i), self.currents[i]) for i in range(self.count)]

    def _voltage(self, i):
        fall = 0
        for j in range(self.count):
            fall += _MOHM * (min(i, j) + 1) * self.currents[j] // 1000
        sway = self._other * (2 * i - self.count + 1) // self.count
        noise = self._dice.roll(-60, 60)
        return self._busbar - fall + sway + noise

    def values(self, i, voltage, current, frequency):
        """Give a reading's values, with registers that count what is drawn."""
        power = voltage * current // 1000
        self.energy[i] += power * T // 3600
        return [
            (q.VOLTAGE, voltage),
            (q.CURRENT, current),
            (q.ACTIVE_POWER, power),
            (q.FREQUENCY, frequency),
            (q.ENERGY_IMPORT, self.energy[i]),
        ]


def address(i):
    """Give a meter's address."""
    return bytes([97 + i]) * 16


class Watcher:
    """Meter 0 of a street and its votes on the others; a meter may be made to lie."""

    def __init__(self, street=None):
        self.street = street or Street()
        self.names = [address(i) for i in range(self.street.count)]
        self.voter = Voter(CHAIN, T, self.names[1:])
        self._dice = Dice(7)
        self._seq = [0] * self.street.count
        self._previous = [r.NO_DIGEST] * self.street.count
        self._frequency = 50_000

    def restart(self):
        """Give the meter a new start: what is saved is all that it still knows."""
        saved = self.voter.export()
        self.voter = Voter(CHAIN, T, self.names[1:])
        self.voter.restore(saved)

    def step(self, lie=None, shift=0, only=None):
        """Play a round and give {meter: verdict} of its fresh readings.

        ``lie(meter, voltage, frequency)`` gives what a meter shows instead; ``shift`` is by how
        many rounds the clock of meter 3 is off; ``only`` are the meters that are there.
        """
        measured = self.street.step()
        self._frequency += self._dice.roll(-5, 5) + (50_000 - self._frequency) // 10
        made = {}
        for i in range(self.street.count):
            voltage, current = measured[i]
            frequency = self._frequency + self._dice.roll(-2, 2)
            if lie is not None:
                voltage, frequency = lie(i, voltage, frequency)
            values = self.street.values(i, voltage, current, frequency)
            if only is None or i in only or i == 0:
                made[i] = self._sign(i, values, shift if i == 3 else 0)
        self.voter.open_round(made[0][1])
        for i in made:
            if i:
                self.voter.take(address(i), made[i][1], made[i][0])
        given = dict(self.voter.vote(bytes(32)).verdicts)
        self.given = given
        return {i: given[made[i][0]] for i in made if made[i][0] in given}

    def _sign(self, i, values, shift):
        self._seq[i] += 1
        time = (self.street.round + shift) * T
        reading = r.Reading(CHAIN, 1, self._seq[i], time, T, 0, 0, self._previous[i], values)
        self._previous[i] = sha256(address(i) + reading.payload()).digest()
        return self._previous[i], reading

    def run(self, rounds, lie=None):
        """Play rounds; gives how many verdicts on each meter rejected."""
        rejected = [0] * self.street.count
        for _ in range(rounds):
            found = self.step(lie)
            for i in found:
                rejected[i] += tally.count([found[i]])[1]
        return rejected
