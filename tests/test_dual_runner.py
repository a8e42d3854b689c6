"""Dual tests: what the runner says under the real MicroPython, and what the host makes of it."""

import sys
from pathlib import Path

import pytest

from hil import micropython
from tests import dual_host

MODULE = """
import sys

HEAP = "300k"


def helper_is_no_test():
    raise RuntimeError


def test_passes():
    print("a word on the way")


def test_fails():
    assert 1 + 1 == 3, "sums are off"


def test_runs_under_micropython():
    assert sys.implementation.name == "micropython"


def test_finds_the_project():
    import asyncio

    from ledger.protocol import errors

    assert "/tests/" not in errors.__file__


def test_ends_the_interpreter():
    sys.exit(3)


def test_comes_after_the_end():
    pass
"""


@pytest.fixture
def program() -> str:
    try:
        return micropython.interpreter()
    except micropython.InterpreterNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "test_sample_dual.py"
    path.write_text(MODULE)
    return path


def run(path: Path, program: str, *names: str, heap: str | None = None) -> dict:
    return dual_host.run_module(path, list(names), heap, program)


def test_functions_and_heap_are_read_without_importing(module: Path) -> None:
    names, heap = dual_host.read_module(module)
    assert names[:2] == ["test_passes", "test_fails"]
    assert "helper_is_no_test" not in names
    assert heap == "300k"


def test_passing_function_passes_and_its_output_is_kept(module: Path, program: str) -> None:
    assert run(module, program, "test_passes")["test_passes"] == (True, "a word on the way")


def test_module_runs_under_micropython_with_the_project_and_frozen_modules(
    module: Path, program: str
) -> None:
    names = ["test_runs_under_micropython", "test_finds_the_project"]
    assert set(run(module, program, *names).values()) == {(True, "")}


def test_failing_function_shows_micropythons_traceback(module: Path, program: str) -> None:
    outcome = run(module, program, "test_fails", "test_passes")
    assert not outcome["test_fails"].passed
    assert "AssertionError: sums are off" in outcome["test_fails"].text
    assert outcome["test_passes"].passed


def test_function_that_ends_the_interpreter_fails_with_those_after_it(
    module: Path, program: str
) -> None:
    outcome = run(
        module, program, "test_passes", "test_ends_the_interpreter", "test_comes_after_the_end"
    )
    assert [o.passed for o in outcome.values()] == [True, False, False]
    assert "status 3" in outcome["test_ends_the_interpreter"].text


def test_heap_limit_holds(tmp_path: Path, program: str) -> None:
    path = tmp_path / "test_big_dual.py"
    path.write_text("def test_big():\n    bytearray(300_000)\n")
    assert run(path, program, "test_big")["test_big"].passed
    outcome = run(path, program, "test_big", heap="200k")["test_big"]
    assert not outcome.passed
    assert "MemoryError" in outcome.text


def test_module_that_cannot_be_imported_fails_every_function(tmp_path: Path, program: str) -> None:
    path = tmp_path / "test_broken_dual.py"
    path.write_text("import no_such_module\ndef test_a(): pass\n")
    outcome = run(path, program, "test_a")["test_a"]
    assert not outcome.passed
    assert "no module named 'no_such_module'" in outcome.text


def test_overdue_module_is_ended(tmp_path: Path, program: str, monkeypatch) -> None:
    monkeypatch.setattr(dual_host, "TIME_LIMIT_S", 1)
    path = tmp_path / "test_endless_dual.py"
    path.write_text("def test_a(): pass\ndef test_b():\n    while True: pass\n")
    outcome = run(path, program, "test_a", "test_b")
    assert not outcome["test_b"].passed
    assert "ended after 1 s" in outcome["test_b"].text


def test_words_that_look_like_results_but_name_no_test_are_output() -> None:
    output = "run test_a\nok computer\nFAIL better\nok test_a\n"
    outcome = dual_host.read_outcomes(output, ["test_a"], "")
    assert outcome == {"test_a": (True, "ok computer\nFAIL better")}


def test_named_interpreter_that_cannot_run_is_an_error(monkeypatch) -> None:
    monkeypatch.setenv(micropython.VARIABLE, "no-such-program")
    with pytest.raises(micropython.InterpreterNotFoundError, match="no-such-program"):
        micropython.interpreter()


def test_interpreter_beside_python_comes_before_the_path(tmp_path: Path, monkeypatch) -> None:
    for folder in ("beside", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "micropython").write_text("#!/bin/sh\n")
        (tmp_path / folder / "micropython").chmod(0o755)
    monkeypatch.delenv(micropython.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert micropython.interpreter() == str(tmp_path / "beside" / "micropython")
    (tmp_path / "beside" / "micropython").unlink()
    assert micropython.interpreter() == str(tmp_path / "path" / "micropython")
    (tmp_path / "path" / "micropython").unlink()
    with pytest.raises(micropython.InterpreterNotFoundError):
        micropython.interpreter()


def test_dual_file_is_collected_for_both_interpreters(request: pytest.FixtureRequest) -> None:
    """The collector yields one item a function; pytest's own module is collected beside it."""
    path = Path(__file__).parent / "test_collected_dual.py"
    collected = dual_host.MicroPythonModule.from_parent(request.session, path=path).collect()
    assert [item.name for item in collected] == [
        "test_interpreter_is_one_of_the_two[micropython]",
        "test_assertions_are_checked[micropython]",
    ]
