"""The kinds of records that blocks of a region hold, and the slots that they fill (SPEC 11.2)."""

from typing import Any

from ledger.network import NetworkChange
from ledger.protocol import records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import InvalidKey, MalformedRecord

MemberRecord = records.Reading | records.Ballot
Record = MemberRecord | records.Head | records.RegistryChange | NetworkChange
Entry = tuple[Envelope, Record]
SlotKey = tuple[int, bytes, tuple[int, int]]


def decode(payload: bytes) -> Any:
    """Decode a payload of any record that a region knows; raises MalformedRecord."""
    if records.split(payload)[0] != records.NETWORK_CHANGE:
        return records.decode(payload)
    try:
        return NetworkChange.decode(payload)
    except InvalidKey as e:
        raise MalformedRecord(str(e)) from None


def type_of(record: Record) -> int:
    """Give the number of a record's type."""
    return records.NETWORK_CHANGE if isinstance(record, NetworkChange) else record.TYPE


def slot_of(record: MemberRecord) -> tuple[int, int]:
    """Give (boot, seq) of a reading, (round, 0) of a ballot."""
    if isinstance(record, records.Reading):
        return record.boot, record.seq
    return record.round, 0


def slot_key(envelope: Envelope, record: Record) -> SlotKey:
    """Give (type, signer, slot): what a member may fill once, and a record's place in a block."""
    if isinstance(record, (records.Reading, records.Ballot)):
        return record.TYPE, envelope.kid, slot_of(record)
    number = record.height if isinstance(record, records.Head) else record.number
    return type_of(record), envelope.kid, (number, 0)
