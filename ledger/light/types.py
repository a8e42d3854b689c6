"""What CometBFT v0.38 validators sign, with its hashes (spec/core/data_structures.md).

Field numbers are those of proto/tendermint/types/{types,validator,canonical}.proto. Decoding gives
whatever has the shape; ``verify`` holds the rules. Trees are RFC 6962's, as everywhere here.

Left out: blocks' transactions and evidence, vote extensions, keys other than Ed25519.
"""

# ruff: noqa: RUF009 - a message is declared by calls that describe its fields

from dataclasses import dataclass, replace
from hashlib import sha256

from ledger.protobuf import (
    BYTES,
    ENUM,
    INT32,
    INT64,
    SFIXED64,
    TEXT,
    UINT32,
    UINT64,
    Message,
    Timestamp,
    delimited,
    many,
    one,
)
from ledger.protocol import merkle

__all__ = ["Timestamp"]

ABSENT = 1
COMMIT = 2
NIL = 3

_PRECOMMIT = 2

MAX_VALIDATORS = 1000
"""The most that a light client looks at; CometBFT itself would take 10,000."""

NO_TIME = Timestamp(-62_135_596_800, 0)
"""The first second of year 1, which stands for no time."""


def nanoseconds(time: Timestamp) -> int:
    """Give a time as nanoseconds since 1970."""
    return time.seconds * 1_000_000_000 + time.nanos


@dataclass(frozen=True, slots=True)
class Consensus(Message):
    """The versions of block format and application."""

    block: int = one(1, UINT64)
    app: int = one(2, UINT64)


@dataclass(frozen=True, slots=True)
class PartSetHeader(Message):
    """How many parts a block is gossiped in, and the root over them."""

    total: int = one(1, UINT32)
    hash: bytes = one(2, BYTES)


NO_PARTS = PartSetHeader()


@dataclass(frozen=True, slots=True)
class BlockId(Message):
    """What a precommit names: the header's hash, and the parts that the block came in."""

    hash: bytes = one(1, BYTES)
    parts: PartSetHeader = one(2, PartSetHeader, always=True)


@dataclass(frozen=True, slots=True)
class _Bytes(Message):
    value: bytes = one(1, BYTES)


@dataclass(frozen=True, slots=True)
class _Text(Message):
    value: str = one(1, TEXT)


@dataclass(frozen=True, slots=True)
class _Number(Message):
    value: int = one(1, INT64)


@dataclass(frozen=True, slots=True)
class Header(Message):
    """A block's header. ``app_hash`` is the application's after the block before this one."""

    version: Consensus = one(1, Consensus, always=True)
    chain_id: str = one(2, TEXT)
    height: int = one(3, INT64)
    time: Timestamp = one(4, Timestamp, always=True)
    last_block_id: BlockId = one(5, BlockId, always=True)
    last_commit_hash: bytes = one(6, BYTES)
    data_hash: bytes = one(7, BYTES)
    validators_hash: bytes = one(8, BYTES)
    next_validators_hash: bytes = one(9, BYTES)
    consensus_hash: bytes = one(10, BYTES)
    app_hash: bytes = one(11, BYTES)
    last_results_hash: bytes = one(12, BYTES)
    evidence_hash: bytes = one(13, BYTES)
    proposer_address: bytes = one(14, BYTES)

    @property
    def hash(self) -> bytes:
        """The block's hash: the root over the fields, each in its protobuf form.

        Bare texts, numbers and byte strings stand in the wrapper messages of
        google/protobuf/wrappers.proto; an empty one is an empty leaf.
        """
        leaves = [self.version.encode(), _Text(self.chain_id).encode()]
        leaves += [_Number(self.height).encode(), self.time.encode(), self.last_block_id.encode()]
        hashes = [self.last_commit_hash, self.data_hash, self.validators_hash]
        hashes += [self.next_validators_hash, self.consensus_hash, self.app_hash]
        hashes += [self.last_results_hash, self.evidence_hash, self.proposer_address]
        return merkle.root(leaves + [_Bytes(value).encode() for value in hashes])


@dataclass(frozen=True, slots=True)
class CommitSig(Message):
    """One validator's precommit in a commit: for the block, for none (nil), or absent."""

    flag: int = one(1, ENUM)
    address: bytes = one(2, BYTES)
    time: Timestamp = one(3, Timestamp, always=True)
    signature: bytes = one(4, BYTES)


