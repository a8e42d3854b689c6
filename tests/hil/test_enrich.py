"""What the rig adds to a recording: the same for one seed, consistent, and marked as made."""

import hashlib
import itertools
import json
import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil import enrich
from hil.enrich import Errors, Round, grid_frequency_mhz, samples, simulated_quantities
from hil.traces import Busbar, Meter, Recording, sample_day
from ledger.protocol import quantities

SEED = 7
DAY = sample_day()
# SHA-256 of the first 100 rounds as the test below writes them; changes with the sample day.
PINNED = "68491d937bfcb9495e20b42afa1ae3f9dc6b3f24318a0a3be4031422838319f6"


def recording(
    power_mw: list[int | None], voltage_mv: list[int | None] | None = None, step_s: int = 60
) -> Recording:
    """One meter, M1, with these powers; 230 V where no voltages are given."""
    if voltage_mv is None:
        voltage_mv = [230_000] * len(power_mw)
    return Recording(
        name="one",
        meters=(Meter("M1", "1", "L1", 10.0),),
        start_s=1_465_171_200,
        step_s=step_s,
        voltage_mv=tuple((mv,) for mv in voltage_mv),
        power_mw=tuple((mw,) for mw in power_mw),
    )


@pytest.fixture(scope="module")
def day() -> list[Round]:
    return list(samples(DAY, SEED))


# -- one seed, one result ---------------------------------------------------------------------


def test_same_seed_gives_the_same_rounds(day: list[Round]) -> None:
    assert list(itertools.islice(samples(DAY, SEED), 50)) == day[:50]
    assert list(itertools.islice(samples(DAY, SEED + 1), 50)) != day[:50]


