"""``gridwitness verify`` and ``gridwitness figure``: what they print, and their exit codes."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ledger.findings import moment
from ledger.light.types import LightBlock
from ledger.protocol import tally
from ledger.regional.view import LedgerView
from tests.ledger.light.chain import START_S, Chain
from tests.ledger.light.proofs import FOUR, WideNode, reported_region
from tools import figure, trust, verify
from tools.errors import CommandError


class Served(WideNode):
    """A node as the command sees it."""

    def close(self) -> None:
        pass


class Lying(Served):
    """A node that has two of four validators sign a state of its own."""

    def light_block(self, height: int) -> LightBlock:
        header = replace(self.chain.header(height), data_hash=bytes(32))
        return Chain.signed(header, FOUR, ["a", "b"])


@dataclass
class Bench:
    folder: Path
    node: WideNode
    region: bytes
    digest: bytes

    @property
    def genesis(self) -> str:
        return str(self.folder / "wide-genesis.cbor")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("region")
    play, directory, node = reported_region(folder, rounds=30)
    node.__class__ = Served
    view = LedgerView(directory.regional, 60)
    digest = next(r.digest for r in view.readings() if r.outcome == tally.ACCEPTED)
    view.close()
    play.close()
    return Bench(folder, node, play.region.chain, digest)


Command = Callable[..., int]


def _run(module: object, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    code: int = module.run(parser.parse_args(arguments))  # type: ignore[attr-defined]
    return code


@pytest.fixture
def nodes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, WideNode]:
    """Give what lies behind which address."""
    lying = Lying.__new__(Lying)
    lying.__dict__.update(bench.node.__dict__)
    known = {"http://honest": bench.node, "http://liar": lying}
    monkeypatch.setattr(figure, "Rpc", lambda url, timeout_s: known[url])
    return known


@pytest.fixture
def proof_file(bench: Bench, nodes: object, tmp_path: Path) -> Path:
    path = tmp_path / "reading.proof"
    code = _run(
        figure,
        *("--node", "http://honest", "--trust", bench.genesis, "--region", bench.region.hex()),
        *("--ledger", str(bench.folder), "--reading", bench.digest.hex(), "-o", str(path)),
    )
    assert code == 0
    return path


def test_proof_made_by_figure_is_verified(
    capsys: pytest.CaptureFixture[str], bench: Bench, proof_file: Path
) -> None:
    made = capsys.readouterr().out.splitlines()
    assert _run(verify, str(proof_file), "--trust", bench.genesis) == 0
    checked = capsys.readouterr().out.splitlines()
    assert made[:-2] == checked[:-1]  # the last lines are of how it is checked
    assert made[-1] == f"  gridwitness verify {proof_file} --trust {bench.genesis}"
    assert any(bench.digest.hex() in line and "signed by its key" in line for line in checked)
    assert any("accepted by" in line for line in checked)


def test_findings_are_printed_as_json(
    bench: Bench, proof_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert _run(verify, str(proof_file), "--trust", bench.genesis, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["reading"]["digest"] == bench.digest.hex()
    assert found["figures"]["to_height"] == 30


def test_age_that_was_not_judged_is_said(
    bench: Bench, proof_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    capsys.readouterr()
    assert _run(verify, str(proof_file), "--trust", bench.genesis) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    date = moment(bench.node.genesis.created)
    assert "was not judged" in line
    assert f"the validators of the genesis of {date}" in line
    assert _run(verify, str(proof_file), "--trust", bench.genesis, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["age_judged"], date in found["keys_of"]) == (False, True)
    monkeypatch.setattr(trust.time, "time", lambda: START_S + 1000.0)
    judged = ("--trust", bench.genesis, "--trusting-period", "14")
    assert _run(verify, str(proof_file), *judged) == 0
    assert "was not judged" not in capsys.readouterr().out
    assert _run(verify, str(proof_file), *judged, "--json") == 0
    assert json.loads(capsys.readouterr().out)["age_judged"] is True


def test_altered_proof_does_not_hold(
    bench: Bench, proof_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(proof_file.read_bytes())
    data[-40] ^= 1
    proof_file.write_bytes(data)
    capsys.readouterr()
    assert _run(verify, str(proof_file), "--trust", bench.genesis) == 1
    assert "does NOT hold" in capsys.readouterr().out
    assert _run(verify, str(proof_file), "--trust", bench.genesis, "--json") == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_trusted_header_is_an_option(
    bench: Bench, proof_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    height = len(bench.node.chain.app_hashes)
    hash_ = bench.node.light_block(height).header.hash.hex()
    where = ["--trust", bench.genesis, "--trusted-height", str(height), "--trusted-hash", hash_]
    assert _run(verify, str(proof_file), *where) == 0
    assert f"trusted header at height {height}" in capsys.readouterr().out
    where[-1] = "00" * 32
    assert _run(verify, str(proof_file), *where) == 1


def test_table_shows_every_region_of_the_genesis(
    bench: Bench, nodes: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(figure, "--node", "http://honest", "--trust", bench.genesis) == 0
    out = capsys.readouterr().out
    assert bench.region.hex() in out
    assert b"another!".hex() in out
    assert "kWh" in out


def test_lying_node_is_refused(
    bench: Bench, nodes: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(figure, "--node", "http://liar", "--trust", bench.genesis) == 1
    assert "20 of 40" in capsys.readouterr().out


def test_witness_that_tells_another_header_stops_it(
    bench: Bench, nodes: object, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--node", "http://honest", "--witness", "http://liar", "--trust", bench.genesis)
    assert _run(figure, *arguments) == 1
    assert "two headers at height" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--region", "12"), "16 hex digits"),
        (("--region", "zz" * 8), "16 hex digits"),
        (("--reading", "00" * 32), "go together"),
        (("-o", "somewhere"), "give --region"),
        (("--timeout", "0"), "--timeout"),
        (("--trusted-height", "3"), "go together"),
        (("--trusted-height", "0", "--trusted-hash", "00" * 32), "begin at 1"),
        (("--trusted-height", "3", "--trusted-hash", "00"), "64 hex digits"),
        (("--trusting-period", "0"), "days"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(
    bench: Bench, nodes: object, arguments: tuple[str, ...], match: str
) -> None:
    with pytest.raises(CommandError, match=match):
        _run(figure, "--node", "http://honest", "--trust", bench.genesis, *arguments)


def test_wrong_files_are_told_in_a_sentence(
    bench: Bench, nodes: object, proof_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        _run(verify, str(tmp_path / "none"), "--trust", bench.genesis)
    with pytest.raises(CommandError, match="not a proof file"):
        _run(verify, bench.genesis, "--trust", bench.genesis)
    with pytest.raises(CommandError, match="not the genesis of a wide-area chain"):
        _run(verify, str(proof_file), "--trust", str(bench.folder / "genesis.cbor"))
    alone = tmp_path / "alone.cbor"
    alone.write_bytes(replace(bench.node.genesis, validators=()).encode())
    with pytest.raises(CommandError, match="names no validators"):
        _run(verify, str(proof_file), "--trust", str(alone))
    where = ("--node", "http://honest", "--trust", bench.genesis, "--region", bench.region.hex())
    with pytest.raises(CommandError, match="cannot be written"):
        _run(figure, *where, "-o", str(tmp_path / "no" / "folder"))
    reading = ("--ledger", str(tmp_path), "--reading", bench.digest.hex())
    with pytest.raises(CommandError, match="is not the folder of a region"):
        _run(figure, *where, *reading)


def test_address_that_is_none_is_told_in_a_sentence(bench: Bench) -> None:
    with pytest.raises(CommandError, match="not an address"):
        _run(figure, "--node", "localhost", "--trust", bench.genesis)
    with pytest.raises(CommandError, match="nothing listens there"):
        _run(figure, "--node", "http://127.0.0.1:1", "--trust", bench.genesis)
