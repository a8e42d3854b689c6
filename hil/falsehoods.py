"""What a false meter shows instead of what it measures: kinds of falsehood and their sizes.

A falsehood takes a meter's rounds as measured and gives those that it shows. Registers always go on
with the power shown: a liar that forgets them is caught by them alone, and would flatter the other
rules. Sizes are written as on the command line: ``scale:+2%``, ``offset:-3V``, ``clock:+15min``.

Left out: meters that lie together (``hil.evaluation`` makes them from several single ones), and
what outsiders do without a meter's key (``hil.faults``).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hil.enrich import (
    ACTIVE_POWER,
    CURRENT,
    ENERGY_EXPORT,
    ENERGY_IMPORT,
    FREQUENCY,
    REACTIVE_POWER,
    VOLTAGE,
    Round,
    Sample,
)
from hil.neighbourhood import Shown
from hil.noise import normal, stream, uniform

COLLUDE = "collude"
_SIZE = re.compile(r"([+-]?\d+(?:\.\d+)?)(%/h|%|V|min|h)?")
_WORDS = {"freeze": ("all", "voltage"), "phase": ("other",)}

# kind -> sizes that `all` stands for; the first are those of the targets
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "scale": ("-10%", "-5%", "-2%", "-1%", "+1%", "+2%", "+5%", "+10%"),
    "offset": ("-3V", "+3V", "+5V"),
    "freeze": ("all", "voltage"),
    "replay": ("1h", "6h"),
    "drift": ("-1%/h", "+1%/h"),
    "clock": ("-30min", "-15min", "+15min", "+30min"),
    "noise": ("1%", "2%"),
    "dropout": ("20%", "100%"),
    "rounding": ("1V", "5V"),
    "phase": ("other",),
    "theft": ("30%", "90%"),
    COLLUDE: ("10%", "20%", "30%"),
}
_UNITS = {
    "scale": ("%",),
    "offset": ("V",),
    "replay": ("min", "h"),
    "drift": ("%/h",),
    "clock": ("min", "h"),
    "noise": ("%",),
    "dropout": ("%",),
    "rounding": ("V",),
    "theft": ("%",),
    COLLUDE: ("%",),
}


class FalsehoodError(ValueError):
    """A kind or size of falsehood that is not known; the message says what is."""


@dataclass(frozen=True)
class Falsehood:
    """A kind with one size; ``amount`` is the size as a number: %, V, minutes, or 0 for a word."""

    kind: str
    size: str
    amount: float

    @property
    def label(self) -> str:
        """What the command line calls it."""
        return f"{self.kind}:{self.size}"


def parse(text: str) -> list[Falsehood]:
    """Give the falsehoods of a list such as ``scale:+2%,freeze,replay:1h`` or ``all``.

    A kind without a size stands for its usual sizes. Raises FalsehoodError.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise FalsehoodError("no attack named: give a list such as scale:+2%,freeze, or all")
    found: list[Falsehood] = []
    for word in words:
        kind, _, size = word.partition(":")
        kinds = list(DEFAULTS) if word == "all" else [kind]
        for each in kinds:
            if each not in DEFAULTS:
                raise FalsehoodError(f"{each!r} is no attack: {', '.join(DEFAULTS)} or all")
            sizes = (size,) if size else DEFAULTS[each]
            found += [_make(each, one) for one in sizes]
    return list(dict.fromkeys(found))


def _make(kind: str, size: str) -> Falsehood:
    if kind in _WORDS:
        if size not in _WORDS[kind]:
            raise FalsehoodError(f"{kind}:{size}: the sizes are {', '.join(_WORDS[kind])}")
        return Falsehood(kind, size, 0)
    match = _SIZE.fullmatch(size)
    if match is None or match[2] not in _UNITS[kind]:
        example = f"{kind}:{DEFAULTS[kind][0]}"
        raise FalsehoodError(f"{kind}:{size}: give a number with its unit, such as {example}")
    amount = float(match[1]) * (60 if match[2] == "h" else 1)
    _check(kind, size, amount)
    return Falsehood(kind, size, amount)


def _check(kind: str, size: str, amount: float) -> None:
    low, high = {"scale": (-100, 1000), "drift": (-100, 100), "offset": (-1000, 1000)}.get(
        kind, (0.0, 100.0)
    )
    if kind in ("replay", "clock"):
        low, high = (-10_080, 10_080) if kind == "clock" else (1, 10_080)
    if not low <= amount <= high or (amount == 0 and kind != COLLUDE):
        raise FalsehoodError(f"{kind}:{size}: out of range; give {low:g} to {high:g}, not 0")


Change = Callable[[int, Sample], Sample]


