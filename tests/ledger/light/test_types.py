"""Light blocks as bytes and as JSON; hashes against a header that CometBFT made."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.light import jsonform
from ledger.light.jsonform import BadAnswer
from ledger.light.types import (
    NO_TIME,
    Commit,
    Header,
    LightBlock,
    SignedHeader,
    Timestamp,
    ValidatorSet,
    nanoseconds,
)
from ledger.light.verify import Trusted, UntrustedHeader
from ledger.protocol.errors import ProtocolError
from tests.ledger.light.chain import Chain

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
"""A header with validator changes and absent votes that CometBFT v0.38.26 gave over its RPC."""

BLOCK = Chain("gw-types", lambda height: {"a": 10, "b": 7, "c": 7}).block(3, "ab")


def recorded(number: int) -> LightBlock:
    signed = jsonform.signed_header(RECORDED[number]["signed_header"], 100)
    validators = [jsonform.validator(v) for v in RECORDED[number]["validators"]]
    return LightBlock.of(signed.header, signed.commit, ValidatorSet(tuple(validators)))


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_recorded_block_of_cometbft_is_believed(number: int) -> None:
    block = recorded(number)
    assert block.header.hash == block.commit.block_id.hash
    assert block.validators.hash == block.header.validators_hash
    Trusted.block(block.header.chain_id, block, block.header.hash)


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_bytes_of_a_light_block_are_those_of_cometbft(number: int) -> None:
    theirs = bytes.fromhex(RECORDED[number]["light_block"])
    assert LightBlock.decode(theirs).header == recorded(number).header
    assert LightBlock.decode(theirs).commit == recorded(number).commit
    assert recorded(number).signed.encode() == LightBlock.decode(theirs).signed.encode()
    assert theirs.startswith(b"\x0a" + theirs[1:3] + recorded(number).signed.encode())


def test_light_block_survives_its_bytes() -> None:
    assert LightBlock.decode(BLOCK.encode()) == BLOCK


def test_absent_validator_has_the_time_of_none() -> None:
    assert jsonform.time("0001-01-01T00:00:00Z") == NO_TIME


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-22T00:21:03.174963366Z", 1_795_306_863_174_963_366),
        ("1969-12-31T23:59:59.999999999Z", -1),
    ],
)
def test_times_keep_their_nanoseconds(text: str, nanos: int) -> None:
    assert nanoseconds(jsonform.time(text)) == nanos


@pytest.mark.parametrize(
    "text", ["", "2026-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "2026-01-01T00:00:00", 5, None]
)
def test_other_times_are_refused(text: object) -> None:
    with pytest.raises(BadAnswer):
        jsonform.time(text)


def test_other_kinds_of_keys_are_refused() -> None:
    key = {"type": "tendermint/PubKeySecp256k1", "value": "AA=="}
    with pytest.raises(BadAnswer, match="Ed25519"):
        jsonform.validator({"pub_key": key, "voting_power": "1"})


@given(st.binary(max_size=300))
def test_no_bytes_break_the_decoders(data: bytes) -> None:
    for kind in (LightBlock, SignedHeader, Header, Commit, ValidatorSet, Timestamp):
        try:
            kind.decode(data)
        except ProtocolError:
            continue


@given(st.binary(max_size=300))
def test_whatever_is_decoded_is_judged_without_another_error(data: bytes) -> None:
    try:
        block = LightBlock.decode(data)
        Trusted.block("gw-types", block, block.header.hash)
    except ProtocolError:
        return
    raise AssertionError("believed")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
PATHS = st.lists(st.integers(0, 20), min_size=1, max_size=6)


def _altered(value: object, path: list[int], new: object) -> object:
    """Give a copy with one place, found by numbers, replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, dict):
        name = sorted(value)[path[0] % len(value)]
        return {**value, name: _altered(value[name], path[1:], new)}
    place = path[0] % len(value)
    return [*value[:place], _altered(value[place], path[1:], new), *value[place + 1 :]]


@given(PATHS, JSON)
def test_altered_json_gives_a_value_or_the_one_error(path: list[int], new: object) -> None:
    altered = _altered(RECORDED[0], path, new)
    try:
        signed = jsonform.signed_header(jsonform.member(altered, "signed_header"), 100)
        found = [
            jsonform.validator(v)
            for v in jsonform.array(jsonform.member(altered, "validators"), 100)
        ]
        block = LightBlock.of(signed.header, signed.commit, ValidatorSet(tuple(found)))
        LightBlock.decode(block.encode())
        Trusted.block(block.header.chain_id, block, block.header.hash)
    except (BadAnswer, UntrustedHeader):
        return
