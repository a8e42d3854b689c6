"""Regenerate the pinned requirement files: ``python -m tools.lock``.

With names of sets that are installed aside (``python -m tools.lock peers``) only these are pinned
anew, beside the environment as it is pinned.

Each ``requirements/NAME.in`` lists what is wanted, each ``requirements/NAME.txt`` what is
installed: exact versions with the SHA-256 of every wheel that the supported machines may pick. The
files name no index; pip asks the one that it is configured for. ``requirements/wheels.json`` keeps
the wheels' file names, so that a test can say which machines the pinned files serve.

Run it with the oldest supported Python: markers such as ``python_version < "3.12"`` are evaluated
by the interpreter that runs pip, and the oldest one's set is the largest. Source distributions are
never taken: installing must not run a package's build.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"

#: Layers that share one environment: each is installed together with those before it.
ENVIRONMENT = ("gateway", "demo", "dev")
#: Sets that are installed into a folder of their own, with everything they need except what the
#: environment already holds in a version that they accept.
ASIDE = ("stubs-rp2", "stubs-esp32", "peers", "sample-day", "go")

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
#: Newest first. Debian 11 (glibc 2.31) is the oldest system served.
_MANYLINUX = ("manylinux_2_31", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux1")

_HEADER = """\
# Pinned from {name}.in by `python -m tools.lock`. Do not edit by hand.
"""


class Wheel(NamedTuple):
    """One file that pip would install: its distribution, version, file name and SHA-256 in hex."""

    distribution: str
    version: str
    filename: str
    sha256: str


def canonical(name: str) -> str:
    """Return a distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_wanted(path: Path) -> dict[str, str]:
    """Return a ``.in`` file's requirement lines by canonical distribution name."""
    wanted = {}
    for line in path.read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if requirement:
            name = re.match(r"[A-Za-z0-9._-]+", requirement)
            if name is None:
                raise ValueError(f"{path.name}: not a requirement: {line!r}")
            wanted[canonical(name.group())] = requirement
    return wanted


