"""Whatever the bytes and whoever signed them, a transaction has a result code and no more."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.protocol import cbor, quantities, records
from ledger.regional import codes
from tests.ledger.regional.lab import FIRST, Lab


@pytest.fixture(scope="module")
def lab():
    lab = Lab(4)
    for i in range(3):
        lab.honest_round(FIRST + i)
    lab.close(FIRST + 3, lab.reading(0, FIRST + 3))
    yield lab
    lab.database.close()


@contextlib.contextmanager
def undone(lab: Lab):
    """Drop what the body finalizes, so that examples do not depend on each other."""
    before = lab.app.app_hash, lab.app.state.root(), lab.app.height
    try:
        yield
    finally:
        lab.app._undo()
    assert (lab.app.app_hash, lab.app.state.root(), lab.app.height) == before


def run(lab: Lab, *raws: bytes) -> list[int]:
    """Give the codes of transactions in one block together with a close of a later round."""
    for raw in raws:
        assert lab.node.check_tx(raw).code in codes.NAMES
    txs = [*raws, lab.region.close(FIRST + 20).raw]
    with undone(lab):
        result = lab.app.finalize_block(lab.node.height + 1, txs)
        assert result.tx_results[-1].code == codes.OK
        lab.app.blocks.head(lab.app.height)
    found = [tx.code for tx in result.tx_results]
    assert all(code in codes.NAMES for code in found)
    return found[:-1]


def samples(lab: Lab) -> list[bytes]:
    late = lab.app.state.open
    votes = [(digest, 1) for digest in late]
    return [
        lab.reading(1, FIRST + 4).raw,
        lab.ballot(1, FIRST + 4, votes).raw,
        lab.join(0, 1, lab.region.operators[2].public_key).raw,
        lab.region.close(FIRST + 5).raw,
        lab.reading(1, FIRST + 1).raw,
    ]


@given(st.binary(max_size=1200))
def test_random_bytes_are_malformed(lab, raw):
    assert run(lab, raw) == [codes.MALFORMED]


@settings(max_examples=300)
@given(st.data())
def test_mutated_transactions_get_a_code(lab, data):
    raw = bytearray(data.draw(st.sampled_from(samples(lab))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if kind == "flip":
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del raw[at : at + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            raw[at:at] = raw[at : at + 20]
        if not raw:
            break
    run(lab, bytes(raw))


VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**64), 2**64 - 1),
        st.sampled_from([0, 1, 2, 255, FIRST * 60, 2**32 - 1, 2**32, 2**40 - 1, 2**62, True]),
        st.binary(max_size=40),
        st.sampled_from([bytes(8), bytes(16), bytes(32), bytes(33), b"\x02" + bytes(32)]),
        st.text(max_size=8),
        st.none(),
    ),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.data())
def test_signed_records_with_any_fields_get_a_code(lab, data):
    """The worst case: a member, an operator or a gateway that signs anything."""
    signers = [lab.region.meters[1].key, lab.region.operators[0], lab.region.gateways[0]]
    kind = data.draw(st.integers(1, 9))
    fields = data.draw(st.lists(VALUES, max_size=10))
    payload = cbor.dumps([kind, 1, lab.region.chain, *fields])
    run(lab, data.draw(st.sampled_from(signers)).seal(payload).raw)


@settings(max_examples=300)
@given(st.data())
def test_signed_records_with_one_other_field_get_a_code(lab, data):
    samples_ = samples(lab)
    number = data.draw(st.integers(0, len(samples_) - 1))
    region = lab.region
    key = [region.meters[1].key] * 5
    key[2], key[3] = region.operators[0], region.gateways[0]
    fields = cbor.loads(lab.app.verifier.open(samples_[number])[0].payload)
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(VALUES)
    run(lab, key[number].seal(cbor.dumps(fields)).raw)


NUMBERS = st.one_of(
    st.integers(1, 30), st.sampled_from([1, 2**16, 2**31 - 1, 2**32 - 2, 2**32 - 1])
)
TIMES = st.one_of(
    st.integers((FIRST - 2) * 60, (FIRST + 20) * 60), st.sampled_from([0, 2**32, 2**40 - 1])
)


@settings(max_examples=150)
@given(st.data())
def test_well_formed_records_of_any_content_never_stop_a_close(lab, data):
    """Members may sign whatever the fields allow, and a majority may accept all of it."""
    readings = []
    for _ in range(data.draw(st.integers(1, 6))):
        which = data.draw(
            st.lists(st.sampled_from(sorted(quantities.BY_CODE)), min_size=1, unique=True)
        )
        limits = st.one_of(st.integers(-(2**62), 2**62), st.sampled_from([0, 1, 10**13 - 1]))
        values = [(code, data.draw(limits)) for code in sorted(which)]
        reading = lab.reading(
            data.draw(st.integers(0, 3)),
            FIRST,
            boot=data.draw(NUMBERS),
            seq=data.draw(NUMBERS),
            time=data.draw(TIMES),
            flags=data.draw(st.integers(0, 15)),
            values=values,
        )
        readings.append(reading)
    verdict = data.draw(st.sampled_from([0, 1, 1, 1, 16]))
    round_ = data.draw(st.integers(FIRST + 4, FIRST + 20))
    ballots = lab.ballots(round_, {e.digest: e for e in readings}.values(), verdict)
    run(lab, *(e.raw for e in (*readings, *ballots)))


def test_all_energy_in_the_world_does_not_stop_a_close():
    lab = Lab(4)
    top = 1 << 62
    for i, value in enumerate([-top, top, -top, top, -top, top]):
        values = [(code, value) for code in sorted(quantities.BY_CODE)]
        readings = [lab.reading(m, FIRST + i, values=values) for m in range(4)]
        lab.close(FIRST + i, *readings, *lab.ballots(FIRST + i, readings))
    assert lab.app.height == 6
    assert {row[2] for row in lab.app.blocks.all_results()} == {records.ACCEPT}
    lab.database.close()
