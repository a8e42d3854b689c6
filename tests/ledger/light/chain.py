"""Chains of signed headers as CometBFT makes them, with whatever lies a test asks for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.light.types import (
    ABSENT_SIG,
    COMMIT,
    BlockId,
    Commit,
    CommitSig,
    Consensus,
    Header,
    LightBlock,
    PartSetHeader,
    Timestamp,
    Validator,
    ValidatorSet,
)

START_S = 1_790_000_000

Powers = dict[str, int]
"""A validator set: name -> power."""


@cache
def secret(name: str) -> Ed25519PrivateKey:
    """Give a validator's key, the same for the same name."""
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


@cache
def public(name: str) -> bytes:
    return secret(name).public_key().public_bytes_raw()


def validator_set(powers: Powers) -> ValidatorSet:
    return ValidatorSet.of([(public(name), power) for name, power in powers.items()])


def hash_of(*parts: object) -> bytes:
    return sha256(repr(parts).encode()).digest()


def commit_of(header: Header, powers: Powers, signers: Sequence[str], flag: int = COMMIT) -> Commit:
    """Give the commit in which these validators signed; the others are absent."""
    block_id = BlockId(header.hash, PartSetHeader(1, hash_of("parts", header.hash)))
    bare = Commit(header.height, 0, block_id, ())
    names = {public(name): name for name in powers}
    sigs = []
    for place, validator in enumerate(validator_set(powers).validators):
        name = names[validator.key]
        if name not in signers:
            sigs.append(ABSENT_SIG)
            continue
        time = Timestamp(header.time.seconds + 1, 1000 * place)
        sig = CommitSig(flag, validator.address, time, b"")
        signature = secret(name).sign(bare.sign_bytes(header.chain_id, sig))
        sigs.append(replace(sig, signature=signature))
    return replace(bare, signatures=tuple(sigs))


class Chain:
    """A provider of light blocks; ``powers_at`` gives the validators of a height.

    ``app_hashes`` are the application's by the height that they follow.
    """

    def __init__(
        self,
        chain_id: str,
        powers_at: Callable[[int], Powers],
        app_hashes: dict[int, bytes] | None = None,
    ) -> None:
        self.chain_id = chain_id
        self.powers_at = powers_at
        self.app_hashes = app_hashes or {}
        self.asked: list[int] = []

    def header(self, height: int) -> Header:
        powers = self.powers_at(height)
        validators = validator_set(powers)
        return Header(
            Consensus(11, 1),
            self.chain_id,
            height,
            Timestamp(START_S + 10 * height, 500),
            BlockId(hash_of(height - 1), PartSetHeader(1, hash_of("p", height - 1))),
            hash_of("commit", height),
            hash_of("data", height),
            validators.hash,
            validator_set(self.powers_at(height + 1)).hash,
            hash_of("consensus"),
            self.app_hashes.get(height - 1, hash_of("app", height - 1)),
            hash_of("results"),
            hash_of("evidence"),
            validators.validators[0].address,
        )

    def block(self, height: int, signers: Sequence[str] | None = None) -> LightBlock:
        """Give an honest block, signed by these or by all."""
        powers = self.powers_at(height)
        return self.signed(self.header(height), powers, powers if signers is None else signers)

    @staticmethod
    def signed(header: Header, powers: Powers, signers: Sequence[str] | Powers) -> LightBlock:
        return LightBlock.of(
            header, commit_of(header, powers, list(signers)), validator_set(powers)
        )

    def light_block(self, height: int) -> LightBlock:
        self.asked.append(height)
        return self.block(height)


def with_sig(block: LightBlock, place: int, sig: CommitSig) -> LightBlock:
    sigs = list(block.commit.signatures)
    sigs[place] = sig
    return with_commit(block, replace(block.commit, signatures=tuple(sigs)))


def with_commit(block: LightBlock, commit: Commit) -> LightBlock:
    return replace(block, signed=replace(block.signed, commit=commit))


def with_header(block: LightBlock, **changes: object) -> LightBlock:
    """Give a block whose header was altered; the commit stays for the honest one."""
    header = replace(block.header, **changes)  # type: ignore[arg-type]
    return replace(block, signed=replace(block.signed, header=header))


def with_validators(block: LightBlock, validators: Sequence[Validator]) -> LightBlock:
    return replace(block, validators=ValidatorSet(tuple(validators)))
