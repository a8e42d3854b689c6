"""The genesis of a regional and of the wide-area chain (SPEC sections 11.1 and 13.1).

A genesis is one value of the CBOR profile. Its digest, SHA-256 over the bytes, is what users pin;
the digest's first 8 bytes are the chain's id and stand in every record.
"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from ledger.protocol import cbor, cose, p256, records
from ledger.protocol.errors import MalformedRecord

_VERSION = 1
_REGIONAL = 1
_WIDE = 2
_KEY_BYTES = 33


@dataclass(frozen=True)
class Parameters:
    """What a region fixes at its start; version 1 knows no change of it."""

    round_s: int = 60
    """Length of a round in seconds."""
    committee: int = 11
    """Seats of a committee in a cluster of more than 12 voters."""
    open_rounds: int = 96
    """How many rounds a reading without a majority stays open for later ballots."""
    window_rounds: int = 15
    """How many rounds one summary to the wide area covers."""

    def encode(self) -> list[int]:
        """Give the fields in wire order."""
        return [self.round_s, self.committee, self.open_rounds, self.window_rounds]

    @classmethod
    def decode(cls, item: Any) -> "Parameters":
        """Take the fields apart; raises MalformedRecord."""
        fields = records.array(item, 4, 4, "parameters")
        return cls(
            records.integer(fields[0], 1, 86_400, "round length"),
            records.integer(fields[1], 3, 255, "committee size"),
            records.integer(fields[2], 1, 0xFFFF, "open rounds"),
            records.integer(fields[3], 1, 0xFFFF, "window"),
        )


def _check_kind(fields: list[Any], kind: int, name: str) -> None:
    for value, wanted in zip(fields, (kind, _VERSION), strict=False):
        # True equals 1 in Python, and is another byte on the wire
        if type(value) is not int or value != wanted:
            raise MalformedRecord(f"not a {name} genesis of version {_VERSION}")


def _decode_keys(item: Any, low: int, high: int, name: str) -> tuple[bytes, ...]:
    keys = tuple(
        records.octets(key, _KEY_BYTES, name) for key in records.array(item, low, high, name)
    )
    for key in keys:
        p256.PublicKey(key)
    if len(set(keys)) != len(keys):
        raise MalformedRecord(f"{name} holds one key twice")
    return keys


class _Genesis:
    def encode(self) -> bytes:
        """Give the genesis bytes."""
        raise NotImplementedError

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the genesis bytes."""
        return sha256(self.encode()).digest()

    @cached_property
    def chain(self) -> bytes:
        """The 8-byte id that every record of the chain carries."""
        return self.digest[: records.CHAIN_BYTES]


@dataclass(frozen=True)
class RegionGenesis(_Genesis):
    """A region's start: who operates, who runs gateways, which meters are members of which cluster.

    Keys are 33-byte compressed SEC1 points; ``threshold`` of the ``operators`` approve a registry
    change; ``members`` are (public key, cluster).
    """

    name: str
    created: int
    parameters: Parameters
    operators: tuple[bytes, ...]
    threshold: int
    gateways: tuple[bytes, ...]
    members: tuple[tuple[bytes, str], ...] = field(default=())

    def encode(self) -> bytes:
        """Give the genesis bytes."""
        members = [[key, cluster] for key, cluster in self.members]
        head = [_REGIONAL, _VERSION, self.name, self.created, self.parameters.encode()]
        keys: list[Any] = [list(self.operators), self.threshold, list(self.gateways)]
        return cbor.dumps([*head, *keys, members])

    @classmethod
    def decode(cls, data: bytes) -> "RegionGenesis":
        """Take genesis bytes apart; raises MalformedRecord or InvalidKey."""
        fields = records.array(cbor.loads(data), 9, 9, "genesis")
        _check_kind(fields, _REGIONAL, "regional")
        members = []
        for item in records.array(fields[8], 0, 100_000, "members"):
            key, cluster = records.array(item, 2, 2, "member")
            if not records.is_cluster_name(records.text(cluster, 32, "cluster")):
                raise MalformedRecord("cluster name is not of letters, digits, '-' and '_'")
            members.append((records.octets(key, _KEY_BYTES, "member key"), cluster))
        keys = [key for key, _ in members]
        _decode_keys(keys, 0, len(keys), "members")
        operators = _decode_keys(fields[5], 1, 32, "operators")
        return cls(
            records.text(fields[2], 64, "name"),
            records.integer(fields[3], 0, records.MAX_TIME, "time"),
            Parameters.decode(fields[4]),
            operators,
            records.integer(fields[6], 1, len(operators), "threshold"),
            _decode_keys(fields[7], 1, 16, "gateways"),
            tuple(members),
        )


@dataclass(frozen=True)
class WideGenesis(_Genesis):
    """The wide-area chain's start: the regions it knows, each with its gateways' keys."""

    name: str
    created: int
    regions: tuple[tuple[bytes, tuple[bytes, ...]], ...]

    def encode(self) -> bytes:
        """Give the genesis bytes."""
        regions = [[chain, list(gateways)] for chain, gateways in self.regions]
        return cbor.dumps([_WIDE, _VERSION, self.name, self.created, regions])

    @classmethod
    def decode(cls, data: bytes) -> "WideGenesis":
        """Take genesis bytes apart; raises MalformedRecord or InvalidKey."""
        fields = records.array(cbor.loads(data), 5, 5, "genesis")
        _check_kind(fields, _WIDE, "wide-area")
        regions = []
        for item in records.array(fields[4], 0, 10_000, "regions"):
            chain, gateways = records.array(item, 2, 2, "region")
            records.octets(chain, records.CHAIN_BYTES, "region id")
            regions.append((chain, _decode_keys(gateways, 1, 16, "gateways")))
        if len({chain for chain, _ in regions}) != len(regions):
            raise MalformedRecord("regions holds one region twice")
        return cls(
            records.text(fields[2], 64, "name"),
            records.integer(fields[3], 0, records.MAX_TIME, "time"),
            tuple(regions),
        )


def addresses(keys: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """Give address -> public key."""
    return {cose.address_of(key): key for key in keys}
