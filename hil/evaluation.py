"""How well the meters' judging does on a recording: honest meters left alone, false ones caught.

Each cluster is played once with honest meters through the whole recording. Trials begin from
copies of what its meters knew at some rounds of that play: there one meter (or several together)
turns false, and everybody judges on. Trials are drawn by seed and are the same for every
falsehood, so that sizes can be compared. All clusters can be worked on at once; the result does
not depend on it.

Left out: what ``hil.neighbourhood`` leaves out, and lost messages.
"""

import pickle
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import comb
from random import Random

from hil.clusters import MAX_SIZE, MIN_SIZE, Cluster, split_clusters
from hil.enrich import Errors, Round, samples
from hil.falsehoods import COLLUDE, Falsehood, Liar
from hil.neighbourhood import Neighbourhood, Settled, Shown, address_of
from hil.noise import stream, uniform
from hil.traces import Recording
from ledger.protocol import committee, records, tally

_OPEN_ROUNDS = 8
_CONSPIRED = Falsehood("scale", "+3%", 3.0)
_OFFLINE_TERM = 32  # rounds after which others are offline


@dataclass(frozen=True)
class Plan:
    """What is evaluated; shares are 0 to 1, ``rounds`` is how long each trial goes on.

    ``learning`` is for how many rounds all meters are honest before a trial; with 0 falsehoods are
    there from the first round on. ``first`` and ``last`` bound the rows of the recording.
    """

    recording: Recording
    falsehoods: tuple[Falsehood, ...] = ()
    trials: int = 20
    learning: int = 480
    rounds: int = 60
    seed: int = 1
    errors: Errors = field(default_factory=Errors)
    cluster_size: int = MAX_SIZE
    seats: int = 11
    offline: float = 0.0
    last: int | None = None

    @property
    def end(self) -> int:
        """The row behind the last one that is played."""
        return self.recording.rounds if self.last is None else self.last


@dataclass
class Honest:
    """What became of the readings of honest meters, all present unless the plan says otherwise."""

    readings: int = 0
    false_rejections: int = 0
    unconfirmed: int = 0

    def take(self, outcome: int) -> None:
        """Count a reading's outcome."""
        self.readings += 1
        self.false_rejections += outcome == tally.REJECTED
        self.unconfirmed += outcome == tally.UNCONFIRMED

    def add(self, other: "Honest") -> None:
        """Add another's counts."""
        self.readings += other.readings
        self.false_rejections += other.false_rejections
        self.unconfirmed += other.unconfirmed


@dataclass
class Score:
    """What became of one falsehood in all trials.

    ``first`` has, for each false meter that was caught, the number of its first rejected reading
    among its false ones: 1 is the very first. ``reasons`` counts the verdicts that rejected.
    """

    falsehood: Falsehood
    meters: int = 0
    readings: int = 0
    rejected: int = 0
    accepted: int = 0
    first: list[int] = field(default_factory=list)
    reasons: Counter[int] = field(default_factory=Counter)
    seats: int = 0
    others: Honest = field(default_factory=Honest)

    def caught(self, within: int | None = None) -> int:
        """Give how many meters were caught, within so many false readings."""
        return sum(within is None or first <= within for first in self.first)

    def add(self, other: "Score") -> None:
        """Add another's counts."""
        self.meters += other.meters
        self.readings += other.readings
        self.rejected += other.rejected
        self.accepted += other.accepted
        self.first += other.first
        self.reasons += other.reasons
        self.seats += other.seats
        self.others.add(other.others)

    @property
    def could_know(self) -> str:
        """Who could have known, by which values of the readings were untrue."""
        if self.falsehood.kind == "theft":
            return "only a meter at the feeder's head: voltage, frequency and time are true"
        by_frequency = self.falsehood.kind in ("replay", "clock")
        if by_frequency or (self.falsehood.kind, self.falsehood.size) == ("freeze", "all"):
            return "every meter of the grid, by frequency; neighbours on the feeder, by voltage too"
        return "neighbours on the feeder, by voltage"

    def as_json(self) -> dict[str, object]:
        """Give the figures for machines."""
        names = {
            code: records.VERDICT_NAMES[code].removeprefix("reject: ") for code in self.reasons
        }
        return {
            "kind": self.falsehood.kind,
            "size": self.falsehood.size,
            "meters": self.meters,
            "meters_caught": self.caught(),
            "meters_caught_within_10": self.caught(10),
            "readings": self.readings,
            "rejected": self.rejected,
            "accepted": self.accepted,
            "rounds_to_first_rejection_median": statistics.median(self.first)
            if self.first
            else None,
            "votes_against_by_reason": {names[code]: n for code, n in sorted(self.reasons.items())},
            "votes_asked": self.seats,
            "honest_neighbours": vars(self.others),
            "could_know": self.could_know,
        }


