"""Splits a recording's meters into clusters of electrical neighbours.

A cluster is the group whose members judge each other. Meters on the same phase of the same
feeder see each other's voltages best: a neighbour's load moves the voltage of its own phase along
the cable between them, and the other two phases by the neutral alone. So meters are ordered by
phase, then by cable length from the transformer, and cut into consecutive pieces; where phase or
length is not known, bus number and then the order of the list stand in, which is only as good as
the numbering.

Left out: the network's graph. Two laterals at the same cable length may share a cluster.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hil.traces import Meter

MAX_SIZE = 12
MIN_SIZE = 4


@dataclass(frozen=True)
class Cluster:
    """A named group of meters; `phase` is None where the members' phases differ or are unknown."""

    name: str
    phase: str | None
    meters: tuple[str, ...]


def split_clusters(
    meters: Sequence[Meter], max_size: int = MAX_SIZE, min_size: int = MIN_SIZE
) -> tuple[Cluster, ...]:
    """Splits meters into clusters `c1`, `c2` … by phase, then along the cable. Deterministic.

    Each has at most `max_size` meters, and at least `min_size` where there are that many meters;
    sizes within a phase differ by one at most. Raises ValueError for limits that cannot both hold.
    """
    if min_size < 1 or max_size < 2 * min_size - 1:
        raise ValueError("max_size must be at least 2 * min_size - 1, min_size at least 1")
    clusters: list[Cluster] = []
    for group in _merge_small(_by_phase(meters), min_size):
        for piece in _cut(group, max_size):
            phases = {meter.phase for meter in piece}
            clusters.append(
                Cluster(
                    name=f"c{len(clusters) + 1}",
                    phase=phases.pop() if len(phases) == 1 else None,
                    meters=tuple(meter.name for meter in piece),
                )
            )
    return tuple(clusters)


def _by_phase(meters: Sequence[Meter]) -> list[list[Meter]]:
    groups: dict[str, list[Meter]] = {}
    for meter in meters:
        groups.setdefault(meter.phase or "", []).append(meter)
    return [_along_cable(groups[phase]) for phase in sorted(groups)]


def _along_cable(group: Sequence[Meter]) -> list[Meter]:
    """By cable length if every meter has one, else by bus number if every bus is one."""
    # sorted() is stable: equal keys keep the order of the list.
    lengths = {meter.name: meter.cable_m for meter in group if meter.cable_m is not None}
    if len(lengths) == len(group):
        return sorted(group, key=lambda meter: lengths[meter.name])
    if all(meter.bus.isdecimal() and meter.bus.isascii() for meter in group):
        return sorted(group, key=lambda meter: int(meter.bus))
    return list(group)


def _merge_small(groups: list[list[Meter]], min_size: int) -> list[list[Meter]]:
    """Joins the smallest group to the next smallest until none is below `min_size`."""
    merged = list(groups)
    while len(merged) > 1 and min(map(len, merged)) < min_size:
        first, second, *_ = sorted(range(len(merged)), key=lambda i: (len(merged[i]), i))
        low, high = sorted((first, second))
        merged[low] = merged[low] + merged[high]
        del merged[high]
    return merged


def _cut(group: Sequence[Meter], max_size: int) -> list[list[Meter]]:
    """Fewest consecutive pieces of at most `max_size`, sizes differing by one at most."""
    pieces = -(-len(group) // max_size)
    bounds = [len(group) * i // pieces for i in range(pieces + 1)]
    return [list(group[a:b]) for a, b in itertools.pairwise(bounds)]
