"""A region that several gateways serve: which round closes, and evidence against one of them.

SPEC 11.2, 11.4, 11.5, 11.8.
"""

import itertools
import random
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.audit import audit
from ledger.engine.abci import DUPLICATE_VOTE, Decision, Misbehaviour, UpgradeNeeded, Validator
from ledger.engine.solo import Solo
from ledger.genesis import GenesisValidator
from ledger.network import NetworkChange, Remove, Upgrade, What
from ledger.protocol import records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.region import RegionDirectory
from ledger.regional import codes
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import TABLES, RegionalApplication
from ledger.regional.state import Convicted
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import Play, Region, eventful, fingerprint, validator
from tests.ledger.regional.lab import FIRST, Lab


@pytest.fixture
def lab(tmp_path: Path):
    lab = Lab(gateways=4, path=tmp_path / "regional.sqlite")
    yield lab
    lab.database.close()


def ask(lab: Lab, *asks: tuple[int, int]) -> list[int]:
    """Let gateways (first) ask for rounds (second), one after the other; gives the codes."""
    return lab.deliver(*(lab.region.close(round_, gateway) for gateway, round_ in asks))


# which round closes


def test_round_closes_when_more_than_half_have_asked(lab: Lab) -> None:
    assert ask(lab, (0, FIRST), (1, FIRST)) == [0, 0]
    assert lab.app.height == 0
    assert ask(lab, (3, FIRST)) == [0]
    assert lab.app.last_round == FIRST


@pytest.mark.parametrize(("gateways", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_majority_of_each_number_of_gateways(gateways: int, needed: int) -> None:
    lab = Lab(gateways=gateways)
    for gateway in range(needed):
        assert lab.app.height == 0
        assert ask(lab, (gateway, FIRST)) == [0]
    assert lab.app.height == 1
    lab.database.close()


def test_round_that_closes_is_the_largest_that_a_majority_wants_closed(lab: Lab) -> None:
    assert ask(lab, (0, FIRST + 9), (1, FIRST + 2), (2, FIRST + 5)) == [0, 0, 0]
    assert lab.app.last_round == FIRST + 2
    # the orders for later rounds wait on
    assert ask(lab, (3, FIRST + 7)) == [0]
    assert lab.app.last_round == FIRST + 5


def test_minority_that_asks_for_the_far_future_closes_nothing_early() -> None:
    lab = Lab(gateways=5)
    far = [(3, records.MAX_ROUND), (4, records.MAX_ROUND - 7)]
    assert ask(lab, *far) == [0, 0]
    for round_ in range(FIRST, FIRST + 5):
        # it takes one that is not of the minority, and that one says which
        assert lab.app.last_round != round_
        assert ask(lab, (0, round_)) == [0]
        assert lab.app.last_round == round_
        assert ask(lab, (1, round_), (2, round_)) == [codes.WRONG_ROUND] * 2
    lab.database.close()


def test_minority_that_never_asks_keeps_nothing_open() -> None:
    lab = Lab(gateways=5)
    for round_ in range(FIRST, FIRST + 5):
        assert ask(lab, (0, round_), (2, round_), (4, round_)) == [0, 0, 0]
        assert lab.app.last_round == round_
    lab.database.close()


def test_older_or_equal_order_of_a_gateway_is_refused(lab: Lab) -> None:
    assert ask(lab, (0, FIRST + 3), (0, FIRST + 3), (0, FIRST + 1), (0, FIRST + 4)) == [
        codes.OK,
        codes.DUPLICATE,
        codes.WRONG_ROUND,
        codes.OK,
    ]
    tx = lab.region.close(FIRST + 4).raw
    assert lab.app.check_tx(tx).code == codes.DUPLICATE


def test_orders_up_to_the_closed_round_are_dropped(lab: Lab) -> None:
    ask(lab, (3, FIRST), (0, FIRST + 1), (1, FIRST + 1), (2, FIRST + 1))
    assert lab.app.last_round == FIRST + 1
    assert lab.app.blocks.waiting() == ([], [])
    assert ask(lab, (3, FIRST + 1)) == [codes.WRONG_ROUND]


def test_waiting_orders_are_in_the_hash_and_outlive_a_restart(lab: Lab) -> None:
    hashes = [lab.app.app_hash]
    for gateway, round_ in ((0, FIRST), (1, FIRST), (0, FIRST + 1)):
        ask(lab, (gateway, round_))
        hashes.append(lab.app.app_hash)
        lab.reopen()
        assert lab.app.app_hash == hashes[-1]
    assert len(set(hashes)) == 4
    assert ask(lab, (2, FIRST)) == [0]
    assert lab.app.last_round == FIRST


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), max_size=40),
)
def test_rounds_close_as_the_rule_says(gateways: int, asks: list[tuple[int, int]]) -> None:
    """Against the definition: the largest round that a majority wants closed, or a later one."""
    lab = Lab(1, gateways=gateways)
    wanted: dict[int, int] = {}
    last = -1
    for gateway, round_ in asks:
        if gateway >= gateways:
            continue
        good = round_ > last and round_ > wanted.get(gateway, -1)
        (code,) = ask(lab, (gateway, round_))
        assert (code == codes.OK) == good
        if good:
            wanted[gateway] = round_
        may = [
            r for r in range(last + 1, 13) if 2 * sum(w >= r for w in wanted.values()) > gateways
        ]
        if may:
            last = max(may)
            wanted = {g: r for g, r in wanted.items() if r > last}
        assert lab.app.last_round == (None if last < 0 else last)
    lab.database.close()


