"""The two CBOR codecs agree on every value and on every sequence of bytes (SPEC section 2)."""

import json
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hil.micropython import InterpreterNotFoundError, environment, interpreter
from ledger.protocol import _cbor_cbor2, _cbor_pure
from ledger.protocol.errors import MalformedRecord
from tests.vector_files import load
from tools.vectors.wire import cbor as reference

ROOT = Path(__file__).resolve().parents[3]
CODECS = (_cbor_cbor2, _cbor_pure)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.integers(-30, 300)
    | st.binary(max_size=40)
    | st.text(max_size=20)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6), max_leaves=30)
foreign = st.floats() | st.integers(2**64) | st.integers(max_value=-(2**64) - 1)
foreign |= st.dictionaries(st.integers(), st.integers()) | st.binary().map(bytearray)
# Bytes that mostly look like CBOR: heads of all kinds with short arguments, and some noise.
heads = st.integers(0, 255).map(lambda b: bytes([b]))
noise = st.lists(heads | st.binary(max_size=4) | values.map(reference), max_size=12).map(b"".join)
encoded = noise | values.map(reference)


def _result(codec, data):
    """(type-marked value,) or None for a refusal; anything else raised goes on its way."""
    try:
        return (_marked(codec.loads(data)),)
    except MalformedRecord:
        return None


def _marked(value):
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return type(value).__name__, value


def _depth(value):
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@given(encoded)
@example(b"")
def test_codecs_agree_on_all_bytes(data):
    assert _result(_cbor_cbor2, data) == _result(_cbor_pure, data)


@given(st.binary(max_size=60))
def test_codecs_agree_on_random_bytes(data):
    assert _result(_cbor_cbor2, data) == _result(_cbor_pure, data)


@given(encoded, st.integers(0, 20))
def test_codecs_agree_on_the_most_items(data, most):
    def result(codec):
        try:
            return codec.loads(data, most)
        except MalformedRecord:
            return "refused"

    assert result(_cbor_cbor2) == result(_cbor_pure)


@given(encoded)
def test_what_is_decoded_has_one_encoding(data):
    for codec in CODECS:
        result = _result(codec, data)
        if result is not None:
            assert codec.dumps(codec.loads(data)) == data


@given(values)
def test_values_round_trip_with_the_same_bytes(value):
    data = reference(value)
    for codec in CODECS:
        if _depth(value) > 8:
            with pytest.raises(ValueError):
                codec.dumps(value)
            with pytest.raises(MalformedRecord):
                codec.loads(data)
        else:
            assert codec.dumps(value) == data
            assert _marked(codec.loads(data)) == _marked(value)


@given(foreign)
def test_both_codecs_refuse_to_encode_what_is_outside_the_profile(value):
    for codec in CODECS:
        with pytest.raises(ValueError):
            codec.dumps([value])


@pytest.mark.parametrize("codec", CODECS)
def test_no_tag_is_decoded(codec):
    bodies = [b"\x00", b"\x41a", b"\x61a", b"\x80", b"\x82\x00\x01", b"\x81\xd8\x1d\x00", b"\xa0"]
    tags = [*range(1100), *range(43_000, 43_010), 55_799, 65_535, 2**32 - 1, 2**64 - 1]
    for tag in tags:
        head = bytes([reference(tag)[0] | 0xC0]) + reference(tag)[1:]
        for body in bodies:
            with pytest.raises(MalformedRecord):
                codec.loads(head + body)
            with pytest.raises(MalformedRecord):
                codec.loads(b"\x81" + head + body)


# ----------------------------------------------------- the same bytes under MicroPython itself

_SCRIPT = """
import json, sys
from ledger.protocol import cbor
from ledger.protocol.errors import MalformedRecord
for text in json.loads(sys.stdin.read()):
    try:
        print(cbor.dumps(cbor.loads(bytes.fromhex(text))).hex())
    except MalformedRecord:
        print("-")
"""


def _mutated(draw, data):
    data = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data) + 1)
        how = draw.randrange(4)
        if how == 0 and at < len(data):
            data[at] = draw.randrange(256)
        elif how == 1 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            data[at:at] = bytes([draw.randrange(256)])
        else:
            del data[at : at + draw.randint(1, 4)]
    return bytes(data)


def _samples():
    draw = random.Random(20_26)
    vectors = load("cbor")
    seeds = [bytes.fromhex(c["bytes"])[:80] for c in vectors["valid"] + vectors["invalid"]]
    # Text is where the interpreters differ most.
    seeds += [reference("\u00fc\u07ff\u0800\uffff\U00010000")] * 40
    seeds += [bytes([0x60 | n]) + draw.randbytes(n) for n in (1, 2, 3, 4) for _ in range(60)]
    return [_mutated(draw, draw.choice(seeds)) for _ in range(6000)] + seeds


def test_micropython_accepts_and_refuses_the_same_bytes():
    samples = _samples()
    try:
        program = interpreter()
    except InterpreterNotFoundError as missing:
        pytest.skip(str(missing))
    done = subprocess.run(
        [program, "-c", _SCRIPT],
        input=json.dumps([data.hex() for data in samples]),
        env=environment(ROOT),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-500:]
    lines = done.stdout.split()
    assert len(lines) == len(samples)
    accepted = 0
    for data, line in zip(samples, lines, strict=True):
        result = _result(_cbor_cbor2, data)
        assert line == ("-" if result is None else data.hex()), data.hex()
        accepted += result is not None
    assert 500 < accepted < len(samples) - 500  # else the samples say little
