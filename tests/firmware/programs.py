"""Start small programs on either interpreter, with the project's tree on their search path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hil.micropython import InterpreterNotFoundError, environment, heap_options, interpreter

ROOT = Path(__file__).resolve().parents[2]
BOTH = ["micropython", "cpython"]
#: These bind CPython's libraries and never reach a board.
HOST_ONLY = {"_p256_host.py", "_p256_cryptography.py", "_p256_ecdsa.py", "_cbor_cbor2.py"}


def command(kind: str, program: Path, *arguments: str, heap: str | None = None) -> list[str]:
    """Give the command line that runs a program on "micropython" or "cpython"."""
    if kind == "cpython":
        return [sys.executable, str(program), *arguments]
    try:
        return [interpreter(), *heap_options(heap), str(program), *arguments]
    except InterpreterNotFoundError as missing:
        pytest.skip(str(missing))


def start(
    kind: str, program: Path, *arguments: str, heap: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start the program with pipes for its standard streams, unbuffered on this side."""
    env = environment(ROOT) | {"PYTHONPATH": os.fspath(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command(kind, program, *arguments, heap=heap),
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process if it still runs, and close this side's pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()