@pytest.mark.parametrize("seed", range(3))
def test_other_block_boundaries_and_restarts_give_the_same_chain(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    play = eventful(rounds=30, gateways=3, validators=4)
    txs = [tx for block in play.blocks for tx in block]
    path = tmp_path / "regional.sqlite"
    at = 0
    while at < len(txs):
        with Database(path, TABLES) as database:
            app = RegionalApplication(play.region.genesis, database, Verifier())
            node = Solo(app)
            for _ in range(20):
                size = rng.choice([1, 2, rng.randrange(1, 100)])
                results = node.execute(txs[at : at + size]).tx_results
                assert {result.code for result in results} <= {codes.OK}
                at += size
            last = fingerprint(app)
    assert last == fingerprint(play.app)
    play.close()


def test_region_of_one_gateway_has_the_hashes_that_it_always_had() -> None:
    """As computed by version 0.1, whose regions go on: heads, state and application hash."""
    play = eventful(rounds=36)
    play.execute([play.region.reading(play.region.meters[4], play.round)])
    heads = [play.app.blocks.head_payload(height) or b"" for height in range(1, 37)]
    assert [
        play.app.app_hash.hex(),
        sha256(b"".join(heads)).hexdigest(),
        play.app.state.root().hex(),
    ] == [
        "d29d2c395d59e43c21c48889a90ce3c62040295817123ba03e933589913fc104",
        "6a3629ca22ab94f3e24f7152de9f708002a822ec1409fb7dc8a47b0e239be8dd",
        "e48b74fdb86c48705365fcea563d044e53f03ec9ec11ef7372bace9d6476f9aa",
    ]
    play.close()


def test_hash_of_a_region_with_validators_covers_its_windows(network: Lab) -> None:
    """What heads do not cover and a new node needs; else a peer could send it false figures."""
    for round_ in range(FIRST, FIRST + 7):
        network.honest_round(round_)
    before = network.app.app_hash
    open_window = network.app.blocks.meta("aggregate")
    ended = network.app.blocks.last_window()
    assert open_window is not None
    assert ended is not None
    for sql, blob in (
        ("UPDATE meta SET value=? WHERE name='aggregate'", open_window),
        ("UPDATE windows SET aggregate=?", ended),
    ):
        changed = Aggregate.decode(blob)
        changed.energy_in += 1
        network.database.connection.execute(sql, [changed.encode()])
        network.reopen()
        assert network.app.app_hash != before
        network.database.connection.execute(sql, [blob])
        network.reopen()
        assert network.app.app_hash == before


# evidence against a gateway


def other_head(lab: Lab, gateway: int, at: int = 1, **changes: object) -> Envelope:
    """Sign a head that is not the chain's."""
    head = lab.app.blocks.head(at)
    for name, value in (changes or {"records_root": bytes(32)}).items():
        setattr(head, name, value)
    return lab.region.gateways[gateway].seal(head.payload())


def test_other_head_of_a_gateway_is_kept_and_suspends_it(lab: Lab) -> None:
    lab.close(FIRST)
    evidence = other_head(lab, 2)
    block = lab.close(FIRST + 1, evidence)
    assert [e.raw for e, _ in block.records] == [evidence.raw]
    assert lab.app.blocks.record(2 << 20) == evidence.raw
    address = lab.region.gateways[2].address
    assert lab.app.state.convicted.get(address) == Convicted(
        2, payload_digest(evidence.payload), True
    )
    assert lab.app.state.suspended(address)
    assert ask(lab, (2, FIRST + 2)) == [codes.NOT_ACTIVE]
    # two of the three that are left
    assert ask(lab, (0, FIRST + 2), (3, FIRST + 2)) == [0, 0]
    assert lab.app.last_round == FIRST + 2
    lab.reopen()
    assert lab.app.state.suspended(address)


def test_order_that_waits_of_a_suspended_gateway_counts_no_more(lab: Lab) -> None:
    lab.close(FIRST)
    ask(lab, (3, FIRST + 9))
    lab.deliver(other_head(lab, 3))
    assert ask(lab, (0, FIRST + 1), (1, FIRST + 1)) == [0, 0]
    assert lab.app.last_round == FIRST + 1
    assert lab.app.blocks.waiting() == ([], [])
    assert ask(lab, (0, FIRST + 2), (1, FIRST + 2)) == [0, 0]
    assert lab.app.last_round == FIRST + 2


def test_suspension_can_leave_a_majority_for_a_later_round(lab: Lab) -> None:
    lab.close(FIRST)
    lab.deliver(other_head(lab, 3))
    # two of four want the later round; of the three that are left they are more than half
    assert ask(lab, (0, FIRST + 5), (1, FIRST + 5), (2, FIRST + 1)) == [0, 0, 0]
    assert [block.head.round for block in lab.app.made()] == [FIRST + 1, FIRST + 5]


def test_heads_that_are_no_evidence_are_refused(lab: Lab) -> None:
    lab.close(FIRST)
    lab.close(FIRST + 1)
    own = lab.region.gateways[1].seal(lab.app.blocks.head_payload(1) or b"")
    assert lab.deliver(own) == [codes.DUPLICATE]
    assert lab.deliver(other_head(lab, 1, 2, height=3), other_head(lab, 1, 2)) == [
        codes.UNKNOWN_HEAD,
        codes.OK,
    ]
    assert lab.deliver(other_head(lab, 1)) == [codes.STALE]
    lab.close(FIRST + 2)
    assert lab.deliver(other_head(lab, 1)) == [codes.STALE]
    stranger = lab.region.meters[0].key.seal(other_head(lab, 0).payload)
    assert lab.deliver(stranger) == [codes.UNKNOWN_SIGNER]
    good = other_head(lab, 0)
    forged = Envelope.parse(good.raw[:-1] + bytes([good.raw[-1] ^ 1]))
    assert lab.deliver(forged) == [codes.BAD_SIGNATURE]


def test_last_gateway_is_never_suspended() -> None:
    for gateways in (1, 3):
        lab = Lab(gateways=gateways)
        lab.close(FIRST)
        lab.close(FIRST + 1, *(other_head(lab, i) for i in range(gateways)))
        convicted = [lab.app.state.convicted.get(key.address) for key in lab.region.gateways]
        assert None not in convicted
        assert sum(c.suspended for c in convicted if c is not None) == gateways - 1
        (last,) = lab.app.delivery.closers()
        number = [key.address for key in lab.region.gateways].index(last)
        assert ask(lab, (number, FIRST + 2)) == [0]
        assert lab.app.last_round == FIRST + 2
        lab.database.close()


def test_convicted_gateway_is_an_alarm_of_the_window(lab: Lab) -> None:
    lab.close(FIRST)
    lab.close(FIRST + 1, other_head(lab, 3))
    lab.close(FIRST + 4)
    assert [window.alarms for window in lab.windows()] == [1]


# validators


def change(lab: Lab, operator: int, number: int, what: What) -> Envelope:
    payload = NetworkChange(lab.region.chain, number, what).payload()
    return lab.region.operators[operator].seal(payload)


def approved(lab: Lab, number: int, what: What) -> list[Envelope]:
    return [change(lab, operator, number, what) for operator in (0, 2)]


@pytest.fixture
def network():
    lab = Lab(gateways=3, validators=3)
    yield lab
    lab.database.close()


def finalize(lab: Lab, envelopes: list[Envelope], *found: Misbehaviour):
    txs = [envelope.raw for envelope in envelopes]
    height = lab.app.info().last_block_height + 1
    result = lab.app.finalize_block(height, txs, Decision(misbehaviour=found))
    lab.app.commit()
    assert {tx.code for tx in result.tx_results} <= {codes.OK}
    assert result.app_version == lab.app.info().app_version
    return result.validator_updates


def seat(which: GenesisValidator, power: int | None = None) -> Validator:
    return Validator(which.public_key, which.power if power is None else power)


def test_validators_are_those_of_the_genesis(network: Lab) -> None:
    assert network.app.validators() == tuple(map(seat, network.region.validators))


def test_change_of_the_network_takes_effect_at_the_close(network: Lab) -> None:
    new = validator(7)
    assert finalize(network, approved(network, 1, new)) == ()
    assert finalize(network, network.region.majority(FIRST)) == (seat(new),)
    assert seat(new) in network.app.validators()
    gone = network.region.validators[1]
    block = [*approved(network, 2, Remove(gone.name)), *network.region.majority(FIRST + 1)]
    assert finalize(network, block) == (seat(gone, 0),)
    assert network.app.made()[0].head.record_count == 2


def test_one_operator_alone_changes_nothing(network: Lab) -> None:
    block = [change(network, 0, 1, validator(7)), *network.region.majority(FIRST)]
    assert finalize(network, block) == ()
    second = [change(network, 1, 1, validator(7)), *network.region.majority(FIRST + 1)]
    assert finalize(network, second) == (seat(validator(7)),)


def test_approval_beyond_the_threshold_in_one_block_is_passed_over(network: Lab) -> None:
    block = [change(network, i, 1, validator(7)) for i in range(3)]
    assert finalize(network, [*block, *network.region.majority(FIRST)]) == (seat(validator(7)),)
    assert network.deliver(change(network, 1, 1, validator(8))) == [codes.WRONG_NUMBER]


def test_changes_that_the_rules_refuse(network: Lab) -> None:
    assert network.deliver(change(network, 0, 2, validator(7))) == [codes.WRONG_NUMBER]
    assert network.deliver(change(network, 0, 1, Remove("nobody"))) == [codes.IMPOSSIBLE]
    good = change(network, 0, 1, validator(7))
    assert network.deliver(good, good) == [codes.OK, codes.DUPLICATE]
    meter = network.region.meters[0].key.seal(good.payload)
    assert network.deliver(meter) == [codes.UNKNOWN_SIGNER]
    forged = Envelope.parse(good.raw[:-1] + bytes([good.raw[-1] ^ 1]))
    network.close(FIRST)
    other = change(network, 1, 1, validator(7))
    forged = Envelope.parse(other.raw[:-1] + bytes([other.raw[-1] ^ 1]))
    assert network.deliver(forged) == [codes.BAD_SIGNATURE]


def test_misbehaviour_waits_for_the_close_and_takes_the_vote(network: Lab) -> None:
    culprit = network.region.validators[2]
    found = Misbehaviour(DUPLICATE_VOTE, seat(culprit).address, 1)
    before = network.app.app_hash
    assert finalize(network, [], found) == ()
    assert network.app.app_hash != before
    network.reopen()
    assert finalize(network, network.region.majority(FIRST)) == (seat(culprit, 0),)
    assert seat(culprit) not in network.app.validators()
    # until operators restore it
    again = [*approved(network, 1, culprit), *network.region.majority(FIRST + 1)]
    assert finalize(network, again) == (seat(culprit),)


def test_version_from_a_height_that_is_past_is_let_in_and_voted_for_by_no_node(
    network: Lab,
) -> None:
    finalize(network, [])
    late, timely = (approved(network, 1, Upgrade(2, height))[0].raw for height in (2, 3))
    assert network.app.check_tx(late).code == codes.IMPOSSIBLE
    assert network.app.prepare_proposal([late], 1 << 20) == []
    assert not network.app.process_proposal(2, [late])
    assert network.app.check_tx(timely).code == codes.OK
    assert network.app.prepare_proposal([late, timely], 1 << 20) == [timely]
    assert network.app.process_proposal(2, [timely])
    # a decided block counts it, whatever its height
    (result,) = network.app.finalize_block(2, [late]).tx_results
    assert result.code == codes.OK


def test_height_of_newer_rules_stops_the_node_before_anything_changes(network: Lab) -> None:
    finalize(network, [*approved(network, 1, Upgrade(2, 5)), *network.region.majority(FIRST)])
    for _ in range(3):
        finalize(network, [])
    assert network.app.info().app_version == 2  # of the next block
    before = network.snapshot()
    reading = network.reading(0, FIRST + 1).raw
    assert network.app.process_proposal(4, [reading])
    assert not network.app.process_proposal(5, [reading])
    assert network.app.prepare_proposal([reading], 1 << 20) == []
    with pytest.raises(UpgradeNeeded, match="version 2"):
        network.app.finalize_block(5, [])
    assert network.snapshot() == before

    class Newer(RegionalApplication):
        VERSIONS = (1, 2)

    newer = Newer(network.region.genesis, network.database, Verifier())
    newer.finalize_block(5, [])
    newer.commit()
    assert newer.info().app_version == 2


# the audit


def test_audit_re_does_what_several_gateways_made(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    lab = Lab(gateways=3, validators=4, path=directory.regional)
    directory.genesis.write_bytes(lab.region.genesis.encode())
    rounds_ = itertools.count(FIRST)
    lab.honest_round(next(rounds_))
    found = Misbehaviour(DUPLICATE_VOTE, seat(lab.region.validators[0]).address, 1)
    finalize(lab, [], found)
    lab.close(next(rounds_), other_head(lab, 2), *approved(lab, 1, validator(9)))
    lab.honest_round(next(rounds_))
    # what waits: an order, a conviction, a record
    late = Misbehaviour(DUPLICATE_VOTE, seat(lab.region.validators[1]).address, 2)
    round_ = next(rounds_)
    finalize(lab, [lab.region.close(round_, 1), lab.reading(0, round_)], late)
    lab.app.sign_heads(lab.region.gateways[1])
    report = audit(directory)
    assert report.ok, report.failure
    sql = lab.database.connection
    sql.execute("DELETE FROM convictions")
    report = audit(directory)
    assert not report.ok
    assert "state root" in str(report.failure)
    lab.database.close()


def test_play_of_three_gateways_goes_through_the_audit(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    play = Play(Region(6, cluster_size=6, gateways=3, validators=4), directory.regional)
    directory.genesis.write_bytes(play.region.genesis.encode())
    for _ in range(5):
        play.play()
    report = audit(directory)
    assert report.ok, report.failure
    assert report.blocks == 5
    play.close()


# proposals


def test_trying_a_proposal_leaves_no_trace(network: Lab) -> None:
    network.close(FIRST)
    waiting = [network.reading(0, FIRST + 1), network.region.close(FIRST + 3, 0)]
    network.deliver(*waiting)
    before, hash_ = network.snapshot(), network.app.app_hash
    reading, order = network.reading(1, FIRST + 1), network.region.close(FIRST + 1, 1)
    evidence = other_head(network, 2)
    for txs in (
        [reading, evidence, change(network, 0, 1, validator(7))],
        [reading, order],
        [network.region.close(FIRST + 4, 2)],
        [network.region.close(FIRST + 4, 0)],
    ):
        raws = [tx.raw for tx in txs]
        assert network.app.process_proposal(1, raws)
        assert network.app.prepare_proposal(raws, 1 << 20) == raws
        assert not network.app.process_proposal(1, [*raws, raws[0]])
        assert network.snapshot() == before
        assert network.app.app_hash == hash_
    # each of them can still be delivered
    assert network.deliver(reading, evidence, order) == [0, 0, 0]
    assert network.app.last_round == FIRST + 1


def test_busy_chain_writes_what_waits_once(network: Lab) -> None:
    network.close(FIRST)
    written: list[int] = []
    put = network.app.blocks.put_pending

    def count(envelopes: list[bytes], first: int = 0) -> None:
        written.append(len(envelopes))
        put(envelopes, first)

    network.app.blocks.put_pending = count  # type: ignore[method-assign]
    for i in range(5):
        network.deliver(network.reading(i, FIRST + 1))
    assert sum(written) == 5
    hash_ = network.app.app_hash
    network.reopen()
    assert network.app.app_hash == hash_
