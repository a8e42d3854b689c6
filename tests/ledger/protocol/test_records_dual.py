"""The records (SPEC section 4) on both interpreters, against the shared vectors."""

from ledger.protocol import cbor, quantities, records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import MalformedRecord
from tests.vector_files import load, raised, unhex

_CLASSES = {
    "reading": records.Reading,
    "ballot": records.Ballot,
    "head": records.Head,
    "registry_change": records.RegistryChange,
    "close": records.Close,
    "enrolment": records.Enrolment,
}
_BYTES = (
    "previous",
    "parent",
    "records_root",
    "results_root",
    "state_root",
    "history_root",
    "public_key",
)


def _field(name, value):
    if name in _BYTES:
        return unhex(value)
    if name == "values":
        return [(code, amount) for code, amount in value]
    if name == "verdicts":
        return [(unhex(digest), verdict) for digest, verdict in value]
    return value


def _fields(case):
    return {name: _field(name, value) for name, value in case["fields"].items()}


def _record(case, chain):
    fields = _fields(case)
    if "round" in fields:
        fields["round_"] = fields.pop("round")
    return _CLASSES[case["record"]](chain, **fields)


def test_records_are_encoded_as_in_the_vectors():
    vectors = load("records")
    for case in vectors["valid"]:
        record = _record(case, unhex(vectors["chain"]))
        assert record.TYPE == case["type"]
        assert record.payload() == unhex(case["payload"]), case["note"]


def test_records_of_the_vectors_are_decoded_field_by_field():
    vectors = load("records")
    for case in vectors["valid"]:
        record = records.decode(unhex(case["payload"]))
        assert type(record) is _CLASSES[case["record"]], case["note"]
        assert record.chain == unhex(vectors["chain"])
        for name, value in _fields(case).items():
            assert getattr(record, name) == value, (case["note"], name)


def test_envelopes_of_the_vectors_hold_the_payload_and_its_digest():
    for case in load("records")["valid"]:
        envelope = Envelope.parse(unhex(case["envelope"]))
        assert envelope.payload == unhex(case["payload"]), case["note"]
        assert envelope.digest == unhex(case["digest"]), case["note"]


def test_malformed_payloads_are_refused():
    for case in load("records")["invalid"]:
        reason = (case["record"], case["reason"])
        assert raised(MalformedRecord, records.decode, unhex(case["payload"])), reason


def test_every_cut_of_a_payload_is_refused():
    for case in load("records")["valid"]:
        payload = unhex(case["payload"])
        for end in range(min(len(payload), 150)):
            assert raised(MalformedRecord, records.decode, payload[:end]), (case["note"], end)


def test_split_gives_the_start_of_types_that_decode_does_not_know():
    chain = bytes(range(8))
    assert records.split(cbor.dumps([7, 1, chain, 5])) == (7, chain, [5])
    assert raised(MalformedRecord, records.decode, cbor.dumps([7, 1, chain, 5]))


def test_a_payload_of_very_many_items_is_refused():
    chain = bytes(8)
    assert records.split(cbor.dumps([7, 1, chain, [0] * 252]))[2] == [[0] * 252]
    assert raised(MalformedRecord, records.split, cbor.dumps([7, 1, chain, [0] * 253]))


def test_verdicts_from_16_on_reject():
    assert not records.is_reject(records.ABSTAIN)
    assert not records.is_reject(records.ACCEPT)
    named = [verdict for verdict in records.VERDICT_NAMES if verdict > records.ACCEPT]
    assert sorted(named) == list(range(16, 24))
    for verdict in range(16, 64):
        assert records.is_reject(verdict)


def test_a_reading_gives_its_value_of_a_quantity_or_none():
    reading = records.Reading(bytes(8), 1, 1, 0, 60, 0, 0, bytes(32), [(1, 5), (3, -7)])
    assert reading.value(1) == 5
    assert reading.value(3) == -7
    assert reading.value(2) is None


def test_cluster_names_stand_in_a_topic():
    for name in ("a", "Z9-_", "a" * 32):
        assert records.is_cluster_name(name), name
    for name in ("", "a" * 33, "a/b", "+", "#", " ", "a.b", "\u00e4", "\u0663", "a\n", "\x00"):
        assert not records.is_cluster_name(name), name


def test_the_largest_ballot_fits_a_record():
    digest = bytes(32)
    # Digests differ on the wire; here only their length counts.
    verdicts = [(digest, 22)] * records.MAX_VERDICTS
    payload = records.Ballot(bytes(8), records.MAX_ROUND, digest, verdicts).payload()
    assert len(payload) + 94 == 1011


def test_quantities_have_rising_codes_and_their_range():
    codes = [row.code for row in quantities.TABLE]
    assert codes == sorted(set(codes))
    for row in quantities.TABLE:
        assert quantities.in_range(row.code, row.low)
        assert quantities.in_range(row.code, row.high)
        assert not quantities.in_range(row.code, row.low - 1)
        assert not quantities.in_range(row.code, row.high + 1)
