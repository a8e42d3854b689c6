"""What other bounds would do: one voter's measure of disagreement, honest against false.

The measure is that of firmware.meter.voltage: the rest in parts of what is rejected at once, or
the sum in parts of what is rejected then, whichever is larger; above 1 the meter rejects. For a
bound of any other height, the share of honest readings above it and the share of false meters
above it within ten rounds are two coordinates of a ROC curve.

Left out: that other bounds would also teach the voter otherwise; the frequency, whose bound has no
part in this.
"""

import pickle
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from firmware.meter.checks import ORDER
from firmware.meter.history import Values
from firmware.meter.voltage import SUM_SLACKS, VoltageAgreement, at_once_mv, slack_mv
from firmware.meter.voter import Voter
from hil.enrich import Round, Sample
from hil.evaluation import Plan, Task, make_tasks, rounds_of
from hil.falsehoods import Falsehood, Liar
from hil.neighbourhood import CHAIN, address_of
from ledger.protocol import quantities, records

WITHIN = 10
_CODES = {row.name: row.code for row in quantities.TABLE}
(_SUM_RULE,) = (i for i, rule in enumerate(ORDER) if isinstance(rule, VoltageAgreement))


@dataclass(frozen=True)
class Curve:
    """One falsehood's curve: (share of honest readings, share of false meters) above a bound."""

    falsehood: Falsehood
    points: list[tuple[float, float]]
    at_bound: tuple[float, float]


class _Watcher:
    """The first meter of a cluster, and how much it disagrees with each of the others."""

    def __init__(self, names: Sequence[str], round_s: int) -> None:
        self.names, self._round_s = names, round_s
        self._voter = Voter(CHAIN, round_s, [address_of(name) for name in names[1:]])
        self._seq = 0
        self._previous = dict.fromkeys(names, records.NO_DIGEST)

    def play(self, row: Round, shown: Mapping[str, Sample]) -> Iterator[tuple[str, float]]:
        """Judge a round; gives (meter, measure) for each neighbour whose measure is known."""
        self._seq += 1
        made = {}
        for name in self.names:
            pairs = sorted((_CODES[key], value) for key, value in shown[name].items())
            where = (CHAIN, 1, self._seq, row.time_s, self._round_s, 0, 0, self._previous[name])
            made[name] = records.Reading(*where, pairs)
            self._previous[name] = sha256(name.encode() + made[name].payload()).digest()
        self._voter.open_round(made[self.names[0]])
        for name in self.names[1:]:
            self._voter.take(address_of(name), made[name], self._previous[name])
        self._voter.vote(bytes(32))
        for name in self.names[1:]:
            measure = self._measure(name, made[name], row.time_s // self._round_s)
            if measure is not None:
                yield name, measure

    def _measure(self, name: str, reading: records.Reading, round_: int) -> float | None:
        profile = self._voter.profile(address_of(name))
        feeder, slot, values = profile.feeder, profile.slot, Values(reading.values)
        assert feeder is not None
        assert values.voltage is not None
        rest = feeder.rest(slot, round_, values.voltage, values.current)
        if rest is None:
            return None
        nominal = values.voltage - rest
        total: float = abs(profile.cells[_SUM_RULE][0]) / (
            SUM_SLACKS * slack_mv(feeder, slot, nominal)
        )
        return max(abs(rest) / at_once_mv(feeder, slot, nominal), total)


def curves(plan: Plan) -> list[Curve]:
    """Give a curve for each falsehood of the plan."""
    honest: list[float] = []
    caught: dict[Falsehood, list[float]] = {falsehood: [] for falsehood in plan.falsehoods}
    for task in make_tasks(plan):
        _run(task, honest, caught)
    honest.sort()
    return [_curve(falsehood, honest, most) for falsehood, most in caught.items()]


def _run(task: Task, honest: list[float], caught: dict[Falsehood, list[float]]) -> None:
    day = rounds_of(task)
    names = task.cluster.meters
    watcher = _Watcher(names, task.plan.recording.step_s)
    kept: dict[int, bytes] = {}
    starts = {trial.start for trial in task.trials}
    for row in day:
        if row.index in starts:
            kept[row.index] = pickle.dumps(watcher)
        found = list(watcher.play(row, row.measured))
        if row.index >= task.plan.learning:
            honest += [measure for _, measure in found]
    for trial in task.trials:
        if trial.meter == names[0]:
            continue  # the watcher does not judge itself
        for falsehood, most in caught.items():
            again: _Watcher = pickle.loads(kept[trial.start])  # noqa: S301 - made above
            liar = Liar(falsehood, trial.meter, trial.start, day)
            largest = 0.0
            for row in day[trial.start : trial.start + WITHIN]:
                sample = liar.show(row.index).sample
                assert sample is not None
                shown = {**row.measured, trial.meter: sample}
                largest = max(largest, *(m for n, m in again.play(row, shown) if n == trial.meter))
            most.append(largest)


def _curve(falsehood: Falsehood, honest: list[float], caught: list[float]) -> Curve:
    """Walk the bound from high to low; ``honest`` is in rising order."""

    def above(bound: float) -> tuple[float, float]:
        wrong = len(honest) - bisect_right(honest, bound)
        return wrong / len(honest), sum(measure > bound for measure in caught) / len(caught)

    bounds = sorted({0.02 * 1.15**i for i in range(50)}, reverse=True)
    return Curve(falsehood, [above(bound) for bound in bounds], above(1.0))
