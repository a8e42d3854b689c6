"""When a header may be believed: CometBFT's light client rules (spec/light-client/verification).

From what is trusted at one height, a later header is believed when more than two thirds of its
validators, by power, have signed it, and these are the right ones:

    adjacent   the header before it named their hash: ``next_validators_hash``
    skipping   more than a third of the trusted validators, by power, have signed too, of which one
               at least is honest while less than a third are not

Time plays a part only where the caller gives a clock: validators of long ago may have sold their
keys, so that trust in them ends after a period.

A signature that does not hold counts as none given. CometBFT's light client refuses the commit
instead; but what it takes as a signature is a little wider (ZIP 215), and so one odd validator
could keep its commits from being believed here.

Left out: fetching (``client``), going backwards from a trusted header.
"""

from dataclasses import dataclass
from itertools import zip_longest

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.engine.comet import chain_id
from ledger.genesis import RegionGenesis, WideGenesis
from ledger.light.types import (
    ABSENT,
    ABSENT_SIG,
    COMMIT,
    MAX_VALIDATORS,
    NIL,
    Commit,
    CommitSig,
    LightBlock,
    Timestamp,
    Validator,
    ValidatorSet,
    nanoseconds,
)
from ledger.protocol.errors import ProtocolError

BLOCK_PROTOCOL = 11
"""The version of the block format that CometBFT v0.38 makes."""

_MAX_POWER = ((1 << 63) - 1) // 8
_BILLION = 1_000_000_000


class UntrustedHeader(ProtocolError):
    """A header is not to be believed; says which rule it breaks."""


