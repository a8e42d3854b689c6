"""A wide-area network of four nodes with traffic, and what must hold after any fault.

The nodes are real: CometBFT and the application's own program. ``Bench.settle`` is what every
fault test ends with: no fork, nothing lost, the same audit everywhere.
"""

import os
import random
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.network.create import PORTS, NetworkPlan, create_wide
from hil.network import QUICK, Network, members_of
from hil.ports import free_ports
from hil.traffic import MadeRegion, Traffic
from ledger.audit import AuditReport, audit_wide
from ledger.engine.comet.rpc import Rpc
from ledger.genesis import WideGenesis
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from ledger.wide import codes
from ledger.wide.state import Region

NAMES = ("gw-a", "gw-b", "sub-1", "sub-2")


def seeds() -> range:
    """Give the seeds to run each fault with: one, or those of SOAK_SEEDS=FIRST:COUNT."""
    first, _, count = os.environ.get("SOAK_SEEDS", "1:1").partition(":")
    return range(int(first), int(first) + int(count or 1))


class Bench:
    """Four validators, two regions that report; a context manager that leaves no process."""

    def __init__(
        self,
        path: Path,
        seed: int = 1,
        *,
        altered: Mapping[str, Sequence[str]] | None = None,
        regions: int = 2,
    ) -> None:
        self.rng = random.Random(seed)
        self.regions = [MadeRegion(f"region {i}", seed) for i in range(regions)]
        plan = NetworkPlan(
            names=NAMES,
            base_port=free_ports(len(NAMES) * PORTS),
            tuning=QUICK,
        )
        entries = [region.entry for region in self.regions]
        self.folder = create_wide(path / "network", "test", plan, entries)
        genesis = self.folder.load_genesis()
        assert isinstance(genesis, WideGenesis)
        self.genesis = genesis
        self.network = Network(members_of(self.folder, altered))
        urls = [node.member.url for node in self.network.nodes.values()]
        self.traffic = Traffic(self.regions, genesis.chain, urls)
        self.report = AuditReport()

    def __enter__(self) -> Self:
        self.network.__enter__()
        try:
            self.network.start()
            self.network.wait_peers()
            self.traffic.__enter__()
            self.network.wait(lambda: self.traffic.reporters[0].delivered > 0, 30, "no traffic")
            self.contradict(NAMES[0])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        self.traffic.stop()
        self.network.close()

    def contradict(self, name: str) -> None:
        """Have the first region's gateway tell other figures: evidence that must not get lost."""
        region = self.regions[0]
        told = region.summary(self.genesis.chain, 0)
        other = replace(told, energy_in=told.energy_in + 1)
        node = Rpc(self.network.nodes[name].member.url)
        try:
            (result,) = node.broadcast([region.key.seal(other.payload()).raw])
        finally:
            node.close()
        assert result.code in (codes.OK, codes.DUPLICATE)

    def is_contradicted(self, name: str) -> bool:
        """Tell whether a node knows the evidence."""
        leaf = self.query(name, "region", self.regions[0].chain)
        return leaf is not None and Region.decode(leaf).conflict is not None

    def query(self, name: str, path: str, key: bytes) -> bytes | None:
        """Ask one node's application."""
        node = Rpc(self.network.nodes[name].member.url)
        try:
            return node.query(path, key).value
        finally:
            node.close()

    def powers(self, name: str) -> dict[str, int]:
        """Give the validators that a node's chain has: address -> power."""
        found = self.network.nodes[name].ask("validators")["validators"]
        return {item["address"]: int(item["voting_power"]) for item in found}

    def others(self, *names: str) -> list[str]:
        """Give all nodes but some."""
        return [name for name in NAMES if name not in names]

    # what must hold

    def settle(self, names: Collection[str] = NAMES) -> None:
        """Stop the traffic, wait until nodes agree; checks that nothing forked or was lost."""
        first = next(iter(names))
        if not self.is_contradicted(first):  # its node may have died with it
            self.contradict(first)
        self.network.wait(lambda: self.is_contradicted(first), 20, "the evidence is lost")
        self.traffic.stop()
        self.network.wait_quiet(names)
        self.network.check_no_fork(names)
        for reporter in self.traffic.reporters:
            for number in range(reporter.delivered):
                own = reporter.region.sealed(self.genesis.chain, number)
                key = reporter.region.chain + (5 * (number + 1)).to_bytes(8, "big")
                for name in names:
                    value = self.query(name, "summary", key)
                    assert value is not None, f"{name} lost summary {number}"
                    assert Envelope.parse(value).payload == own.payload
        self.network.stop()
        self.audit(names)

    def audit(self, names: Collection[str]) -> None:
        """Audit every ledger; all must pass with the same figures and hold the same rows."""
        reports = {
            name: audit_wide(RegionDirectory(self.folder.paths(name).path)) for name in names
        }
        for name, report in reports.items():
            assert report.ok, f"{name}: {report.failure}"
            report.seconds = 0.0
        first, *others = reports.values()
        assert all(report == first for report in others)
        assert first.summaries >= self.traffic.delivered > 0
        assert first.conflicts == 1
        self.report = first
        assert len({tables(self.database(name)) for name in names}) == 1

    def database(self, name: str) -> Path:
        """Give where a node's ledger is."""
        return self.folder.paths(name).path / "ledger" / "wide.sqlite"

    def kept(self, name: str, code: int) -> list[bytes]:
        """Give what a stopped node keeps with a code."""
        connection = sqlite3.connect(self.database(name))
        try:
            rows = connection.execute("SELECT envelope FROM kept WHERE code=?", (code,)).fetchall()
        finally:
            connection.close()
        return [row[0] for row in rows]


def tables(path: Path) -> str:
    """Give all that a ledger holds, as text; but not when this node saw it, by its own clock."""
    connection = sqlite3.connect(path)
    try:
        return "\n".join(row for row in connection.iterdump() if '"times"' not in row)
    finally:
        connection.close()