def test_numbers_are_those_of_every_machine(day: list[Round]) -> None:
    text = json.dumps([[each.measured, each.true, each.head] for each in day[:100]], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == PINNED


def test_meter_keeps_its_numbers_when_others_leave(day: list[Round]) -> None:
    kept = replace(
        DAY,
        meters=DAY.meters[5:6],
        voltage_mv=tuple(row[5:6] for row in DAY.voltage_mv),
        power_mw=tuple(row[5:6] for row in DAY.power_mw),
    )
    name = DAY.meters[5].name
    for alone, together in zip(samples(kept, SEED), day[:200], strict=False):
        assert alone.measured[name] == together.measured[name]


def test_gap_in_a_recording_does_not_change_the_noise_after_it() -> None:
    whole = list(samples(recording([5_000] * 6), SEED))
    holed = list(samples(recording([5_000, None, 5_000, None, 5_000, 5_000]), SEED))
    silent = [5_000, None, 5_000, 5_000, 5_000, 5_000]
    quiet = list(
        samples(recording(silent, [None if mw is None else 230_000 for mw in silent]), SEED)
    )
    for a, b in ((whole, holed), (whole, quiet)):
        assert a[5].measured["M1"]["voltage"] == b[5].measured["M1"]["voltage"]
        assert a[5].measured["M1"]["frequency"] == b[5].measured["M1"]["frequency"]


# -- form -------------------------------------------------------------------------------------


def test_every_quantity_is_one_of_the_protocol_and_in_its_range(day: list[Round]) -> None:
    codes = {row.name: row.code for row in quantities.TABLE}
    assert set(enrich.QUANTITIES) == set(codes)
    for each in day[::60]:
        assert each.head is not None
        for sample in (*each.measured.values(), *each.true.values(), each.head):
            assert set(sample) == set(codes)
            for name, value in sample.items():
                assert type(value) is int
                assert quantities.in_range(codes[name], value)


def test_time_is_the_start_of_the_interval(day: list[Round]) -> None:
    assert [each.index for each in day] == list(range(1440))
    assert [each.time_s for each in day] == [1_465_171_200 + 60 * i for i in range(1440)]
    assert {each.interval_s for each in day} == {60}


def test_made_quantities_are_named() -> None:
    assert simulated_quantities(DAY) == {
        "current", "reactive power", "frequency", "energy import", "energy export",
    }  # fmt: skip
    with_reactive = replace(DAY, reactive_mvar=DAY.power_mw)
    assert "reactive power" not in simulated_quantities(with_reactive)


# -- registers --------------------------------------------------------------------------------


@given(st.lists(st.none() | st.integers(-20_000_000, 20_000_000), min_size=2, max_size=40),
       st.sampled_from([1, 7, 60, 900]))  # fmt: skip
def test_registers_are_power_times_interval_to_the_last_unit(
    power_mw: list[int | None], step_s: int
) -> None:
    rounds = list(samples(recording(power_mw, step_s=step_s), SEED))
    start = enrich._Meter("M1", SEED, Errors())._import_mws
    into = out = 0
    for each, mw in zip(rounds, power_mw, strict=True):
        into += max(0, mw or 0) * step_s
        out += max(0, -(mw or 0)) * step_s
        assert each.measured["M1"]["energy import"] == (start + into) // 3600
        assert each.true["M1"]["energy export"] == out // 3600


def test_registers_never_run_back(day: list[Round]) -> None:
    for before, after in itertools.pairwise(day):
        for name, sample in after.measured.items():
            for register in ("energy import", "energy export"):
                assert sample[register] >= before.measured[name][register]


def test_register_moves_by_the_power_of_its_own_round() -> None:
    rounds = list(samples(recording([0, 6_000_000, 0, -3_000_000]), SEED))
    into = [each.true["M1"]["energy import"] for each in rounds]
    out = [each.true["M1"]["energy export"] for each in rounds]
    assert [value - into[0] for value in into] == [0, 100_000, 100_000, 100_000]
    assert out == [0, 0, 0, 50_000]


def test_start_values_differ_by_meter_and_leave_room(day: list[Round]) -> None:
    first = [sample["energy import"] for sample in day[0].measured.values()]
    assert len(set(first)) == 24
    limit = next(row.high for row in quantities.TABLE if row.name == "energy import")
    assert max(first) < limit // 100


# -- power, current ---------------------------------------------------------------------------


@pytest.mark.parametrize("power_mw", [1_000_000, -1_000_000, 0])
def test_reactive_power_is_inductive_at_the_power_factor(power_mw: int) -> None:
    (sample,) = next(samples(recording([power_mw, 0]), SEED)).true.values()
    assert sample["active power"] == power_mw
    wanted = abs(power_mw) * math.tan(math.acos(0.95))
    assert abs(sample["reactive power"] - wanted) <= 1


def test_recorded_reactive_power_is_kept() -> None:
    base = recording([1_000_000, 1_000_000])
    base = replace(base, reactive_mvar=((-250_000,), (None,)))
    first, second = samples(base, SEED)
    assert first.measured["M1"]["reactive power"] == -250_000
    assert "reactive power" not in second.measured["M1"]
    assert "current" not in second.measured["M1"]


def test_current_is_apparent_power_over_voltage(day: list[Round]) -> None:
    for each in day[::97]:
        for sample in each.measured.values():
            apparent = math.hypot(sample["active power"], sample["reactive power"])
            assert abs(sample["current"] - apparent / sample["voltage"] * 1000) <= 0.51


def test_recorded_power_has_no_error(day: list[Round]) -> None:
    for row, each in zip(DAY.power_mw, day, strict=True):
        assert tuple(sample["active power"] for sample in each.measured.values()) == row


# -- voltage ----------------------------------------------------------------------------------


def test_true_voltage_is_the_recorded_one(day: list[Round]) -> None:
    for row, each in zip(DAY.voltage_mv, day, strict=True):
        assert tuple(sample["voltage"] for sample in each.true.values()) == row


def test_voltage_error_is_a_fixed_gain_and_white_noise(day: list[Round]) -> None:
    means = []
    for name in day[0].measured:
        error = [each.measured[name]["voltage"] - each.true[name]["voltage"] for each in day]
        means.append(statistics.mean(error) / 230_000)
        # White noise of 50 mV; gain times the day's few volts and 10 mV steps add little.
        assert 45 < statistics.pstdev(error) < 56
    assert max(map(abs, means)) < 0.0022
    assert max(means) - min(means) > 0.001, "meters differ"


@pytest.mark.parametrize("step_mv", [1, 10, 100])
def test_voltage_is_shown_in_its_resolution(step_mv: int) -> None:
    rounds = itertools.islice(samples(DAY, SEED, Errors(voltage_step_mv=step_mv)), 20)
    shown = [sample["voltage"] for each in rounds for sample in each.measured.values()]
    assert all(mv % step_mv == 0 for mv in shown)
    assert step_mv == 100 or any(mv % 100 for mv in shown)


def test_no_errors_shows_the_truth() -> None:
    for each in itertools.islice(samples(DAY, SEED, enrich.NO_ERRORS), 100):
        assert each.measured == each.true


def test_dead_phase_shows_zero_and_no_negative_voltage() -> None:
    rounds = list(samples(recording([0] * 50, [0] * 50), SEED))
    assert all(each.measured["M1"]["voltage"] >= 0 for each in rounds)
    assert all("current" not in each.true["M1"] for each in rounds)


# -- frequency --------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [10, 60, 900])
def test_frequency_spreads_by_18_mhz_around_50_hz_at_any_step(step_s: int) -> None:
    values = list(itertools.islice(grid_frequency_mhz(step_s, SEED), 4000))
    assert abs(statistics.mean(values) - 50_000) < 4
    assert 15 < statistics.pstdev(values) < 20
    assert 49_880 < min(values)
    assert max(values) < 50_120


def test_frequency_is_smooth_within_its_time_constant() -> None:
    values = list(itertools.islice(grid_frequency_mhz(60, SEED), 4000))
    changes = [b - a for a, b in itertools.pairwise(values)]
    # Correlation e^(-60/300) over a step: changes have sqrt(2 (1 - 0.82)) of the spread.
    assert 0.5 < statistics.pstdev(changes) / statistics.pstdev(values) < 0.7
    later = [b - a for a, b in zip(values, values[30:], strict=False)]
    assert statistics.pstdev(later) > 1.3 * statistics.pstdev(values)


def test_all_meters_see_one_frequency_within_a_few_mhz(day: list[Round]) -> None:
    spreads = []
    for each in day:
        assert len({sample["frequency"] for sample in each.true.values()}) == 1
        true_mhz = next(iter(each.true.values()))["frequency"]
        errors = [abs(sample["frequency"] - true_mhz) for sample in each.measured.values()]
        assert max(errors) < 20
        spreads.append(max(errors))
    assert statistics.mean(spreads) > 1, "meters are not perfect"


# -- gaps and head end ------------------------------------------------------------------------


def test_missing_cell_is_absent_and_never_zero() -> None:
    first, second, third = samples(recording([1_000, None, 1_000], [230_000, 230_000, None]), SEED)
    assert set(first.measured["M1"]) == set(enrich.QUANTITIES)
    gone = {"active power", "reactive power", "current"}
    assert set(second.measured["M1"]) == set(enrich.QUANTITIES) - gone
    assert set(third.true["M1"]) == set(enrich.QUANTITIES) - {"voltage", "current"}


def test_meter_without_voltage_and_power_is_silent_and_its_register_waits() -> None:
    rounds = list(samples(recording([60_000, None, 60_000], [230_000, None, 230_000]), SEED))
    assert dict(rounds[1].measured) == dict(rounds[1].true) == {}
    first, last = rounds[0].true["M1"], rounds[2].true["M1"]
    assert last["energy import"] - first["energy import"] == 1_000


def test_head_end_shows_mean_voltage_and_recorded_power(day: list[Round]) -> None:
    assert DAY.busbar is not None
    for row, each in zip(DAY.busbar, day, strict=True):
        assert each.head is not None
        assert row.voltage_mv is not None
        assert abs(each.head["voltage"] - sum(filter(None, row.voltage_mv)) / 3) <= 0.5
        assert each.head["active power"] == row.power_mw
        assert each.head["reactive power"] == row.reactive_mvar


def test_recording_without_head_end_has_none() -> None:
    base = recording([1_000, 1_000])
    assert all(each.head is None for each in samples(base, SEED))
    empty = Busbar((None, None, None), None, None, None)
    rounds = samples(replace(base, busbar=(empty, Busbar(None, 5_000, None, None))), SEED)
    first, second = (each.head for each in rounds)
    assert first is None
    assert second is not None
    assert set(second) == {"active power", "frequency", "energy import", "energy export"}


@pytest.mark.parametrize(
    "fields",
    [
        {"voltage_step_mv": 0},
        {"power_factor_permille": 0},
        {"power_factor_permille": 1001},
        {"grid_time_s": 9},
        {"voltage_gain_ppm": -1},
        {"voltage_gain_ppm": 1_000_000},
        {"frequency_noise_uhz": (3, 1)},
    ],
)
def test_impossible_errors_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"resolution|permille|grid_time_s|0 or more"):
        Errors(**fields)  # type: ignore[arg-type]
