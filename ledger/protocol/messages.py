"""What a gateway tells meters besides records: receipts and members (SPEC 6.6 to 6.8).

These messages carry no signature of their own: what they claim is proved by the signed head inside
or by the operators' signatures, so whoever relays them need not be trusted.
"""

from ledger.protocol import cbor, merkle, records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadProof, MalformedRecord

try:
    from typing import Any
except ImportError:
    pass

_VERSION = 1
_MAX_PATH = 40
MAX_ENTRIES = 16
MAX_CHANGES = 32  # some 5 KB: what a board takes in one packet
_MAX_RECEIPT_ITEMS = 1024  # 16 entries with paths of 40 are 750
_MAX_MEMBERS_ITEMS = 2 + MAX_CHANGES


def _path(value: "Any") -> "list[bytes]":
    path = records.array(value, 0, _MAX_PATH, "path")
    return [records.octets(node, records.DIGEST_BYTES, "path node") for node in path]


def _envelope(value: "Any") -> Envelope:
    if not isinstance(value, bytes):
        raise MalformedRecord("an envelope is a byte string")
    return Envelope.parse(value)


class Receipt:
    """Proof that records of one meter are in a block.

    ``head`` is the head's envelope; ``entries`` [(digest, index, path)] lead to its records root;
    ``bridge`` is None or (height, path): the proof under the head's history root that the head of
    that height is one of its forebears (SPEC 10.2).
    """

    def __init__(
        self,
        head: Envelope,
        entries: "list[tuple[bytes, int, list[bytes]]]",
        bridge: "tuple[int, list[bytes]] | None" = None,
    ) -> None:
        self.head = head
        self.entries = entries
        self.bridge = bridge

    def encode(self) -> bytes:
        """Give the message bytes."""
        bridge = [self.bridge[0], self.bridge[1]] if self.bridge else None
        entries = [[digest, index, path] for digest, index, path in self.entries]
        return cbor.dumps([_VERSION, self.head.raw, bridge, entries])

    @staticmethod
    def decode(data: bytes) -> "Receipt":
        """Take a message apart; raises MalformedRecord. Nothing is proved yet."""
        fields = records.array(cbor.loads(data, _MAX_RECEIPT_ITEMS), 4, 4, "receipt")
        records.integer(fields[0], _VERSION, _VERSION, "version")
        bridge = None
        if fields[2] is not None:
            pair = records.array(fields[2], 2, 2, "bridge")
            height = records.integer(pair[0], 1, records.MAX_ROUND, "height")
            bridge = (height, _path(pair[1]))
        entries = []
        for item in records.array(fields[3], 0, MAX_ENTRIES, "entries"):
            digest, index, path = records.array(item, 3, 3, "entry")
            records.octets(digest, records.DIGEST_BYTES, "digest")
            records.integer(index, 0, 0xFFFFFFFF, "index")
            entries.append((digest, index, _path(path)))
        return Receipt(_envelope(fields[1]), entries, bridge)

    def proved(self, head: "records.Head") -> "list[bytes]":
        """Give the digests that the receipt proves to be in the block of ``head``.

        ``head`` is the decoded payload of ``self.head``, whose signature the caller has checked.
        Raises BadProof when any entry does not lead to its records root.
        """
        for digest, index, path in self.entries:
            merkle.verify_inclusion(head.records_root, digest, index, head.record_count, path)
        return [entry[0] for entry in self.entries]


def verify_extends(
    head: "records.Head",
    held_height: int,
    held_digest: bytes,
    bridge: "tuple[int, list[bytes]] | None",
) -> None:
    """Check that ``head`` is a descendant of the head held; raises BadProof.

    The head held is its ``prev``, or the bridge shows it in the history (SPEC 10.2). Height 0 is
    the genesis.
    """
    if head.height == held_height + 1:
        if head.previous == held_digest:
            return
        raise BadProof("the next head does not name the head held")
    if held_height == 0:
        # nothing was named before, so there is nothing that it could contradict
        return
    if bridge is None or bridge[0] != held_height or head.height <= held_height:
        raise BadProof("no proof that the head extends the head held")
    size = head.height - 1
    merkle.verify_inclusion(head.history_root, held_digest, held_height - 1, size, bridge[1])


def encode_members(changes: "list[bytes]") -> bytes:
    """Give the message of a cluster's registry approvals (envelopes, oldest first)."""
    return cbor.dumps([_VERSION, changes])


def decode_members(data: bytes) -> "list[Envelope]":
    """Take a members message apart; raises MalformedRecord. No signature is checked here."""
    fields = records.array(cbor.loads(data, _MAX_MEMBERS_ITEMS), 2, 2, "members")
    records.integer(fields[0], _VERSION, _VERSION, "version")
    return [_envelope(raw) for raw in records.array(fields[1], 0, MAX_CHANGES, "changes")]
