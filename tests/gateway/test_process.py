"""The gateway as a process: exit codes, sentences, one owner, SIGTERM, SIGKILL."""

import json
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.region import RegionDirectory
from tests.broker import mosquitto_broker, nats_broker
from tests.gateway.link import LIMIT_S, Street, make_region
from tests.gateway.region import FIRST, STRANGER

MEMBERS = 4
READY = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info event=ready broker=127.0.0.1:\d+ height=\d+ round=-?\d+$"
)


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "--config", str(folder / "gateway.toml"), *more]


@contextmanager
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a gateway and wait for its ready line."""
    arguments = command(folder, "--status", str(folder / "status.json"))
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            lines = []
            for line in child.stderr:
                lines.append(line)
                if "event=ready " in line:
                    break
            else:
                pytest.fail("".join(lines))
            assert re.match(READY, lines[-1])
            yield child
        finally:
            child.kill()


def finish(child: subprocess.Popen[str], number: int) -> tuple[int, str]:
    child.send_signal(number)
    _, text = child.communicate(timeout=LIMIT_S)
    return child.returncode, text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_zero_and_everything_durable(number: int, tmp_path: Path) -> None:
    with nats_broker(tmp_path) as broker:
        genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
        with (
            process(tmp_path / "region") as child,
            Street(genesis, MEMBERS, broker.port) as street,
        ):
            street.wait_receipts(street.play(FIRST))
            assert finish(child, number)[0] == 0
    status = json.loads((tmp_path / "region" / "status.json").read_text())
    assert (status["running"], status["height"], status["round"]) == (False, 1, FIRST)
    assert status["counters"]["receipts.sent"] == MEMBERS
    application = RegionDirectory(tmp_path / "region").open_regional(read_only=True)
    assert application.height == 1
    application.close()


def test_killed_gateway_loses_nothing_that_was_sent(tmp_path: Path) -> None:
    # the broker keeps what was not acknowledged, the gateway what was: together nothing is lost
    with mosquitto_broker(tmp_path) as broker:
        genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
        with Street(genesis, MEMBERS, broker.port) as street:
            for round_ in range(FIRST, FIRST + 5):
                with process(tmp_path / "region") as child:
                    street.play(round_)
                    # at whatever step it is by now
                    finish(child, signal.SIGKILL)
            with process(tmp_path / "region") as child:
                street.wait_receipts(street.play(FIRST + 5))
                assert finish(child, signal.SIGTERM)[0] == 0
    application = RegionDirectory(tmp_path / "region").open_regional(read_only=True)
    heads = [application.blocks.head(height + 1) for height in range(application.height)]
    application.close()
    assert [head.round for head in heads] == list(range(FIRST, FIRST + 6))
    assert [head.record_count for head in heads] == [2 * MEMBERS] * 6


def test_second_gateway_on_one_ledger_is_refused(tmp_path: Path) -> None:
    with nats_broker(tmp_path) as broker:
        make_region(tmp_path / "region", broker.port, MEMBERS)
        with process(tmp_path / "region") as child:
            second = subprocess.run(
                command(tmp_path / "region"), capture_output=True, text=True, timeout=LIMIT_S
            )
            assert second.returncode == 2
            assert "regional.sqlite is in use" in second.stderr
            assert second.stderr.count("\n") == 1
            assert finish(child, signal.SIGTERM)[0] == 0


def test_broker_that_cannot_be_reached_is_told_and_tried_again(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and never listens
        port = nobody.getsockname()[1]
        make_region(tmp_path / "region", port, MEMBERS)
        arguments = command(tmp_path / "region")
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
            try:
                assert child.stderr is not None
                told = f"warning event=mqtt-unreachable broker=127.0.0.1:{port}"
                tries = 0
                while tries < 2:
                    line = child.stderr.readline()
                    assert line, "the gateway ended"
                    tries += told in line
                assert finish(child, signal.SIGTERM)[0] == 0
            finally:
                child.kill()


def refusal(folder: Path) -> str:
    """Run a gateway that cannot start; gives its one sentence."""
    done = subprocess.run(command(folder), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2
    assert done.stderr.startswith("gateway: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_wrong_setting_is_one_sentence_and_exit_two(tmp_path: Path) -> None:
    make_region(tmp_path / "region", 1883, MEMBERS)
    (tmp_path / "region" / "gateway.toml").write_text("version = 1\n[mqtt]\nprot = 1\n")
    assert "[mqtt] prot is not a setting; the nearest is 'port'" in refusal(tmp_path / "region")


def test_disk_that_takes_nothing_is_one_sentence_and_exit_one(tmp_path: Path) -> None:
    """A service manager tries again after 1, and not after 2."""
    make_region(tmp_path, 1883, MEMBERS)
    done = subprocess.run(
        command(tmp_path),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)),
    )
    assert done.returncode == 1
    assert re.fullmatch(r"gateway: .*regional\.sqlite cannot be .*\n", done.stderr)


def test_missing_genesis_is_one_sentence_and_exit_two(tmp_path: Path) -> None:
    make_region(tmp_path / "region", 1883, MEMBERS)
    (tmp_path / "region" / "genesis.cbor").unlink()
    assert "genesis.cbor" in refusal(tmp_path / "region")


def test_missing_wide_genesis_is_one_sentence_and_exit_two(tmp_path: Path) -> None:
    make_region(tmp_path / "region", 1883, MEMBERS, **{"wide.forward": True})
    assert "wide-genesis.cbor" in refusal(tmp_path / "region")


def test_key_that_the_genesis_does_not_name_is_refused(tmp_path: Path) -> None:
    make_region(tmp_path / "region", 1883, MEMBERS)
    key = tmp_path / "region" / "keys" / "gateway.key"
    key.unlink()
    assert "cannot be read" in refusal(tmp_path / "region")
    STRANGER.save(key)
    assert "names no gateway with this key" in refusal(tmp_path / "region")
    key.write_text("zz")
    assert "is not a key file" in refusal(tmp_path / "region")
