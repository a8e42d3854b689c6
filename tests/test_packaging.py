"""What is installed is pinned, hashed and to be had for a 64-bit Raspberry Pi."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tools import lock

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PACKAGES = ("ledger", "firmware", "gateway", "hil", "tools")
SETS = [*lock.ENVIRONMENT, *lock.ASIDE]
#: What installs on a 64-bit Raspberry Pi: its own wheels and those for every machine. The C library
#: of the oldest Raspberry Pi OS served (Debian 11) is glibc 2.31.
PI_WHEEL = re.compile(
    r"-(?:none-any|[a-z0-9_.]*(?:manylinux2014|manylinux_2_(?:17|2[0-9]|3[01]))_aarch64[a-z0-9_.]*)\.whl$"
)
#: A requirement line with its continuation lines: name, version, marker, hashes.
PIN = re.compile(
    r"(?m)^([a-z0-9-]+)==(\S+)(?: ; ([^\\\n]+?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$"
)


def read_pins(name: str) -> dict[str, set[str]]:
    """Return the hashes of each distribution that the pinned file lists, and miss no line of it."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    rest = PIN.sub("", text)
    left = [line for line in rest.splitlines() if line and not line.startswith(("#", "-r "))]
    assert left == [], f"{name}.txt has lines that are no hashed pin"
    return {pin[1]: set(re.findall(r"[0-9a-f]{64}", pin[4])) for pin in PIN.finditer(text)}


def read_wheels(name: str) -> dict[str, dict[str, str]]:
    """Return file name to hash of each distribution's wheels, as recorded when they were pinned."""
    wheels: dict[str, dict[str, str]] = {}
    for filename, sha256 in json.loads((REQUIREMENTS / "wheels.json").read_text())[name].items():
        wheels.setdefault(lock.canonical(filename.split("-")[0]), {})[filename] = sha256
    return wheels


def pins_with_names() -> Iterator[tuple[str, str]]:
    for name in SETS:
        for distribution in read_pins(name):
            yield name, distribution


@pytest.mark.parametrize("name", SETS)
def test_every_wanted_distribution_is_pinned(name: str) -> None:
    assert set(lock.read_wanted(REQUIREMENTS / f"{name}.in")) <= set(read_pins(name))


@pytest.mark.parametrize(("name", "distribution"), list(pins_with_names()))
def test_pinned_hashes_are_those_of_the_recorded_wheels(name: str, distribution: str) -> None:
    assert read_pins(name)[distribution] == set(read_wheels(name)[distribution].values())


@pytest.mark.parametrize("name", SETS)
def test_pinned_file_names_no_index_and_no_address(name: str) -> None:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    assert not re.search(r"://|--index-url|--extra-index|--find-links|--trusted-host|@", text)


@pytest.mark.parametrize("distribution", sorted(read_pins("gateway")))
def test_gateway_distribution_has_a_wheel_for_a_64_bit_pi(distribution: str) -> None:
    """Every Python served has one: a version-bound wheel for each, or one for all."""
    names = [name for name in read_wheels("gateway")[distribution] if PI_WHEEL.search(name)]
    bound = {match[1] for name in names if (match := re.search(r"-cp3(\d+)-cp3\d+", name))}
    for_all = [name for name in names if "-abi3-" in name or "-py3-" in name or ".py3-" in name]
    assert for_all or bound == {python.split(".")[1] for python in lock.PYTHONS}, names


def test_pi_wheel_is_told_from_others() -> None:
    """The check above can fail: it knows the wheels that a Pi refuses."""
    assert PI_WHEEL.search("a-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl")
    assert PI_WHEEL.search("a-1-py3-none-any.whl")
    assert not PI_WHEEL.search("a-1-cp311-cp311-manylinux_2_28_x86_64.whl")
    assert not PI_WHEEL.search("a-1-cp311-cp311-musllinux_1_2_aarch64.whl")
    assert not PI_WHEEL.search("a-1-cp311-cp311-manylinux_2_39_aarch64.whl")


def test_layers_of_the_environment_pin_nothing_twice() -> None:
    pinned = [distribution for name in lock.ENVIRONMENT for distribution in read_pins(name)]
    assert len(pinned) == len(set(pinned))


def test_dependencies_of_the_distribution_are_the_gateways() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {
        "file": ["requirements/gateway.in"]
    }


def test_built_wheel_holds_every_module_and_the_command(tmp_path: Path) -> None:
    """What is installed from a wheel is what runs from the tree: code, data, licence, command."""
    source = tmp_path / "source"
    for name in (*PACKAGES, "requirements"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "-w", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("gridwitness-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "gridwitness = tools.cli:main" in archive.read(entry_points).decode()
    wanted = {
        str(path.relative_to(source))
        for name in PACKAGES
        for path in (source / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - names == set()
    assert not [name for name in names if "__pycache__" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("python", lock.PYTHONS)
def test_gateway_set_installs_on_a_64_bit_pi(python: str, tmp_path: Path) -> None:
    """Ask the package index that pip is configured for; skipped where none is reached."""
    probe = ask_pip("--no-cache-dir", "-d", str(tmp_path / "probe"), "mdurl")
    if probe.returncode != 0:
        pytest.skip("no package index is reached: pip could not fetch one small package")
    platforms = [
        f"--platform={tag}_aarch64" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    ]
    folder = tmp_path / "wheels"
    done = ask_pip(
        *("--require-hashes", "--python-version", python, *platforms),
        *("-d", str(folder), "-r", str(REQUIREMENTS / "gateway.txt")),
    )
    assert done.returncode == 0, done.stderr
    fetched = {lock.canonical(path.name.split("-")[0]) for path in folder.glob("*.whl")}
    assert fetched == set(read_pins("gateway"))


def ask_pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one `pip download` of wheels, bounded: no retries, ten seconds for an answer."""
    options = ["--only-binary=:all:", "--no-deps", "--retries=0", "--timeout=10"]
    return subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
        check=False,
    )


def test_peer_library_runs_beside_the_environment(cwt_environment: dict[str, str]) -> None:
    """The peer finds its own cbor2, and this environment keeps ours."""
    code = (
        "import cbor2, cwt; from importlib.metadata import version; "
        "cwt.COSE.new(); print(cbor2.loads(cbor2.dumps(1)), version('cbor2'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=cwt_environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("1 5.")
    assert version("cbor2").startswith("6.")


def test_environment_as_it_is_pinned_is_what_the_layers_list() -> None:
    pinned = {name for name, _ in lock.pinned_environment(lock.read_locked())}
    assert pinned == {name for layer in lock.ENVIRONMENT for name in read_pins(layer)}


@pytest.mark.parametrize("name", ["gateway", "nothing"])
def test_only_a_set_that_is_installed_aside_is_pinned_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        lock.main([name])
    assert f"{name}: pinned alone are" in capsys.readouterr().err


def test_marker_that_is_not_understood_is_refused() -> None:
    assert lock.serves('platform_machine == "x86_64"', "x86_64")
    assert not lock.serves('platform_machine == "x86_64"', "aarch64")
    with pytest.raises(ValueError, match="not understood"):
        lock.serves('python_version < "3.12"', "x86_64")
