"""Requests and responses against the driver's codec, which was written apart from ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.engine.comet import messages as m
from ledger.protobuf import MalformedMessage, Timestamp
from tests.ledger.engine import driver as d

ALL_REQUESTS = [
    (d.ECHO, m.RequestEcho),
    (d.FLUSH, m.RequestFlush),
    (d.INFO, m.RequestInfo),
    (d.INIT_CHAIN, m.RequestInitChain),
    (d.QUERY, m.RequestQuery),
    (d.CHECK_TX, m.RequestCheckTx),
    (d.COMMIT, m.RequestCommit),
    (d.LIST_SNAPSHOTS, m.RequestListSnapshots),
    (d.OFFER_SNAPSHOT, m.RequestOfferSnapshot),
    (d.LOAD_CHUNK, m.RequestLoadSnapshotChunk),
    (d.APPLY_CHUNK, m.RequestApplySnapshotChunk),
    (d.PREPARE, m.RequestPrepareProposal),
    (d.PROCESS, m.RequestProcessProposal),
    (d.EXTEND_VOTE, m.RequestExtendVote),
    (d.VERIFY_EXTENSION, m.RequestVerifyVoteExtension),
    (d.FINALIZE, m.RequestFinalizeBlock),
]
RESPONSES = {
    2: m.ResponseEcho,
    3: m.ResponseFlush,
    4: m.ResponseInfo,
    6: m.ResponseInitChain,
    7: m.ResponseQuery,
    9: m.ResponseCheckTx,
    12: m.ResponseCommit,
    13: m.ResponseListSnapshots,
    14: m.ResponseOfferSnapshot,
    15: m.ResponseLoadSnapshotChunk,
    16: m.ResponseApplySnapshotChunk,
    17: m.ResponsePrepareProposal,
    18: m.ResponseProcessProposal,
    19: m.ResponseExtendVote,
    20: m.ResponseVerifyVoteExtension,
    21: m.ResponseFinalizeBlock,
}


@pytest.mark.parametrize(("call", "kind"), ALL_REQUESTS)
def test_every_request_of_abci_2_is_known_by_its_number(call, kind):
    assert type(m.decode_request(d.always(call[0], b""))) is kind
    response = RESPONSES[call[1]]()
    size, number, empty = m.encode_response(response)[:1], call[1], b""
    expected = d.always(number, empty)
    assert size + expected == m.encode_response(response)


def test_exception_is_response_1():
    data = m.encode_response(m.ResponseException("why"))
    assert d.decode(data[1:]) == {1: [d.always(1, b"why")]}


int64 = st.integers(-(2**63), 2**63 - 1)
octets = st.binary(max_size=40)


@given(st.lists(octets, max_size=5), int64, octets, st.integers(-(2**31), 2**31 - 1))
def test_block_of_the_driver_is_read(txs, height, address, kind):
    evidence = d.Evidence(kind, address, 7, height)
    body = b"".join(d.always(1, tx) for tx in txs) + d.always(3, evidence.encode())
    body += d.encode([(4, b"hash"), (5, height), (6, d.TIME), (7, b"next"), (8, address)])
    block = m.decode_request(d.always(20, body))
    found = m.Misbehavior(kind, m.Validator(address, 7), height)
    time = Timestamp(1_700_000_000, 5)
    assert block == m.RequestFinalizeBlock(tuple(txs), (found,), height, time, address)


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.text(max_size=10)), max_size=4),
    st.lists(st.tuples(octets, int64), max_size=3),
    octets,
)
def test_results_of_a_block_are_read_by_the_driver(results, updates, app_hash):
    response = m.ResponseFinalizeBlock(
        tuple(m.ExecTxResult(code, log) for code, log in results),
        tuple(m.ValidatorUpdate(m.PublicKey(key), power) for key, power in updates),
        m.ConsensusParams(m.VersionParams(2)),
        app_hash,
    )
    ((at, (body,)),) = d.decode(_unframed(m.encode_response(response))).items()
    answer = d.decode(body)
    assert at == 21
    decoded = [d.decode(result) for result in answer.get(2, [])]
    assert [(d.number(r, 1), d.octets(r, 3).decode()) for r in decoded] == results
    found = [d.decode(update) for update in answer.get(3, [])]
    keys = [d.octets(d.decode(d.octets(update, 1)), 1) for update in found]
    powers = [(d.number(update, 2) + 2**63) % 2**64 - 2**63 for update in found]
    assert list(zip(keys, powers, strict=True)) == updates
    assert d.decode(d.octets(d.decode(d.octets(answer, 4)), 4)) == {1: [2]}
    assert d.octets(answer, 5) == app_hash


def _unframed(data: bytes) -> bytes:
    size = next(n for n in range(1, 11) if data[n - 1] < 128)
    assert d.varint(len(data) - size) == data[:size]
    return data[size:]


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_one_error(data):
    for candidate in (data, *(d.always(call[0], data) for call, _ in ALL_REQUESTS)):
        try:
            m.decode_request(candidate)
        except MalformedMessage:
            continue


valid = st.sampled_from(
    [
        d.always(5, d.encode([(1, d.TIME), (2, b"gw-1"), (4, d.encode([(1, b"k"), (2, 5)]))])),
        d.always(8, d.encode([(1, b"tx" * 20), (2, 1)])),
        d.always(13, d.encode([(1, d.encode([(1, 5), (4, b"hash")])), (2, b"app")])),
        d.always(20, d.always(1, b"tx") + d.always(3, d.Evidence(1, b"a" * 20, 9, 3).encode())),
    ]
)


@given(valid, st.data())
def test_damaged_request_gives_a_request_or_one_error(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut]), data + bytes(damaged)):
        try:
            m.decode_request(candidate)
        except MalformedMessage:
            continue
