"""docs/judging.md has the tables that ``make evaluate`` writes, with the columns that it gives."""

import re

import pytest

from tools import evaluate, judging
from tools.errors import CommandError

NAMES = {
    "honest": judging.HONEST,
    "targets": judging.ATTACKS,
    "others": judging.ATTACKS,
    "worse": judging.ATTACKS,
    "sample": judging.ATTACKS,
    "from start": judging.ATTACKS,
    "offline": judging.OFFLINE,
    "capture": judging.CAPTURE,
}


def content(name: str) -> list[str]:
    page = judging.PAGE.read_text("utf-8")
    found = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    assert found is not None, name
    return found[1].splitlines()


def test_page_has_a_place_for_each_table_once():
    assert sorted(judging.places(judging.PAGE.read_text("utf-8"))) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_table_of_the_page_has_the_columns_of_the_command(name):
    header, rule, *rows = content(name)
    assert header == judging.table(NAMES[name], []).splitlines()[0]
    assert rule == judging.table(NAMES[name], []).splitlines()[1]
    assert rows
    assert {row.count("|") for row in rows} == {header.count("|")}


@pytest.mark.parametrize(
    ("name", "attacks"),
    [("targets", judging.TARGETS), ("others", judging.OTHERS), ("from start", judging.FROM_START)],
)
def test_rows_of_the_page_are_the_attacks_of_the_command(name, attacks):
    from hil.falsehoods import parse

    shown = [[cell.strip() for cell in row.split("|")[1:3]] for row in content(name)[2:]]
    assert shown == [[one.kind, one.size] for one in parse(attacks)]


def test_columns_are_those_that_evaluate_prints():
    assert judging.ATTACKS == evaluate.COLUMNS


def test_pictures_of_the_page_are_there():
    for name in ("caught.svg", "roc.svg"):
        assert (judging.PICTURES / name).read_text("utf-8").startswith("<svg ")


def test_table_without_a_place_is_refused():
    page = "<!-- table: one -->\nold\n<!-- end -->\n"
    assert judging.put(page, "one", "new \\1") == "<!-- table: one -->\nnew \\1\n<!-- end -->\n"
    for wrong in ("", page * 2):
        with pytest.raises(CommandError, match="no place, or two, for the table 'one'"):
            judging.put(wrong, "one", "new")
