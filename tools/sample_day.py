"""Computes the project's sample day: one minute steps of 24 homes on a small feeder.

The feeder, the homes and their appliances are made up here; nothing is taken from a published
network or profile. A 400 kVA 10/0.4 kV transformer feeds 420 m of four-core cable with a lateral;
24 single-phase homes, eight a phase, hang on it by service cables; five have photovoltaics.

`python -m tools.sample_day --check` computes the day anew and compares it with what is shipped;
`--out DIR` writes it. Power and noise are integers from seeded streams (`hil.noise`), and there are
no transcendental functions, so one seed gives one day on every machine.

The power flow is a backward/forward sweep with three phases and neutral. The neutral is earthed
at the transformer only; with impedance z for each of the four cores, the voltage from phase to
local neutral falls by z * (I_phase + I_neutral), I_neutral being the sum of the phase currents.
This is the same as a line with z1 = z and z0 = 4 z, the form in which a test checks it against
pandapower. Left out: cable capacitance, iron losses, voltage dependence of loads.
"""

import argparse
import gzip
import io
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hil.noise import normal, stream, uniform

SEED = 20160606
MINUTES = 1440
HOMES = 24
PHASES = ("L1", "L2", "L3")
NAME = "sample"
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "hil" / "sample_day"

# tan(acos 0.95): every home draws this share of its power as reactive power. Inverters run
# under-excited at the same factor, as low-voltage grid codes ask, so the sign is the same.
TANGENT = 0.32868410517886314
BASE_V = 400 / math.sqrt(3)
# 400 kVA, 4 % impedance, 4.6 kW copper losses, seen from the 400 V side.
TRAFO_OHM = complex(4.6 / 400 * 0.4, math.sqrt(0.04**2 - (4.6 / 400) ** 2) * 0.4)
MAIN_OHM_PER_KM = complex(0.206, 0.080)  # aluminium 4 x 150 mm2
SERVICE_OHM_PER_KM = complex(0.868, 0.085)  # aluminium 4 x 35 mm2

_SPAN_M = 35
_TRUNK = 9
_LATERAL = 3
_LATERAL_AT = 4


@dataclass(frozen=True)
class Home:
    """One meter: its feeder node, phase index 0 to 2, service cable and rooftop peak (0: none)."""

    name: str
    bus: int
    node: int
    phase: int
    service_m: int
    cable_m: int
    solar_w: int


@dataclass(frozen=True)
class Feeder:
    """Tree of four-core cable: node 0 is the busbar, `parent[i] < i` and `length_m[i]` its edge."""

    parent: tuple[int, ...]
    length_m: tuple[int, ...]
    homes: tuple[Home, ...]


@dataclass(frozen=True)
class Solution:
    """Power flow of one minute: voltages in V (phase to neutral), power in W and var."""

    home_v: tuple[float, ...]
    busbar_v: tuple[float, ...]
    power_w: float
    reactive_var: float
    losses_w: float


# -- the feeder -------------------------------------------------------------------------------


def build_feeder(seed: int = SEED) -> Feeder:
    """Nine trunk nodes, a lateral of three from the fourth; two homes at each node."""
    rng = stream(f"sample day/{seed}/feeder")
    parent, length_m, distance_m = [0], [0], [0]
    for node in range(1, _TRUNK + _LATERAL + 1):
        above = node - 1 if node != _TRUNK + 1 else _LATERAL_AT
        span_m = _SPAN_M + uniform(rng, -10, 10)
        parent.append(above)
        length_m.append(span_m)
        distance_m.append(distance_m[above] + span_m)
    phases = [i % len(PHASES) for i in range(HOMES)]
    for i in range(HOMES - 1, 0, -1):
        j = uniform(rng, 0, i)
        phases[i], phases[j] = phases[j], phases[i]
    homes = []
    for i in range(HOMES):
        node, service_m = 1 + i // 2, uniform(rng, 8, 22)
        solar_w = uniform(rng, 24, 45) * 100 if i % 5 == 2 else 0
        homes.append(
            Home(
                f"S{i + 1:02d}",
                bus=100 + i,
                node=node,
                phase=phases[i],
                service_m=service_m,
                cable_m=distance_m[node] + service_m,
                solar_w=solar_w,
            )
        )
    return Feeder(tuple(parent), tuple(length_m), tuple(homes))


