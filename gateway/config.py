"""The settings of a gateway, as they stand in ``gateway.toml`` and in docs/gateway.md.

Relative paths are relative to the folder of the file.

Left out: secrets. Passwords and keys are in files of their own, named here.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from gateway.schema import ConfigError, Schema, Settings, setting


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where the region's files are."""

    directory: str = setting(".", "Folder of the region (genesis.cbor, keys, ledger, gateway).")


@dataclass(frozen=True, kw_only=True)
class Mqtt:
    """The broker that the meters use too."""

    host: str = setting("127.0.0.1", "Name or address of the broker.")
    port: int = setting(1883, "TCP port of the broker; 8883 is usual with TLS.", low=1, high=65535)
    user: str = setting("", "User name; empty: none.")
    password_file: str = setting("", "File with the password in its first line; empty: none.")
    ca_file: str = setting("", "CA certificate (PEM) of the broker; empty: no TLS.")
    client_id: str = setting(
        "", "Client identifier, the same on every start; empty: made from the gateway's address."
    )
    keepalive_s: int = setting(
        30, "Longest silence before the link is probed.", unit="s", low=5, high=3600
    )


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """When a round ends."""

    pace: str = setting(
        "clock",
        "clock: a round ends by this machine's clock; trace: when its ballots are in (replays).",
        choices=("clock", "trace"),
    )
    grace_s: float = setting(
        2.0, "clock: wait this long after a round's end for its ballots.", unit="s", low=0, high=600
    )
    timeout_s: float = setting(
        10.0,
        "trace: wait this long for missing ballots once a third of the members is in the round.",
        unit="s",
        low=0.05,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What orders the region's transactions."""

    engine: str = setting(
        "solo",
        "solo: this gateway alone; comet: CometBFT, among several gateways of the region.",
        choices=("solo", "comet"),
    )
    abci: str = setting(
        "tcp://127.0.0.1:26658",
        "comet: where CometBFT finds the application: tcp://127.0.0.1:PORT, or unix://PATH; a "
        "relative path is below the region's folder.",
    )
    rpc: str = setting("http://127.0.0.1:26657", "comet: RPC address of this node's CometBFT.")
    validator: str = setting(
        "", "comet: address of this node's validator, 40 hex digits; empty: CometBFT is asked."
    )


@dataclass(frozen=True, kw_only=True)
class Wide:
    """The wide-area chain that summaries go up to."""

    forward: bool = setting(True, "Send summaries up; needs wide-genesis.cbor in the folder.")
    node: str = setting(
        "", "RPC address of a node of the wide-area chain; empty: it is kept in this process."
    )


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What stays on disk; comet only, where other nodes keep everything."""

    months: int = setting(
        0,
        "comet: records are kept this long; 0: for ever. Heads, state and their proofs stay.",
        unit="months",
        low=0,
        high=1200,
    )
    blocks: int = setting(
        0,
        "comet: blocks that CometBFT keeps; 0: all.",
        unit="blocks",
        low=0,
        high=1_000_000_000,
    )
    snapshot_every: int = setting(
        1000,
        "comet: a snapshot for new nodes is made each time so many blocks are there; 0: none.",
        unit="blocks",
        low=0,
        high=1_000_000_000,
    )
    snapshots: int = setting(2, "comet: snapshots that are kept.", low=1, high=100)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The page of figures for Prometheus."""

    port: int = setting(0, "TCP port of the page, on the loopback; 0: no page.", low=0, high=65535)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What keeps memory and card bounded."""

    inbox_rows: int = setting(
        250_000,
        "Messages kept between arrival and block; beyond it none is acknowledged to the broker.",
        unit="messages",
        low=1_000,
        high=10_000_000,
    )
    outbox_rows: int = setting(
        100_000,
        "Summaries kept while the wide area cannot be reached; beyond it the gateway stops.",
        unit="summaries",
        low=100,
        high=10_000_000,
    )
    held_per_member: int = setting(
        64, "Records of one meter that may wait for a block.", unit="records", low=4, high=10_000
    )


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is written to standard error."""

    level: str = setting(
        "info", "Least level that is written.", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """A gateway's settings."""

    region: Region = dataclasses.field(default_factory=Region)
    mqtt: Mqtt = dataclasses.field(default_factory=Mqtt)
    rounds: Rounds = dataclasses.field(default_factory=Rounds)
    chain: Chain = dataclasses.field(default_factory=Chain)
    wide: Wide = dataclasses.field(default_factory=Wide)
    keep: Keep = dataclasses.field(default_factory=Keep)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    limits: Limits = dataclasses.field(default_factory=Limits)
    log: Log = dataclasses.field(default_factory=Log)

    @property
    def directory(self) -> Path:
        """The region's folder."""
        return self.beside(self.region.directory)

    def file(self, name: str) -> Path:
        """Give the path of a file named in the settings: absolute, or below the region's folder."""
        return self.directory / name


SCHEMA = Schema(Config)
load, parse, render, table = SCHEMA.load, SCHEMA.parse, SCHEMA.render, SCHEMA.table
write_default = SCHEMA.write


def read_validator(config: Config) -> bytes | None:
    """Give the address of this node's validator, or None where none is set; raises ConfigError."""
    text = config.chain.validator
    if not text:
        return None
    if not re.fullmatch("[0-9A-Fa-f]{40}", text):
        raise ConfigError(f"[chain] validator = {text!r}: allowed is an address of 40 hex digits")
    return bytes.fromhex(text)


def read_password(config: Config) -> str | None:
    """Give the broker's password, or None where no file is named; raises ConfigError."""
    if not config.mqtt.password_file:
        return None
    path = config.file(config.mqtt.password_file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: the password cannot be read: {e}") from e
    if not lines or not lines[0]:
        raise ConfigError(f"{path}: the first line is not a password")
    return lines[0]
