"""The gateways of a region as a session sees them: one, or several of which each is a small site.

A site is what stands on one Raspberry Pi: a broker, the gateway's program and a node of CometBFT.
``kill`` takes a whole site away at once, as a power cut would.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from gateway import provision
from gateway.network.create import PORTS, NetworkPlan, change_settings, create_regional
from hil.broker import Broker, BrokerGroup, Tls
from hil.gateways import GatewayProcess
from hil.network import QUICK, Network, member_of
from hil.ports import HOST, free_ports
from hil.status import GatewayStatus, read_status
from ledger.genesis import Parameters
from ledger.region import RegionDirectory


@dataclass(frozen=True)
class RegionPlan:
    """What a region is made of: its genesis, and values for each gateway.toml."""

    name: str
    parameters: Parameters
    members: Sequence[tuple[bytes, str]]
    created: int
    settings: Mapping[str, object]


class Sites(Protocol):
    """What serves a session's region; a context manager that starts brokers and leaves nothing."""

    directory: RegionDirectory
    """The folder that is looked at: the region's, or that of the last site."""

    def __enter__(self) -> Self:
        """Start the brokers; raises BrokerError."""

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        """End whatever still runs."""

    @property
    def brokers(self) -> list[Broker]:
        """The brokers that meters know."""

    def create(self, plan: RegionPlan) -> None:
        """Make the region."""

    async def start(self) -> None:
        """Start every gateway that does not run; returns at once."""

    async def stop(self) -> None:
        """End every gateway in an orderly way."""

    @property
    def running(self) -> list[str]:
        """The names of the gateways that run and are meant to."""

    @property
    def fallen(self) -> str:
        """Why the region cannot go on: the last words of a gateway that ended by itself, or ''."""

    @property
    def status(self) -> GatewayStatus:
        """What the gateways that run say: ready when all are, counts of all together."""


class OneGateway:
    """One broker and one gateway that orders alone. Sites with nothing to spare."""

    def __init__(self, folder: Path, rig: Path, kind: str, tls: Tls | None) -> None:
        self.directory = RegionDirectory(folder)
        self._broker = Broker(rig / "broker", kind, tls)
        self._gateway = GatewayProcess("gateway", self.directory.config, rig)

    def __enter__(self) -> Self:
        self._broker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._broker.kill()

    @property
    def brokers(self) -> list[Broker]:
        """See Sites."""
        return [self._broker]

    def create(self, plan: RegionPlan) -> None:
        """See Sites."""
        provision.create_region(
            self.directory,
            plan.name,
            plan.parameters,
            members=plan.members,
            created=plan.created,
            settings={"mqtt.port": self._broker.port, **plan.settings},
        )

    async def start(self) -> None:
        """See Sites."""
        await self._gateway.start()

    async def stop(self) -> None:
        """See Sites."""
        await self._gateway.stop()

    @property
    def running(self) -> list[str]:
        """See Sites."""
        return [self._gateway.name] if self._gateway.alive else []

    @property
    def fallen(self) -> str:
        """See Sites."""
        return "" if self._gateway.alive else self._gateway.tail()

    @property
    def status(self) -> GatewayStatus:
        """See Sites."""
        return self._gateway.status


class SeveralGateways:
    """Several sites whose brokers are one broker and whose gateways keep one chain."""

    def __init__(self, folder: Path, rig: Path, count: int, tls: Tls | None) -> None:
        self._names = [f"gw-{i + 1}" for i in range(count)]
        self._path = folder / "network"
        self._rig = rig
        self.directory = self.directory_of(self._names[-1])
        self._group = BrokerGroup(rig / "brokers", count, tls)
        self._network: Network | None = None
        self._stack = ExitStack()
        self._killed: set[str] = set()
        self._ended = True

    def directory_of(self, name: str) -> RegionDirectory:
        """Give the region's folder of one site."""
        return RegionDirectory(self._path / "nodes" / name)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._group)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """The sites' names."""
        return self._names

    @property
    def brokers(self) -> list[Broker]:
        """See Sites."""
        return self._group.brokers

    @property
    def network(self) -> Network:
        """The gateways' network; there once the region is made."""
        assert self._network is not None, "the region is not made yet"
        return self._network

    def create(self, plan: RegionPlan) -> None:
        """See Sites."""
        network = NetworkPlan(
            names=self._names,
            base_port=free_ports(len(self._names) * PORTS),
            created=plan.created,
            tuning=QUICK,
            settings=plan.settings,
        )
        made = create_regional(self._path, plan.name, plan.parameters, network, plan.members)
        nodes = []
        for entry, broker in zip(made.nodes, self._group.brokers, strict=True):
            paths = made.paths(entry.name)
            change_settings(paths.gateway_settings, {"mqtt.port": broker.port})
            status = str(self._status_file(entry.name))
            command = (sys.executable, "-m", "gateway", "--status", status)
            nodes.append(member_of(made, entry.name, command, paths.gateway_settings))
        self._network = self._stack.enter_context(Network(nodes))

    def _status_file(self, name: str) -> Path:
        return self._rig / f"{name}.json"

    async def start(self) -> None:
        """See Sites."""
        self._killed.clear()
        await asyncio.to_thread(self.network.start)
        self._ended = False

    async def stop(self) -> None:
        """See Sites."""
        if self._network is not None:
            self._ended = True
            await asyncio.to_thread(self._network.stop)

    async def kill(self, name: str) -> None:
        """Take a site away: broker, gateway and node at once (SIGKILL)."""
        self._killed.add(name)
        self.brokers[self._names.index(name)].kill()
        await asyncio.to_thread(self.network.nodes[name].kill)

    async def bring_back(self, name: str) -> None:
        """Let a site that was killed start again with what its disk holds."""
        await asyncio.to_thread(self.brokers[self._names.index(name)].start)
        self._status_file(name).unlink(missing_ok=True)
        await asyncio.to_thread(self.network.start, name)
        self._killed.discard(name)

    @property
    def _meant(self) -> list[str]:
        return [name for name in self._names if name not in self._killed]

    @property
    def running(self) -> list[str]:
        """See Sites."""
        return [name for name in self._meant if self.network.nodes[name].running]

    @property
    def fallen(self) -> str:
        """See Sites."""
        gone = [] if self._ended else set(self._meant) - set(self.running)
        return "\n".join(self.network.nodes[name].tail() for name in sorted(gone))

    @property
    def status(self) -> GatewayStatus:
        """See Sites."""
        found = [read_status(self._status_file(name)) for name in self._meant]
        counters: dict[str, int] = {}
        for status in found:
            for name, count in status.counters.items():
                counters[name] = counters.get(name, 0) + count
        return GatewayStatus(
            ready=bool(found) and all(status.ready for status in found),
            outbox=max((status.outbox for status in found), default=0),
            wide_height=max((status.wide_height for status in found), default=0),
            height=min((status.height for status in found), default=0),
            counters=counters,
        )


def make_sites(folder: Path, rig: Path, count: int, kind: str, tls: Tls | None) -> Sites:
    """Give the sites of a region below ``folder``; raises BrokerError."""
    if count == 1:
        return OneGateway(folder, rig, kind, tls)
    return SeveralGateways(folder, rig, count, tls)


def host_list(brokers: Sequence[Broker]) -> str:
    """Give brokers as a meter's settings name them (SPEC 12.4)."""
    if len(brokers) == 1:
        return HOST
    return ",".join(f"{HOST}:{broker.port}" for broker in brokers)
