"""Where CometBFT is, the program that orders blocks, and whether it is the pinned version.

``gridwitness cometbft install`` (``tools.cometbft``) puts it into our own folder.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from gateway.network.errors import ProgramError

ENVIRONMENT = "GRIDWITNESS_COMETBFT"
ROOT = Path(__file__).resolve().parents[2]
"""The folder that our packages are in: of a working tree, its root."""


class Version(NamedTuple):
    """What the program says of itself."""

    cometbft: str
    abci: str


PINNED = Version("0.38.26", "2.0.0")


def folder() -> Path:
    """Give the folder of our own: in a working tree beside pyproject.toml, else the user's."""
    if (ROOT / "pyproject.toml").exists():
        return ROOT / ".cometbft"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "gridwitness" / "cometbft"


def own_program() -> Path:
    """Give where the program of our own is, whether or not it exists."""
    return folder() / "bin" / "cometbft"


def find() -> Path:
    """Give the program: the environment's word, our own folder, the PATH; raises ProgramError."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        if shutil.which(named) is None:
            raise ProgramError(f"{named}, which {ENVIRONMENT} names, is not a program")
        return Path(named).absolute()
    own = own_program()
    if own.exists():
        return own
    on_path = shutil.which("cometbft")
    if on_path is None:
        raise ProgramError(
            "CometBFT is not installed: run gridwitness cometbft install, or name the program in "
            f"{ENVIRONMENT}"
        )
    return Path(on_path).absolute()


def find_checked() -> Path:
    """Give the program, which is of the pinned version; raises ProgramError."""
    program = find()
    version = read_version(program)
    if version != PINNED:
        raise ProgramError(
            f"{program} is CometBFT {version.cometbft} with ABCI {version.abci}; "
            f"{PINNED.cometbft} with {PINNED.abci} is needed: run gridwitness cometbft install"
        )
    return program


def read_version(program: Path) -> Version:
    """Ask the program what it is; raises ProgramError."""
    try:
        done = subprocess.run(
            [program, "version", "--verbose"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )
        told = json.loads(done.stdout)
        return Version(str(told["cometbft"]), str(told["abci"]))
    except OSError as e:
        raise ProgramError(f"{program} cannot be run: {e.strerror}") from e
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError) as e:
        named = f" ({ENVIRONMENT} names it)" if os.environ.get(ENVIRONMENT) else ""
        raise ProgramError(
            f"{program} does not tell CometBFT's version: it is another program{named}, or damaged"
        ) from e