# -- the homes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Appliance:
    """Runs a day (low, high), power (W), minutes (low, high), and when: (from hour, to hour)."""

    runs: tuple[int, int]
    power_w: tuple[int, int]
    minutes: tuple[int, int]
    hours: tuple[tuple[int, int], ...]
    share: int = 100


APPLIANCES = (
    Appliance((2, 6), (1800, 2300), (2, 5), ((6, 9), (12, 14), (16, 22))),  # kettle
    Appliance((1, 3), (900, 1300), (3, 10), ((6, 9), (12, 13), (17, 20))),  # microwave, toaster
    Appliance((0, 2), (1500, 3200), (15, 45), ((11, 13), (17, 20))),  # hob
    Appliance((0, 1), (1900, 2400), (20, 60), ((11, 13), (16, 19)), 70),  # oven
    Appliance((0, 1), (1900, 2200), (15, 30), ((8, 20),), 60),  # washing machine, heating phase
    Appliance((0, 1), (1700, 2100), (20, 40), ((13, 15), (19, 23)), 60),  # dishwasher
    Appliance((0, 1), (2000, 2500), (50, 90), ((9, 21),), 30),  # tumble dryer
    Appliance((1, 3), (80, 180), (60, 180), ((8, 11), (17, 21))),  # screens
    Appliance((1, 2), (100, 400), (60, 120), ((6, 7), (20, 22))),  # lighting
    Appliance((0, 2), (1200, 1800), (3, 12), ((6, 8), (20, 22)), 60),  # hair dryer, iron
    Appliance((1, 1), (3500, 3700), (120, 300), ((17, 22),), 17),  # electric car
)


