"""What a round's ballot over eleven neighbours costs, and an estimate for a Pico. MicroPython only.

    .venv/bin/micropython -X heapsize=4m tests/firmware/meter/vote_cost.py

The best of many runs counts, for other programs only make them longer. The estimate takes the ratio
of big-number products here and on a Pico at 125 MHz (59 microseconds for 256 by 256 bits).
"""

import sys
import time

sys.path.insert(0, ".")

from tests.firmware.meter.street import Street, Watcher

_PICO_PRODUCT_US = 59


def best_us(work, times=300):
    """Give the shortest time of a call (microseconds)."""
    shortest = 1 << 30
    for _ in range(times):
        started = time.ticks_us()
        work()
        shortest = min(shortest, time.ticks_diff(time.ticks_us(), started))
    return shortest


def thousand_products():
    a, b = (1 << 256) - 12345, (1 << 255) + 991
    for _ in range(1000):
        a * b


def main():
    watcher = Watcher(Street(count=12))
    watcher.run(200)
    voter = watcher.voter
    vote = voter.vote
    spent = []

    def timed(parent):
        started = time.ticks_us()
        ballot = vote(parent)
        spent.append(time.ticks_diff(time.ticks_us(), started))
        return ballot

    voter.vote = timed
    watcher.run(400)
    product_us = best_us(thousand_products, 30) / 1000
    feeder, round_, trusted = voter._feeder, watcher.street.round, bytearray([1] * 12)
    model = best_us(lambda: feeder.fit(round_)) + best_us(lambda: feeder.learn(round_, trusted))
    ratio = _PICO_PRODUCT_US / product_us
    print(f"product of 256 bits: {product_us:.2f} us; a Pico is taken as {ratio:.0f} times slower")
    for name, us in (("ballot over 11 neighbours", min(spent)), ("of it the model", model)):
        print(f"{name}: {us / 1000:.2f} ms here, about {us * ratio / 1000:.0f} ms on a Pico")


main()
