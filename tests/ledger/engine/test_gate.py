"""What limits the mempool: bytes, and transactions of one signer between two blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.engine.abci import TxResult
from ledger.engine.comet import gate
from ledger.engine.comet.gate import GATEWAY, MEMBER, OPERATOR, TOO_LONG, TOO_MANY, Gate
from ledger.protocol import records
from tests.ledger.engine.plain import plain_node, served
from tests.ledger.regional.generate import FIRST_ROUND, Region, signer
from tests.ledger.wide.bench import sealed

LIMITS = {MEMBER: 3, GATEWAY: 2, OPERATOR: 1}


@pytest.fixture(scope="module")
def region():
    return Region(4)


def codes(gate_: Gate, envelopes, check=lambda _: TxResult(0)) -> list[int]:
    return [gate_.check(envelope.raw, check).code for envelope in envelopes]


def test_each_role_has_its_limit_until_the_next_block(region):
    meter, limited = region.meters[0], Gate(limits=LIMITS)
    readings = [region.reading(meter, FIRST_ROUND + i) for i in range(5)]
    closes = [region.close(FIRST_ROUND + i) for i in range(4)]
    changes = [region.approve(0, n, records.LEAVE, meter.key.public_key) for n in (1, 2)]
    assert codes(limited, readings) == [0, 0, 0, TOO_MANY, TOO_MANY]
    assert codes(limited, closes) == [0, 0, TOO_MANY, TOO_MANY]
    assert codes(limited, changes) == [0, TOO_MANY]
    assert limited.refused == {TOO_MANY: 5}
    limited.committed()
    assert codes(limited, [readings[3], closes[2], changes[1]]) == [0, 0, 0]


def test_ballots_and_readings_of_a_member_count_together(region):
    limited, meter = Gate(limits=LIMITS), region.meters[1]
    ballots = [region.ballot(meter, FIRST_ROUND + i, region.genesis.digest, []) for i in range(2)]
    readings = [region.reading(meter, FIRST_ROUND + i) for i in range(2)]
    assert codes(limited, [*ballots, *readings]) == [0, 0, 0, TOO_MANY]


def test_nobody_uses_up_anothers_allowance(region):
    """What the application refuses does not count: its signature may be anybody's."""
    limited, meter = Gate(limits=LIMITS), region.meters[2]
    genuine = [region.reading(meter, FIRST_ROUND + i) for i in range(3)]
    forged = genuine[0].raw[:-1] + bytes([genuine[0].raw[-1] ^ 1])
    for _ in range(50):
        assert limited.check(forged, lambda _: TxResult(4, "bad signature")).code == 4
    assert codes(limited, genuine) == [0, 0, 0]
    other = region.meters[3]
    assert codes(limited, [region.reading(other, FIRST_ROUND)]) == [0]


def test_transaction_that_comes_again_counts_once(region):
    """Who resends what a meter has signed does not use up its allowance."""
    limited, meter = Gate(limits=LIMITS), region.meters[2]
    readings = [region.reading(meter, FIRST_ROUND + i) for i in range(4)]
    assert codes(limited, [readings[0]] * 20) == [0] * 20
    assert codes(limited, readings) == [0, 0, 0, TOO_MANY]
    assert codes(limited, readings) == [0, 0, 0, TOO_MANY]


def test_record_signed_again_counts_again(region):
    """Its signer can sign it in as many ways as there are random numbers."""
    limited, reading = Gate(limits=LIMITS), region.reading(region.meters[2], FIRST_ROUND)
    signed = [reading.raw[:-1] + bytes([i]) for i in range(4)]
    accept = lambda _: TxResult(0)  # noqa: E731 - these signatures stand for valid ones
    assert [limited.check(tx, accept).code for tx in signed] == [0, 0, 0, TOO_MANY]


def test_signer_at_the_limit_costs_no_signature_check(region):
    limited, meter = Gate(limits=LIMITS), region.meters[3]
    asked = []

    def check(tx):
        asked.append(tx)
        return TxResult(0)

    codes(limited, [region.reading(meter, FIRST_ROUND + i) for i in range(10)], check)
    assert len(asked) == LIMITS[MEMBER]


def test_transaction_beyond_the_longest_record_is_not_looked_at():
    limited = Gate(max_tx_bytes=100)
    assert limited.check(b"x" * 101, None).code == TOO_LONG  # type: ignore[arg-type]
    assert limited.check(b"x" * 100, lambda _: TxResult(1)).code == 1


def test_recheck_is_not_counted(tmp_path, region):
    node = plain_node(gate=Gate(limits=LIMITS))
    with served(node, tmp_path) as running:
        driver = running.connect()
        txs = [region.reading(region.meters[0], FIRST_ROUND + 20 + i).raw for i in range(6)]
        assert [driver.check_tx(tx) for tx in txs[:2]] == [0, 0]
        assert [driver.check_tx(tx, recheck=True) for tx in txs[:2] * 5] == [0] * 10
        assert driver.check_txs(txs[2:]) == [0, TOO_MANY, TOO_MANY, TOO_MANY]
        driver.block(txs[:3])
        assert driver.check_txs(txs[3:]) == [0, 0, 0]


def test_sender_is_seen_in_the_longest_records(region):
    verdicts = [(bytes([i]) * 32, records.ACCEPT) for i in range(records.MAX_VERDICTS)]
    meter, parent = region.meters[0], region.genesis.digest
    ballots = [region.ballot(meter, FIRST_ROUND + i, parent, verdicts) for i in range(4)]
    limited = Gate(limits=LIMITS)
    assert codes(limited, ballots) == [0, 0, 0, TOO_MANY]
    assert codes(limited, [sealed(i) for i in range(3)]) == [0, 0, TOO_MANY]


@pytest.mark.parametrize("payload", [b"", b"\x84", b"\x84\x63", b"\x84\x18\x20", b"\xff" * 9])
def test_record_of_no_known_type_is_the_applications_to_judge(payload):
    tx = signer("anybody").seal(payload).raw
    limited = Gate(limits={MEMBER: 0, GATEWAY: 0, OPERATOR: 0})
    assert limited.check(tx, lambda _: TxResult(1)).code == 1


@given(st.binary(max_size=1100))
def test_any_bytes_are_judged(data):
    assert Gate().check(data, lambda _: TxResult(1)).code in (1, TOO_LONG)


def test_limits_have_every_role_of_the_chains_records():
    assert set(gate.LIMITS) == {MEMBER, GATEWAY, OPERATOR}
