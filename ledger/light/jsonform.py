"""Light types as CometBFT's RPC writes them: JSON with 64-bit numbers in strings, hashes in hex,
keys and signatures in base64, times by RFC 3339 with nanoseconds.

Whatever a node sends gives a value or ``BadAnswer``.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Any

from ledger.light.types import (
    ABSENT,
    ABSENT_SIG,
    NO_TIME,
    BlockId,
    Commit,
    CommitSig,
    Consensus,
    Header,
    PartSetHeader,
    SignedHeader,
    Timestamp,
    Validator,
)

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,19}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadAnswer(ValueError):
    """The JSON is not what the method answers with; says where."""


def member(value: Any, *names: str) -> Any:
    """Give what lies under names inside of objects."""
    for name in names:
        if type(value) is not dict or name not in value:
            raise BadAnswer(f"{name} is missing")
        value = value[name]
    return value


def number(value: Any, bits: int = 64) -> int:
    """Give a signed number, whether it stands in a string (64 bits) or not."""
    if type(value) is str and _NUMBER.fullmatch(value):
        value = int(value)
    if type(value) is not int or not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise BadAnswer(f"not a number of {bits} bits")
    return value


def text(value: Any) -> str:
    """Give a text of valid characters."""
    if type(value) is not str or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadAnswer("not a text")
    return value


def array(value: Any, most: int) -> list[Any]:
    """Give a list; Go writes an empty one as null."""
    if value is None:
        return []
    if type(value) is not list or len(value) > most:
        raise BadAnswer(f"not a list of at most {most}")
    return value


def hexadecimal(value: Any) -> bytes:
    """Give the bytes of hex digits."""
    try:
        return bytes.fromhex(text(value))
    except ValueError:
        raise BadAnswer("not hex digits") from None


def base64_bytes(value: Any) -> bytes:
    """Give the bytes of base64; null is none."""
    if value is None:
        return b""
    try:
        return base64.b64decode(text(value), validate=True)
    except ValueError:
        raise BadAnswer("not base64") from None


def time(value: Any) -> Timestamp:
    """Give a time."""
    found = _TIME.fullmatch(text(value))
    if found is None:
        raise BadAnswer("not a time")
    try:
        since = datetime.fromisoformat(found[1] + "+00:00") - _EPOCH
    except ValueError:
        raise BadAnswer("not a time") from None
    nanos = int((found[2] or "").ljust(9, "0"))
    return Timestamp(since.days * 86_400 + since.seconds, nanos)


def block_id(value: Any) -> BlockId:
    """Give a block id; ``parts`` is how JSON calls the part set header."""
    parts = member(value, "parts")
    total = number(member(parts, "total"), 33)
    if total < 0:
        raise BadAnswer("a negative number of parts")
    return BlockId(
        hexadecimal(member(value, "hash")),
        PartSetHeader(total, hexadecimal(member(parts, "hash"))),
    )


def header(value: Any) -> Header:
    """Give a header."""
    version = member(value, "version")
    hashes = ("last_commit_hash", "data_hash", "validators_hash", "next_validators_hash")
    more = ("consensus_hash", "app_hash", "last_results_hash", "evidence_hash", "proposer_address")
    return Header(
        # the application's version is left out of JSON while it is 0
        Consensus(_version(version, "block"), _version(version, "app")),
        text(member(value, "chain_id")),
        number(member(value, "height")),
        time(member(value, "time")),
        block_id(member(value, "last_block_id")),
        *(hexadecimal(member(value, name)) for name in hashes + more),
    )


def _version(value: Any, name: str) -> int:
    if type(value) is not dict or name not in value:
        return 0
    found = number(value[name])
    if found < 0:
        raise BadAnswer("a negative version")
    return found


def commit(value: Any, most: int) -> Commit:
    """Give a commit of at most so many signatures."""
    return Commit(
        number(member(value, "height")),
        number(member(value, "round"), 32),
        block_id(member(value, "block_id")),
        tuple(_commit_sig(item) for item in array(member(value, "signatures"), most)),
    )


def _commit_sig(value: Any) -> CommitSig:
    sig = CommitSig(
        number(member(value, "block_id_flag"), 32),
        hexadecimal(member(value, "validator_address")),
        time(member(value, "timestamp")),
        base64_bytes(member(value, "signature")),
    )
    return ABSENT_SIG if sig == CommitSig(ABSENT, b"", NO_TIME, b"") else sig


def signed_header(value: Any, most: int) -> SignedHeader:
    """Give a signed header whose commit has at most so many signatures."""
    return SignedHeader(header(member(value, "header")), commit(member(value, "commit"), most))


def validator(value: Any) -> Validator:
    """Give a validator; only Ed25519 keys are known."""
    if member(value, "pub_key", "type") != "tendermint/PubKeyEd25519":
        raise BadAnswer("a validator's key is not Ed25519")
    key = base64_bytes(member(value, "pub_key", "value"))
    if len(key) != 32:
        raise BadAnswer("a validator's key is not 32 bytes")
    return Validator.of(key, number(member(value, "voting_power")))
