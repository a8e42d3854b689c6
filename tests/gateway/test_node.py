"""The wide-area application's process: settings, serving an engine, snapshots, figures, its end."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import node as module
from gateway.counters import Counters
from gateway.metrics import Gauge, Page
from gateway.node import NodeConfig, NodeService, load, parse, render, table
from gateway.schema import ConfigError
from ledger.engine.abci import UpgradeNeeded
from ledger.engine.comet import chain_id
from ledger.network import NetworkChange, Upgrade
from ledger.region import RegionDirectory
from ledger.wide import codes
from tests.ledger.engine.driver import Driver, Refusal
from tests.ledger.wide.bench import MANAGED, NORTH, OPERATORS, sealed

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 20


def make_node(folder: Path, **settings: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    RegionDirectory(folder).wide_genesis.write_bytes(MANAGED.encode())
    path = folder / "application.toml"
    path.write_text(render({name.replace("__", "."): v for name, v in settings.items()}))
    return path


@contextmanager
def serving(path: Path) -> Iterator[tuple[NodeService, Driver]]:
    """Run a node in a thread, with an engine that has begun its chain."""
    service = NodeService(load(path))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            service.run()
        except UpgradeNeeded as e:
            failures.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        driver = connect(load(path))
        driver.height = driver.info()[0]
        if not driver.height:
            begin(driver)
        yield service, driver
        driver.close()
    finally:
        service.stop()
        thread.join(LIMIT_S)
    service.failures = failures  # type: ignore[attr-defined]


def connect(config: NodeConfig) -> Driver:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            return Driver(config.address)
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def begin(driver: Driver) -> None:
    validators = [(v.public_key, v.power) for v in MANAGED.validators]
    state = b'{"genesis": "%s"}' % MANAGED.digest.hex().encode()
    driver.init_chain(chain_id(MANAGED.chain), validators, state)


def until(condition) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wide_summary(number: int) -> bytes:
    return sealed(number, NORTH, chain=MANAGED.chain).raw


# -------------------------------------------------------------------------------------- settings


def test_written_settings_are_read_back_as_they_were(tmp_path):
    path = make_node(tmp_path, chain__abci="tcp://127.0.0.1:0", keep__months=13, metrics__port=0)
    config = load(path)
    assert (config.chain.abci, config.keep.months) == ("tcp://127.0.0.1:0", 13)
    assert config.directory == tmp_path
    assert parse(tomllib.loads(render()), "x") == NodeConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "version = 1 is needed"),
        ("version = true", "version = 1 is needed"),
        ("version = 1\n[kept]", "[kept] is not a setting; the nearest is 'keep'"),
        ("version = 1\nkeep = 3", "[keep] is a section, not a value"),
        ("version = 1\n[keep]\nblock = 3", "the nearest is 'blocks'"),
        ("version = 1\n[keep]\nblocks = -1", "allowed is a whole number from 0"),
        ("version = 1\n[keep]\nsnapshots = true", "allowed is a whole number from 1"),
        ("version = 1\n[metrics]\nport = 65536", "from 0 to 65535"),
        ("version = 1\n[log]\nlevel = 'all'", '"debug" or "info"'),
        ("version =", "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)
def test_wrong_settings_get_a_sentence_and_exit_code_2(tmp_path, capsys, text, complaint):
    path = tmp_path / "application.toml"
    path.write_text(text, errors="surrogateescape")
    assert module.main(["--config", str(path)]) == 2
    assert complaint in capsys.readouterr().err


NAMES = st.sampled_from(["chain", "keep", "metrics", "abci", "months", "blocks", "port"])
VALUES = st.integers() | st.text(max_size=5) | st.booleans() | st.floats() | st.none()


@given(
    st.dictionaries(
        NAMES | st.text(max_size=5),
        VALUES | st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=2), max_size=3),
        max_size=3,
    )
)
def test_any_table_gives_settings_or_one_error(data):
    for version in ({}, {"version": 1}):
        try:
            parse({**version, **data}, "fuzz")
        except ConfigError:
            continue


def test_settings_in_the_guide_are_the_settings():
    assert table() in (ROOT / "docs" / "network.md").read_text()


# --------------------------------------------------------------------------------------- serving


def test_blocks_are_served_and_kept_over_a_restart(tmp_path):
    path = make_node(tmp_path)
    with serving(path) as (_, driver):
        assert driver.check_tx(wide_summary(0)) == codes.OK
        block = driver.block([wide_summary(0)])
        assert block.codes == [codes.OK]
    with serving(path) as (service, driver):
        assert driver.info()[:2] == (1, block.app_hash)
        assert driver.block([wide_summary(1)]).codes == [codes.OK]
        assert service.counters["result.0"] == 1
        assert service.counters["block.committed"] == 1


def test_refusals_are_counted_by_code(tmp_path):
    with serving(make_node(tmp_path)) as (service, driver):
        assert driver.check_tx(b"rubbish") == codes.MALFORMED
        assert driver.check_tx(bytes(2000)) == 100
        assert service.counters[f"checked.{codes.MALFORMED}"] == 1
        assert service.counters["checked.100"] == 1


def test_a_snapshot_is_made_each_time_so_many_blocks_are_there(tmp_path):
    path = make_node(tmp_path, keep__snapshot_every=2, keep__snapshots=1, keep__blocks=1)
    folder = tmp_path / "ledger" / "snapshots"
    with serving(path) as (service, driver):
        for number in range(4):
            block = driver.block([wide_summary(number)])
            if number % 2:
                made = (number + 1) // 2
                until(lambda made=made: service.counters["snapshot.made"] == made)
        assert [p.name for p in folder.iterdir()] == ["4-1"]
        # CometBFT keeps what a node needs that starts from the snapshot
        assert block.retain == 2
        assert driver.block([wide_summary(4)]).retain == 4


def test_old_summaries_go_and_stay_provable(tmp_path):
    with serving(make_node(tmp_path, keep__months=1)) as (service, driver):
        driver.block([wide_summary(0)])
        driver.time_s += 40 * 86_400
        driver.block([wide_summary(1)])
        driver.block([wide_summary(2)])
        assert service.counters["summary.pruned"] == 1
        place = [NORTH + (10 * (n + 1)).to_bytes(8, "big") for n in range(2)]
        values = [service.node.application.query("summary", key) for key in place]
        assert [answer.value is None for answer in values] == [True, False]
        assert values[0].proof != []


def test_clock_of_the_machine_prunes_nothing(tmp_path, monkeypatch):
    """What is old is told by the time in the blocks, on which validators agree."""
    with serving(make_node(tmp_path, keep__months=1)) as (service, driver):
        for number in range(3):
            day = 1_700_000_000 + 400 * number * 86_400
            monkeypatch.setattr(module.time, "time", lambda day=day: float(day))
            driver.block([wide_summary(number)])
        assert service.counters["summary.pruned"] == 0


def test_rules_that_this_program_does_not_have_end_it_with_2_and_a_sentence(tmp_path, capsys):
    path = make_node(tmp_path, chain__abci="unix://app.sock")
    with process(path) as running:
        driver = connect(load(path))
        begin(driver)
        change = NetworkChange(MANAGED.chain, 1, Upgrade(2, 3))
        driver.block([OPERATORS[i].seal(change.payload()).raw for i in range(2)])
        assert driver.info()[2] == 1
        driver.decide([])
        driver.close()
        assert running.wait(LIMIT_S) == 2
        assert "block 3 comes under version 2 of the rules" in running.stderr.read()
    assert module.main(["--config", str(path)]) == 2
    assert "this program has version 1: install one" in capsys.readouterr().err


@contextmanager
def process(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.node", "--config", str(path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_0(tmp_path, number):
    path = make_node(tmp_path)
    with process(path) as running:
        connect(load(path)).close()
        running.send_signal(number)
        assert running.wait(LIMIT_S) == 0
        assert "event=stopped" in running.stderr.read()


def test_engine_of_another_chain_ends_it_with_2(tmp_path):
    path = make_node(tmp_path)
    with process(path) as running:
        driver = connect(load(path))
        with pytest.raises(Refusal, match="chain_id is 'other'"):
            driver.init_chain("other", [], b"{}")
        driver.close()
        assert running.wait(LIMIT_S) == 2


def test_genesis_without_validators_is_refused(tmp_path, capsys):
    path = make_node(tmp_path)
    plain = MANAGED.__class__("wide", 0, ())
    RegionDirectory(tmp_path).wide_genesis.write_bytes(plain.encode())
    assert module.main(["--config", str(path)]) == 2
    assert "names no validators" in capsys.readouterr().err


def test_second_process_on_one_store_is_refused(tmp_path, capsys):
    path = make_node(tmp_path)
    with serving(path):
        assert module.main(["--config", str(path)]) == 2
        assert "gateway.node: " in capsys.readouterr().err


# --------------------------------------------------------------------------------------- figures


def read_page(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_figures_and_counters_stand_on_the_page():
    counters = Counters()
    counters.add("result.0", 3)
    counters.add("snapshot.made")
    with Page(0, lambda: [Gauge("height", "The newest block.", 7)], counters) as page:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=LIMIT_S)
        connection.request("GET", "/other")
        assert connection.getresponse().status == 404
        connection.close()
        text = read_page(page.port)
    assert "\ngridwitness_height 7.0\n" in text
    assert 'gridwitness_events_total{area="result",what="0"} 3.0' in text
    assert 'gridwitness_events_total{area="snapshot",what="made"} 1.0' in text


def test_page_at_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="the page of figures cannot be at"):
            Page(taken.getsockname()[1], list, Counters())


def test_page_of_a_node_tells_its_height_and_refusals(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(make_node(tmp_path, metrics__port=port)) as (_, driver):
        driver.block([wide_summary(0)])
        driver.check_tx(bytes(2000))
        text = read_page(port)
    assert "\ngridwitness_height 1.0\n" in text
    assert "\ngridwitness_mempool_refused_100 1.0\n" in text
