"""The vectors are up to date, and docs/SPEC.md says what the code does."""

import json
import re
from pathlib import Path

import pytest

from ledger.protocol import cbor, cose, messages, quantities, records, settings, tally
from ledger.regional import codes, deliver
from ledger.wide import codes as wide_codes
from tools.vectors import __main__ as vectors

ROOT = Path(__file__).resolve().parents[3]
SPEC = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")
GENERATED = vectors.generate()


def _tables(heading: str) -> list[list[str]]:
    """Rows of all tables of the section whose heading line is given, without their heads."""
    start = SPEC.index(f"\n{heading}\n")
    section = re.split(r"\n## ", SPEC[start + 4 :], maxsplit=1)[0]
    rows = re.findall(r"^\|(.+)\|$", section, re.MULTILINE)
    cells = [[cell.strip().strip("`") for cell in row.split("|")] for row in rows]
    return [row for row in cells if not set("".join(row)) <= set("-: ")]


def _number(text: str) -> int:
    return int(text.replace(",", "").replace("\u2212", "-"))


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_vectors_are_as_generated(name):
    assert (vectors.DIRECTORY / name).read_bytes() == GENERATED[name].encode()


def test_every_vector_file_but_the_curves_and_recorded_proofs_is_generated():
    present = {path.name for path in vectors.DIRECTORY.glob("*.json")}
    assert {name for name in present if not name.startswith(("p256", "proof"))} == set(GENERATED)


def test_generation_depends_on_nothing_but_itself():
    assert vectors.generate() == GENERATED


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_reasons_and_notes_name_one_case_each(name):
    for kind, cases in json.loads(GENERATED[name]).items():
        if isinstance(cases, list) and cases and isinstance(cases[0], dict):
            keys = ("record", "note") if "note" in cases[0] else ("record", "reason")
            names = [tuple(str(case.get(key)) for key in keys) for case in cases]
            if keys[1] in cases[0] and name not in ("merkle.json", "trie.json"):
                assert len(names) == len(set(names)), (kind, sorted(names))


def test_the_table_of_quantities_in_the_specification_is_the_codes():
    rows = _tables("## 5 Quantities")[1:]
    stated = [
        (_number(code), name, obis, unit, _number(low), _number(high))
        for code, name, obis, unit, low, high in rows
    ]
    assert stated == [
        (row.code, row.name, row.obis, row.unit, row.low, row.high) for row in quantities.TABLE
    ]


def test_the_table_of_verdicts_in_the_specification_is_the_codes():
    rows = [row for row in _tables("## 4 Records") if len(row) == 3 and row[0].isdigit()]
    stated = {int(number): name for number, name, _ in rows if name in _verdict_names()}
    assert stated == records.VERDICT_NAMES


def _verdict_names() -> set[str]:
    return set(records.VERDICT_NAMES.values())


def test_the_table_of_result_codes_in_the_specification_is_the_codes():
    rows = [row for row in _tables("## 11 Regional chain") if row[0].isdigit()]
    assert {int(row[0]): row[1] for row in rows} == codes.NAMES


def test_the_table_of_wide_area_codes_in_the_specification_is_the_codes():
    rows = [row for row in _tables("## 13 Wide area") if row[0].isdigit()]
    assert {int(row[0]): row[1] for row in rows} == wide_codes.NAMES


def test_the_table_of_outcomes_in_the_specification_is_the_codes():
    rows = [row for row in _tables("## 9 Votes and tally") if row[0].isdigit()]
    assert {int(row[0]): row[1] for row in rows} == tally.OUTCOME_NAMES


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (cose.MAX_RECORD_BYTES, "1,024 bytes"),
        (cbor.MAX_DEPTH, "8 arrays deep"),
        (records.MAX_VERDICTS, "24 verdicts"),
        (records.MAX_LATE_VERDICTS, "10 late"),
        (records.MAX_VALUES, "16 values"),
        (messages.MAX_ENTRIES, "16 entries"),
        (messages._MAX_RECEIPT_ITEMS, "1,024 in a receipt"),
        (messages._MAX_MEMBERS_ITEMS, "34 in a members"),
        (settings._MAX_ITEMS, "512 in settings"),
        (deliver.MAX_PENDING_A_SIGNER, "128 records of one signer"),
        (messages.MAX_CHANGES, "32 approvals"),
        (settings.Settings.FIELDS, "15 fields"),
    ],
)
def test_limits_in_the_specification_are_the_codes(number, words):
    assert _number(words.split()[0]) == number
    assert words in SPEC


def test_every_clause_that_code_cites_exists():
    clauses = set(re.findall(r"^(?:#+ |\*\*)(\d+(?:\.\d+)?)[ .*]", SPEC, re.MULTILINE))
    cited = {}
    for folder in ("ledger", "firmware", "gateway", "hil", "tools", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for found in re.findall(
                r"SPEC(?:\.md)?,? (?:sections? |clauses? )?(\d+(?:\.\d+)?)", text
            ):
                cited[found] = path.relative_to(ROOT)
    missing = {clause: str(path) for clause, path in cited.items() if clause not in clauses}
    assert not missing
    assert cited