class TooFewKnown(UntrustedHeader):
    """Not more than a third of the trusted validators signed: believe a header in between first."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What the caller knows of time: now, how long validators are trusted, how wrong clocks are.

    Seconds; ``now_s`` counts from 1970.
    """

    now_s: int
    trusting_period_s: int = 14 * 86_400
    max_drift_s: int = 10


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is believed of a chain: a header, or its start (height 0, no hash)."""

    chain_id: str
    height: int
    hash: bytes
    time: Timestamp
    validators: ValidatorSet
    next_validators_hash: bytes

    @classmethod
    def start(cls, genesis: WideGenesis | RegionGenesis) -> "Trusted":
        """Trust a genesis: its validators decide the first block."""
        validators = ValidatorSet.of([(v.public_key, v.power) for v in genesis.validators])
        if not validators.validators:
            raise UntrustedHeader(
                "the genesis names no validators: its chain has no signed headers"
            )
        start = Timestamp(genesis.created, 0)
        return cls(chain_id(genesis.chain), 0, b"", start, validators, validators.hash)

    @classmethod
    def block(cls, chain: str, block: LightBlock, hash_: bytes) -> "Trusted":
        """Trust the header that has this hash; raises UntrustedHeader for another one.

        ``chain`` is CometBFT's name of the chain.
        """
        _check_form(chain, block)
        if block.header.hash != hash_:
            raise UntrustedHeader(
                f"the header at height {block.header.height} has hash {block.header.hash.hex()},"
                f" not the trusted {hash_.hex()}"
            )
        _check_decided(block, _signers(chain, block))
        return _believed(chain, block)


def verify(trusted: Trusted, block: LightBlock, clock: Clock | None = None) -> Trusted:
    """Give the trust in a later header; raises UntrustedHeader, or TooFewKnown as its kind."""
    _check_form(trusted.chain_id, block)
    header = block.header
    if header.height <= trusted.height:
        raise UntrustedHeader(f"height {header.height} is not above {trusted.height}")
    if trusted.height and nanoseconds(header.time) <= nanoseconds(trusted.time):
        raise UntrustedHeader(f"the header at height {header.height} is not later than before it")
    if clock is not None:
        _check_clock(trusted, block, clock)
    adjacent = header.height == trusted.height + 1
    if adjacent and header.validators_hash != trusted.next_validators_hash:
        raise UntrustedHeader(
            f"other validators at height {header.height} than the header before it named"
        )
    signers = _signers(trusted.chain_id, block)
    if not adjacent:
        _check_known(trusted, header.height, signers)
    _check_decided(block, signers)
    return _believed(trusted.chain_id, block)


def _believed(chain: str, block: LightBlock) -> Trusted:
    header = block.header
    where = (header.height, header.hash, header.time)
    validators = ValidatorSet(block.validators.validators)  # nobody signs who proposes
    return Trusted(chain, *where, validators, header.next_validators_hash)


def _check_form(chain: str, block: LightBlock) -> None:
    """Check all that needs no signature: the parts of a light block belong together."""
    header, commit = block.header, block.commit
    if header.chain_id != chain:
        raise UntrustedHeader(f"a header of chain {header.chain_id[:50]!r}, not {chain!r}")
    if header.version.block != BLOCK_PROTOCOL or header.height < 1:
        raise UntrustedHeader("not a header of CometBFT v0.38")
    if not 0 <= header.time.nanos < _BILLION:
        raise UntrustedHeader("a time without meaning")
    _check_validators(block.validators)
    if block.validators.hash != header.validators_hash:
        raise UntrustedHeader("the validators are not those that the header names")
    if commit.height != header.height or commit.round < 0:
        raise UntrustedHeader("the commit is of another height")
    if commit.block_id.hash != header.hash:
        raise UntrustedHeader("the commit is for another header")
    for validator, sig in zip_longest(block.validators.validators, commit.signatures):
        _check_place(validator, sig)


def _check_validators(known: ValidatorSet) -> None:
    if not 1 <= len(known.validators) <= MAX_VALIDATORS:
        raise UntrustedHeader(f"not 1 to {MAX_VALIDATORS} validators")
    for validator in known.validators:
        if len(validator.key) != 32 or validator != Validator.of(validator.key, validator.power):
            raise UntrustedHeader("a validator has no Ed25519 key, or not its address")
        if validator.power < 1:
            raise UntrustedHeader("a validator without power")
    if len({validator.key for validator in known.validators}) != len(known.validators):
        raise UntrustedHeader("one validator stands twice in the set")
    if known.power > _MAX_POWER:
        raise UntrustedHeader("the validators have more power together than there is")


def _check_place(validator: Validator | None, sig: CommitSig | None) -> None:
    if validator is None or sig is None:
        raise UntrustedHeader("the commit has not one place for each validator")
    if sig.flag == ABSENT:
        if sig != ABSENT_SIG:
            raise UntrustedHeader("a validator that is absent has signed")
    elif sig.flag not in (COMMIT, NIL):
        raise UntrustedHeader(f"{sig.flag} is no kind of precommit")
    elif sig.address != validator.address:
        raise UntrustedHeader("a precommit stands in another validator's place")


def _signers(chain: str, block: LightBlock) -> set[bytes]:
    """Give the keys whose signature for this header holds; each stands once in the set."""
    pairs = zip(block.validators.validators, block.commit.signatures, strict=True)
    return {v.key for v, sig in pairs if _has_signed(chain, block.commit, v, sig)}


def _has_signed(chain: str, commit: Commit, validator: Validator, sig: CommitSig) -> bool:
    if sig.flag != COMMIT:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(validator.key)
        key.verify(sig.signature, commit.sign_bytes(chain, sig))
    except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no key
        return False
    return True


def _power_of(known: ValidatorSet, signers: set[bytes]) -> int:
    return sum(validator.power for validator in known.validators if validator.key in signers)


def _check_decided(block: LightBlock, signers: set[bytes]) -> None:
    power, total = _power_of(block.validators, signers), block.validators.power
    if 3 * power <= 2 * total:
        raise UntrustedHeader(
            f"the header at height {block.header.height} is signed by {power} of {total}"
            " of its validators' power: not more than two thirds"
        )


def _check_known(trusted: Trusted, height: int, signers: set[bytes]) -> None:
    power, total = _power_of(trusted.validators, signers), trusted.validators.power
    if 3 * power <= total:
        raise TooFewKnown(
            f"the header at height {height} is signed by {power} of {total} of the power of the"
            f" validators trusted at height {trusted.height}: not more than a third"
        )


def _check_clock(trusted: Trusted, block: LightBlock, clock: Clock) -> None:
    now = clock.now_s * _BILLION
    if nanoseconds(trusted.time) + clock.trusting_period_s * _BILLION <= now:
        raise UntrustedHeader(
            f"what was trusted at height {trusted.height} is older than the trusting period:"
            " get a newer height and hash from somebody you trust"
        )
    if nanoseconds(block.header.time) >= now + clock.max_drift_s * _BILLION:
        raise UntrustedHeader(f"the header at height {block.header.height} is from the future")
