"""Heads, receipts and members (SPEC sections 6 and 10) on both interpreters."""

from ledger.protocol import messages, p256, records, rounds
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadProof, MalformedRecord
from ledger.protocol.merkle import EMPTY_ROOT, root, verify_consistency
from tests.vector_files import load, raised, unhex

HEAP = "2m"


def _path(items):
    return [unhex(item) for item in items]


def _bridge(item):
    return None if item is None else (item[0], _path(item[1]))


def test_heads_chain_by_the_digests_of_their_payloads():
    vectors = load("heads")
    previous = unhex(vectors["genesis"])
    key = p256.PublicKey(unhex(vectors["gateway"]))
    for height, case in enumerate(vectors["heads"], 1):
        envelope = Envelope.parse(unhex(case["envelope"]))
        envelope.verify(key)
        head = records.decode(envelope.payload)
        assert head.height == height
        assert head.previous == previous
        assert head.time == rounds.end_of(head.round, vectors["round_s"])
        previous = payload_digest(envelope.payload)
        assert previous == unhex(case["payload_digest"])


def test_roots_of_heads_cover_records_and_earlier_heads():
    earlier = []
    for case in load("heads")["heads"]:
        head = records.decode(unhex(case["payload"]))
        leaves = _path(case["records"])
        assert head.record_count == len(leaves)
        assert head.records_root == root(leaves)
        assert head.history_root == root(earlier)
        earlier.append(payload_digest(unhex(case["payload"])))
    assert records.decode(unhex(load("heads")["heads"][0]["payload"])).history_root == EMPTY_ROOT


def test_history_roots_are_consistent():
    vectors = load("heads")
    heads = [records.decode(unhex(case["payload"])) for case in vectors["heads"]]
    for case in vectors["consistency"]:
        old, new = heads[case["old"] - 1], heads[case["new"] - 1]
        path = _path(case["path"])
        verify_consistency(old.height - 1, old.history_root, new.height - 1, new.history_root, path)


def test_only_a_descendant_extends_the_head_held():
    for case in load("heads")["extends"]:
        head = records.decode(unhex(case["head"]))
        held, digest, bridge = case["held_height"], case["held_digest"], _bridge(case["bridge"])
        arguments = (head, held, unhex(digest), bridge)
        if case["valid"]:
            messages.verify_extends(*arguments)
        else:
            assert raised(BadProof, messages.verify_extends, *arguments), case["note"]


def test_receipts_are_encoded_and_decoded_as_in_the_vectors():
    for case in load("receipts")["valid"]:
        data = unhex(case["bytes"])
        receipt = messages.Receipt.decode(data)
        assert receipt.head.raw == unhex(case["head"]), case["note"]
        assert receipt.bridge == _bridge(case["bridge"]), case["note"]
        entries = [(unhex(d), index, _path(path)) for d, index, path in case["entries"]]
        assert receipt.entries == entries, case["note"]
        assert receipt.encode() == data, case["note"]


def test_receipts_of_the_vectors_prove_their_records():
    vectors = load("receipts")
    key = p256.PublicKey(unhex(vectors["gateway"]))
    for case in vectors["valid"]:
        receipt = messages.Receipt.decode(unhex(case["bytes"]))
        receipt.head.verify(key)
        proved = receipt.proved(records.decode(receipt.head.payload))
        assert proved == [unhex(entry[0]) for entry in case["entries"]], case["note"]


def test_malformed_receipts_are_refused():
    for case in load("receipts")["malformed"]:
        data = unhex(case["bytes"])
        assert raised(MalformedRecord, messages.Receipt.decode, data), case["reason"]


def test_a_receipt_with_one_bad_entry_proves_nothing():
    for case in load("receipts")["unproved"]:
        receipt = messages.Receipt.decode(unhex(case["bytes"]))
        head = records.decode(receipt.head.payload)
        assert raised(BadProof, receipt.proved, head), case["reason"]


def test_bridges_in_receipts_lead_from_the_head_held():
    heads = load("heads")["heads"]
    for case in load("receipts")["valid"]:
        receipt = messages.Receipt.decode(unhex(case["bytes"]))
        if receipt.bridge is not None:
            head = records.decode(receipt.head.payload)
            held = receipt.bridge[0]
            digest = unhex(heads[held - 1]["payload_digest"])
            messages.verify_extends(head, held, digest, receipt.bridge)


def test_members_messages_are_those_of_the_vectors():
    for case in load("receipts")["members"]:
        data = unhex(case["bytes"])
        changes = _path(case["changes"])
        assert messages.encode_members(changes) == data, case["note"]
        assert [e.raw for e in messages.decode_members(data)] == changes, case["note"]


def test_malformed_members_messages_are_refused():
    for case in load("receipts")["malformed_members"]:
        data = unhex(case["bytes"])
        assert raised(MalformedRecord, messages.decode_members, data), case["reason"]
