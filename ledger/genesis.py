"""The genesis of a regional and of the wide-area chain (SPEC sections 11.1 and 13.1).

A genesis is one value of the CBOR profile. Its digest, SHA-256 over the bytes, is what users pin;
the digest's first 8 bytes are the chain's id and stand in every record.
"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

from ledger.protocol import cbor, cose, p256, records
from ledger.protocol.errors import InvalidKey, MalformedRecord

_VERSION = 1
_WITH_VALIDATORS = 2
_REGIONAL = 1
_WIDE = 2
_KEY_BYTES = 33

MAX_VALIDATORS = 100
MAX_POWER = 1_000_000
_VALIDATOR_KEY_BYTES = 32
# Ed25519's field and curve (RFC 8032 section 5.1)
_P = (1 << 255) - 19
_D = -121665 * pow(121666, -1, _P) % _P


class GenesisValidator(NamedTuple):
    """A node that votes on blocks: a name by SPEC 6.2, an Ed25519 key (32 bytes), its power."""

    name: str
    public_key: bytes
    power: int

    @classmethod
    def decode(cls, item: Any) -> "GenesisValidator":
        """Take [name, key, power] apart; raises MalformedRecord or InvalidKey."""
        fields = records.array(item, 3, 3, "validator")
        key = records.octets(fields[1], _VALIDATOR_KEY_BYTES, "validator key")
        check_validator_key(key)
        return cls(
            validator_name(fields[0]), key, records.integer(fields[2], 1, MAX_POWER, "power")
        )


def validator_name(value: Any) -> str:
    """Give a validator's name; raises MalformedRecord."""
    name = records.text(value, 32, "validator name")
    if not records.is_cluster_name(name):
        raise MalformedRecord("validator name is not of letters, digits, '-' and '_'")
    return name


def check_validator_key(key: bytes) -> None:
    """Check that 32 bytes are a point of Ed25519 in its one encoding; raises InvalidKey.

    Points of small order are refused too: under such a key anybody's signature holds.
    """
    y = int.from_bytes(key, "little") & ((1 << 255) - 1)
    y2 = y * y % _P
    # the denominator is never 0, for -1/d is no square (RFC 8032 section 5.1.3)
    x2 = (y2 - 1) * pow(_D * y2 + 1, -1, _P) % _P
    if y >= _P or pow(x2, (_P - 1) // 2, _P) == _P - 1:
        raise InvalidKey("validator key is not a point of Ed25519")
    # orders 1 and 2 have x = 0, order 4 has y = 0, order 8 has x^2 = -y^2
    if x2 * y2 * (x2 + y2) % _P == 0:
        raise InvalidKey("validator key is a point of small order")


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


def _split(data: bytes, kind: int, name: str, plain: int, added: int) -> tuple[list[Any], bool]:
    """Give the fields, and whether the ``added`` ones of version 2 are among them."""
    fields = records.array(cbor.loads(data), plain, plain + added, "genesis")
    # True equals 1 in Python, and is another byte on the wire
    if any(type(value) is not int for value in fields[:2]) or fields[0] != kind:
        raise MalformedRecord(f"not a {name} genesis")
    if len(fields) != {_VERSION: plain, _WITH_VALIDATORS: plain + added}.get(fields[1]):
        raise MalformedRecord(f"not a {name} genesis of version 1 or 2")
    return fields, len(fields) > plain


def _decode_validators(item: Any, low: int) -> tuple[GenesisValidator, ...]:
    found = records.array(item, low, MAX_VALIDATORS, "validators")
    validators = tuple(GenesisValidator.decode(validator) for validator in found)
    for values in ([v.name for v in validators], [v.public_key for v in validators]):
        if len(set(values)) != len(values):
            raise MalformedRecord("validators holds one name or key twice")
    return validators


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
    change; ``members`` are (public key, cluster). ``validators`` is empty in a region of one node.
    """

    name: str
    created: int
    parameters: Parameters
    operators: tuple[bytes, ...]
    threshold: int
    gateways: tuple[bytes, ...]
    members: tuple[tuple[bytes, str], ...] = field(default=())
    validators: tuple[GenesisValidator, ...] = ()

    def encode(self) -> bytes:
        """Give the genesis bytes: of version 1 without validators, else of version 2."""
        members = [[key, cluster] for key, cluster in self.members]
        version = _WITH_VALIDATORS if self.validators else _VERSION
        head = [_REGIONAL, version, self.name, self.created, self.parameters.encode()]
        keys: list[Any] = [list(self.operators), self.threshold, list(self.gateways)]
        added = [[list(v) for v in self.validators]] if self.validators else []
        return cbor.dumps([*head, *keys, members, *added])

    @classmethod
    def decode(cls, data: bytes) -> "RegionGenesis":
        """Take genesis bytes apart; raises MalformedRecord or InvalidKey."""
        fields, added = _split(data, _REGIONAL, "regional", 9, 1)
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
            _decode_validators(fields[9], 1) if added else (),
        )


@dataclass(frozen=True)
class WideGenesis(_Genesis):
    """The wide-area chain's start: the regions it knows, each with its gateways' keys.

    ``threshold`` of the ``operators`` approve a network change; without operators (threshold 0)
    there is none. ``validators`` is empty on a chain that one node keeps for itself.
    """

    name: str
    created: int
    regions: tuple[tuple[bytes, tuple[bytes, ...]], ...]
    operators: tuple[bytes, ...] = ()
    threshold: int = 0
    validators: tuple[GenesisValidator, ...] = ()

    def encode(self) -> bytes:
        """Give the genesis bytes: of version 1 without operators and validators, else 2."""
        regions = [[chain, list(gateways)] for chain, gateways in self.regions]
        plain = not self.operators and not self.validators
        head = [_WIDE, _VERSION if plain else _WITH_VALIDATORS, self.name, self.created, regions]
        validators = [list(v) for v in self.validators]
        added = [] if plain else [list(self.operators), self.threshold, validators]
        return cbor.dumps([*head, *added])

    @classmethod
    def decode(cls, data: bytes) -> "WideGenesis":
        """Take genesis bytes apart; raises MalformedRecord or InvalidKey."""
        fields, added = _split(data, _WIDE, "wide-area", 5, 3)
        regions = []
        for item in records.array(fields[4], 0, 10_000, "regions"):
            chain, gateways = records.array(item, 2, 2, "region")
            records.octets(chain, records.CHAIN_BYTES, "region id")
            regions.append((chain, _decode_keys(gateways, 1, 16, "gateways")))
        if len({chain for chain, _ in regions}) != len(regions):
            raise MalformedRecord("regions holds one region twice")
        operators = _decode_keys(fields[5], 0, 32, "operators") if added else ()
        validators = _decode_validators(fields[7], 0) if added else ()
        if added and not operators and not validators:
            raise MalformedRecord("a genesis of version 2 names operators or validators")
        return cls(
            records.text(fields[2], 64, "name"),
            records.integer(fields[3], 0, records.MAX_TIME, "time"),
            tuple(regions),
            operators,
            records.integer(fields[6], min(1, len(operators)), len(operators), "threshold")
            if added
            else 0,
            validators,
        )


def addresses(keys: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """Give address -> public key."""
    return {cose.address_of(key): key for key in keys}
