"""One measured figure with what it is compared to, and the measuring of CPU time and memory."""

import os
from dataclasses import dataclass
from pathlib import Path


class BenchError(Exception):
    """What is measured did not do its work; a figure would mean nothing."""


class Skipped(Exception):
    """A figure cannot be measured here; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A value and what it is held against.

    ``peer`` is a limit, or what a peer did in the same run (``against`` says which); both have the
    value's unit. ``at_most`` or ``at_least`` is the target of value / peer; with neither, the
    figure is for information.
    """

    name: str
    value: float
    unit: str
    peer: float | None = None
    against: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """Value / peer."""
        return self.value / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.ratio is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.ratio <= self.at_most) and (
            self.at_least is None or self.ratio >= self.at_least
        )

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_most is not None:
            return f"≤ {self.at_most:.2f}"
        return f"≥ {self.at_least:.2f}" if self.at_least is not None else ""

    def as_json(self) -> dict[str, object]:
        """Give the figure as plain values."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "peer": self.peer,
            "against": self.against,
            "ratio": self.ratio,
            "target": self.target,
            "met": self.met,
        }


def limit(name: str, value: float, unit: str, most: float) -> Figure:
    """Give a figure that must not be above ``most``."""
    return Figure(name=name, value=value, unit=unit, peer=most, against="limit", at_most=1.0)


def floor(name: str, value: float, unit: str, least: float) -> Figure:
    """Give a figure that must not be below ``least``."""
    return Figure(name=name, value=value, unit=unit, peer=least, against="floor", at_least=1.0)


def cpu_s(pid: int) -> float:
    """Give the CPU time of a process with all its threads, user and system, in seconds."""
    # proc(5): utime and stime are fields 14 and 15; the name, field 2, may hold blanks
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Give ``VmRSS`` or ``VmHWM`` (its highest) of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise Skipped(f"this system tells no {field} of a process")
