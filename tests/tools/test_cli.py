"""The command line: a wrong file or option gets one sentence, exit code 2, and writes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import provision
from ledger.genesis import Parameters
from ledger.keys import Signer
from ledger.protocol import cose, records
from ledger.region import RegionDirectory
from tools import cli

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "hil" / "sample_day"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run a command; gives exit code, output, errors."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as e:  # argparse ends so
        code = int(str(e.code))
    out, err = capsys.readouterr()
    return code, out, err


def enrolment(path: Path, signer: Signer) -> Path:
    record = records.Enrolment(bytes(8), signer.public_key, "test")
    path.write_bytes(signer.seal(record.payload()).raw)
    return path


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("demo", "replay", "init", "member", "audit", "show"):
        assert f"\n    {command} " in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["demo", "--meters", "11"], "--meters 11: the demo takes 12 to 24"),
        (["demo", "--rounds", "5"], "--rounds 5: the demo takes 30 to"),
        (["demo", "--round-seconds", "0"], "--round-seconds 0.0: give 0.5 to 3600"),
        (["demo", "--seed", "-1"], "--seed -1: give 0 to"),
        (["demo", "--rounds", "many"], "invalid int value: 'many'"),
        (["demo", "--json", "absent/file.json"], "absent is not a directory"),
        (["demo", "--keep", ""], "argument --keep: is empty: name a file or folder"),
        (["init", ""], "argument DIR: is empty: name a file or folder"),
        (["init", "new", "--name", "two\nlines"], "give 1 to 64 printable characters"),
        (["init", "new", "--name", "\udcff"], "give 1 to 64 printable characters"),
        (["init", "new", "--member", "/dev/zero", "c1"], "is not a meter's enrolment request"),
        (["audit", "absent"], "genesis.cbor does not exist"),
        (["show", "absent"], "genesis.cbor does not exist"),
        (["audit", "absent", "--genesis", "12"], "a genesis digest is 64 hex digits"),
        (["member", "leave", "absent", "--meter", "00"], "genesis.cbor does not exist"),
        (["init", "new", "--threshold", "4"], "--threshold 4: give 1 to 3"),
        (["init", "new", "--operators", "33"], "--operators 33: give 1 to 32"),
        (["init", "new", "--round-s", "0"], "--round-s 0: give 1 to 86400"),
        (["init", "new", "--member", "absent.cose", "c1"], "absent.cose: cannot be read"),
        (["prove"], "invalid choice: 'prove'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_use_gets_a_sentence_and_writes_nothing(
    tmp_path, monkeypatch, capsys, words, complaint
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code == 2
    assert complaint in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["meters", "voltage", "power"])
def test_replay_of_a_wrong_file_names_it_and_writes_nothing(tmp_path, capsys, wrong):
    files = {
        "meters": SAMPLE / "sample_meters.csv",
        "voltage": SAMPLE / "sample_V.csv.gz",
        "power": SAMPLE / "sample_P.csv.gz",
    }
    bad = tmp_path / f"{wrong}.csv"
    bad.write_text("this,is\nno,recording\n")
    files[wrong] = bad
    words = [f"--{name}={path}" for name, path in files.items()]
    code, out, err = run(capsys, "replay", *words, f"--out={tmp_path / 'out'}")
    assert code == 2
    assert bad.name in err
    assert out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == [bad.name]


def replay_of(folder: Path, meters: str, volts: str, step: str = "00:01") -> list[str]:
    """Write a recording of two rows; gives the words that replay it."""
    names = meters.split()
    tables = {
        "meters": "meter,bus\n" + "".join(f"{name},1\n" for name in names),
        "voltage": volts,
        "power": "0.1",
    }
    for table in ("voltage", "power"):
        rows = [f"2016-06-06 {time}" + f",{tables[table]}" * len(names) for time in ("00:00", step)]
        tables[table] = "\n".join([",".join(["time", *names]), *rows, ""])
    for table, text in tables.items():
        (folder / f"{table}.csv").write_text(text)
    return ["replay", *(f"--{table}={folder / table}.csv" for table in tables)]


@pytest.mark.parametrize(
    ("meters", "volts", "complaint"),
    [
        ("A B C", "230", "a reading is never accepted without three other meters"),
        ("A B C D", "0.23", "the table must hold volts, phase to neutral"),
        ("A B C D", "230", "--rounds 3: the recording has rows for 1 to 2"),
    ],
)
def test_replay_of_what_could_only_fail_is_refused(tmp_path, capsys, meters, volts, complaint):
    words = [*replay_of(tmp_path, meters, volts), "--rounds=3", f"--out={tmp_path / 'out'}"]
    code, out, err = run(capsys, *words)
    assert code == 2
    assert complaint in err
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_demo_without_a_temporary_folder_says_so(monkeypatch, capsys):
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    code, _, err = run(capsys, "demo")
    assert code == 2
    assert "no temporary folder can be made" in err


def test_replay_into_a_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "something").write_text("kept")
    code, _, err = run(
        capsys,
        "replay",
        f"--meters={SAMPLE / 'sample_meters.csv'}",
        f"--voltage={SAMPLE / 'sample_V.csv.gz'}",
        f"--power={SAMPLE / 'sample_P.csv.gz'}",
        f"--out={tmp_path}",
    )
    assert code == 2
    assert "is not empty: name a new folder" in err


def test_init_makes_a_region_that_a_second_init_does_not_touch(tmp_path, capsys):
    region = tmp_path / "region"
    request = enrolment(tmp_path / "meter.cose", Signer(bytes(31) + b"\7"))
    code, out, _ = run(capsys, "init", region, "--member", request, "c1", "--operators", 5)
    assert code == 0
    genesis = RegionDirectory(region).load_genesis()
    assert genesis.digest.hex() in out
    assert (len(genesis.operators), genesis.threshold) == (5, 2)
    assert [cluster for _, cluster in genesis.members] == ["c1"]
    assert (region / "keys" / "operator-5.key").stat().st_mode & 0o777 == 0o600
    before = (region / "genesis.cbor").read_bytes()
    code, _, err = run(capsys, "init", region)
    assert code == 2
    assert "there is a region here already" in err
    assert (region / "genesis.cbor").read_bytes() == before


def test_init_refuses_a_request_signed_by_another_key(tmp_path, capsys):
    signer, other = Signer(bytes(31) + b"\7"), Signer(bytes(31) + b"\x08")
    payload = records.Enrolment(bytes(8), signer.public_key, "test").payload()
    request = tmp_path / "meter.cose"
    forged = cose.join(signer.address, payload, other.seal(payload).signature)
    request.write_bytes(forged.raw)
    code, _, err = run(capsys, "init", tmp_path / "region", "--member", request, "c1")
    assert code == 2
    assert "is not a meter's enrolment request" in err
    assert not (tmp_path / "region").exists()


@pytest.fixture
def region(tmp_path: Path) -> RegionDirectory:
    """A region with one member and an open (empty) ledger."""
    directory = RegionDirectory(tmp_path / "region")
    member = Signer(bytes(31) + b"\7")
    provision.create_region(
        directory, "test", Parameters(), members=[(member.public_key, "c1")], created=0
    )
    directory.open_regional().close()
    return directory


def test_show_prints_json_of_a_region_without_blocks(region, capsys):
    code, out, _ = run(capsys, "show", region.path, "--json")
    assert code == 0
    data = json.loads(out)
    assert data["region"]["height"] == 0
    assert [m["cluster"] for m in data["members"]] == ["c1"]
    assert data["blocks"] == data["alarms"] == data["summaries"] == []


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--block=1", "--block 1: the chain has no blocks yet"),
        ("--meter=ffff", "no member's address starts with ffff"),
        ("--meter=xyz", "no member's address starts with xyz"),
        ("--reading=12", "give 16 to 64 hex digits of a digest"),
        ("--reading=" + "00" * 32, "no reading in this ledger has this digest"),
    ],
)
def test_show_of_what_is_not_there_says_so(region, capsys, option, complaint):
    code, out, err = run(capsys, "show", region.path, option)
    assert code == 2
    assert complaint in err
    assert out == ""


def test_show_of_a_region_that_never_ran_says_so(tmp_path, capsys):
    run(capsys, "init", tmp_path / "new")
    code, _, err = run(capsys, "show", tmp_path / "new")
    assert code == 2
    assert "region has no ledger yet" in err


def test_one_operators_key_named_twice_is_no_second_approval(region, tmp_path, capsys):
    address = cose.address_of(region.load_genesis().members[0][0]).hex()
    key = region.keys / "operator-1.key"
    words = ["member", "leave", region.path, "--meter", address, "--key", key, "--key", key]
    code, _, err = run(capsys, *words, "--out", tmp_path / "approvals")
    assert code == 2
    assert "is named twice, and counts once" in err
    assert not (tmp_path / "approvals").exists()


def test_member_change_without_a_broker_says_that_nothing_was_sent(region, capsys):
    genesis = region.load_genesis()
    address = cose.address_of(genesis.members[0][0]).hex()
    code, _, err = run(capsys, "member", "leave", region.path, "--meter", address[:8])
    assert code == 2
    assert "the broker at 127.0.0.1:1883" in err


def test_member_change_goes_into_files_signed_by_operators(region, tmp_path, capsys):
    request = enrolment(tmp_path / "meter.cose", Signer(bytes(31) + b"\x09"))
    out_folder = tmp_path / "approvals"
    words = ["member", "join", region.path, "--request", request, "--cluster", "c1"]
    code, out, _ = run(capsys, *words, "--out", out_folder)
    assert code == 0
    assert "change 1: 2 approvals handed over" in out
    genesis = region.load_genesis()
    signers = set()
    for path in out_folder.iterdir():
        envelope = cose.Envelope.parse(path.read_bytes())
        change = records.decode(envelope.payload)
        assert (change.number, change.action, change.cluster) == (1, records.JOIN, "c1")
        signers.add(envelope.kid)
    assert signers <= {cose.address_of(key) for key in genesis.operators}
    assert len(signers) == genesis.threshold


def test_audit_of_an_altered_genesis_exits_with_one(region, capsys):
    code, out, _ = run(capsys, "audit", region.path, "--genesis", "00" * 32)
    assert code == 1
    assert "genesis" in out


def test_installed_command_runs_as_a_process(tmp_path):
    command = shutil.which("gridwitness", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the command gridwitness is not installed beside this Python")
    done = subprocess.run(
        [command, "audit", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "genesis.cbor does not exist" in done.stderr


@pytest.mark.parametrize("words", [["show"], ["show", "--json"], ["audit"]])
def test_output_that_nobody_reads_ends_the_command_quietly(region, words):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", words[0], str(region.path), *words[1:]],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_that_cannot_be_written_gets_a_sentence(region):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tools.cli", "audit", str(region.path)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