class Liar:
    """One meter that shows falsehoods from round ``first`` on.

    ``day`` are all rounds as measured; ``other`` is a meter on another phase, for ``phase``.
    """

    def __init__(
        self,
        falsehood: Falsehood,
        name: str,
        first: int,
        day: Sequence[Round],
        *,
        other: str | None = None,
        seed: int = 0,
    ) -> None:
        self.falsehood, self.name, self.first = falsehood, name, first
        self._day, self._other = day, other
        self._rng = stream(f"gridwitness/{seed}/falsehood/{falsehood.label}/{name}/{first}")
        self._energy: tuple[int, int] | None = None
        self._change: Change = getattr(self, "_" + falsehood.kind)

    @property
    def clock_rounds(self) -> int:
        """By how many rounds the meter's clock is off while it lies."""
        if self.falsehood.kind != "clock":
            return 0
        return round(self.falsehood.amount * 60 / self._day[0].interval_s)

    def show(self, index: int) -> Shown:
        """Give what the meter shows in a round; rounds are asked for in order."""
        measured = self._day[index].measured.get(self.name)
        if measured is None or index < self.first:
            return Shown(measured, 0, false=False)
        shown = self._change(index, dict(measured))
        false = shown != measured or self.clock_rounds != 0
        return Shown(self._with_registers(index, shown, measured), self.clock_rounds, false=false)

    def _with_registers(self, index: int, shown: Sample, measured: Sample) -> Sample:
        """Let registers go on with the power shown from where they stood before the lie."""
        if self._energy is None:
            before = self._day[index - 1].measured.get(self.name) if index else None
            at = before or measured
            self._energy = (at.get(ENERGY_IMPORT, 0) * 3600, at.get(ENERGY_EXPORT, 0) * 3600)
        bought, sold = self._energy
        added = shown.get(ACTIVE_POWER, 0) * self._day[index].interval_s
        self._energy = (bought + max(0, added), sold - min(0, added))
        shown[ENERGY_IMPORT], shown[ENERGY_EXPORT] = (e // 3600 for e in self._energy)
        return shown

    # one method a kind

    def _scale(self, _: int, sample: Sample) -> Sample:
        sample[VOLTAGE] = round(sample[VOLTAGE] * (1 + self.falsehood.amount / 100))
        return sample

    def _offset(self, _: int, sample: Sample) -> Sample:
        sample[VOLTAGE] = max(0, sample[VOLTAGE] + round(self.falsehood.amount * 1000))
        return sample

    def _drift(self, index: int, sample: Sample) -> Sample:
        hours = (index - self.first + 1) * self._day[0].interval_s / 3600
        sample[VOLTAGE] = round(sample[VOLTAGE] * (1 + self.falsehood.amount / 100 * hours))
        return sample

    def _noise(self, _: int, sample: Sample) -> Sample:
        sigma_mv = round(sample[VOLTAGE] * self.falsehood.amount / 100)
        sample[VOLTAGE] = max(0, sample[VOLTAGE] + normal(self._rng, sigma_mv))
        return sample

    def _rounding(self, _: int, sample: Sample) -> Sample:
        step_mv = round(self.falsehood.amount * 1000)
        sample[VOLTAGE] = (sample[VOLTAGE] + step_mv // 2) // step_mv * step_mv
        return sample

    def _dropout(self, _: int, sample: Sample) -> Sample:
        if uniform(self._rng, 0, 99) >= self.falsehood.amount:
            return sample
        return sample | {VOLTAGE: 0, CURRENT: 0, ACTIVE_POWER: 0, REACTIVE_POWER: 0}

    def _freeze(self, _: int, sample: Sample) -> Sample:
        frozen = self._day[self.first].measured.get(self.name, sample)
        if self.falsehood.size == "voltage":
            return sample | {VOLTAGE: frozen[VOLTAGE]}
        return dict(frozen)

    def _replay(self, index: int, sample: Sample) -> Sample:
        back = max(1, round(self.falsehood.amount * 60 / self._day[0].interval_s))
        # the hour before the lie, over and over: a liar has no later values than those
        at = self.first - back + (index - self.first) % back
        return dict(self._day[max(0, at)].measured.get(self.name, sample))

    def _clock(self, _: int, sample: Sample) -> Sample:
        return sample

    def _phase(self, index: int, sample: Sample) -> Sample:
        other = self._day[index].measured.get(self._other or "", sample)
        return sample | {VOLTAGE: other[VOLTAGE], FREQUENCY: sample[FREQUENCY]}

    def _theft(self, _: int, sample: Sample) -> Sample:
        for quantity in (CURRENT, ACTIVE_POWER, REACTIVE_POWER):
            if quantity in sample:
                sample[quantity] = round(sample[quantity] * (1 - self.falsehood.amount / 100))
        return sample
