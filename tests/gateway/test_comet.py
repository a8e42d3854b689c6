"""A region of four gateways with real CometBFT, real gateways, a real broker."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.config import load, write_default
from gateway.network.create import PORTS, NetworkPlan, create_regional, create_wide
from gateway.network.folder import NetworkFolder
from gateway.service import Service
from hil.network import QUICK, Member, Network, Node, member_of, members_of
from hil.ports import free_ports
from ledger.audit import audit
from ledger.engine.comet.rpc import Rpc
from ledger.genesis import Parameters
from ledger.protocol import records
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from ledger.wide.summary import Summary
from tests.broker import nats_broker
from tests.cometbft import needs_cometbft
from tests.gateway.link import LIMIT_S, Street, make_region
from tests.gateway.region import FIRST, ROUND_S, signer

NAMES = ("pi-1", "pi-2", "pi-3", "pi-4")
MEMBERS = 4
WINDOW = 15

pytestmark = needs_cometbft


class Pis:
    """The gateways' nodes: CometBFT and ``python -m gateway`` each."""

    def __init__(
        self, folder: Path, broker_port: int, settings: Mapping[str, object] | None = None
    ) -> None:
        plan = NetworkPlan(
            names=NAMES,
            base_port=free_ports(len(NAMES) * PORTS),
            tuning=QUICK,
            settings={
                "mqtt.port": broker_port,
                "rounds.pace": "trace",
                "rounds.timeout_s": 5.0,
                **(settings or {}),
            },
        )
        meters = [(signer(i + 1).public_key, "street") for i in range(MEMBERS)]
        self.folder: NetworkFolder = create_regional(
            folder, "street", Parameters(round_s=ROUND_S), plan, meters
        )
        self.network = Network([self._member(name) for name in NAMES])
        self.genesis = self.directory(NAMES[0]).load_genesis()

    def _member(self, name: str) -> Member:
        paths = self.folder.paths(name)
        status = str(paths.path.absolute() / "status.json")
        command = (sys.executable, "-m", "gateway", "--status", status)
        return member_of(self.folder, name, command, paths.gateway_settings)

    def node(self, name: str) -> Node:
        return self.network.nodes[name]

    def directory(self, name: str) -> RegionDirectory:
        return RegionDirectory(self.folder.paths(name).path)

    def snapshots(self, name: str) -> Iterator[Path]:
        return (self.directory(name).regional.parent / "snapshots").glob("*")

    def status(self, name: str) -> dict[str, object]:
        try:
            text = (self.directory(name).path / "status.json").read_text()
            status: dict[str, object] = json.loads(text)
        except (OSError, ValueError):
            return {}
        return status

    def wait(self, done: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not done():
            if time.monotonic() > deadline:
                told = {name: self.status(name) for name in NAMES}
                tails = "\n".join(self.node(name).tail() for name in NAMES)
                raise AssertionError(f"{complaint}: {told}\n{tails}")
            time.sleep(0.05)

    def start(self) -> None:
        self.network.start()
        self.wait(lambda: all(self.status(n).get("connected") for n in NAMES), "not connected")
        self.network.wait_peers()

    def heads(self, name: str) -> list[bytes | None]:
        application = self.directory(name).open_regional(read_only=True)
        heads = [application.blocks.head_payload(h + 1) for h in range(application.height)]
        application.close()
        return heads


@contextmanager
def running(
    tmp_path: Path, settings: Mapping[str, object] | None = None
) -> Iterator[tuple[Pis, Street]]:
    with nats_broker(tmp_path / "broker") as broker:
        pis = Pis(tmp_path / "region", broker.port, settings)
        with pis.network:
            pis.start()
            with Street(pis.genesis, MEMBERS, broker.port) as street:
                yield pis, street


def test_one_of_four_gateways_is_killed_and_comes_back_and_nothing_is_lost(tmp_path: Path) -> None:
    with running(tmp_path) as (pis, street):
        sent = []
        for round_ in range(FIRST, FIRST + 3):
            played = street.play(round_)
            street.wait_receipts(played)
            sent += played
        pis.node("pi-2").kill()
        for round_ in range(FIRST + 3, FIRST + 8):
            played = street.play(round_)
            street.wait_receipts(played)
            sent += played
        pis.node("pi-2").start()
        pis.wait(lambda: pis.status("pi-2").get("height") == 8, "pi-2 does not catch up")
        for round_ in range(FIRST + 8, FIRST + 10):
            played = street.play(round_)
            street.wait_receipts(played)
            sent += played
        pis.wait(
            lambda: all(
                (s.get("height"), s.get("inbox"), s.get("held_records")) == (10, 0, 0)
                for s in map(pis.status, NAMES)
            ),
            "not all gateways are through",
        )
        pis.network.stop()
    heads = {name: pis.heads(name) for name in NAMES}
    assert len(heads["pi-1"]) == 10
    assert all(other == heads["pi-1"] for other in heads.values())
    assert sum(records.decode(h).record_count for h in heads["pi-1"] if h) == len(sent)
    for name in NAMES:
        report = audit(pis.directory(name))
        assert report.ok, (name, report.failure)


def test_summaries_reach_a_wide_area_chain_on_another_node(tmp_path: Path) -> None:
    with nats_broker(tmp_path / "broker") as broker:
        genesis = make_region(tmp_path / "region", broker.port, MEMBERS)
        plan = NetworkPlan(
            names=("sub-1",),
            base_port=free_ports(PORTS),
            tuning=QUICK,
        )
        regions = [(genesis.chain, genesis.gateways)]
        wide = create_wide(tmp_path / "wide", "wide", plan, regions)
        directory = RegionDirectory(tmp_path / "region")
        directory.wide_genesis.write_bytes(wide.genesis_file.read_bytes())
        settings: dict[str, object] = {
            "mqtt.port": broker.port,
            "wide.node": wide.node("sub-1").rpc,
        }
        settings |= {"rounds.pace": "trace", "rounds.timeout_s": 20.0}
        write_default(directory.config, settings)
        service = Service(load(directory.config))
        thread = threading.Thread(target=service.run)
        thread.start()
        try:
            assert service.wait_ready(LIMIT_S)
            first = FIRST - FIRST % WINDOW
            with Street(genesis, MEMBERS, broker.port) as street:
                for round_ in range(first, first + WINDOW):
                    street.wait_receipts(street.play(round_))
                # the node comes up later than the summary is ready
                wait(lambda: "cannot be reached" in str(service.status(running=True)["wide_error"]))
                with Network(members_of(wide)) as network:
                    network.start()
                    wait(lambda: service.status(running=True)["outbox"] == 0)
                    rpc = Rpc(wide.node("sub-1").rpc)
                    key = genesis.chain + WINDOW.to_bytes(8, "big")
                    answer = rpc.query("summary", key)
                    assert answer.value is not None
                    summary = Summary.decode(Envelope.parse(answer.value).payload)
                    assert summary.accepted == WINDOW * MEMBERS
                    assert service.counters["summaries.sent"] == 1
                    assert service.status(running=True)["wide_error"] == ""
                    rpc.close()
        finally:
            service.stop()
            thread.join(LIMIT_S)


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
