"""The protobuf wire format: one meaning for bytes, one encoding for values, one error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import protobuf
from ledger.protobuf import (
    BOOL,
    BYTES,
    FIXED32,
    FIXED64,
    INT32,
    INT64,
    LENGTH,
    SFIXED64,
    TEXT,
    UINT32,
    UINT64,
    VARINT,
    Field,
    MalformedMessage,
    Message,
    Timestamp,
    many,
    message,
    one,
    parse,
    read_uvarint,
    uvarint,
)


@message
class Inner(Message):
    number: int = one(1, UINT32)
    word: str = one(2, TEXT)


@message
class Outer(Message):
    word: str = one(16, TEXT)
    number: int = one(1, INT64)
    small: int = one(2, INT32)
    flag: bool = one(3, BOOL)
    raw: bytes = one(4, BYTES)
    fixed: int = one(5, SFIXED64)
    inner: Inner | None = one(6, Inner)
    always: Inner = one(7, Inner, always=True)
    raws: tuple[bytes, ...] = many(8, BYTES)
    numbers: tuple[int, ...] = many(9, UINT32)
    inners: tuple[Inner, ...] = many(10, Inner)
    big: int = one(11, UINT64)


inners = st.builds(Inner, st.integers(0, 2**32 - 1), st.text(max_size=5))
outers = st.builds(
    Outer,
    word=st.text(max_size=20),
    number=st.integers(-(2**63), 2**63 - 1),
    small=st.integers(-(2**31), 2**31 - 1),
    flag=st.booleans(),
    raw=st.binary(max_size=200),
    fixed=st.integers(-(2**63), 2**63 - 1),
    inner=st.none() | inners,
    always=inners,
    raws=st.lists(st.binary(max_size=3), max_size=4).map(tuple),
    numbers=st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
    inners=st.lists(inners, max_size=3).map(tuple),
    big=st.integers(0, 2**64 - 1),
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    # 150 and 300 are the examples of the encoding's public description
    [(0, "00"), (127, "7f"), (150, "9601"), (300, "ac02"), (2**64 - 1, "ff" * 9 + "01")],
)
def test_varint_is_base_128_with_the_low_group_first(value: int, encoded: str) -> None:
    assert uvarint(value).hex() == encoded
    assert read_uvarint(bytes.fromhex("00" + encoded + "55"), 1) == (value, 1 + len(encoded) // 2)


@pytest.mark.parametrize(
    "encoded", ["", "80", "ff" * 9, "ff" * 9 + "02", "ff" * 10, "80" * 10 + "00", "80" * 1000]
)
def test_varint_without_end_or_beyond_64_bits_is_refused(encoded: str) -> None:
    with pytest.raises(MalformedMessage):
        read_uvarint(bytes.fromhex(encoded))


@pytest.mark.parametrize("value", [-1, 2**64])
def test_number_beyond_64_bits_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        uvarint(value)


def test_fields_come_in_the_order_of_the_bytes() -> None:
    data = bytes.fromhex("0a01ff0896011100000000000000f01d01000000")
    assert parse(data) == [
        Field(1, LENGTH, b"\xff"),
        Field(1, VARINT, 150),
        Field(2, FIXED64, 0xF0 << 56),
        Field(3, FIXED32, 1),
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("0001", id="field 0"),
        pytest.param("808080801001", id="field 2**29"),
        pytest.param("0a0500", id="longer than the message"),
        pytest.param("0affffffffffffffffff01", id="a length of 2**64 - 1"),
        pytest.param("0900", id="fixed64 cut off"),
        pytest.param("0d00", id="fixed32 cut off"),
        pytest.param("0b", id="a group"),
        pytest.param("0c", id="a group's end"),
        pytest.param("0e", id="wire type 6"),
        pytest.param("0f", id="wire type 7"),
        pytest.param("08", id="no value"),
    ],
)
def test_broken_message_is_refused(data: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(bytes.fromhex(data))


def test_defaults_are_left_out_and_required_messages_are_not() -> None:
    assert Outer().encode().hex() == "3a00"
    assert Outer.decode(b"") == Outer(always=Inner(0, ""))
    # an embedded message that is there and empty is written
    assert Outer(inner=Inner()).encode().hex() == "32003a00"


def test_fields_are_written_in_the_order_of_their_numbers() -> None:
    numbers = [field.number for field in parse(Outer(word="x", number=1, big=2).encode())]
    assert numbers == [1, 7, 11, 16]


def test_negative_numbers_take_ten_bytes_of_every_size() -> None:
    minus_one = "ff" * 9 + "01"
    assert Outer(number=-1, small=-1).encode().hex() == f"08{minus_one}10{minus_one}3a00"


def test_sfixed64_is_little_endian_twos_complement() -> None:
    assert Outer(fixed=-2).encode().hex() == "29feffffffffffffff3a00"


def test_repeated_numbers_are_packed_and_read_either_way() -> None:
    data = Outer(numbers=(0, 1, 300)).encode()
    assert data.hex() == "3a004a040001ac02"
    assert Outer.decode(data).numbers == (0, 1, 300)
    assert Outer.decode(bytes.fromhex("4800480148ac02")).numbers == (0, 1, 300)


@given(outers)
def test_what_is_written_is_read_again(value: Outer) -> None:
    assert Outer.decode(value.encode()) == value


@given(outers)
def test_unknown_fields_are_skipped(value: Outer) -> None:
    unknown = bytes.fromhex("a80601aa0602ffffa9060000000000000000ad0600000000")
    assert Outer.decode(unknown + value.encode() + unknown) == value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("08010801", id="a number stands twice"),
        pytest.param("32003200", id="a message stands twice"),
        pytest.param("0a00", id="bytes instead of a number"),
        pytest.param("2001", id="a number instead of bytes"),
        pytest.param("4001", id="a number among bytes"),
        pytest.param("820101ff", id="not UTF-8"),
        pytest.param("32020a00", id="wrong inside"),
        pytest.param("4a0180", id="packed numbers cut off"),
        pytest.param("108080808008", id="beyond 31 bits"),
        pytest.param("3206088080808010", id="beyond 32 bits"),
    ],
)
def test_message_of_another_form_is_refused(data: str) -> None:
    with pytest.raises(MalformedMessage):
        Outer.decode(bytes.fromhex(data))


@given(st.binary(max_size=300))
def test_any_bytes_give_a_message_or_one_error(data: bytes) -> None:
    for decode in (Outer.decode, parse, read_uvarint, Timestamp.decode):
        try:
            decode(data)
        except MalformedMessage:
            continue


@given(outers, st.data())
def test_damaged_message_gives_a_message_or_one_error(value: Outer, data: st.DataObject) -> None:
    encoded = bytearray(value.encode())
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    for damaged in (bytes(encoded), bytes(encoded[:cut])):
        try:
            again = Outer.decode(damaged)
        except MalformedMessage:
            continue
        # what was understood has one encoding
        assert Outer.decode(again.encode()) == again


@pytest.mark.parametrize(
    ("name", "value"), [("small", 2**31), ("number", 2**63), ("big", -1), ("numbers", (2**32,))]
)
def test_value_out_of_its_fields_range_is_not_written(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"64-bit|bits"):
        Outer(**{name: value}).encode()  # type: ignore[arg-type]


def test_delimited_bytes_have_their_length_before_them() -> None:
    assert protobuf.delimited(bytes(200))[:2].hex() == "c801"
