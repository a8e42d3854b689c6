"""A gateway that serves its region to CometBFT: addresses, rules that it lacks, what it prunes."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.config import load
from gateway.receipts import Receipts
from gateway.service import Service
from gateway.serving import address_below
from ledger.engine.comet import chain_id
from ledger.genesis import GenesisValidator, RegionGenesis
from ledger.network import NetworkChange, Upgrade
from ledger.protocol import records
from ledger.regional.compact import MOST_BACK
from tests.gateway.link import LIMIT_S, make_region
from tests.gateway.region import FIRST, GATEWAY, OPERATOR, ROUND_S, Meter, signer
from tests.ledger.engine.driver import Driver

VALIDATOR = GenesisValidator("pi-1", bytes(range(32)), 1)
DAY_S = 86_400


def make(folder: Path, **settings: object) -> RegionGenesis:
    """Write the folder of a gateway whose broker and CometBFT's RPC do not answer."""
    comet = {
        "chain.engine": "comet",
        "chain.abci": "unix://app.sock",
        "chain.rpc": "http://127.0.0.1:9",
        "chain.validator": "00" * 20,
    }
    genesis = make_region(folder, 9, 2, **comet, **settings)
    genesis = dataclasses.replace(genesis, validators=(VALIDATOR,))
    (folder / "genesis.cbor").write_bytes(genesis.encode())
    return genesis


def connect(folder: Path, genesis: RegionGenesis) -> Driver:
    """Connect as an engine that begins the chain."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            driver = Driver(f"unix://{folder / 'app.sock'}")
            break
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    state = b'{"genesis": "%s"}' % genesis.digest.hex().encode()
    driver.init_chain(chain_id(genesis.chain), [(VALIDATOR.public_key, 1)], state)
    return driver


def close(genesis: RegionGenesis, round_: int) -> bytes:
    return GATEWAY.seal(records.Close(genesis.chain, round_).payload()).raw


@pytest.mark.parametrize(
    ("address", "served"),
    [
        ("unix://app.sock", "unix:///run/region/app.sock"),
        ("unix:///run/other.sock", "unix:///run/other.sock"),
        ("tcp://127.0.0.1:26658", "tcp://127.0.0.1:26658"),
        ("app.sock", "app.sock"),
    ],
)
def test_relative_socket_is_below_the_folder(address: str, served: str) -> None:
    assert address_below(Path("/run/region"), address) == served


def test_rules_that_this_program_does_not_have_end_it_with_2_and_a_sentence(tmp_path: Path) -> None:
    genesis = make(tmp_path)
    command = [sys.executable, "-m", "gateway", "--config", str(tmp_path / "gateway.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            driver = connect(tmp_path, genesis)
            change = OPERATOR.seal(NetworkChange(genesis.chain, 1, Upgrade(2, 3)).payload()).raw
            assert driver.block([change, close(genesis, FIRST)]).codes == [0, 0]
            assert driver.block([]).app_version == 2
            driver.close()
            _, told = running.communicate(timeout=LIMIT_S)
            assert running.returncode == 2
        finally:
            running.kill()
    sentence = "gateway: block 3 comes under version 2 of the rules, and this program has version 1"
    assert sentence in told
    assert "Traceback" not in told
    again = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert again.returncode == 2
    assert again.stderr.startswith(sentence)
    assert again.stderr.count("\n") == 1


@contextmanager
def serving(folder: Path, genesis: RegionGenesis) -> Iterator[tuple[Service, Driver]]:
    service = Service(load(folder / "gateway.toml"))
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        driver = connect(folder, genesis)
        yield service, driver
        driver.close()
    finally:
        service.stop()
        thread.join(LIMIT_S)


def test_head_that_is_not_signed_yet_gives_no_receipts(tmp_path: Path) -> None:
    """After a snapshot the old heads are signed a few at a time."""
    genesis = make(tmp_path)
    with serving(tmp_path, genesis) as (service, driver):
        meter = Meter(genesis, signer(1))
        assert driver.block([meter.reading(FIRST).raw, close(genesis, FIRST)]).codes == [0, 0]
        wanted = {meter.address: [0]}
        with service._chain.lock:
            receipts = Receipts(service._application)
            assert len(list(receipts.messages(1, wanted))) == 1
            service._application._database.connection.execute("UPDATE heads SET envelope = NULL")
            assert list(receipts.messages(1, wanted)) == []
            assert service._application.sign_heads(service._key) == [1]
            assert len(list(receipts.messages(1, wanted))) == 1


def test_age_of_records_is_told_by_the_time_in_the_blocks(tmp_path: Path) -> None:
    """The clock of this machine is years ahead of the blocks, and prunes nothing."""
    genesis = make(tmp_path, **{"keep.months": 1})
    with serving(tmp_path, genesis) as (service, driver):
        driver.time_s = FIRST * ROUND_S
        meter = Meter(genesis, signer(1))
        reading = meter.reading(FIRST).raw
        assert driver.block([reading, close(genesis, FIRST)]).codes == [0, 0]
        # fewer than so many are left for later
        for round_ in range(FIRST + 1, FIRST + MOST_BACK):
            assert driver.block([close(genesis, round_)]).codes == [0]
        for day in (20, 25):
            driver.block([close(genesis, FIRST + day * DAY_S // ROUND_S)])
        assert service.counters["blocks.pruned"] == 0
        driver.time_s += 40 * DAY_S
        driver.block([close(genesis, FIRST + 40 * DAY_S // ROUND_S)])
        assert service.counters["blocks.pruned"] == MOST_BACK
        # whoever still owes a receipt of a block that is gone owes it no more
        with service._chain.lock:
            wanted = {meter.address: [0]}
            assert list(Receipts(service._application).messages(1, wanted)) == []
