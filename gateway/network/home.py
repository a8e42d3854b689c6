"""CometBFT's home folder of one node: keys, genesis.json, config.toml.

The files have the form that ``cometbft init`` of version 0.38 writes (its docs/core/configuration
and privval/file.go, p2p/key.go, types/genesis.go). config.toml holds only what differs from
CometBFT's defaults, which it takes for everything else.
"""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.engine.comet import chain_id
from ledger.genesis import GenesisValidator, RegionGenesis, WideGenesis

_DAY_S = 86_400
# evidence counts this long; light clients must trust a header for less
EVIDENCE_S = 21 * _DAY_S
TRUST_S = 14 * _DAY_S
# a record has at most 1,024 bytes; one that asks for more is not ours
_MAX_TX_BYTES = 2048
_MAX_BLOCK_BYTES = 2 << 20
_LOG_LEVEL = "main:info,state:info,statesync:info,blocksync:info,p2p:error,*:error"


class Key(NamedTuple):
    """An Ed25519 key: the seed and the public key, 32 bytes each."""

    seed: bytes
    public: bytes

    @classmethod
    def generate(cls) -> "Key":
        """Make a new key from the system's randomness."""
        secret = Ed25519PrivateKey.generate()
        return cls(secret.private_bytes_raw(), secret.public_key().public_bytes_raw())

    @property
    def address(self) -> str:
        """The key's 20 bytes of SHA-256 in hex, by which CometBFT names validators and nodes."""
        return sha256(self.public).digest()[:20].hex()

    @property
    def secret(self) -> str:
        """The form in which Go keeps a secret key: seed and public key, in base64."""
        return base64.b64encode(self.seed + self.public).decode()


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What of a node's configuration may differ between networks; times in seconds."""

    commit_s: float = 1.0
    """How long a block waits for late votes: the pace of a busy chain."""
    propose_s: float = 3.0
    """How long a proposal is waited for in the first round."""
    vote_s: float = 1.0
    """How long the rest of the votes are waited for, where those of two thirds decide nothing: once
    a block whose proposer is away."""
    empty_s: int = 600
    """A block comes at least this often; in between only where there is something to order."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """What stands in one node's configuration. ``peers`` are ``id@host:port``."""

    name: str
    p2p: str
    rpc_port: int
    metrics_port: int
    application: str
    peers: Sequence[str] = ()
    tuning: Tuning = field(default_factory=Tuning)
    state_sync: "StateSync | None" = None


class StateSync(NamedTuple):
    """Where a new node takes a snapshot's trust from: two RPC addresses, a height and its hash."""

    servers: tuple[str, str]
    height: int
    block_hash: bytes


def genesis_document(genesis: WideGenesis | RegionGenesis, created: str) -> dict[str, Any]:
    """Give CometBFT's genesis of one of our chains; ``created`` is RFC 3339, in UTC.

    The application compares chain id, validators and the genesis digest in ``app_state`` with
    its own genesis when the chain begins.
    """
    return {
        "genesis_time": created,
        "chain_id": chain_id(genesis.chain),
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(_MAX_BLOCK_BYTES), "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": "10000",
                "max_age_duration": str(EVIDENCE_S * 10**9),
                "max_bytes": "65536",
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": "1"},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [_validator(validator) for validator in genesis.validators],
        "app_hash": "",
        "app_state": {"genesis": genesis.digest.hex()},
    }


def _validator(validator: GenesisValidator) -> dict[str, Any]:
    return {
        "address": sha256(validator.public_key).digest()[:20].hex().upper(),
        "pub_key": {
            "type": "tendermint/PubKeyEd25519",
            "value": base64.b64encode(validator.public_key).decode(),
        },
        "power": str(validator.power),
        "name": validator.name,
    }


def write_keys(home: Path, validator: Key, node: Key) -> None:
    """Write the two secret keys and a signing state that has signed nothing yet; raises OSError."""
    _write_secret(
        home / "config" / "priv_validator_key.json",
        {
            "address": validator.address.upper(),
            "pub_key": {
                "type": "tendermint/PubKeyEd25519",
                "value": base64.b64encode(validator.public).decode(),
            },
            "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": validator.secret},
        },
    )
    _write_secret(
        home / "config" / "node_key.json",
        {"priv_key": {"type": "tendermint/PrivKeyEd25519", "value": node.secret}},
    )
    nothing_signed = {"height": "0", "round": 0, "step": 0}
    _write_secret(home / "data" / "priv_validator_state.json", nothing_signed)


