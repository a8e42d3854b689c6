"""CSV tables with a time column, read strictly: the floor under `hil.traces`.

Any bytes give a `Table` or a `TraceError` whose sentence names the file, the line and column, and
what to do. Sizes are bounded before anything is built from them.
"""

import calendar
import csv
import datetime as dt
import gzip
import io
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

DEFAULT_DATE = "2016-06-06"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_METERS = 10_000
MAX_CELLS = 4_000_000

_NUMBER = re.compile(r"[+-]?[0-9]{0,12}(?:\.[0-9]{0,12})?(?:[eE][+-]?[0-9]{1,2})?")
# Decimal places from the unit in the file to thousandths of the base unit, and the largest
# magnitude taken: beyond it a column is in another unit, not from a bigger house.
VOLT = (3, Decimal(1_000_000))
METRE = (3, Decimal(1_000_000))
KILO = (6, Decimal(1_000_000))
PLAIN = (6, Decimal(1_000_000_000))


class TraceError(ValueError):
    """A recording cannot be used; the sentence names the file, the place and the remedy."""


@dataclass(frozen=True)
class Table:
    """A CSV file with its header split off; `lines` are the line numbers of `rows`."""

    file: str
    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def fail(self, row: int, column: str, what: str) -> TraceError:
        """The error that says `what` about one cell; `row` counts from 0 below the header."""
        return TraceError(f"{self.file}, line {self.lines[row]}, column {column}: {what}")


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in `.gz`; at most one more than the limit.

    Raises TraceError.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix != ".gz":
                blob = raw.read(MAX_FILE_BYTES + 1)
            else:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    blob = unpacked.read(MAX_FILE_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"{path.name}: damaged gzip file ({error}); fetch it again") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise TraceError(f"{path}: cannot be read ({reason}); check the path") from error
    return blob


def parse_table(file: str, blob: bytes) -> Table:
    """Splits CSV text (UTF-8, comma, header first) into cells. Raises TraceError."""
    if len(blob) > MAX_FILE_BYTES:
        raise TraceError(
            f"{file}: larger than {MAX_FILE_BYTES // 1024 // 1024} MB; split it by days"
        )
    try:
        text = blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(
            f"{file}: byte {error.start} is not UTF-8 text; save it as plain CSV"
        ) from error
    if "\x00" in text:
        raise TraceError(f"{file}: holds a zero byte, so it is no CSV; save it as plain CSV")
    # Counted before splitting: a line of commas would cost gigabytes as a list.
    if text.count(",") + text.count("\n") + text.count("\r") > MAX_CELLS:
        raise TraceError(f"{file}: more than {MAX_CELLS} cells; split it by days")
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if row:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise TraceError(
            f"{file}, line {reader.line_num}: not CSV ({error}); quote no cell, end each line"
        ) from error
    return _with_header(file, rows, lines)


def _with_header(file: str, rows: list[list[str]], lines: list[int]) -> Table:
    if len(rows) < 2:
        what = "is empty" if not rows else "has a header but no rows"
        raise TraceError(f"{file}: {what}; export the recording again")
    header = tuple(rows[0])
    if len(header) > MAX_METERS + 1:
        raise TraceError(f"{file}: more than {MAX_METERS} columns; split it by transformers")
    seen: set[str] = set()
    for column in header:
        if column in seen:
            raise TraceError(f"{file}: column {show(column)} stands there twice; remove one")
        seen.add(column)
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise TraceError(
                f"{file}, line {line}: {len(row)} cells where the header has {len(header)}; "
                "write one cell a column and leave a missing one empty"
            )
    return Table(file, header, rows[1:], lines[1:])


