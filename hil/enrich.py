"""What a recording lacks, made by the rig: frequency, reactive power, current, registers, errors.

`samples` turns a recording into what each meter would show, round by round. Made quantities are
named by `simulated_quantities`, so that a report can say which figures are not recorded.

The same recording, seed and `Errors` give the same numbers on every machine (`hil.noise`); each
meter has a stream of its own, so that leaving one meter out changes none of the others. Units:
every value of a `Sample` is an integer in thousandths of the unit.

Left out: errors of the power measurement (registers and power are exactly those recorded), clock
errors of meters, and the reading's flags.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hil.noise import normal, rounded, stream, uniform
from hil.traces import Busbar, Recording
from ledger.protocol import quantities

VOLTAGE = quantities.BY_CODE[quantities.VOLTAGE].name
CURRENT = quantities.BY_CODE[quantities.CURRENT].name
ACTIVE_POWER = quantities.BY_CODE[quantities.ACTIVE_POWER].name
REACTIVE_POWER = quantities.BY_CODE[quantities.REACTIVE_POWER].name
FREQUENCY = quantities.BY_CODE[quantities.FREQUENCY].name
ENERGY_IMPORT = quantities.BY_CODE[quantities.ENERGY_IMPORT].name
ENERGY_EXPORT = quantities.BY_CODE[quantities.ENERGY_EXPORT].name
QUANTITIES = (
    VOLTAGE,
    CURRENT,
    ACTIVE_POWER,
    REACTIVE_POWER,
    FREQUENCY,
    ENERGY_IMPORT,
    ENERGY_EXPORT,
)
HEAD = "HEAD"

# Quantity name (as in ledger.protocol.quantities) -> value in thousandths: mV, mA, mW, mvar, mHz,
# mWh. A quantity whose recorded cell is missing is absent, never zero.
Sample = dict[str, int]

_NHZ_PER_MHZ = 1_000_000
_INNER_STEP_S = 10
_START_MAX_MWH = 40_000_000_000


@dataclass(frozen=True)
class Errors:
    """Errors of the simulated meters and the grid's frequency process.

    `voltage_gain_ppm` bounds each meter's fixed gain error, `voltage_noise_mv` is the standard
    deviation of its white noise, `voltage_step_mv` its resolution (1, 10 and 100 are usual).
    Each meter's frequency noise has a standard deviation drawn between `frequency_noise_uhz`'s
    two values, and a fixed offset within `frequency_offset_uhz` (20 ppm of a crystal is 1 mHz).
    `power_factor_permille` makes reactive power where none was recorded. The grid's frequency
    reverts to 50 Hz with time constant `grid_time_s` and standard deviation `grid_sigma_uhz`.
    """

    voltage_gain_ppm: int = 2_000
    voltage_noise_mv: int = 50
    voltage_step_mv: int = 10
    frequency_noise_uhz: tuple[int, int] = (1_000, 3_000)
    frequency_offset_uhz: int = 1_000
    power_factor_permille: int = 950
    nominal_mhz: int = 50_000
    grid_sigma_uhz: int = 18_000
    grid_time_s: int = 300

    def __post_init__(self) -> None:
        if self.voltage_step_mv < 1:
            raise ValueError("voltage_step_mv is the resolution: 1 or more")
        if not 1 <= self.power_factor_permille <= 1000:
            raise ValueError("power_factor_permille is 1 to 1000")
        if self.grid_time_s < _INNER_STEP_S:
            raise ValueError(f"grid_time_s is {_INNER_STEP_S} or more")
        low, high = self.frequency_noise_uhz
        rest = (
            self.voltage_gain_ppm,
            self.voltage_noise_mv,
            self.frequency_offset_uhz,
            self.grid_sigma_uhz,
            low,
        )
        if min(rest) < 0 or high < low or self.voltage_gain_ppm >= 1_000_000:
            raise ValueError("errors are 0 or more, and a range rises")


NO_ERRORS = Errors(
    voltage_gain_ppm=0,
    voltage_noise_mv=0,
    voltage_step_mv=1,
    frequency_noise_uhz=(0, 0),
    frequency_offset_uhz=0,
)


@dataclass(frozen=True)
class Round:
    """What every meter shows in one round.

    The round covers [time_s, time_s + interval_s); `time_s` is the reading's time, so that the
    reading belongs to round time_s // T. Registers stand as at the end of the interval, so their
    difference from the round before is this round's power times `interval_s`. `measured` holds
    each meter's values with its errors, `true` those without. A meter with neither voltage nor
    power in this row is silent: it stands in neither, and its registers wait. `head` is the
    head-end meter (no errors; voltage is the mean of the phases), None where its row is empty or
    the recording has no such table.
    """

    index: int
    time_s: int
    interval_s: int
    measured: Mapping[str, Sample]
    true: Mapping[str, Sample]
    head: Sample | None


def simulated_quantities(recording: Recording) -> frozenset[str]:
    """Names of the quantities that are made here and not recorded."""
    made = {CURRENT, FREQUENCY, ENERGY_IMPORT, ENERGY_EXPORT}
    if recording.reactive_mvar is None:
        made.add(REACTIVE_POWER)
    return frozenset(made)


def samples(recording: Recording, seed: int, errors: Errors | None = None) -> Iterator[Round]:
    """Yields one `Round` a row of `recording`, in order. Pure: same arguments, same numbers."""
    errors = errors or Errors()
    meters = [_Meter(meter.name, seed, errors) for meter in recording.meters]
    head_meter = _Meter(HEAD, seed, NO_ERRORS)
    grid = grid_frequency_mhz(recording.step_s, seed, errors)
    step_s = recording.step_s
    for index in range(recording.rounds):
        frequency_mhz = next(grid)
        measured: dict[str, Sample] = {}
        true: dict[str, Sample] = {}
        for column, meter in enumerate(meters):
            voltage_mv = recording.voltage_mv[index][column]
            power_mw = recording.power_mw[index][column]
            reactive_mvar = _reactive_mvar(recording, index, column, errors)
            shown_mv = meter.read_voltage(voltage_mv)
            shown_mhz = meter.read_frequency(frequency_mhz)
            if voltage_mv is None and power_mw is None:
                continue
            meter.register(power_mw, step_s)
            true[meter.name] = meter.sample(voltage_mv, power_mw, reactive_mvar, frequency_mhz)
            measured[meter.name] = meter.sample(shown_mv, power_mw, reactive_mvar, shown_mhz)
        head = None
        if recording.busbar:
            head = _head_sample(head_meter, recording.busbar[index], frequency_mhz, step_s)
        yield Round(index, recording.time_s(index), step_s, measured, true, head)


def grid_frequency_mhz(step_s: int, seed: int, errors: Errors | None = None) -> Iterator[int]:
    """The grid's frequency (mHz) at the end of each round, for ever: one for all meters.

    An Ornstein-Uhlenbeck process stepped at most every 10 s, so that its spread does not depend
    on `step_s`; it starts in its stationary state.
    """
    errors = errors or Errors()
    rng = stream(f"gridwitness/{seed}/grid/")
    # Past ten time constants nothing is left of the start: longer steps need no more work.
    inner = min(-(-step_s // _INNER_STEP_S), -(-10 * errors.grid_time_s // _INNER_STEP_S))
    share_num = min(step_s, inner * _INNER_STEP_S)
    share_den = inner * errors.grid_time_s
    sigma_nhz = errors.grid_sigma_uhz * 1000
    # Innovation that keeps the variance: sigma * sqrt(2 d - d^2) with d = share_num / share_den.
    root = math.isqrt(2 * share_num * share_den - share_num * share_num)
    kick_nhz = sigma_nhz * root // share_den
    deviation_nhz = normal(rng, sigma_nhz)
    while True:
        for _ in range(inner):
            deviation_nhz += normal(rng, kick_nhz) - rounded(deviation_nhz * share_num, share_den)
        yield errors.nominal_mhz + rounded(deviation_nhz, _NHZ_PER_MHZ)


# -- one meter --------------------------------------------------------------------------------


class _Meter:
    """Fixed errors, noise stream and registers of one meter; registers count in mW s."""

    def __init__(self, name: str, seed: int, errors: Errors) -> None:
        self.name = name
        self._errors = errors
        fixed = stream(f"gridwitness/{seed}/fixed/{name}")
        self._noise = stream(f"gridwitness/{seed}/noise/{name}")
        self._gain_ppm = uniform(fixed, -errors.voltage_gain_ppm, errors.voltage_gain_ppm)
        self._offset_uhz = uniform(fixed, -errors.frequency_offset_uhz, errors.frequency_offset_uhz)
        self._jitter_uhz = uniform(fixed, *errors.frequency_noise_uhz)
        self._import_mws = 3600 * uniform(fixed, 0, _START_MAX_MWH)
        self._export_mws = 0

    def register(self, power_mw: int | None, interval_s: int) -> None:
        if power_mw is not None and power_mw >= 0:
            self._import_mws += power_mw * interval_s
        elif power_mw is not None:
            self._export_mws -= power_mw * interval_s

    def read_voltage(self, true_mv: int | None) -> int | None:
        noise_mv = normal(self._noise, self._errors.voltage_noise_mv)
        if true_mv is None:
            return None
        with_gain_mv = true_mv + rounded(true_mv * self._gain_ppm, 1_000_000)
        step_mv = self._errors.voltage_step_mv
        return max(0, step_mv * rounded(with_gain_mv + noise_mv, step_mv))

    def read_frequency(self, true_mhz: int) -> int:
        error_uhz = self._offset_uhz + normal(self._noise, self._jitter_uhz)
        return true_mhz + rounded(error_uhz, 1000)

    def sample(
        self,
        voltage_mv: int | None,
        power_mw: int | None,
        reactive_mvar: int | None,
        frequency_mhz: int,
    ) -> Sample:
        values = {
            VOLTAGE: voltage_mv,
            CURRENT: _current_ma(voltage_mv, power_mw, reactive_mvar),
            ACTIVE_POWER: power_mw,
            REACTIVE_POWER: reactive_mvar,
            FREQUENCY: frequency_mhz,
            ENERGY_IMPORT: self._import_mws // 3600,
            ENERGY_EXPORT: self._export_mws // 3600,
        }
        return {quantity: value for quantity, value in values.items() if value is not None}


def _head_sample(meter: _Meter, row: Busbar, frequency_mhz: int, step_s: int) -> Sample | None:
    phases = [mv for mv in row.voltage_mv or () if mv is not None]
    if not phases and row.power_mw is None:
        return None
    voltage_mv = rounded(sum(phases), len(phases)) if phases else None
    meter.register(row.power_mw, step_s)
    return meter.sample(voltage_mv, row.power_mw, row.reactive_mvar, frequency_mhz)


def _reactive_mvar(recording: Recording, index: int, column: int, errors: Errors) -> int | None:
    """Recorded, or inductive at the given power factor, whichever way the power flows."""
    if recording.reactive_mvar is not None:
        return recording.reactive_mvar[index][column]
    power_mw = recording.power_mw[index][column]
    if power_mw is None:
        return None
    factor = errors.power_factor_permille
    tangent_millionth = math.isqrt((1_000_000 - factor * factor) * 10**12) // factor
    return rounded(abs(power_mw) * tangent_millionth, 1_000_000)


def _current_ma(
    voltage_mv: int | None, power_mw: int | None, reactive_mvar: int | None
) -> int | None:
    """S / U. For a meter without a phase (three-phase) this is the sum of the phase currents."""
    if not voltage_mv or power_mw is None or reactive_mvar is None:
        return None
    apparent = math.isqrt((power_mw * power_mw + reactive_mvar * reactive_mvar) * 10**6)
    return rounded(apparent, voltage_mv)