def write_genesis(home: Path, document: dict[str, Any]) -> None:
    """Write genesis.json; raises OSError."""
    path = home / "config" / "genesis.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _write_secret(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _settings(home: Home) -> dict[str, dict[str, object]]:
    tuning = home.tuning
    return {
        "": {
            "proxy_app": home.application,
            "moniker": home.name,
            "log_level": _LOG_LEVEL,
        },
        "rpc": {
            "laddr": f"tcp://127.0.0.1:{home.rpc_port}",
            "max_open_connections": 100,
            "max_request_batch_size": 1000,
            "max_body_bytes": 4 << 20,
        },
        "p2p": {
            "laddr": f"tcp://{home.p2p}",
            "persistent_peers": ",".join(home.peers),
            "unconditional_peer_ids": _ids(home.peers),
            "persistent_peers_max_dial_period": "10s",
            "addr_book_strict": False,
            "allow_duplicate_ip": _share_machine([home.p2p, *map(_place, home.peers)]),
            "pex": False,
        },
        "mempool": {
            "size": 20_000,
            "max_txs_bytes": 16 << 20,
            "cache_size": 40_000,
            "max_tx_bytes": _MAX_TX_BYTES,
        },
        "statesync": _state_sync(home.state_sync),
        "consensus": {
            "timeout_propose": f"{round(tuning.propose_s * 1000)}ms",
            "timeout_prevote": f"{round(tuning.vote_s * 1000)}ms",
            "timeout_precommit": f"{round(tuning.vote_s * 1000)}ms",
            "timeout_commit": f"{round(tuning.commit_s * 1000)}ms",
            "create_empty_blocks": False,
            "create_empty_blocks_interval": f"{tuning.empty_s}s",
        },
        "storage": {"discard_abci_responses": True},
        "tx_index": {"indexer": "null"},
        "instrumentation": {
            "prometheus": True,
            "prometheus_listen_addr": f"127.0.0.1:{home.metrics_port}",
        },
    }


def _place(peer: str) -> str:
    return peer.partition("@")[2]


def _ids(peers: Sequence[str]) -> str:
    return ",".join(peer.partition("@")[0] for peer in peers)


def _share_machine(places: Sequence[str]) -> bool:
    """Say whether of these host:port two are on one machine, as far as the addresses tell."""
    hosts = [place.rpartition(":")[0] for place in places]
    return len(set(hosts)) != len(hosts) or any(host.startswith("127.") for host in hosts)


def _state_sync(wanted: StateSync | None) -> dict[str, object]:
    if wanted is None:
        return {"enable": False}
    return {
        "enable": True,
        "rpc_servers": ",".join(wanted.servers),
        "trust_height": wanted.height,
        "trust_hash": wanted.block_hash.hex().upper(),
        "trust_period": f"{TRUST_S // 3600}h0m0s",
        "discovery_time": "5s",
    }


def _toml(value: object) -> str:
    # a JSON text, number or truth value is one of TOML too
    return json.dumps(value)


# why a value is what it is, for who opens the file
_WHY = {
    "laddr rpc": "RPC knows no passwords: never anything but the loopback",
    "persistent_peers": "the nodes are known: none is looked for",
    "unconditional_peer_ids": "strangers who fill the places for peers keep no node out",
    "allow_duplicate_ip": "true only where nodes share a machine",
    "create_empty_blocks": "an empty block writes 58 KiB to the card",
    "discard_abci_responses": "results are in the application, not here too",
    "indexer": "nobody asks CometBFT for transactions: the application answers",
    "max_tx_bytes": "no record is longer than 1,024 bytes",
}


def render_config(home: Home) -> str:
    """Give the text of config.toml."""
    lines = ["# CometBFT's own defaults hold for what is not named here."]
    for section, values in _settings(home).items():
        lines += ["", f"[{section}]"] if section else []
        for name, value in values.items():
            why = _WHY.get(f"{name} {section}", _WHY.get(name))
            lines += [f"# {why}"] if why else []
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def write_config(home_path: Path, home: Home) -> None:
    """Write config.toml; raises OSError."""
    path = home_path / "config" / "config.toml"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(render_config(home), encoding="utf-8")


def set_peers(home_path: Path, peers: Sequence[str]) -> None:
    """Replace the peers in a config.toml that stands, of an older form too; raises OSError."""
    path = home_path / "config" / "config.toml"
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        name = line.partition(" =")[0]
        if name == "persistent_peers":
            lines.append(f"{name} = {_toml(','.join(peers))}")
            lines.append(f"unconditional_peer_ids = {_toml(_ids(peers))}")
        elif name == "allow_duplicate_ip":
            # what the node's own address says was told when its home was made
            shared = line.endswith("= true") or _share_machine([_place(peer) for peer in peers])
            lines.append(f"{name} = {_toml(shared)}")
        elif name != "unconditional_peer_ids":
            lines.append(line)
    partial = path.with_name(path.name + ".new")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)
