"""Falsehoods: sizes are read or refused by name, and registers go on with the power shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.enrich import ACTIVE_POWER, ENERGY_IMPORT, FREQUENCY, VOLTAGE, Round, samples
from hil.falsehoods import DEFAULTS, Falsehood, FalsehoodError, Liar, parse
from hil.traces import sample_day

FIRST = 200


@pytest.fixture(scope="module")
def day() -> list[Round]:
    return [row for row in samples(sample_day(), 3) if row.index < FIRST + 70]


def liar(day: list[Round], text: str, name: str = "S04") -> Liar:
    (falsehood,) = parse(text)
    return Liar(falsehood, name, FIRST, day, other="S12")


def test_all_stands_for_every_kind_once():
    found = parse("all")
    assert {one.kind for one in found} == set(DEFAULTS)
    assert len(found) == len(set(found)) == sum(len(sizes) for sizes in DEFAULTS.values())
    assert parse("all,scale:+2%") == found


def test_size_is_a_number_with_its_unit():
    assert parse("clock:-2h,offset:3V,drift:0.5%/h") == [
        Falsehood("clock", "-2h", -120),
        Falsehood("offset", "3V", 3),
        Falsehood("drift", "0.5%/h", 0.5),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no attack named"),
        ("scall", "'scall' is no attack: scale, offset,"),
        ("scale:2V", "scale:2V: give a number with its unit, such as scale:-10%"),
        ("scale:0%", "out of range"),
        ("freeze:half", "freeze:half: the sizes are all, voltage"),
        ("theft:101%", "out of range; give 0 to 100"),
    ],
)
def test_unknown_falsehood_is_refused_by_name(text, complaint):
    with pytest.raises(FalsehoodError, match=complaint.replace("(", r"\(")):
        parse(text)


@given(st.text(alphabet="scaleoffdrift:+-0123456789.%Vhmin/,", max_size=24) | st.text(max_size=12))
def test_any_text_is_falsehoods_or_one_error(text):
    try:
        found = parse(text)
    except FalsehoodError:
        return
    assert found
    assert all(one.kind in DEFAULTS for one in found)


@pytest.mark.parametrize("falsehood", parse("all"), ids=lambda one: one.label)
def test_registers_of_every_falsehood_count_the_power_shown(day, falsehood):
    if falsehood.kind == "collude":
        return  # several liars of another kind
    one = Liar(falsehood, "S04", FIRST, day, other="S12")
    before = day[FIRST - 1].measured["S04"][ENERGY_IMPORT]
    power = 0
    for index in range(FIRST, FIRST + 40):
        shown = one.show(index).sample
        assert shown is not None
        power += shown.get(ACTIVE_POWER, 0)
        assert abs(shown[ENERGY_IMPORT] - before - power * 60 // 3600) <= 1


def test_before_its_time_a_liar_is_honest(day):
    one = liar(day, "scale:+10%")
    shown = one.show(FIRST - 1)
    assert not shown.false
    assert shown.sample == day[FIRST - 1].measured["S04"]


def test_values_are_as_false_as_their_size_says(day):
    truth = day[FIRST + 30].measured["S04"]

    def voltage(text: str) -> int:
        one = liar(day, text)
        shown = [one.show(index).sample for index in range(FIRST, FIRST + 31)][-1]
        assert shown is not None
        return shown[VOLTAGE]

    assert voltage("scale:-2%") == round(truth[VOLTAGE] * 0.98)
    assert voltage("offset:+3V") == truth[VOLTAGE] + 3000
    assert voltage("drift:+1%/h") == round(truth[VOLTAGE] * (1 + 0.01 * 31 / 60))
    assert voltage("rounding:5V") % 5000 == 0
    assert voltage("dropout:100%") == 0
    assert voltage("theft:90%") == truth[VOLTAGE]
    assert voltage("phase:other") == day[FIRST + 30].measured["S12"][VOLTAGE]
    assert voltage("replay:1h") == day[FIRST - 30].measured["S04"][VOLTAGE]
    assert voltage("freeze:all") == day[FIRST].measured["S04"][VOLTAGE]


def test_frozen_voltage_keeps_the_grids_frequency(day):
    shown = liar(day, "freeze:voltage").show(FIRST + 9).sample
    assert shown is not None
    assert shown[FREQUENCY] == day[FIRST + 9].measured["S04"][FREQUENCY]


def test_clock_is_off_in_rounds(day):
    assert liar(day, "clock:-15min").show(FIRST).clock_rounds == -15
    assert liar(day, "clock:+1h").show(FIRST).clock_rounds == 60