def ask_pip(requirements: list[str], *options: str) -> list[Wheel]:
    """Return the wheels that pip would install for `requirements`, without installing them.

    Raises subprocess.CalledProcessError when pip finds no set of wheels; pip has then said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary=:all:", "--report", str(report)]
        subprocess.run([*command, *options, *requirements], check=True)
        items = json.loads(report.read_text())["install"]
    return [_wheel(item) for item in items]


def _wheel(item: dict[str, Any]) -> Wheel:
    download = item["download_info"]
    return Wheel(
        canonical(item["metadata"]["name"]),
        item["metadata"]["version"],
        download["url"].rsplit("/", 1)[-1],
        download["archive_info"]["hashes"]["sha256"],
    )


def resolve(requirements: list[str], constraints: dict[str, str]) -> dict[str, str]:
    """Return name to version of everything that `requirements` need, within `constraints`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "constraints.txt")
        file.write_text("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        found = ask_pip(requirements, "--constraint", str(file))
    return {wheel.distribution: wheel.version for wheel in found}


def find_wheels(versions: dict[str, str], markers: dict[str, str]) -> list[Wheel]:
    """Return every wheel of `versions` that a supported interpreter and machine would pick."""
    found: set[Wheel] = set()
    with tempfile.TemporaryDirectory() as folder:
        for machine in MACHINES:
            wanted = [
                f"{name}=={version}"
                for name, version in versions.items()
                if serves(markers.get(name, ""), machine)
            ]
            platforms = [f"--platform={tag}_{machine}" for tag in _MANYLINUX]
            for python in PYTHONS:
                options = ["--no-deps", "--target", folder, "--python-version", python, *platforms]
                found.update(ask_pip(wanted, *options))
    return sorted(found)


def serves(marker: str, machine: str) -> bool:
    """Say whether a requirement with this environment marker is installed on `machine`.

    Only the form that the ``.in`` files use is known: ``platform_machine == "…"``.
    """
    if not marker:
        return True
    match = re.fullmatch(r'platform_machine == "(\w+)"', marker)
    if match is None:
        raise ValueError(f"marker not understood: {marker}")
    return match.group(1) == machine


def read_markers(wanted: dict[str, str]) -> dict[str, str]:
    """Return the environment markers of the requirements that have one, by distribution name."""
    split = {name: line.partition(";") for name, line in wanted.items()}
    return {name: marker.strip() for name, (_, _, marker) in split.items() if marker}


def write_pins(
    name: str, includes: str | None, wheels: list[Wheel], markers: dict[str, str]
) -> None:
    """Write ``NAME.txt``: one requirement a distribution with all its hashes."""
    lines = [_HEADER.format(name=name)]
    if includes is not None:
        lines.append(f"-r {includes}.txt\n")
    for distribution, version in sorted({(w.distribution, w.version) for w in wheels}):
        marker = markers.get(distribution)
        lines.append(f"{distribution}=={version}" + (f" ; {marker}" if marker else ""))
        hashes = sorted(w.sha256 for w in wheels if w.distribution == distribution)
        lines.extend(f" \\\n    --hash=sha256:{value}" for value in hashes)
        lines.append("\n")
    REQUIREMENTS.joinpath(f"{name}.txt").write_text("".join(lines))


def lock_environment() -> dict[str, list[Wheel]]:
    """Pin the layers of the environment so that each holds one version of everything."""
    wanted = {layer: read_wanted(REQUIREMENTS / f"{layer}.in") for layer in ENVIRONMENT}
    every = [line for layer in ENVIRONMENT for line in wanted[layer].values()]
    pins = resolve(every, {})
    markers = {k: v for layer in ENVIRONMENT for k, v in read_markers(wanted[layer]).items()}
    locked: dict[str, list[Wheel]] = {}
    placed: set[str] = set()
    previous = None
    for layer in ENVIRONMENT:
        versions = resolve(list(wanted[layer].values()), pins)
        own = {name: version for name, version in versions.items() if name not in placed}
        placed.update(own)
        locked[layer] = find_wheels(own, markers)
        write_pins(layer, previous, locked[layer], markers)
        previous = layer
    return locked


def lock_aside(name: str, environment: set[tuple[str, str]]) -> list[Wheel]:
    """Pin one set that is installed into its own folder, leaving out what `environment` holds."""
    wanted = read_wanted(REQUIREMENTS / f"{name}.in")
    shared = dict(environment)
    versions = resolve(list(wanted.values()), {})
    own = {k: v for k, v in versions.items() if shared.get(k) != v}
    wheels = find_wheels(own, read_markers(wanted))
    write_pins(name, None, wheels, read_markers(wanted))
    return wheels


def read_locked() -> dict[str, dict[str, str]]:
    """Return, for each set as pinned, file name to SHA-256 in hex of its wheels."""
    names: dict[str, dict[str, str]] = json.loads((REQUIREMENTS / "wheels.json").read_text())
    return names


def pinned_environment(locked: dict[str, dict[str, str]]) -> set[tuple[str, str]]:
    """Return (distribution, version) of everything that the environment's layers hold."""
    files = [name for layer in ENVIRONMENT for name in locked[layer]]
    return {(canonical(file.split("-")[0]), file.split("-")[1]) for file in files}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pinned files, all or those named, and the list of wheels."""
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description="Pin requirements.")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"only these: {', '.join(ASIDE)}")
    chosen = parser.parse_args(argv).sets
    if unknown := set(chosen) - set(ASIDE):
        parser.error(f"{', '.join(sorted(unknown))}: pinned alone are {', '.join(ASIDE)}")
    names = read_locked() if chosen else {}
    if not chosen:
        names.update(_by_name(lock_environment()))
    environment = pinned_environment(names)
    for name in chosen or ASIDE:
        names.update(_by_name({name: lock_aside(name, environment)}))
    REQUIREMENTS.joinpath("wheels.json").write_text(json.dumps(names, indent=1) + "\n")
    return 0


def _by_name(locked: dict[str, list[Wheel]]) -> dict[str, dict[str, str]]:
    return {name: {w.filename: w.sha256 for w in wheels} for name, wheels in locked.items()}


if __name__ == "__main__":
    sys.exit(main())
