"""Where the files of a network are: one folder, in it one home a node.

network.json            names, addresses and the chain of the network; no secrets
genesis.cbor            the application's genesis: what ``gridwitness verify --trust`` takes
operators/NAME.key      secret keys of the operators: they belong elsewhere
nodes/NAME/             all that one node needs, beside network.json and genesis.cbor
  comet/                CometBFT's home: config, data
  application.toml      wide area: settings of the application (gateway.node)
  gateway.toml          region: settings of the gateway, whose process holds the application
  app.sock              where the application listens for CometBFT
  comet.log, application.log
"""

import dataclasses
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.network.errors import NetworkFolderError
from ledger.genesis import RegionGenesis, WideGenesis
from ledger.protocol.errors import ProtocolError
from ledger.protocol.records import is_cluster_name

_VERSION = 1
_MOST_BYTES = 1 << 20
_MOST_GENESIS_BYTES = 16 << 20

WIDE = "wide"
REGIONAL = "regional"

LOOPBACK = "127.0.0.1"

Genesis = WideGenesis | RegionGenesis


@dataclass(frozen=True)
class NodeEntry:
    """One node as network.json tells it; ``id`` is CometBFT's, ``p2p`` is host:port.

    ``metrics`` and ``application`` are the addresses of the Prometheus pages of CometBFT and of
    the application.
    """

    name: str
    id: str
    p2p: str
    rpc: str
    metrics: str
    application: str

    @property
    def peer(self) -> str:
        """The form in which other nodes name it."""
        return f"{self.id}@{self.p2p}"

    @property
    def host(self) -> str:
        """Where its peers reach it, without the port."""
        return self.p2p.rpartition(":")[0]

    @property
    def is_on_loopback(self) -> bool:
        """Tell whether its peers can be on its own machine only."""
        return self.host == LOOPBACK


class NodePaths:
    """The paths of one node's files, whether or not they exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.comet = path / "comet"
        self.validator_key = self.comet / "config" / "priv_validator_key.json"
        self.settings = path / "application.toml"
        self.gateway_settings = path / "gateway.toml"
        self.socket = path / "app.sock"
        self.lock = path / "run.lock"
        self.comet_log = path / "comet.log"
        self.application_log = path / "application.log"

    @property
    def unit(self) -> Path:
        """The systemd unit."""
        return self.path / f"gridwitness-{self.path.name}.service"


class NetworkFolder:
    """One network's folder; ``kind``, ``chain`` and ``nodes`` as network.json has them."""

    def __init__(self, path: Path, kind: str, chain: bytes, nodes: tuple[NodeEntry, ...]) -> None:
        self.path = path
        self.kind = kind
        self.chain = chain
        self.nodes = nodes

    @classmethod
    def load(cls, path: Path) -> "NetworkFolder":
        """Read network.json; raises NetworkFolderError."""
        file = path / "network.json"
        try:
            with file.open("rb") as opened:
                text = opened.read(_MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise NetworkFolderError(
                f"{file} does not exist: {path} is no network; gridwitness network init makes one"
            ) from None
        except OSError as e:
            raise NetworkFolderError(f"{file} cannot be read: {e.strerror}") from e
        try:
            data = json.loads(text)
            if data["version"] != _VERSION or data["kind"] not in (WIDE, REGIONAL):
                raise ValueError("another version or kind")
            nodes = tuple(_entry(item) for item in data["nodes"])
            return cls(path, data["kind"], bytes.fromhex(data["chain"]), nodes)
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise NetworkFolderError(f"{file} is not what network init writes: {e}") from e

    def save(self) -> None:
        """Write network.json, whole or not at all; raises OSError."""
        nodes = [dataclasses.asdict(node) for node in self.nodes]
        data = {
            "version": _VERSION,
            "kind": self.kind,
            "chain": self.chain.hex(),
            "nodes": nodes,
        }
        partial = self.path / "network.json.new"
        partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path / "network.json")

    @property
    def operators(self) -> Path:
        """The folder of the operators' keys."""
        return self.path / "operators"

    @property
    def genesis_file(self) -> Path:
        """The application's genesis."""
        return self.path / "genesis.cbor"

    def load_genesis(self) -> Genesis:
        """Read the application's genesis; raises NetworkFolderError."""
        decode = WideGenesis.decode if self.kind == WIDE else RegionGenesis.decode
        try:
            with self.genesis_file.open("rb") as file:
                return decode(file.read(_MOST_GENESIS_BYTES))
        except OSError as e:
            raise NetworkFolderError(f"{self.genesis_file} cannot be read: {e.strerror}") from e
        except ProtocolError as e:
            raise NetworkFolderError(
                f"{self.genesis_file} is not this network's genesis: {e}"
            ) from e

    def paths(self, name: str) -> NodePaths:
        """Give where a node's files are."""
        return NodePaths(self.path / "nodes" / name)

    def node(self, name: str) -> NodeEntry:
        """Give one node; raises NetworkFolderError for an unknown one."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise NetworkFolderError(f"{name} is not a node of this network: it has {names}")

    def here(self) -> list[NodeEntry]:
        """Give the nodes whose homes are on this machine."""
        return [node for node in self.nodes if self.paths(node.name).comet.is_dir()]


def has_control(text: str) -> bool:
    """Say whether a path has control characters, with which it would be more than one line."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def _entry(item: dict[str, Any]) -> NodeEntry:
    names = [field.name for field in dataclasses.fields(NodeEntry)]
    values = [item[name] for name in names]
    if not all(isinstance(value, str) for value in values) or not is_cluster_name(item["name"]):
        raise ValueError("a node's entry is not of texts")
    return NodeEntry(*values)