def home_power(seed: int, home: Home, clouds: Sequence[int]) -> list[int]:
    """Net active power (W, negative: feeding in) of one home for each minute of the day."""
    rng = stream(f"sample day/{seed}/home/{home.name}")
    watts = [0] * MINUTES
    _add_base(rng, watts)
    for appliance in APPLIANCES:
        if uniform(rng, 1, 100) > appliance.share:
            continue
        for _ in range(uniform(rng, *appliance.runs)):
            first, last = appliance.hours[uniform(rng, 0, len(appliance.hours) - 1)]
            start = uniform(rng, first * 60, last * 60)
            power_w = uniform(rng, *appliance.power_w)
            for minute in range(start, min(MINUTES, start + uniform(rng, *appliance.minutes))):
                watts[minute] += power_w + normal(rng, power_w // 100)
    for minute in range(MINUTES):
        watts[minute] -= solar_power(home.solar_w, minute, clouds[minute])
    return watts


def _add_base(rng: random.Random, watts: list[int]) -> None:
    """Stand-by that wanders a little, and a refrigerator that cycles."""
    standby_w, fridge_w = uniform(rng, 35, 110), uniform(rng, 70, 120)
    on, off = uniform(rng, 12, 20), uniform(rng, 22, 40)
    phase = uniform(rng, 0, on + off - 1)
    for minute in range(MINUTES):
        watts[minute] += max(5, standby_w + normal(rng, 2))
        if (minute + phase) % (on + off) < on:
            watts[minute] += fridge_w + normal(rng, 2)


def solar_power(peak_w: int, minute: int, clouds: int) -> int:
    """Rooftop power (W): a parabola squared from 05:00 to 21:00, times `clouds` of 1000."""
    since, length = minute - 300, 960
    if not 0 < since < length:
        return 0
    height = 4 * since * (length - since)  # of length ** 2
    return peak_w * height * height * clouds // (1000 * length**4)


def cloud_cover(seed: int) -> list[int]:
    """Share of 1000 that reaches the roofs: clear spells and passing clouds, the same for all."""
    rng = stream(f"sample day/{seed}/clouds")
    shares: list[int] = [1000]
    clear = True
    while len(shares) < MINUTES:
        spell = uniform(rng, 15, 90) if clear else uniform(rng, 3, 25)
        for _ in range(spell):
            target = uniform(rng, 900, 1000) if clear else uniform(rng, 250, 650)
            shares.append((shares[-1] + 2 * target) // 3)
        clear = not clear
    return shares[:MINUTES]


_TAP_DELAY_MINUTES = 3


def source_ppm(seed: int) -> list[int]:
    """Voltage behind the transformer, in millionths of 400 V.

    It wanders (time constant an hour, 0.5 %), sags towards the evening, and the tap changer of
    the substation above brings it back by 1.25 % steps when it stays outside 1 %.
    """
    rng = stream(f"sample day/{seed}/source")
    wander, tap, outside = normal(rng, 5000), 0, 0
    values: list[int] = []
    for minute in range(MINUTES):
        wander += normal(rng, 900) - wander // 60
        sag = max(0, 22_000 - abs(minute - 1170) * 22_000 // 240)
        swell = max(0, 9_000 - abs(minute - 790) * 9_000 // 260)
        off = wander - sag + swell + tap
        outside = outside + 1 if abs(off) > 10_000 else 0
        if outside == _TAP_DELAY_MINUTES:
            tap, outside = tap + (12_500 if off < 0 else -12_500), 0
        values.append(1_022_000 + off + normal(rng, 250))
    return values


# -- the power flow ---------------------------------------------------------------------------

_TURN = (complex(1, 0), complex(-0.5, -math.sqrt(3) / 2), complex(-0.5, math.sqrt(3) / 2))
_TOLERANCE_V = 1e-9
_MAX_SWEEPS = 60


def solve(feeder: Feeder, source_pu: float, watts: Sequence[int]) -> Solution:
    """Backward/forward sweep for one minute; RuntimeError if it does not settle.

    `source_pu` is the voltage behind the transformer, of 400 V; `watts` each home's net power.
    """
    source = [source_pu * BASE_V * turn for turn in _TURN]
    nodes = [list(source) for _ in feeder.parent]
    volts = [source[home.phase] for home in feeder.homes]
    powers = [complex(w, abs(w) * TANGENT) for w in watts]
    for _ in range(_MAX_SWEEPS):
        currents = [(s / v).conjugate() for s, v in zip(powers, volts, strict=True)]
        edges = _collect(feeder, currents)
        nodes[0] = [v - TRAFO_OHM * i for v, i in zip(source, edges[0], strict=True)]
        for node in range(1, len(nodes)):
            ohm = MAIN_OHM_PER_KM * (feeder.length_m[node] / 1000)
            neutral = edges[node][0] + edges[node][1] + edges[node][2]
            nodes[node] = [
                v - ohm * (i + neutral)
                for v, i in zip(nodes[feeder.parent[node]], edges[node], strict=True)
            ]
        before, volts = (
            volts,
            [
                nodes[home.node][home.phase] - 2 * SERVICE_OHM_PER_KM * (home.service_m / 1000) * i
                for home, i in zip(feeder.homes, currents, strict=True)
            ],
        )
        if max(abs(a - b) for a, b in zip(before, volts, strict=True)) < _TOLERANCE_V:
            sent = sum((v * i.conjugate() for v, i in zip(nodes[0], edges[0], strict=True)), 0j)
            return Solution(
                tuple(map(abs, volts)),
                tuple(map(abs, nodes[0])),
                sent.real,
                sent.imag,
                sent.real - sum(watts),
            )
    raise RuntimeError(f"the power flow does not settle in {_MAX_SWEEPS} sweeps: too much load")


def _collect(feeder: Feeder, currents: Sequence[complex]) -> list[list[complex]]:
    """Phase currents of each node's edge towards the busbar; index 0 is the transformer's."""
    edges = [[0j, 0j, 0j] for _ in feeder.parent]
    for home, current in zip(feeder.homes, currents, strict=True):
        edges[home.node][home.phase] += current
    for node in range(len(edges) - 1, 0, -1):
        above = edges[feeder.parent[node]]
        for phase in range(len(PHASES)):
            above[phase] += edges[node][phase]
    return edges


# -- the files --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Day:
    """Inputs of the power flow: the feeder, each minute's source voltage and homes' powers."""

    feeder: Feeder
    source_ppm: tuple[int, ...]
    watts: tuple[tuple[int, ...], ...]


def build_day(seed: int = SEED) -> Day:
    """Everything but the power flow; fast."""
    feeder = build_feeder(seed)
    clouds = cloud_cover(seed)
    columns = [home_power(seed, home, clouds) for home in feeder.homes]
    return Day(feeder, tuple(source_ppm(seed)), tuple(zip(*columns, strict=True)))


def tables(seed: int = SEED, minutes: int = MINUTES) -> dict[str, str]:
    """Text of the CSV files, by part (`meters`, `P`, `V`, `busbar`), for the first `minutes`."""
    day = build_day(seed)
    names = [home.name for home in day.feeder.homes]
    out = {part: io.StringIO() for part in ("meters", "P", "V", "busbar")}
    out["meters"].write("meter,bus,phase,cable_m\n")
    for home in day.feeder.homes:
        out["meters"].write(f"{home.name},{home.bus},{PHASES[home.phase]},{home.cable_m}\n")
    for part in ("P", "V"):
        out[part].write(",".join(["hhmm", *names]) + "\n")
    out["busbar"].write("hhmm,Vbus_L1,Vbus_L2,Vbus_L3,P_trafo_kW,Q_trafo_kvar,losses_kW\n")
    for minute in range(minutes):
        clock = f"{minute // 60:02d}:{minute % 60:02d}"
        watts = day.watts[minute]
        flow = solve(day.feeder, day.source_ppm[minute] / 1e6, watts)
        out["P"].write(",".join([clock, *(f"{w / 1000:.3f}" for w in watts)]) + "\n")
        out["V"].write(",".join([clock, *(f"{v:.3f}" for v in flow.home_v)]) + "\n")
        head = [f"{v:.3f}" for v in flow.busbar_v]
        head += [f"{x / 1000:.4f}" for x in (flow.power_w, flow.reactive_var, flow.losses_w)]
        out["busbar"].write(",".join([clock, *head]) + "\n")
    return {part: text.getvalue() for part, text in out.items()}


def file_name(part: str) -> str:
    """The large tables are compressed, the small ones plain."""
    return f"{NAME}_{part}.csv" + (".gz" if part in {"P", "V"} else "")


def write_tables(folder: Path, texts: dict[str, str]) -> None:
    """Writes each part; the gzip header holds no time and no name, so bytes depend on it alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in texts.items():
        blob = text.encode("ascii")
        name = file_name(part)
        packed = gzip.compress(blob, compresslevel=9, mtime=0) if name.endswith(".gz") else blob
        (folder / name).write_bytes(packed)


def read_table(folder: Path, part: str) -> str:
    """Text of one shipped table, unpacked. Raises OSError."""
    blob = (folder / file_name(part)).read_bytes()
    return (gzip.decompress(blob) if file_name(part).endswith(".gz") else blob).decode("ascii")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 when written or equal, 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="sample_day", description="Compute the sample day.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the CSV files")
    parser.add_argument("--check", action="store_true", help="compare with the files, write none")
    options = parser.parse_args(argv)
    texts = tables(options.seed)
    if not options.check:
        write_tables(options.out, texts)
        return 0
    different = [part for part, text in texts.items() if read_table(options.out, part) != text]
    for part in different:
        sys.stderr.write(f"{file_name(part)} differs from what seed {options.seed} gives\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