def show(text: str) -> str:
    """`text` as it may stand in a message: quoted, on one line, short."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def number(
    text: str, unit: tuple[int, Decimal], low: Decimal | None, fail: Callable[[str], TraceError]
) -> int | None:
    """A cell as an integer of `unit`'s smallest part, halves to even; None if it is empty.

    `low` is the least value allowed, in the file's unit (None: minus the unit's limit). Raises
    what `fail` makes of the complaint.
    """
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or not text.lower().partition("e")[0].strip("+-."):
        raise fail(
            f"{show(text)} is not a number; write digits with a decimal point, and leave the "
            "cell empty where the value is missing"
        )
    places, limit = unit
    value = Decimal(text)
    if abs(value) > limit or (low is not None and value < low):
        span = f"{'-' if low is None else ''}{limit if low is None else low} to {limit}"
        raise fail(f"{show(text)} is outside {span}; check the column's unit")
    return int(value.scaleb(places).to_integral_value(ROUND_HALF_EVEN))


def parse_date(date: str) -> int:
    """Unix time of a day's start in UTC. Raises TraceError."""
    day_s = _date_s(date)
    if day_s is None:
        raise TraceError(
            f"the date {show(date)} is not YYYY-MM-DD from 1970 on; give a day such as "
            f"{DEFAULT_DATE}"
        )
    return day_s


def _date_s(date: str) -> int | None:
    # Python's own parser also takes week dates and digits of other scripts.
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", date):
        return None
    try:
        day_s = calendar.timegm(dt.date.fromisoformat(date).timetuple())
    except ValueError:
        return None
    return day_s if day_s >= 0 else None


_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?")
_STAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9:]{5,8})Z?")


def _clock_s(text: str) -> int | None:
    match = _CLOCK.fullmatch(text)
    if not match:
        return None
    hours, minutes, seconds = int(match[1]), int(match[2]), int(match[3] or 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return hours * 3600 + minutes * 60 + seconds


def _stamp_s(text: str) -> int | None:
    match = _STAMP.fullmatch(text)
    if not match:
        return None
    day_s, clock_s = _date_s(match[1]), _clock_s(match[2])
    return None if day_s is None or clock_s is None else day_s + clock_s


def parse_times(table: Table, day_s: int) -> list[int]:
    """Unix time of each row; `day_s` is the day that `hhmm` times belong to. Raises TraceError."""
    form = table.header[0]
    if form not in ("hhmm", "time"):
        raise TraceError(
            f"{table.file}: the first column is {show(form)}, not 'hhmm' or 'time'; name it "
            "'hhmm' (HH:MM of one day) or 'time' (YYYY-MM-DD HH:MM)"
        )
    times: list[int] = []
    for i, row in enumerate(table.rows):
        clock_s = _clock_s(row[0])
        moment = (
            (None if clock_s is None else day_s + clock_s) if form == "hhmm" else _stamp_s(row[0])
        )
        if moment is None:
            wanted = "HH:MM" if form == "hhmm" else "YYYY-MM-DD HH:MM"
            raise table.fail(i, form, f"{show(row[0])} is not {wanted}; correct the time")
        times.append(moment)
    return times


def step_s_of(table: Table, times: Sequence[int]) -> int:
    """The one distance between rows, in seconds. Raises TraceError if there is no such one."""
    if len(times) < 2:
        raise TraceError(f"{table.file}: one row only; a recording needs two to tell its step")
    step_s = times[1] - times[0]
    for i in range(1, len(times)):
        gap_s = times[i] - times[i - 1]
        text = show(table.rows[i][0])
        if gap_s <= 0:
            what = (
                f"time {text} does not come after the row before; sort the rows, and use "
                "'time' across midnight"
            )
            raise table.fail(i, table.header[0], what)
        if gap_s != step_s:
            what = (
                f"time {text} is {gap_s} s after the row before, not {step_s} s; add the "
                "missing rows with empty cells"
            )
            raise table.fail(i, table.header[0], what)
    return step_s


def check_same_times(
    first: Table, times: Sequence[int], other: Table, other_times: Sequence[int]
) -> None:
    """Raises TraceError unless both tables have rows for the same times."""
    for i, (a, b) in enumerate(zip(times, other_times, strict=False)):
        if a != b:
            what = (
                f"time {show(other.rows[i][0])} where {first.file} has "
                f"{show(first.rows[i][0])}; give both files the same rows"
            )
            raise other.fail(i, other.header[0], what)
    if len(times) != len(other_times):
        raise TraceError(
            f"{other.file}: {len(other_times)} rows where {first.file} has {len(times)}; give "
            "both files the same rows"
        )
