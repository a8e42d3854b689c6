"""The CBOR profile (SPEC section 2) on both interpreters: vectors, refusals, bounds."""

import gc
import sys

from ledger.protocol import _cbor_pure, cbor, records
from ledger.protocol.errors import MalformedRecord
from ledger.protocol.messages import Receipt, decode_members
from ledger.protocol.settings import Settings
from tests.vector_files import load, raised, unhex

HEAP = "400k"

_MICROPYTHON = sys.implementation.name == "micropython"


def _value(item):
    if isinstance(item, dict):
        return unhex(item["hex"])
    if isinstance(item, list):
        return [_value(one) for one in item]
    return item


def _same(one, other):
    """Equal in value and in type; bool is no int here."""
    if isinstance(one, list):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all([_same(one[i], other[i]) for i in range(len(one))])
        )
    return type(one) is type(other) and one == other


def test_every_value_has_the_bytes_of_the_vectors():
    for codec in (cbor, _cbor_pure):
        for case in load("cbor")["valid"]:
            data = unhex(case["bytes"])
            value = _value(case["value"])
            assert codec.dumps(value) == data, case["note"]
            assert _same(codec.loads(data), value), case["note"]


def test_bytes_outside_the_profile_are_refused():
    for codec in (cbor, _cbor_pure):
        for case in load("cbor")["invalid"]:
            assert raised(MalformedRecord, codec.loads, unhex(case["bytes"])), case["reason"]


def test_every_valid_encoding_cut_anywhere_or_extended_is_refused():
    for case in load("cbor")["valid"]:
        data = unhex(case["bytes"])
        for end in range(min(len(data), 40)):
            assert raised(MalformedRecord, cbor.loads, data[:end]), case["note"]
        assert raised(MalformedRecord, cbor.loads, data + b"\x00"), case["note"]


def test_values_outside_the_profile_are_not_encoded():
    deep = []
    for _ in range(8):
        deep = [deep]
    foreign = (2**64, -(2**64) - 1, 1.0, {}, {1: 2}, bytearray(b"a"), memoryview(b"a"), set(), deep)
    for codec in (cbor, _cbor_pure):
        for value in foreign:
            assert raised(ValueError, codec.dumps, value), value
            assert raised(ValueError, codec.dumps, [value]), value


def test_tuples_are_encoded_as_arrays():
    for codec in (cbor, _cbor_pure):
        assert codec.dumps((1, (2, b"\x03"))) == codec.dumps([1, [2, b"\x03"]])


def test_any_buffer_is_decoded_and_nothing_of_it_is_kept():
    data = bytearray(cbor.dumps([1, b"abc", "def"]))
    values = [
        codec.loads(view) for codec in (cbor, _cbor_pure) for view in (data, memoryview(data))
    ]
    for i in range(len(data)):
        data[i] = 0
    for value in values:
        assert value == [1, b"abc", "def"]
        assert type(value[1]) is bytes


def test_more_items_than_the_caller_allows_are_refused():
    data = cbor.dumps([1, [2, 3], []])
    for codec in (cbor, _cbor_pure):
        assert codec.loads(data, 5) == [1, [2, 3], []]
        assert raised(MalformedRecord, codec.loads, data, 4)
        assert codec.loads(b"\x00", 0) == 0
        assert codec.loads(b"\x80", 0) == []
        assert raised(MalformedRecord, codec.loads, b"\x81\x00", 0)


def _hostile(size):
    """Inputs of `size` bytes that look for the most work or memory a byte can buy."""
    rest = size - 3
    array = b"\x99" + rest.to_bytes(2, "big")
    half, quarter = rest // 2, rest // 4
    return (
        array + b"\x80" * rest,
        array + b"\x60" * rest,
        array + b"\x20" * rest,
        array + b"\x81" * rest,
        b"\x99" + half.to_bytes(2, "big") + b"\x81\x00" * half,
        b"\x99" + half.to_bytes(2, "big") + b"\x41\x00" * half,
        b"\x99" + half.to_bytes(2, "big") + b"\x61a" * half,
        b"\x99" + quarter.to_bytes(2, "big") + b"\x83\x80\x80\x80" * quarter,
        b"\x99" + (rest // 9).to_bytes(2, "big") + b"\x1b\xff" * (rest // 2),
        b"\x9a\x7f\xff\xff\xff" + b"\x00" * (size - 5),
        b"\x9b" + b"\x00" * 4 + b"\x7f" + b"\xff" * 3 + b"\x80" * (size - 9),
        b"\x81" * size,
        b"\xd8\x1c" * half,
        b"\x59" + rest.to_bytes(2, "big") + b"\xff" * rest,
        b"\x79" + rest.to_bytes(2, "big") + b"\xc0\x80" * half,
        b"\x7a" + rest.to_bytes(4, "big") + b"\xf0\x90\x80\x80" * quarter,
        b"\xff" * size,
        b"\x5f" * size,
    )


def _just_allowed(size, items):
    """Arrays of as many items as a decoder allows, the dearest that `size` bytes hold."""
    found = []
    for item, cost in (
        (b"\x80", 1),
        (b"\x81\x00", 2),
        (b"\x81\x80", 2),
        (b"\x41\x00", 1),
        (b"\x61a", 1),
        (b"\x1b" + b"\xff" * 8, 1),
    ):
        n = min(items // cost, (size - 3) // len(item))
        head = bytes((0x98, n)) if n < 256 else b"\x99" + n.to_bytes(2, "big")
        found.append(head + item * n)
    return tuple(found)


def test_hostile_input_gives_a_value_or_the_declared_error():
    for size in (64, 1024, 4074):
        for data in _hostile(size):
            try:
                cbor.loads(data, 128)
            except MalformedRecord:
                pass
            gc.collect()


def _allocated(decode, data):
    """Bytes of heap that one call takes from start to end, nothing given back in between."""
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    try:
        decode(data)
    except MalformedRecord:
        pass
    finally:
        gc.enable()
    return gc.mem_alloc() - before


def test_what_a_hostile_message_allocates_is_bounded():
    # Garbage included; on a board it is about half, for cells have 16 bytes and not 32. Without a
    # bound on items it would be 200 bytes for each byte of the message.
    if not _MICROPYTHON:
        return
    for decode, size, items in (
        (records.decode, 1024, 256),
        (Receipt.decode, 4074, 1024),
        (decode_members, 4074, 66),
        (Settings.decode, 4074, 512),
    ):
        for data in _hostile(size) + _just_allowed(size, items):
            used = _allocated(decode, data)
            assert used < 240 * items + 4 * size, (data[:8], size, used)


def test_a_hostile_flood_is_refused_at_once_by_both_codecs():
    # Each input is refused by its first bytes or by its depth.
    size = 40_000 if _MICROPYTHON else 1_000_000
    for start in (b"\x81", b"\xd8\x1c", b"\x9a\x7f\xff\xff\xff", b"\xbf", b"\x9f", b"\xff"):
        data = start * (size // len(start))
        for codec in (cbor, _cbor_pure):
            assert raised(MalformedRecord, codec.loads, data), start
