"""Entries: what the wide-area chain's log says of each thing kept (SPEC 13.4).

An entry is small and stays for ever; what it speaks of, its body, may be pruned where it is a
summary. No rule looks at the body of anything kept, so nodes that prune and nodes that do not
judge every transaction alike.
"""

from hashlib import sha256
from typing import NamedTuple

from ledger.engine.abci import Misbehaviour
from ledger.network import NetworkChange
from ledger.protocol import cbor, records
from ledger.protocol.cose import ADDRESS_BYTES, Envelope, payload_digest
from ledger.protocol.errors import MalformedRecord
from ledger.wide import codes
from ledger.wide.summary import Summary

VALIDATOR_ADDRESS_BYTES = 20
MAX_PLACE = (1 << 63) - 1
# the results of transactions that are kept; the first is an approval's too
SUMMARIES = (codes.OK, codes.CONFLICT, codes.OFFERED)
_NAMED_BYTES = records.CHAIN_BYTES + ADDRESS_BYTES

_SUBJECT_BYTES = {
    codes.OK: records.CHAIN_BYTES,
    codes.NETWORK_CHANGE: ADDRESS_BYTES,
    codes.MISBEHAVIOUR: VALIDATOR_ADDRESS_BYTES,
    codes.OFFERED: _NAMED_BYTES,
}


class Entry(NamedTuple):
    """One thing kept, by ``code``.

    0 a summary in effect, 22 one that contradicts it: subject is the region, place the to height,
    digest the payload's. 28 a summary that one of a region's gateways offered: the same, with the
    gateway's address behind the region; so has 22 where the region has several gateways. 26 an
    approval of a network change: the operator's address, the change's number, the payload's digest.
    27 misbehaviour: the validator's address (20 bytes), the height, SHA-256 of the record.
    """

    subject: bytes
    place: int
    code: int
    digest: bytes

    @property
    def region(self) -> bytes:
        """The region that a summary's entry is about."""
        return self.subject[: records.CHAIN_BYTES]

    @property
    def gateway(self) -> bytes:
        """The address of the gateway that a summary's entry names; empty where it names none."""
        return self.subject[records.CHAIN_BYTES :]

    def encode(self) -> bytes:
        """Give the log's leaf."""
        return cbor.dumps(list(self))

    @classmethod
    def decode(cls, data: bytes) -> "Entry":
        """Take a leaf apart; raises MalformedRecord."""
        return cls.checked(*records.array(cbor.loads(data), 4, 4, "entry"))

    @classmethod
    def checked(cls, subject: object, place: object, code: object, digest: object) -> "Entry":
        """Give an entry of four values from outside; raises MalformedRecord."""
        code = records.integer(code, codes.OK, codes.OFFERED, "code")
        if code == codes.CONFLICT:
            named = isinstance(subject, bytes) and len(subject) == _NAMED_BYTES
            size = _NAMED_BYTES if named else records.CHAIN_BYTES
        elif code in _SUBJECT_BYTES:
            size = _SUBJECT_BYTES[code]
        else:
            raise MalformedRecord("an entry's code is not one of what is kept")
        return cls(
            records.octets(subject, size, "subject"),
            records.integer(place, 0, MAX_PLACE, "place"),
            code,
            records.octets(digest, records.DIGEST_BYTES, "digest"),
        )


def entry_of_summary(envelope: Envelope, summary: Summary, code: int, *, several: bool) -> Entry:
    """Give the entry of a summary in effect, in conflict or offered.

    ``several``: its region has more than one gateway.
    """
    named = several and code != codes.OK
    subject = summary.region + envelope.kid if named else summary.region
    return Entry(subject, summary.to_height, code, payload_digest(envelope.payload))


def entry_of_approval(envelope: Envelope, change: NetworkChange) -> Entry:
    """Give the entry of an operator's approval."""
    digest = payload_digest(envelope.payload)
    return Entry(envelope.kid, change.number, codes.NETWORK_CHANGE, digest)


def entry_of_misbehaviour(misbehaviour: Misbehaviour) -> Entry:
    """Give the entry of a validator's misbehaviour."""
    digest = sha256(encode_misbehaviour(misbehaviour)).digest()
    return Entry(misbehaviour.address, misbehaviour.height, codes.MISBEHAVIOUR, digest)


def encode_misbehaviour(misbehaviour: Misbehaviour) -> bytes:
    """Give the record that is kept of it: [kind, address, height]."""
    return cbor.dumps([misbehaviour.kind, misbehaviour.address, misbehaviour.height])


def decode_misbehaviour(data: bytes) -> Misbehaviour:
    """Take such a record apart; raises MalformedRecord."""
    kind, address, height = records.array(cbor.loads(data), 3, 3, "misbehaviour")
    return Misbehaviour(
        records.integer(kind, 0, 0xFF, "kind"),
        records.octets(address, VALIDATOR_ADDRESS_BYTES, "validator address"),
        records.integer(height, 0, MAX_PLACE, "height"),
    )
