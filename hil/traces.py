"""Recordings of a neighbourhood's meters, read from CSV.

A recording is a set of tables that share meter names and times (`docs/recordings.md` shows each
form): the meter list, one table of voltages and one of active powers, and optionally tables of
reactive power and of the head end (the transformer's low-voltage busbar). Two forms of time are
known: `hhmm`, minutes of one day whose date the caller gives, and `time`, full date and time.
Times are UTC. Every number leaves this module as an integer in thousandths (mV, mW, mvar), every
empty cell as None. A file may be gzip-compressed; its name then ends in `.gz`.

Left out: what a recording lacks (frequency, registers) is made in `hil.enrich`; recordings of
field protocols are not read here.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from hil.tables import (
    DEFAULT_DATE,
    KILO,
    METRE,
    PLAIN,
    VOLT,
    Table,
    TraceError,
    check_same_times,
    number,
    parse_date,
    parse_table,
    parse_times,
    read_bytes,
    show,
    step_s_of,
)

__all__ = [
    "DEFAULT_DATE",
    "SAMPLE_DAY",
    "Busbar",
    "Meter",
    "Recording",
    "Rows",
    "TraceError",
    "load_recording",
    "parse_recording",
    "read_recording",
    "sample_day",
]

SAMPLE_DAY = Path(__file__).resolve().parent / "sample_day"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_GENERATOR = re.compile(r"([A-Za-z0-9_-]{1,32})_kW")
_PHASES = ("L1", "L2", "L3")
_METER_COLUMNS = frozenset(("meter", "bus", "phase", "profile", "cable_m", "x", "y"))
_BUSBAR_VOLTAGES = ("Vbus_L1", "Vbus_L2", "Vbus_L3")
_BUSBAR_ALIASES = {"trafo_P_kW": "P_trafo_kW", "trafo_Q_kvar": "Q_trafo_kvar"}
_BUSBAR_COLUMNS = frozenset(
    (*_BUSBAR_VOLTAGES, "P_trafo_kW", "Q_trafo_kvar", "losses_kW", "Vsource_pu")
)

Rows = tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True)
class Meter:
    """One meter of a recording.

    `bus` is the network's node as the file names it, `phase` L1, L2 or L3 (None: not given, as
    for three-phase connections), `cable_m` the cable length from the transformer in metres.
    """

    name: str
    bus: str
    phase: str | None
    cable_m: float | None


@dataclass(frozen=True)
class Busbar:
    """The head end in one round: phase voltages (mV), active and reactive power, cable losses."""

    voltage_mv: tuple[int | None, int | None, int | None] | None
    power_mw: int | None
    reactive_mvar: int | None
    losses_mw: int | None


@dataclass(frozen=True)
class Recording:
    """What a neighbourhood's meters saw, one row a round, one column a meter of `meters`.

    `start_s` is the Unix time at which round 0 begins; row i covers
    [start_s + i * step_s, start_s + (i + 1) * step_s). A missing cell is None. Power is positive
    for consumption. `reactive_mvar` and `busbar` are None where there was no such table.
    """

    name: str
    meters: tuple[Meter, ...]
    start_s: int
    step_s: int
    voltage_mv: Rows
    power_mw: Rows
    reactive_mvar: Rows | None = None
    busbar: tuple[Busbar, ...] | None = None

    @property
    def rounds(self) -> int:
        """Number of rows."""
        return len(self.voltage_mv)

    def time_s(self, index: int) -> int:
        """Unix time at which round `index` begins."""
        return self.start_s + index * self.step_s

    def column(self, name: str) -> int:
        """Column of the meter called `name`; KeyError if there is none."""
        for i, meter in enumerate(self.meters):
            if meter.name == name:
                return i
        raise KeyError(name)


def load_recording(
    folder: str | os.PathLike[str], name: str, *, date: str = DEFAULT_DATE
) -> Recording:
    """Reads the tables of one recording from `folder`.

    These are `<name>_meters.csv`, `<name>_V.csv`, `<name>_P.csv` and, where they are there,
    `<name>_Q.csv` and `<name>_busbar.csv` (or `<name>_gen_trafo.csv`); each may be `.csv.gz`.
    `date` (YYYY-MM-DD, UTC) is the day of an `hhmm` recording.
    Raises TraceError.
    """
    base = Path(folder)
    meters, voltage, power = (_required(base, name, part) for part in ("meters", "V", "P"))
    return read_recording(
        meters,
        voltage,
        power,
        reactive=_present(base, name, "Q"),
        busbar=_present(base, name, "busbar") or _present(base, name, "gen_trafo"),
        name=name,
        date=date,
    )


def sample_day() -> Recording:
    """The sample day that comes with the project: 24 single-phase meters, 1440 minutes."""
    return load_recording(SAMPLE_DAY, "sample")


def read_recording(
    meters: str | os.PathLike[str],
    voltage: str | os.PathLike[str],
    power: str | os.PathLike[str],
    *,
    reactive: str | os.PathLike[str] | None = None,
    busbar: str | os.PathLike[str] | None = None,
    name: str = "recording",
    date: str = DEFAULT_DATE,
) -> Recording:
    """Reads a recording from the files named; see `load_recording`. Raises TraceError."""
    files = {
        "meters": meters,
        "voltage": voltage,
        "power": power,
        "reactive": reactive,
        "busbar": busbar,
    }
    blobs = {
        part: (Path(path).name, read_bytes(Path(path)))
        for part, path in files.items()
        if path is not None
    }
    return parse_recording(blobs, name=name, date=date)


def parse_recording(
    files: Mapping[str, tuple[str, bytes]], *, name: str = "recording", date: str = DEFAULT_DATE
) -> Recording:
    """Parses a recording from memory.

    `files` maps `meters`, `voltage`, `power` and optionally `reactive` and `busbar` to (the file
    name for messages, the uncompressed bytes). Raises TraceError and nothing else for any bytes.
    """
    day_s = parse_date(date)
    tables = {part: parse_table(file, blob) for part, (file, blob) in files.items()}
    for part in ("meters", "voltage", "power"):
        if part not in tables:
            raise TraceError(f"a recording needs a {part} table; none was given")
    busbar = tables.get("busbar")
    generators = _generators(busbar) if busbar else set()
    meters = _parse_meters(tables["meters"], generators, set(tables["voltage"].header))
    times = parse_times(tables["voltage"], day_s)
    step_s = step_s_of(tables["voltage"], times)
    for part in ("power", "reactive", "busbar"):
        if part in tables:
            check_same_times(
                tables["voltage"], times, tables[part], parse_times(tables[part], day_s)
            )
    reactive = tables.get("reactive")
    return Recording(
        name=name,
        meters=meters,
        start_s=times[0],
        step_s=step_s,
        voltage_mv=_parse_matrix(tables["voltage"], meters, VOLT, low=Decimal(0)),
        power_mw=_parse_matrix(tables["power"], meters, KILO),
        reactive_mvar=_parse_matrix(reactive, meters, KILO) if reactive else None,
        busbar=_parse_busbar(busbar) if busbar else None,
    )


# -- files ------------------------------------------------------------------------------------


def _present(base: Path, name: str, part: str) -> Path | None:
    for ending in (".csv", ".csv.gz"):
        path = base / f"{name}_{part}{ending}"
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise TraceError(f"{path}: cannot be read ({error.strerror}); check it") from error
    return None


def _required(base: Path, name: str, part: str) -> Path:
    path = _present(base, name, part)
    if path is None:
        raise TraceError(
            f"no file {name}_{part}.csv or {name}_{part}.csv.gz in {base}; a recording needs "
            f"{name}_meters, {name}_V and {name}_P: check the folder and the name"
        )
    return path


# -- tables -----------------------------------------------------------------------------------


def _generators(busbar: Table) -> set[str]:
    """Generators whose power stands in the head-end table as `<name>_kW`."""
    named = set()
    for column in busbar.header[1:]:
        match = _GENERATOR.fullmatch(column)
        if match and _BUSBAR_ALIASES.get(column, column) not in _BUSBAR_COLUMNS:
            named.add(match[1])
    return named


def _parse_meters(table: Table, generators: set[str], columns: set[str]) -> tuple[Meter, ...]:
    for column in table.header:
        if column not in _METER_COLUMNS:
            raise TraceError(
                f"{table.file}: unknown column {show(column)}; the meter list has "
                "meter, bus and optionally phase, profile, cable_m, x, y"
            )
    for column in ("meter", "bus"):
        if column not in table.header:
            raise TraceError(f"{table.file}: no column {column!r}; add it")
    at = {column: i for i, column in enumerate(table.header)}
    meters: dict[str, Meter] = {}
    for i, row in enumerate(table.rows):
        name, bus = row[at["meter"]], row[at["bus"]]
        if not _NAME.fullmatch(name):
            raise table.fail(
                i,
                "meter",
                f"{show(name)} cannot name a meter; use 1 to 32 letters, digits, '_' or '-'",
            )
        if not _NAME.fullmatch(bus):
            raise table.fail(
                i, "bus", f"{show(bus)} cannot name a bus; use 1 to 32 letters, digits, '_' or '-'"
            )
        if name in meters:
            raise table.fail(i, "meter", f"{name} stands there twice; remove one row")
        if name in generators and name not in columns:
            continue
        meters[name] = Meter(name, bus, _phase(table, i, at), _cable(table, i, at))
    if not meters:
        raise TraceError(f"{table.file}: lists no meter, only generators; add the meters")
    return tuple(meters.values())


def _phase(table: Table, row: int, at: Mapping[str, int]) -> str | None:
    phase = table.rows[row][at["phase"]] if "phase" in at else ""
    if phase and phase not in _PHASES:
        raise table.fail(row, "phase", f"{show(phase)} is no phase; write L1, L2, L3 or nothing")
    return phase or None


def _cable(table: Table, row: int, at: Mapping[str, int]) -> float | None:
    if "cable_m" not in at:
        return None
    value = number(
        table.rows[row][at["cable_m"]],
        METRE,
        Decimal(0),
        lambda what: table.fail(row, "cable_m", what),
    )
    return None if value is None else value / 1000


def _parse_matrix(
    table: Table, meters: Sequence[Meter], unit: tuple[int, Decimal], low: Decimal | None = None
) -> Rows:
    names = dict.fromkeys(meter.name for meter in meters)
    at = {column: i for i, column in enumerate(table.header)}
    for name in names:
        if name not in at or at[name] == 0:
            raise TraceError(
                f"{table.file}: no column for meter {name} of the meter list; add "
                "the column or remove the meter"
            )
    for column in table.header[1:]:
        if column not in names:
            raise TraceError(
                f"{table.file}: column {show(column)} is no meter of the meter "
                "list; add it there or remove the column"
            )
    order = [(name, at[name]) for name in names]

    def cell(i: int, name: str, text: str) -> int | None:
        return number(text, unit, low, lambda what: table.fail(i, name, what))

    return tuple(
        tuple(cell(i, name, row[j]) for name, j in order) for i, row in enumerate(table.rows)
    )


def _parse_busbar(table: Table) -> tuple[Busbar, ...]:
    generators = _generators(table)
    at: dict[str, int] = {}
    for j, raw in enumerate(table.header[1:], start=1):
        column = _BUSBAR_ALIASES.get(raw, raw)
        if column in at:
            raise TraceError(f"{table.file}: {column} stands there twice; remove one")
        if column in _BUSBAR_COLUMNS or raw.removesuffix("_kW") in generators:
            at[column] = j
        else:
            raise TraceError(
                f"{table.file}: unknown column {show(raw)}; the head end has "
                f"{', '.join(sorted(_BUSBAR_COLUMNS))} and <generator>_kW"
            )
    if "P_trafo_kW" not in at:
        raise TraceError(f"{table.file}: no column 'P_trafo_kW'; add the head end's power")
    voltages = [column for column in _BUSBAR_VOLTAGES if column in at]
    if voltages and len(voltages) != len(_BUSBAR_VOLTAGES):
        raise TraceError(
            f"{table.file}: {len(voltages)} of 3 busbar voltages; give "
            f"{', '.join(_BUSBAR_VOLTAGES)} or none"
        )
    return tuple(_busbar_row(table, i, at, bool(voltages)) for i in range(len(table.rows)))


def _busbar_row(table: Table, row: int, at: Mapping[str, int], voltages: bool) -> Busbar:
    def cell(column: str, unit: tuple[int, Decimal], low: Decimal | None = None) -> int | None:
        if column not in at:
            return None
        return number(
            table.rows[row][at[column]], unit, low, lambda what: table.fail(row, column, what)
        )

    for column in at:  # columns that are not kept must be sound too
        if column not in _BUSBAR_COLUMNS or column == "Vsource_pu":
            cell(column, PLAIN)
    l1, l2, l3 = (cell(column, VOLT, Decimal(0)) for column in _BUSBAR_VOLTAGES)
    return Busbar(
        voltage_mv=(l1, l2, l3) if voltages else None,
        power_mw=cell("P_trafo_kW", KILO),
        reactive_mvar=cell("Q_trafo_kvar", KILO),
        losses_mw=cell("losses_kW", KILO),
    )
