"""The host's side of dual tests: pytest items whose functions run under MicroPython.

`conftest.py` hands every file `test_*_dual.py` to MicroPythonModule as well as to pytest's own
collector. One process runs the selected functions of a module; each item then reports its own.
"""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hil.micropython import InterpreterNotFoundError, environment, heap_options, interpreter

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(__file__).with_name("dual_runner.py")
#: Below pytest's limit for one test, so that it is the interpreter that is ended and reported.
TIME_LIMIT_S = 100


class Outcome(NamedTuple):
    """What became of one function: whether it passed, and the lines that belong to it."""

    passed: bool
    text: str


class MicroPythonTestFailed(Exception):
    """A dual test failed under MicroPython; the text is the interpreter's own traceback."""


def read_module(path: Path) -> tuple[list[str], str | None]:
    """Return the names of a dual module's tests and its heap limit, without importing it."""
    names: list[str] = []
    heap = None
    for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            names.append(node.name)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "HEAP":
                heap = str(ast.literal_eval(node.value))
    return names, heap


def run_module(path: Path, names: list[str], heap: str | None, program: str) -> dict[str, Outcome]:
    """Run the named functions of the module at `path` in one MicroPython process.

    `heap` is such as "400k", or None for the interpreter's default. Every name gets an outcome: one
    that the process never reported on has failed, with what the process left behind.
    """
    command = [program, *heap_options(heap), str(RUNNER), str(path), *names]
    try:
        done = subprocess.run(
            command,
            env=environment(ROOT),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT_S,
            check=False,
        )
        ending = f"MicroPython ended with status {done.returncode}"
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        ending = f"MicroPython was ended after {TIME_LIMIT_S} s"
        output, errors = _text(late.stdout), _text(late.stderr)
    return read_outcomes(output, names, f"{ending}\n{errors}".rstrip())


def _text(data: str | bytes | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""


def read_outcomes(output: str, names: list[str], ending: str) -> dict[str, Outcome]:
    """Return each function's outcome from the runner's `output`.

    A function without a closing line has failed: `ending` says how the process stopped.
    """
    outcomes: dict[str, Outcome] = {}
    lines: dict[str, list[str]] = {name: [] for name in names}
    before: list[str] = []  # MicroPython's traceback goes here when the import fails
    current = before
    for line in output.splitlines():
        word, _, name = line.partition(" ")
        if word not in {"run", "ok", "FAIL"} or name not in lines:
            current.append(line)
        elif word == "run":
            current = lines[name]
        else:
            outcomes[name] = Outcome(word == "ok", "")
    for name in names:
        text = "\n".join(lines[name])
        if name in outcomes:
            outcomes[name] = Outcome(outcomes[name].passed, text)
        else:
            text = "\n".join(["no result under MicroPython", *before, text, ending])
            outcomes[name] = Outcome(passed=False, text=text)
    return outcomes


class MicroPythonModule(pytest.File):
    """A dual test module as MicroPython sees it."""

    heap: str | None
    _outcomes: dict[str, Outcome] | None = None

    def collect(self) -> Iterator["MicroPythonTest"]:
        """Yield one item a test function."""
        names, self.heap = read_module(self.path)
        for name in names:
            yield MicroPythonTest.from_parent(self, name=f"{name}[micropython]")

    def outcome(self, name: str) -> Outcome:
        """Return one function's outcome; the first call runs all that were selected.

        Raises InterpreterNotFoundError when there is nothing to run them with.
        """
        if self._outcomes is None:
            items = [i for i in self.session.items if isinstance(i, MicroPythonTest)]
            chosen = [i.function_name for i in items if i.parent is self]
            self._outcomes = run_module(self.path, chosen, self.heap, interpreter())
        return self._outcomes[name]


class MicroPythonTest(pytest.Item):
    """One dual test function, run under MicroPython."""

    parent: MicroPythonModule

    @property
    def function_name(self) -> str:
        """The function's name without the interpreter's."""
        return self.name.removesuffix("[micropython]")

    def runtest(self) -> None:
        """Report what MicroPython said about this function."""
        try:
            outcome = self.parent.outcome(self.function_name)
        except InterpreterNotFoundError as missing:
            pytest.skip(str(missing))
        if not outcome.passed:
            # The closing summary shows the first line; the error is a traceback's last.
            summary = (outcome.text.splitlines() or ["failed"])[-1]
            raise MicroPythonTestFailed(f"{summary}\n{outcome.text}")
        if outcome.text:
            self.add_report_section("call", "MicroPython's output", outcome.text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the interpreter's words alone; the host's stack says nothing."""
        if isinstance(excinfo.value, MicroPythonTestFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Say where the test is, for pytest's headings."""
        return self.path, 0, self.name