ABSENT_SIG = CommitSig(ABSENT, b"", NO_TIME, b"")


@dataclass(frozen=True, slots=True)
class _CanonicalVote(Message):
    type: int = one(1, ENUM)
    height: int = one(2, SFIXED64)
    round: int = one(3, SFIXED64)
    block_id: BlockId | None = one(4, BlockId)
    time: Timestamp = one(5, Timestamp, always=True)
    chain_id: str = one(6, TEXT)


@dataclass(frozen=True, slots=True)
class Commit(Message):
    """The precommits of one round that decided a block, in the order of its validators."""

    height: int = one(1, INT64)
    round: int = one(2, INT32)
    block_id: BlockId = one(3, BlockId, always=True)
    signatures: tuple[CommitSig, ...] = many(4, CommitSig)

    def sign_bytes(self, chain_id: str, sig: CommitSig) -> bytes:
        """Give what the validator of a precommit signed: its canonical vote, length first."""
        block_id = self.block_id if sig.flag == COMMIT else None
        vote = _CanonicalVote(_PRECOMMIT, self.height, self.round, block_id, sig.time, chain_id)
        return delimited(vote.encode())


@dataclass(frozen=True, slots=True)
class PublicKey(Message):
    """A validator's key; another kind than Ed25519 leaves it empty."""

    ed25519: bytes = one(1, BYTES)


@dataclass(frozen=True, slots=True)
class _SimpleValidator(Message):
    public_key: PublicKey | None = one(1, PublicKey)
    power: int = one(2, INT64)


@dataclass(frozen=True, slots=True)
class Validator(Message):
    """A validator as it stands in a set. Its priority to propose is not signed, and not kept."""

    address: bytes = one(1, BYTES)
    public_key: PublicKey = one(2, PublicKey, always=True)
    power: int = one(3, INT64)

    @classmethod
    def of(cls, key: bytes, power: int) -> "Validator":
        """Give the validator of an Ed25519 key (32 bytes)."""
        return cls(sha256(key).digest()[:20], PublicKey(key), power)

    @property
    def key(self) -> bytes:
        """The Ed25519 key, 32 bytes once the set has passed ``verify``."""
        return self.public_key.ed25519


@dataclass(frozen=True, slots=True)
class ValidatorSet(Message):
    """Who validates at a height, in CometBFT's order: by falling power, then by address."""

    validators: tuple[Validator, ...] = many(1, Validator)
    proposer: Validator | None = one(2, Validator)

    @classmethod
    def of(cls, keys: "list[tuple[bytes, int]]") -> "ValidatorSet":
        """Give the set of (Ed25519 key, power) in its order."""
        members = [Validator.of(key, power) for key, power in keys]
        members.sort(key=lambda validator: (-validator.power, validator.address))
        return cls(tuple(members))

    @property
    def hash(self) -> bytes:
        """The root over (key, power) of all; what headers name."""
        return merkle.root(
            [_SimpleValidator(v.public_key, v.power).encode() for v in self.validators]
        )

    @property
    def power(self) -> int:
        """The power of all together."""
        return sum(validator.power for validator in self.validators)


@dataclass(frozen=True, slots=True)
class SignedHeader(Message):
    """A header and the commit that decided it."""

    header: Header = one(1, Header, always=True)
    commit: Commit = one(2, Commit, always=True)


@dataclass(frozen=True, slots=True)
class LightBlock(Message):
    """What a light client needs of a height: ``tendermint.types.LightBlock``.

    ``of`` writes the header's proposer as the set's, which other programs ask for; nothing signs
    it, and it is not looked at here.
    """

    signed: SignedHeader = one(1, SignedHeader, always=True)
    validators: ValidatorSet = one(2, ValidatorSet, always=True)

    @classmethod
    def of(cls, header: Header, commit: Commit, validators: ValidatorSet) -> "LightBlock":
        """Put a light block together."""
        own = [v for v in validators.validators if v.address == header.proposer_address]
        proposer = own[0] if own else None
        return cls(SignedHeader(header, commit), replace(validators, proposer=proposer))

    @property
    def header(self) -> Header:
        """The header."""
        return self.signed.header

    @property
    def commit(self) -> Commit:
        """The commit."""
        return self.signed.commit
