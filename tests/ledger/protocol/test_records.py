"""Records decode from exactly the bytes that they encode to (SPEC section 4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import records
from ledger.protocol.cose import MAX_RECORD_BYTES
from ledger.protocol.errors import MalformedRecord
from tests.ledger.protocol.strategies import (
    arrays,
    ballots,
    chains,
    digests,
    mutations,
    seeds,
    valid_records,
)

SEEDS = seeds("records", "valid", "invalid", key="payload")
_CHAIN = bytes.fromhex("0011223344556677")


@given(valid_records)
def test_records_round_trip(record):
    decoded = records.decode(record.payload())
    assert type(decoded) is type(record)
    assert vars(decoded) == vars(record)


@given(
    st.binary(max_size=80)
    | mutations(SEEDS)
    | st.integers(0, 10).flatmap(lambda kind: arrays(kind, 1, _CHAIN))
)
def test_any_bytes_are_malformed_or_the_encoding_of_what_they_decode_to(data):
    try:
        record = records.decode(data)
    except MalformedRecord:
        return
    assert record.payload() == data


@pytest.mark.parametrize("kind", [1, 2, 3, 6, 8, 9])
def test_no_type_accepts_fields_of_another_shape(kind):
    @given(arrays(kind, 1, _CHAIN))
    def check(data):
        try:
            record = records.decode(data)
        except MalformedRecord:
            return
        assert record.payload() == data
        assert record.TYPE == kind

    check()


@given(chains, digests, ballots)
def test_every_ballot_of_named_verdicts_fits_an_envelope(chain, parent, found):
    verdicts = [(digest, min(verdict, 22)) for digest, verdict in found.items()]
    payload = records.Ballot(chain, records.MAX_ROUND, parent, verdicts).payload()
    assert len(payload) + 94 <= MAX_RECORD_BYTES