@dataclass
class Result:
    """Honest meters' figures and a score for each falsehood, in the plan's order."""

    honest: Honest
    scores: list[Score]

    def as_json(self) -> dict[str, object]:
        """Give the figures for machines."""
        return {"honest": vars(self.honest), "attacks": [score.as_json() for score in self.scores]}


@dataclass(frozen=True)
class Trial:
    """Which meter turns false at which row."""

    meter: str
    start: int


@dataclass(frozen=True)
class Task:
    """One cluster's part of a plan; picklable."""

    plan: Plan
    cluster: Cluster
    others: tuple[tuple[str, str], ...]
    trials: tuple[Trial, ...]

    @property
    def steps(self) -> int:
        """How many rounds are played in all, for a progress line."""
        trials = len(self.trials) * len(self.plan.falsehoods)
        return self.plan.end + trials * self.plan.rounds


Progress = Callable[[int], None]


def make_tasks(plan: Plan) -> list[Task]:
    """Split a plan by clusters and draw its trials; raises ValueError where they do not fit."""
    if plan.falsehoods and plan.learning + plan.rounds + 1 > plan.end:
        raise ValueError(
            f"{plan.learning} rounds of learning and {plan.rounds} of falsehood do not fit into "
            f"{plan.end} rows"
        )
    smallest = min(MIN_SIZE, max(1, (plan.cluster_size + 1) // 2))
    clusters = split_clusters(plan.recording.meters, plan.cluster_size, smallest)
    rng = stream(f"gridwitness/{plan.seed}/trials")
    names = [name for cluster in clusters for name in cluster.meters]
    drawn = [
        Trial(names[uniform(rng, 0, len(names) - 1)], _draw_start(plan, rng))
        for _ in range(plan.trials if plan.falsehoods else 0)
    ]
    phases = {meter.name: meter.phase for meter in plan.recording.meters}
    return [
        Task(
            plan,
            cluster,
            _others(cluster, names, phases),
            tuple(trial for trial in drawn if trial.meter in cluster.meters),
        )
        for cluster in clusters
    ]


def _draw_start(plan: Plan, rng: Random) -> int:
    last = plan.end - plan.rounds - 1
    return uniform(rng, plan.learning, last) if plan.learning else 0


def capture_rate(meters: int, bad: int, seats: int, draws: int, seed: int) -> tuple[float, float]:
    """Give how often ``bad`` of ``meters`` meters outvote a committee: drawn, and by the formula.

    Committees are drawn as the chain draws them, for a new term and meter each time; the bad ones
    accept, all others reject. The formula is P = sum over i >= t of C(m,i) C(N-m,v-i) / C(N,v),
    with N candidates of which m are bad, v seats and t = v/2 + 1 rounded down: the hypergeometric
    tail.
    """
    addresses = [address_of(f"{seed}/{i}") for i in range(meters + 1)]
    judged, candidates = addresses[0], addresses[1:]
    gang = set(candidates[:bad])
    captured = 0
    for term in range(draws):
        drawn = committee.draw(bytes(32), term, judged, candidates, seats)
        accepts = sum(voter in gang for voter in drawn)
        captured += tally.outcome(len(drawn), accepts, len(drawn) - accepts) == tally.ACCEPTED
    size = committee.seats(seats, meters)
    ways = sum(comb(bad, i) * comb(meters - bad, size - i) for i in range(size // 2 + 1, size + 1))
    return captured / draws, ways / comb(meters, size)


def _others(
    cluster: Cluster, names: Sequence[str], phases: dict[str, str | None]
) -> tuple[tuple[str, str], ...]:
    """Give each meter one on another phase, the same distance into the list of its own phase."""
    found = []
    for i, name in enumerate(cluster.meters):
        strangers = [n for n in names if phases[n] != phases[name]]
        if strangers:
            found.append((name, strangers[i * len(strangers) // len(cluster.meters)]))
    return tuple(found)


def run_task(task: Task, progress: Progress = lambda _: None) -> Result:
    """Play one cluster, honest and with every falsehood."""
    day = rounds_of(task)
    honest = Honest()
    starts = {trial.start for trial in task.trials}
    kept: dict[int, bytes] = {}
    step_s, seats = task.plan.recording.step_s, task.plan.seats
    neighbourhood = Neighbourhood(task.cluster.meters, step_s, seats=seats)
    for row in day:
        if row.index in starts:
            kept[row.index] = pickle.dumps(neighbourhood)
        present = _present(task, row)
        for settled in neighbourhood.play(row.index, row.time_s, present):
            honest.take(settled.outcome)
        progress(1)
    scores = []
    for falsehood in task.plan.falsehoods:
        score = Score(falsehood)
        for trial in task.trials:
            score.add(_try(task, day, falsehood, trial, kept[trial.start]))
            progress(task.plan.rounds)
        scores.append(score)
    return Result(honest, scores)


def merge(plan: Plan, results: Sequence[Result]) -> Result:
    """Add up the clusters' results."""
    honest = Honest()
    scores = [Score(falsehood) for falsehood in plan.falsehoods]
    for result in results:
        honest.add(result.honest)
        for score, part in zip(scores, result.scores, strict=True):
            score.add(part)
    return Result(honest, scores)


def evaluate(plan: Plan, progress: Progress = lambda _: None) -> Result:
    """Run a plan in this process; raises ValueError where its rounds do not fit."""
    return merge(plan, [run_task(task, progress) for task in make_tasks(plan)])


def rounds_of(task: Task) -> list[Round]:
    """Give the rounds of the cluster's meters and of those that stand in for other phases."""
    wanted = {*task.cluster.meters, *(other for _, other in task.others)}
    recording = task.plan.recording
    columns = [i for i, meter in enumerate(recording.meters) if meter.name in wanted]

    def cut(rows: Sequence[Sequence[int | None]]) -> tuple[tuple[int | None, ...], ...]:
        return tuple(tuple(row[i] for i in columns) for row in rows[: task.plan.end])

    part = replace(
        recording,
        meters=tuple(recording.meters[i] for i in columns),
        voltage_mv=cut(recording.voltage_mv),
        power_mw=cut(recording.power_mw),
        reactive_mvar=None if recording.reactive_mvar is None else cut(recording.reactive_mvar),
        busbar=None,
    )
    return list(samples(part, task.plan.seed, task.plan.errors))


def _present(task: Task, row: Round) -> dict[str, Shown]:
    """Give what is shown by those that are online: others in every term of 32 rounds."""
    shown = {}
    for name in task.cluster.meters:
        if task.plan.offline:
            term = row.index // _OFFLINE_TERM
            rng = stream(f"gridwitness/{task.plan.seed}/offline/{name}/{term}")
            if uniform(rng, 0, 999) < task.plan.offline * 1000:
                continue
        shown[name] = Shown(row.measured.get(name), 0, false=False)
    return shown


def _try(task: Task, day: list[Round], falsehood: Falsehood, trial: Trial, kept: bytes) -> Score:
    """Play one trial from a copy of what the meters knew."""
    score = Score(falsehood)
    liars = _liars(task, day, falsehood, trial)
    neighbourhood: Neighbourhood = pickle.loads(kept)  # noqa: S301 - made by run_task above
    if falsehood.kind == COLLUDE:
        neighbourhood.conspire(liars)
    found: dict[str, list[Settled]] = {name: [] for name in liars}
    for settled in _play(task, day, neighbourhood, liars, trial):
        if settled.false:
            found[settled.meter].append(settled)
        elif settled.played >= trial.start:
            score.others.take(settled.outcome)
    for mine in found.values():
        _count(score, mine)
    return score


def _liars(task: Task, day: list[Round], falsehood: Falsehood, trial: Trial) -> dict[str, Liar]:
    seed, others = task.plan.seed, dict(task.others)
    if falsehood.kind != COLLUDE:
        other = others.get(trial.meter)
        return {trial.meter: Liar(falsehood, trial.meter, trial.start, day, other=other, seed=seed)}
    names = task.cluster.meters
    count = round(falsehood.amount / 100 * len(names))
    first = names.index(trial.meter)
    gang = [names[(first + i) % len(names)] for i in range(count)]
    return {name: Liar(_CONSPIRED, name, trial.start, day, seed=seed) for name in gang}


def _play(
    task: Task,
    day: list[Round],
    neighbourhood: Neighbourhood,
    liars: dict[str, Liar],
    trial: Trial,
) -> Iterator[Settled]:
    """Give what is settled of a trial's rounds, and of those after that a fast clock reaches."""
    end = trial.start + task.plan.rounds
    ahead = max((liar.clock_rounds for liar in liars.values()), default=0)
    late = max(0, ahead) + _OPEN_ROUNDS + 1
    for row in day[trial.start : end + late]:
        shown = _present(task, row)
        for name, liar in liars.items():
            shown.pop(name, None)
            if row.index < end:
                shown[name] = liar.show(row.index)
        for settled in neighbourhood.play(row.index, row.time_s, shown):
            if settled.played < end:
                yield settled


def _count(score: Score, settled: list[Settled]) -> None:
    """Count what became of one meter's false readings."""
    if not settled:
        return
    settled.sort(key=lambda one: one.played)
    score.meters += 1
    score.readings += len(settled)
    score.accepted += sum(one.outcome == tally.ACCEPTED for one in settled)
    rejected = 0
    for number, one in enumerate(settled, start=1):
        score.seats += one.seats
        score.reasons.update(verdict for verdict in one.verdicts if records.is_reject(verdict))
        if one.outcome == tally.REJECTED:
            if not rejected:
                score.first.append(number)
            rejected += 1
    score.rejected += rejected
