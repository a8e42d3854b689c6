"""Receipts, members and settings: a value or the declared error of any bytes (SPEC 6, 10, 12)."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import messages, records
from ledger.protocol.cose import payload_digest
from ledger.protocol.errors import BadProof, MalformedRecord
from ledger.protocol.settings import Settings
from tests.ledger.protocol.strategies import (
    arrays,
    cluster_names,
    digests,
    keys,
    mutations,
    seeds,
    u32,
)
from tests.vector_files import load
from tools.vectors import merkle as vectors_merkle

RECEIPTS = seeds("receipts", "valid", "malformed", "unproved", key="bytes")
MEMBERS = seeds("receipts", "members", "malformed_members", key="bytes")
SETTINGS = seeds("settings", "valid", "invalid", key="bytes")
HEAD = bytes.fromhex(load("heads")["heads"][5]["envelope"])
DIGESTS = [bytes.fromhex(case["payload_digest"]) for case in load("heads")["heads"]]

texts = st.text(max_size=255)
settings = st.builds(
    Settings,
    digests,
    st.integers(1, 86_400),
    st.integers(3, 255),
    st.integers(1, 65_535),
    st.lists(keys, max_size=4),
    st.integers(1, 32),
    st.lists(keys, max_size=4),
    cluster_names,
    st.lists(keys, max_size=12),
    texts,
    st.integers(1, 65_535),
    st.none() | texts,
    st.none() | texts,
    st.none() | st.binary(max_size=600),
)
paths = st.lists(digests, max_size=40)
bridges = st.none() | st.tuples(st.integers(1, 2**32 - 1), paths)
entries = st.lists(st.tuples(digests, u32, paths), max_size=16)


@given(st.binary(max_size=80) | mutations(RECEIPTS) | arrays(1, HEAD))
def test_any_bytes_are_a_receipt_or_malformed(data):
    try:
        receipt = messages.Receipt.decode(data)
    except MalformedRecord:
        return
    assert receipt.encode() == data


@given(mutations(RECEIPTS))
def test_a_receipt_proves_its_records_or_is_a_bad_proof(data):
    try:
        receipt = messages.Receipt.decode(data)
        head = records.decode(receipt.head.payload)
        if not isinstance(head, records.Head):
            return
        proved = receipt.proved(head)
    except (MalformedRecord, BadProof):
        return
    assert proved == [entry[0] for entry in receipt.entries]


@given(entries, bridges)
def test_receipts_round_trip(found, bridge):
    head = messages.Envelope.parse(HEAD)
    data = messages.Receipt(head, found, bridge).encode()
    decoded = messages.Receipt.decode(data)
    assert (decoded.head.raw, decoded.entries, decoded.bridge) == (HEAD, found, bridge)


@given(st.integers(1, 9), st.integers(0, 9), st.sampled_from(DIGESTS) | digests, bridges)
def test_no_bridge_leads_from_a_head_that_is_not_in_the_history(height, held, digest, bridge):
    head = _head(height)
    expected = held == 0 or digest == DIGESTS[held - 1]
    try:
        messages.verify_extends(head, held, digest, bridge)
    except BadProof:
        return
    assert expected
    assert held < height or (held == 0 and height == 1)


@given(st.integers(2, 12), st.data())
def test_the_bridge_of_the_second_implementation_is_taken(height, data):
    held = data.draw(st.integers(1, height - 1))
    path = vectors_merkle.tree_inclusion(DIGESTS[: height - 1], held - 1)
    messages.verify_extends(_head(height), held, DIGESTS[held - 1], (held, path))


def _head(height):
    payload = bytes.fromhex(load("heads")["heads"][height - 1]["payload"])
    assert payload_digest(payload) == DIGESTS[height - 1]
    return records.decode(payload)


@given(st.binary(max_size=80) | mutations(MEMBERS) | arrays(1))
def test_any_bytes_are_a_members_message_or_malformed(data):
    try:
        changes = messages.decode_members(data)
    except MalformedRecord:
        return
    assert messages.encode_members([change.raw for change in changes]) == data


@given(settings)
def test_settings_round_trip(given_settings):
    decoded = Settings.decode(given_settings.encode())
    assert vars(decoded) == vars(given_settings)


@given(st.binary(max_size=80) | mutations(SETTINGS) | arrays(1, bytes(32), 60, 11, 96))
def test_any_bytes_are_settings_or_malformed(data):
    try:
        decoded = Settings.decode(data)
    except MalformedRecord:
        return
    assert decoded.encode() == data
