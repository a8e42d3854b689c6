"""Evaluation: deterministic, whole, and true to what the plan says."""

from dataclasses import replace

import pytest

from hil import evaluation, roc
from hil.evaluation import Plan, Score
from hil.falsehoods import parse
from hil.traces import sample_day


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(
        sample_day(),
        tuple(parse("scale:+10%,theft:90%,collude:30%")),
        trials=3,
        learning=60,
        rounds=12,
        seed=2,
        last=110,
    )


@pytest.fixture(scope="module")
def result(plan: Plan) -> evaluation.Result:
    return evaluation.evaluate(plan)


def test_every_honest_reading_is_counted_once(plan, result):
    assert result.honest.readings == 24 * 110
    assert result.honest.false_rejections == 0
    assert result.honest.unconfirmed == 0


def test_gross_error_is_caught_at_once_and_hidden_power_never(result):
    scale, theft, _ = result.scores
    assert (scale.meters, scale.caught(), scale.rejected) == (3, 3, scale.readings)
    assert scale.first == [1, 1, 1]
    assert theft.caught() == 0
    assert theft.accepted == theft.readings
    assert "only a meter at the feeder's head" in theft.could_know
    assert "voltage" in scale.could_know


def test_three_of_ten_that_conspire_are_caught_all(result):
    gang = result.scores[2]
    assert gang.meters > 3
    assert gang.caught() == gang.meters
    assert gang.others.false_rejections == 0


def test_figures_for_machines_have_the_promised_names(result):
    figures = result.as_json()
    assert set(figures) == {"honest", "attacks"}
    assert set(figures["honest"]) == {"readings", "false_rejections", "unconfirmed"}
    first = figures["attacks"][0]
    promised = {"kind", "size", "meters", "meters_caught", "readings", "rejected"}
    assert promised | {"rounds_to_first_rejection_median"} <= set(first)
    assert (first["kind"], first["size"], first["meters_caught"]) == ("scale", "+10%", 3)
    assert first["readings"] == first["rejected"] == 3 * 12


def test_tasks_can_run_in_any_order(plan, result):
    tasks = evaluation.make_tasks(plan)
    assert len(tasks) > 1
    parts = {id(task): evaluation.run_task(task) for task in reversed(tasks)}
    again = evaluation.merge(plan, [parts[id(task)] for task in tasks])
    assert again.as_json() == result.as_json()


def test_progress_counts_what_was_announced(plan):
    small = replace(plan, falsehoods=plan.falsehoods[:1], trials=1)
    for task in evaluation.make_tasks(small):
        counted: list[int] = []
        evaluation.run_task(task, counted.append)
        assert sum(counted) == task.steps


def test_other_seed_draws_other_trials(plan):
    def trials(seed: int) -> list[evaluation.Trial]:
        tasks = evaluation.make_tasks(replace(plan, seed=seed))
        return [trial for task in tasks for trial in task.trials]

    assert trials(2) == trials(2)
    assert trials(2) != trials(3)


def test_falsehood_from_the_start_needs_no_learning(plan):
    first = replace(plan, learning=0, trials=2, falsehoods=plan.falsehoods[:1])
    assert all(trial.start == 0 for task in evaluation.make_tasks(first) for trial in task.trials)


def test_offline_meters_leave_readings_unconfirmed(plan):
    few = replace(plan, falsehoods=(), offline=0.6, last=48)
    honest = evaluation.evaluate(few).honest
    assert honest.readings < 24 * 48
    assert honest.unconfirmed > 0
    assert honest.false_rejections == 0


def test_rounds_that_do_not_fit_are_refused(plan):
    with pytest.raises(ValueError, match="do not fit into 110 rows"):
        evaluation.make_tasks(replace(plan, learning=100))


def test_caught_within_counts_from_the_first_false_reading():
    score = Score(parse("freeze")[0], meters=3, first=[1, 10, 11])
    assert [score.caught(n) for n in (1, 9, 10, 11, None)] == [1, 1, 2, 3, 3]


@pytest.mark.parametrize(("meters", "bad", "seats"), [(100, 20, 11), (60, 24, 7), (12, 5, 11)])
def test_drawn_committees_are_captured_as_often_as_the_formula_says(meters, bad, seats):
    drawn, formula = evaluation.capture_rate(meters, bad, seats, draws=4000, seed=3)
    # a binomial count lies within four standard deviations of its mean
    assert abs(drawn - formula) <= 4 * (formula * (1 - formula) / 4000) ** 0.5


def test_formula_gives_the_figure_of_the_design():
    _, formula = evaluation.capture_rate(100, 20, 11, draws=1, seed=1)
    assert round(formula, 4) == 0.0075


def test_curves_rise_from_no_false_alarm_to_all(plan):
    few = replace(plan, falsehoods=tuple(parse("scale:+5%,scale:+0.1%")), trials=6, learning=64)
    gross, small = roc.curves(few)
    for curve in (gross, small):
        assert curve.points == sorted(curve.points)
    assert gross.at_bound == (0.0, 1.0)
    assert small.at_bound[1] < 1.0
