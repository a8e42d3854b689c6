"""Gateways that lose their disks, on real CometBFT: back by a snapshot, or by blocks."""

import http.client
import json
import shutil
from pathlib import Path

from gateway.network.create import port_of
from hil.nodes import configure
from ledger.audit import audit
from ledger.engine.comet.rpc import Rpc
from ledger.protocol.cose import Envelope
from tests.cometbft import needs_cometbft
from tests.gateway.region import FIRST
from tests.gateway.test_comet import NAMES, Pis, running

pytestmark = needs_cometbft

# records of blocks that lie more than an epoch back are beyond evidence, and may go
LATER = FIRST + 5000
OLD = 64  # fewer blocks are not worth the work of pruning


def lose_disk(pis: Pis, name: str) -> None:
    """Kill a node and take what it stored; keys and CometBFT's signing state are kept elsewhere."""
    pis.node(name).kill()
    pis.node(name).reset()
    shutil.rmtree(pis.directory(name).queue.parent)


def sync_by_state(pis: Pis, name: str, source: str) -> None:
    """Let a node begin from a snapshot, with trust in the newest block of another node."""
    rpc = Rpc(pis.folder.node(source).rpc)
    status = rpc.status()
    rpc.close()
    servers = f"127.0.0.1:{port_of(pis.folder.node(source).rpc)}"
    configure(
        pis.node(name).member.home,
        {
            "statesync.enable": "true",
            "statesync.rpc_servers": json.dumps(f"{servers},{servers}"),
            "statesync.trust_height": str(status.height),
            "statesync.trust_hash": json.dumps(status.block_hash.hex()),
            "statesync.trust_period": json.dumps("100h0m0s"),
            "statesync.discovery_time": json.dumps("5s"),
        },
    )


def earliest(pis: Pis, name: str) -> int:
    rpc = Rpc(pis.folder.node(name).rpc)
    try:
        return rpc.status().earliest_height
    finally:
        rpc.close()


def page(pis: Pis, name: str) -> str:
    address = pis.folder.node(name).application
    connection = http.client.HTTPConnection("127.0.0.1", port_of(address), timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def first_body(pis: Pis, name: str) -> int:
    application = pis.directory(name).open_regional(read_only=True)
    first = application.blocks.first_body()
    application.close()
    return first


def signers(pis: Pis, name: str) -> set[bytes]:
    application = pis.directory(name).open_regional(read_only=True)
    raws = [application.blocks.head_envelope(h + 1) for h in range(application.height)]
    application.close()
    return {Envelope.parse(raw).kid for raw in raws if raw is not None}


def test_gateways_that_lost_their_disks_come_back_by_snapshot_and_by_blocks(tmp_path: Path) -> None:
    settings = {"keep.months": 1, "keep.snapshot_every": 4}
    with running(tmp_path, settings) as (pis, street):
        for first in range(FIRST, FIRST + OLD, 16):
            played = [street.play(round_) for round_ in range(first, first + 16)]
            street.wait_receipts([record for records in played for record in records])
        for round_ in (LATER, LATER + 1):
            street.wait_receipts(street.play(round_))
        pis.wait(lambda: all(any(pis.snapshots(name)) for name in NAMES), "no snapshot is made")
        told = page(pis, "pi-1")
        assert f"gridwitness_height {OLD + 2}" in told
        assert "gridwitness_engine_height " in told

        lose_disk(pis, "pi-2")
        sync_by_state(pis, "pi-2", "pi-1")
        street.wait_receipts(street.play(LATER + 2))
        pis.node("pi-2").start()
        pis.wait(lambda: pis.status("pi-2").get("height") == OLD + 3, "pi-2 does not come back")
        assert earliest(pis, "pi-2") > 1
        street.wait_receipts(street.play(LATER + 3))
        pis.wait(lambda: pis.status("pi-2").get("height") == OLD + 4, "pi-2 does not go on")

        lose_disk(pis, "pi-3")
        street.wait_receipts(street.play(LATER + 4))
        pis.node("pi-3").start()
        pis.wait(lambda: pis.status("pi-3").get("height") == OLD + 5, "pi-3 does not come back")
        assert earliest(pis, "pi-3") == 1
        street.wait_receipts(street.play(LATER + 5))
        pis.wait(
            lambda: all(
                (s.get("height"), s.get("inbox"), s.get("held_records")) == (OLD + 6, 0, 0)
                for s in map(pis.status, NAMES)
            ),
            "not all gateways are through",
        )
        for name in NAMES:
            counters = pis.status(name)["counters"]
            assert isinstance(counters, dict)
            assert not [c for c in counters if c.startswith("rejected")], (name, counters)
        pis.network.stop()
    heads = {name: pis.heads(name) for name in NAMES}
    assert all(other == heads["pi-1"] for other in heads.values())
    for name in NAMES:
        assert first_body(pis, name) > OLD, name
    assert len({frozenset(signers(pis, name)) for name in NAMES}) == 4
    for name in NAMES:
        report = audit(pis.directory(name))
        assert report.ok, (name, report.failure)
