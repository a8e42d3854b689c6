"""Enrolling and provisioning over a serial line: the firmware behind a real pseudo-terminal."""

import os
import subprocess
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import provision
from hil import micropython
from hil.meters import PROGRAM, ROOT
from ledger.genesis import Parameters
from ledger.protocol.settings import Settings
from ledger.region import RegionDirectory
from tools import cli

try:
    micropython.interpreter()
except micropython.InterpreterNotFoundError as missing:
    pytestmark = pytest.mark.skip(reason=str(missing))


@pytest.fixture
def board(tmp_path: Path) -> Iterator[str]:
    """The firmware with its console on a terminal; gives the device's path."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    process = subprocess.Popen(
        [micropython.interpreter(), str(PROGRAM), "--dir", str(tmp_path / "flash")],
        stdin=ours,
        stdout=ours,
        stderr=subprocess.DEVNULL,
        env=micropython.environment(ROOT),
    )
    try:
        yield os.ttyname(theirs)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_board_enrols_and_is_provisioned_and_keeps_its_key(board, tmp_path, capsys):
    request = tmp_path / "request.cose"
    assert cli.main(["board", "enrol", f"--port={board}", f"--out={request}"]) == 0
    envelope, enrolment = provision.open_enrolment(request.read_bytes())
    assert envelope.kid.hex() in capsys.readouterr().out
    region = tmp_path / "region"
    assert cli.main(["init", str(region), "--member", str(request), "c1"]) == 0
    password = tmp_path / "password"
    password.write_text("secret\n")
    words = [f"--port={board}", "--host=127.0.0.1", "--mqtt-port=1", "--user=u"]
    words.append(f"--password-file={password}")
    capsys.readouterr()
    assert cli.main(["board", "provision", str(region), *words]) == 0
    assert "belongs to cluster c1" in capsys.readouterr().out
    kept = [path.read_bytes() for path in (tmp_path / "flash").rglob("settings*")]
    genesis = RegionDirectory(region).load_genesis()
    wanted = provision.meter_settings(
        genesis, envelope.kid, "127.0.0.1", 1, user="u", password="secret"
    ).encode()
    assert any(wanted in data for data in kept)
    assert Settings.decode(wanted).genesis == genesis.digest
    again = tmp_path / "again.cose"
    assert cli.main(["board", "enrol", f"--port={board}", f"--out={again}"]) == 0
    assert provision.open_enrolment(again.read_bytes())[1].public_key == enrolment.public_key


def test_board_that_is_no_member_needs_a_cluster(board, tmp_path, capsys):
    directory = RegionDirectory(tmp_path / "region")
    provision.create_region(directory, "test", Parameters(), created=0)
    words = [str(directory.path), f"--port={board}", "--host=127.0.0.1"]
    assert cli.main(["board", "provision", *words]) == 2
    assert "give its --cluster" in capsys.readouterr().err
    assert cli.main(["board", "provision", *words, "--cluster=c9"]) == 0


def test_board_is_told_several_brokers(board, tmp_path, capsys):
    directory = RegionDirectory(tmp_path / "region")
    provision.create_region(directory, "test", Parameters(), created=0)
    words = ["board", "provision", str(directory.path), f"--port={board}", "--cluster=c9"]
    assert cli.main([*words, "--host=127.0.0.1:1,127.0.0.1:2"]) == 0
    kept = [path.read_bytes() for path in (tmp_path / "flash").rglob("settings*")]
    assert any(b"127.0.0.1:1,127.0.0.1:2" in data for data in kept), kept


@pytest.mark.parametrize("host", ["pi-1,", "pi-1:x,pi-2", "pi-1:70000", ",".join("abcdefghi")])
def test_list_of_brokers_that_is_none_gets_a_sentence(tmp_path, capsys, host):
    directory = RegionDirectory(tmp_path / "region")
    provision.create_region(directory, "test", Parameters(), created=0)
    words = ["board", "provision", str(directory.path), "--port=/dev/absent", f"--host={host}"]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert f"--host {host}: " in error
    assert "separated by commas" in error


@pytest.mark.parametrize(
    ("port", "complaint"),
    [
        ("/dev/absent", "/dev/absent cannot be opened"),
        ("E6614103E7123456", "no board has the USB serial number E6614103E7123456"),
        ("nonsense://x", "nonsense://x cannot be opened"),
    ],
)
def test_port_that_is_not_there_gets_a_sentence(tmp_path, capsys, port, complaint):
    out = tmp_path / "request.cose"
    assert cli.main(["board", "enrol", f"--port={port}", f"--out={out}"]) == 2
    assert complaint in capsys.readouterr().err
    assert not out.exists()
