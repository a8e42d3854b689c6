"""The boards' packages: complete, importable from bytecode alone, and free of effects."""

import ast
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hil import micropython
from tests.firmware.programs import HOST_ONLY
from tools import board_files

ROOT = board_files.ROOT
BOARDS = ROOT / "firmware" / "boards"
WANTED = {
    "firmware/__init__.py",
    "firmware/boards/__init__.py",
    "firmware/boards/memory.py",
    "firmware/boards/wlan.py",
    "ledger/__init__.py",
    *(f"firmware/meter/{path.name}" for path in (ROOT / "firmware/meter").glob("*.py")),
    *(
        f"ledger/protocol/{path.name}"
        for path in (ROOT / "ledger/protocol").glob("*.py")
        if path.name not in HOST_ONLY
    ),
}


@pytest.mark.parametrize("board", ["rp2", "esp32"])
def test_package_holds_every_file_of_the_meter(board: str) -> None:
    assert set(board_files.device_files(board)) == WANTED


@pytest.mark.parametrize("board", ["rp2", "esp32"])
def test_package_leads_from_its_own_folder_to_what_is_built(board: str) -> None:
    package = json.loads((BOARDS / board / "package.json").read_text())
    for name, url in package["urls"]:
        source = (BOARDS / board / url).resolve().relative_to(ROOT).as_posix()
        assert source in (name, f"build/board/{name}")
        if source == name:
            assert (ROOT / name).is_file()


@pytest.mark.parametrize("board", ["rp2", "esp32"])
def test_manifest_freezes_the_same_files(board: str) -> None:
    assert _frozen(BOARDS / board / "manifest.py") == WANTED


def _frozen(manifest: Path) -> set[str]:
    """Read a manifest as the build would: what its packages and its own includes freeze."""
    found = set()
    for node in ast.walk(ast.parse(manifest.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        given = [ast.literal_eval(argument) for argument in node.args]
        if node.func.id == "package":
            base = {k.arg: ast.literal_eval(k.value) for k in node.keywords}["base_path"]
            assert (manifest.parent / base).resolve() == ROOT
            found |= {f"{given[0]}/{file}" for file in given[1]}
        elif node.func.id == "include" and not given[0].startswith("$"):
            found |= _frozen((manifest.parent / given[0]).resolve())
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        board_files.compiler()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    out = tmp_path_factory.mktemp("board")
    assert board_files.build(out) > 50_000
    base = "ledger/protocol/_p256_base.bin"
    shutil.copy(ROOT / base, out / base)
    return out


def _micropython(
    folder: Path, code: str, work: Path | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        program = micropython.interpreter()
    except micropython.InterpreterNotFoundError as missing:
        pytest.skip(str(missing))
    return subprocess.run(
        [program, "-c", code],
        env=micropython.environment(folder),
        cwd=work or folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_bytecode_alone_makes_a_meter(compiled: Path) -> None:
    code = (
        "import os, firmware.meter.program\n"
        "from firmware.meter import identity\n"
        "os.mkdir('flash')\n"
        "own, boot, fresh = identity.start('flash')\n"
        "own.enrolment(bytes(8), 'unix')\n"
        "print(len(own.public_key), boot, fresh)\n"
    )
    done = _micropython(compiled, code)
    assert done.stdout == "33 1 True\n", done.stderr


def test_importing_does_nothing(tmp_path: Path) -> None:
    names = [
        name[: -len(".py")].replace("/", ".").removesuffix(".__init__")
        for name in sorted(WANTED)
        if "wlan" not in name
    ]
    code = "\n".join(f"import {name}" for name in names)
    done = _micropython(ROOT, code + "\nimport os\nprint(os.listdir('.'))", tmp_path)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("board", ["rp2", "esp32"])
def test_main_feeds_within_what_the_chip_can_count(board: str) -> None:
    tree = ast.parse((BOARDS / board / "main.py").read_text())
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    # RP2040 datasheet 4.7: 24 bits of microseconds, counted twice
    assert values["_WATCHDOG_MS"] <= (8388 if board == "rp2" else 60_000)


def test_unix_main_refuses_other_arguments() -> None:
    done = subprocess.run(
        [micropython.interpreter(), str(BOARDS / "unix" / "main.py"), "--what"],
        env=micropython.environment(ROOT),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "usage" in done.stderr
