"""The protobuf wire format, as much of it as CometBFT speaks (protobuf.dev, "Encoding"; proto3).

``parse`` takes bytes apart into fields; a class of ``@message`` with ``one`` and ``many`` is a
table of a message's fields, which is decoded and encoded by it. Encoding is deterministic: fields
in the order of their numbers, defaults left out, repeated numbers packed, as gogoproto writes them.

Decoding skips fields that the table does not know, and is stricter than proto3 in one thing: a
field that may stand once stands once, so bytes have one meaning. Groups, maps, zigzag numbers and
floats are left out: nothing here uses them.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar, dataclass_transform

from ledger.protocol.errors import ProtocolError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_MAX_NUMBER = (1 << 29) - 1
_MAX_VARINT_BYTES = 10


class MalformedMessage(ProtocolError):
    """The bytes are not a protobuf message, or not the one that was expected."""


class Field(NamedTuple):
    """A field as it stands on the wire: an int for VARINT and fixed types, bytes for LENGTH."""

    number: int
    wire: int
    value: Any


def uvarint(value: int) -> bytes:
    """Give an unsigned number below 2**64 as a varint."""
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is no unsigned 64-bit number")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(data: bytes, at: int = 0) -> tuple[int, int]:
    """Read a varint of at most 10 bytes; gives it and where it ends. Raises MalformedMessage."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1  # as most are
    value = shift = 0
    for place in range(at, min(at + _MAX_VARINT_BYTES, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, place + 1
        shift += 7
    raise MalformedMessage("a varint does not end, or is more than 64 bits")


def delimited(data: bytes) -> bytes:
    """Give bytes with their length before them."""
    return uvarint(len(data)) + data


def parse(data: bytes) -> list[Field]:
    """Take a message apart, in the order of its bytes; raises MalformedMessage."""
    return list(fields(data))


def fields(data: bytes) -> Iterator[Field]:
    """Give a message's fields one by one; raises MalformedMessage where they end to be some."""
    at, end = 0, len(data)
    while at < end:
        tag, at = read_uvarint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _MAX_NUMBER:
            raise MalformedMessage(f"{number} is no field number")
        value: int | bytes
        if wire == VARINT:
            value, at = read_uvarint(data, at)
        elif wire == LENGTH:
            size, at = read_uvarint(data, at)
            value, at = _take(data, at, size), at + size
        elif wire in _FIXED_BYTES:
            size = _FIXED_BYTES[wire]
            value, at = int.from_bytes(_take(data, at, size), "little"), at + size
        else:
            raise MalformedMessage(f"field {number} is of wire type {wire}")
        yield Field(number, wire, value)


def _take(data: bytes, at: int, size: int) -> bytes:
    if size > len(data) - at:
        raise MalformedMessage("a field is longer than its message")
    return data[at : at + size]


# ---------------------------------------------------------------------------- kinds of values


@dataclass(frozen=True)
class Kind:
    """How a value stands on the wire: its wire type, there and back, and what is left out."""

    wire: int
    read: Callable[[Any], Any]
    write: Callable[[Any], bytes]
    default: Any


def _integer(bits: int, *, signed: bool) -> Kind:
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)

    def read(value: int) -> int:
        # negative numbers of every size are written as 64 bits, two's complement
        if signed and value >> 63:
            value -= 1 << 64
        if not low <= value < high:
            raise MalformedMessage(f"{value} is not a number of {bits} bits")
        return value

    def write(value: int) -> bytes:
        if not low <= value < high:
            raise ValueError(f"{value} is not a number of {bits} bits")
        return uvarint(value & (1 << 64) - 1)

    return Kind(VARINT, read, write, 0)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as e:
        raise MalformedMessage("a text is not UTF-8") from e


def _signed64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


UINT32, UINT64 = _integer(32, signed=False), _integer(64, signed=False)
INT32, INT64 = _integer(32, signed=True), _integer(64, signed=True)
ENUM = INT32
BOOL = Kind(VARINT, bool, lambda value: uvarint(int(value)), default=False)
SFIXED64 = Kind(FIXED64, _signed64, lambda value: value.to_bytes(8, "little", signed=True), 0)
BYTES = Kind(LENGTH, bytes, delimited, b"")
TEXT = Kind(LENGTH, _text, lambda value: delimited(value.encode()), "")


def _kind_of(kind: "Kind | type[Message]") -> Kind:
    if isinstance(kind, Kind):
        return kind
    # an embedded message; absent, it is None
    return Kind(LENGTH, kind.decode, lambda value: delimited(value.encode()), None)


# --------------------------------------------------------------------------------- messages


class _Row(NamedTuple):
    number: int
    name: str
    kind: Kind
    tag: bytes
    always: bool
    repeated: bool
    packed: bool


def one(number: int, kind: "Kind | type[Message]", *, always: bool = False) -> Any:
    """Declare a field of a Message that stands at most once; an embedded message by its class.

    ``always`` is gogoproto's ``nullable = false`` on an embedded message: absent, it is the empty
    message and not None, and it is written even so.
    """
    kind = _kind_of(kind)
    metadata = {"number": number, "kind": kind, "always": always, "repeated": False}
    default = kind.read(b"") if always else kind.default
    return dataclasses.field(default=default, metadata=metadata)


def many(number: int, kind: "Kind | type[Message]") -> Any:
    """Declare a repeated field of a Message: a tuple."""
    metadata = {"number": number, "kind": _kind_of(kind), "always": True, "repeated": True}
    return dataclasses.field(default=(), metadata=metadata)


class Message:
    """The base of classes that ``message`` makes of fields declared by ``one`` and ``many``."""

    __slots__ = ()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Take bytes apart by the class's table; raises MalformedMessage."""
        table = _table(cls)[1]
        values: dict[str, Any] = {}
        for number, wire, value in fields(data):
            row = table.get(number)
            if row is None:
                continue
            if row.repeated:
                values.setdefault(row.name, []).extend(_read_many(row, wire, value))
            elif row.name in values:
                raise MalformedMessage(f"{cls.__name__}.{row.name} stands twice")
            else:
                values[row.name] = _read(row, wire, value)
        for name, value in values.items():
            if type(value) is list:
                values[name] = tuple(value)
        return cls(**values)

    def encode(self) -> bytes:
        """Give the message's bytes, always the same for the same values."""
        parts: list[bytes] = []
        for row in _table(type(self))[0]:
            value = getattr(self, row.name)
            if row.packed:
                if value:
                    parts += (row.tag, delimited(b"".join(map(row.kind.write, value))))
            elif row.repeated:
                for item in value:
                    parts += (row.tag, row.kind.write(item))
            elif row.always or value != row.kind.default:
                parts += (row.tag, row.kind.write(value))
        return b"".join(parts)


_Kind = TypeVar("_Kind", bound=type[Message])


@dataclass_transform(frozen_default=True)
def message(cls: _Kind) -> _Kind:
    """Make a frozen dataclass with slots of a Message that declares fields."""
    return dataclass(frozen=True, slots=True)(cls)  # type: ignore[return-value]


_Table = tuple[list[_Row], dict[int, _Row]]
_tables: dict[type, _Table] = {}


def _table(kind: type[Message]) -> _Table:
    known = _tables.get(kind)
    if known is not None:
        return known
    rows = []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        number, value = field.metadata["number"], field.metadata["kind"]
        repeated, always = field.metadata["repeated"], field.metadata["always"]
        packed = repeated and value.wire == VARINT
        tag = uvarint(number << 3 | (LENGTH if packed else value.wire))
        rows.append(_Row(number, field.name, value, tag, always, repeated, packed))
    rows.sort(key=lambda row: row.number)
    _tables[kind] = rows, {row.number: row for row in rows}
    return _tables[kind]


def _read(row: _Row, wire: int, value: Any) -> Any:
    if wire != row.kind.wire:
        raise MalformedMessage(f"{row.name} is of wire type {wire}, not {row.kind.wire}")
    return row.kind.read(value)


def _read_many(row: _Row, wire: int, value: Any) -> list[Any]:
    if not row.packed or wire != LENGTH:
        return [_read(row, wire, value)]
    values, at = [], 0
    while at < len(value):
        number, at = read_uvarint(value, at)
        values.append(row.kind.read(number))
    return values


@message
class Timestamp(Message):
    """A moment: seconds since 1970 and nanoseconds (google/protobuf/timestamp.proto)."""

    seconds: int = one(1, INT64)
    nanos: int = one(2, INT32)
