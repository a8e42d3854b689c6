"""One region, several gateways: who closes, who speaks, who stands in, crashes at every step."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.queue import Message
from gateway.speaker import STAND_IN_S, STAND_IN_STEP_S
from gateway.submitted import AGAIN_S, PATIENCE_S
from ledger.protocol import messages, records, topics
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional import codes
from tests.gateway.region import FIRST, OPERATOR, STRANGER, Meter, signer
from tests.gateway.several import Cluster

STAND_IN_ALL_S = STAND_IN_S + 4 * STAND_IN_STEP_S


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def in_chain(cluster: Cluster, number: int) -> Counter[bytes]:
    app = cluster.gateways[number].app
    found: Counter[bytes] = Counter()
    for height in range(1, app.height + 1):
        found.update(envelope.digest for envelope in app.blocks.envelopes_of(height))
    return found


def assert_all_is_well(cluster: Cluster, sent: list[Envelope]) -> None:
    """Everything sent is in every chain once, has its receipt, and waits nowhere any more."""
    digests = {envelope.digest for envelope in sent}
    heads = [cluster.heads(gateway) for gateway in cluster.gateways]
    assert heads[0] and all(other == heads[0] for other in heads)
    for gateway in cluster.gateways:
        assert in_chain(cluster, gateway.number) == Counter(digests)
        assert gateway.queue.waiting == 0, gateway.number
        assert len(gateway.book) == 0, gateway.number
        assert gateway.core.submitted == 0, gateway.number
    assert cluster.receipted() == digests
    hashes = {gateway.app.app_hash for gateway in cluster.gateways}
    assert len(hashes) == 1


def test_all_gateways_come_to_the_same_blocks(cluster: Cluster) -> None:
    sent = [record for round_ in range(FIRST, FIRST + 4) for record in cluster.play(round_)]
    assert_all_is_well(cluster, sent)
    rounds = [records.decode(head).round for head in cluster.heads(cluster.gateways[0])]
    assert rounds == list(range(FIRST, FIRST + 4))


def test_only_the_proposers_gateway_tells_of_a_block(cluster: Cluster) -> None:
    for round_ in range(FIRST, FIRST + 5):
        cluster.play(round_)
    told = cluster.speakers("head")
    assert len(told) == 5
    assert len(set(told)) > 1
    assert len(cluster.speakers("receipt")) == 5 * len(cluster.meters)


def test_every_gateway_keeps_heads_with_its_own_signature(cluster: Cluster) -> None:
    cluster.play(FIRST)
    raws = [gateway.app.blocks.head_envelope(1) for gateway in cluster.gateways]
    envelopes = [Envelope.parse(raw) for raw in raws if raw is not None]
    assert [envelope.kid for envelope in envelopes] == [g.key.address for g in cluster.gateways]
    assert len({envelope.payload for envelope in envelopes}) == 1


def test_speaker_without_a_link_is_stood_in_for_by_one_other(cluster: Cluster) -> None:
    mute = cluster.gateways[(cluster.proposer + 1) % 3]
    sent = cluster.play(FIRST)
    cluster.published.clear()
    for gateway in cluster.gateways:
        gateway.link = gateway is not mute
    while True:  # until a block of the mute one's closes a round
        sent = cluster.play(FIRST + cluster.gateways[0].app.height)
        if not cluster.receipted() >= {e.digest for e in sent}:
            break
    before = len(cluster.speakers("head"))
    cluster.wait(STAND_IN_ALL_S)
    cluster.run()
    stood_in = cluster.speakers("head")[before:]
    assert len(stood_in) == 1
    assert stood_in[0] != mute.number
    assert cluster.receipted() >= {e.digest for e in sent}


def test_head_that_a_greeting_tells_first_costs_no_receipts(cluster: Cluster) -> None:
    readings = [meter.reading(FIRST) for meter in cluster.meters]
    ballots = [meter.ballot(FIRST, readings) for meter in cluster.meters]
    sent = readings + ballots
    cluster.say(*[m.message(e) for m, e in zip(cluster.meters * 2, sent, strict=True)])
    while not cluster.block():
        for gateway in cluster.gateways:
            gateway.turn()
    assert cluster.proposer != 0
    cluster.wait(STAND_IN_S)  # the first gateway has heard no head since it connected
    cluster.run()
    assert cluster.receipted() == {e.digest for e in sent}
    assert len(cluster.speakers("head")) == 1


def test_gateway_that_comes_back_catches_up_and_does_not_overwrite_the_head(
    cluster: Cluster,
) -> None:
    away = cluster.gateways[2]
    sent = cluster.play(FIRST)
    away.end()
    assert not cluster.block()  # three need all three
    cluster.restart(away)
    sent += cluster.play(FIRST + 1)
    cluster.wait(STAND_IN_ALL_S)
    cluster.run()
    assert_all_is_well(cluster, sent)


def test_one_of_four_may_be_away(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, count=4)
    away = cluster.gateways[3]
    sent = cluster.play(FIRST)
    away.end()
    for round_ in range(FIRST + 1, FIRST + 5):
        sent += cluster.play(round_)
        cluster.wait(STAND_IN_ALL_S)
        cluster.run()
    assert [g.app.height for g in cluster.alive] == [5, 5, 5]
    heads_before = len(cluster.speakers("head"))
    cluster.restart(away)
    cluster.run()
    cluster.wait(STAND_IN_ALL_S)
    cluster.run()
    assert len(cluster.speakers("head")) == heads_before
    sent += cluster.play(FIRST + 5)
    cluster.wait(AGAIN_S)
    cluster.run()
    assert_all_is_well(cluster, sent)
    cluster.close()


def test_records_that_one_gateway_alone_heard_come_in(cluster: Cluster) -> None:
    lone = cluster.gateways[1]
    meter = cluster.meters[0]
    reading = meter.reading(FIRST)
    lone.session.append(meter.message(reading))
    sent = [reading]
    cluster.run()
    rest = [m.reading(FIRST) for m in cluster.meters[1:]]
    cluster.say(*[m.message(e) for m, e in zip(cluster.meters[1:], rest, strict=True)])
    ballots = [m.ballot(FIRST, rest) for m in cluster.meters]
    cluster.say(*[m.message(e) for m, e in zip(cluster.meters, ballots, strict=True)])
    cluster.run()
    cluster.wait(11)
    cluster.run()
    sent += rest + ballots + cluster.play(FIRST + 1)
    assert_all_is_well(cluster, sent)


def test_less_than_half_of_the_gateways_close_no_round(cluster: Cluster) -> None:
    lone = cluster.gateways[1]
    readings = [m.reading(FIRST) for m in cluster.meters]
    ballots = [m.ballot(FIRST, readings) for m in cluster.meters]
    lone.session += [
        m.message(e) for m, e in zip(cluster.meters * 2, readings + ballots, strict=True)
    ]
    cluster.run()
    assert len(cluster.decided) > 0
    assert lone.app.height == 0
    assert lone.book.last == FIRST
    # the others hear of the next round, and close both
    sent = readings + ballots + cluster.play(FIRST + 1)
    assert_all_is_well(cluster, sent)


def test_what_the_mempool_did_not_take_is_submitted_again(cluster: Cluster) -> None:
    for gateway in cluster.gateways:
        gateway.pool.away = True
    sent = cluster.play(FIRST)
    assert cluster.decided == []
    assert [gateway.core.submitted for gateway in cluster.gateways] == [8, 8, 8]
    assert [gateway.counters["chain.unreachable"] for gateway in cluster.gateways] == [1, 1, 1]
    for gateway in cluster.gateways:
        gateway.pool.away = False
    cluster.run()
    assert cluster.decided == []
    cluster.wait(AGAIN_S)
    cluster.run()
    assert_all_is_well(cluster, sent)


def behind(tmp_path: Path, rounds: int) -> tuple[Cluster, list[Envelope]]:
    """One of four gateways comes back after some rounds; its node lacks their blocks still."""
    cluster = Cluster(tmp_path, count=4)
    away = cluster.gateways[3]
    away.end()
    sent = [record for r in range(FIRST, FIRST + rounds) for record in cluster.play(r)]
    cluster.restart(away, behind=True)
    return cluster, sent


def test_gateway_that_is_behind_takes_in_and_closes_and_judges_nothing(tmp_path: Path) -> None:
    cluster, sent = behind(tmp_path, 3)
    away = cluster.gateways[3]
    sent += cluster.play(FIRST + 3)
    cluster.wait(11)
    cluster.run()
    assert away.session == []
    assert away.queue.waiting == len(sent)
    assert (away.core.submitted, away.pool.txs) == (0, [])
    assert away.book.wait_s(cluster.now) is None  # the service sleeps meanwhile
    assert not any(name.startswith("rejected") for name in away.counters.snapshot())
    cluster.catch_up(away)
    cluster.run()
    sent += cluster.play(FIRST + 4)
    assert_all_is_well(cluster, sent)
    assert not any(name.startswith("rejected") for name in away.counters.snapshot())
    cluster.close()


def test_ballot_that_names_a_head_which_a_lagging_node_lacks_is_kept_until_it_comes(
    tmp_path: Path,
) -> None:
    # CometBFT does not say that it catches up when it is only a few blocks behind
    cluster, sent = behind(tmp_path, 2)
    away = cluster.gateways[3]
    away.catching_up = False
    away.session.clear()
    readings = [meter.reading(FIRST + 2) for meter in cluster.meters]
    ballots = [meter.ballot(FIRST + 2, readings) for meter in cluster.meters]
    away.session += [
        m.message(e) for m, e in zip(cluster.meters * 2, readings + ballots, strict=True)
    ]
    for _ in range(4):
        cluster.run()
        cluster.wait(11)
    assert away.core.submitted == 8
    assert len(away.pool.txs) == 4 + 1  # the readings and a close: no ballot
    assert away.queue.waiting == 8
    assert not any(name.startswith("rejected") for name in away.counters.snapshot())
    cluster.catch_up(away)
    cluster.wait(AGAIN_S)
    cluster.run()
    sent += readings + ballots + cluster.play(FIRST + 3)
    assert_all_is_well(cluster, sent)
    cluster.close()


def test_ballots_are_in_a_block_of_a_node_that_heard_them_before_the_block_that_they_name(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, count=4)
    sent = cluster.play(FIRST)
    away = cluster.gateways[3]
    away.lags = True
    sent += cluster.play(FIRST + 1)
    readings = [meter.reading(FIRST + 2) for meter in cluster.meters]
    ballots = [meter.ballot(FIRST + 2, readings) for meter in cluster.meters]
    assert {records.decode(e.payload).parent for e in ballots} == {payload_digest(cluster.newest)}
    items = zip(cluster.meters * 2, readings + ballots, strict=True)
    cluster.say(*[meter.message(envelope) for meter, envelope in items])
    for gateway in cluster.gateways:
        gateway.turn()
    cluster.gossip()
    cluster.catch_up(away)
    cluster.proposer = away.number - 1
    assert cluster.block()
    assert cluster.proposer == away.number
    cluster.run()
    assert_all_is_well(cluster, sent + readings + ballots)
    assert away.app.height == 3  # they came in together, with no ballot left for a round to come
    cluster.close()


def test_record_of_a_member_that_joined_meanwhile_is_judged_when_the_node_is_in_step(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, count=4)
    away = cluster.gateways[3]
    cluster.play(FIRST)
    away.end()
    new = signer(500)
    change = records.RegistryChange(
        cluster.genesis.chain, 1, records.JOIN, new.public_key, "street"
    )
    cluster.say(
        Message(topics.registry(cluster.genesis.chain), OPERATOR.seal(change.payload()).raw)
    )
    for round_ in range(FIRST + 1, FIRST + 4):
        cluster.play(round_)
        cluster.wait(11)
        cluster.run()
    away.session.clear()
    cluster.restart(away, behind=True)
    meter = Meter(cluster.genesis, new)
    reading = meter.reading(FIRST + 4)
    stranger = Meter(cluster.genesis, STRANGER).reading(FIRST + 4)
    away.session += [meter.message(reading), meter.message(stranger)]
    cluster.run()
    assert away.queue.waiting == 2
    # a crash does not make it forget
    cluster.restart(away, behind=True)
    cluster.run()
    assert (away.queue.waiting, len(away.book)) == (2, 0)
    cluster.catch_up(away)
    cluster.run()
    assert away.book.holds(new.address, reading.digest)
    assert away.counters["rejected.unknown-signer"] == 1
    assert away.queue.waiting == 1
    cluster.close()


def test_strangers_do_not_fill_the_inbox_of_a_gateway_that_is_behind(tmp_path: Path) -> None:
    cluster, _ = behind(tmp_path, 1)
    away = cluster.gateways[3]
    away.session.clear()
    stranger = Meter(cluster.genesis, STRANGER)
    away.session += [stranger.message(stranger.reading(FIRST)) for _ in range(1200)]
    away.turn()
    assert away.session == []
    assert away.queue.waiting == 1000
    assert away.counters["rejected.unknown-signer"] == 200
    cluster.catch_up(away)
    cluster.run()
    assert away.queue.waiting == 0
    cluster.close()


def test_what_the_chain_refuses_is_given_up_and_forgotten(cluster: Cluster) -> None:
    cluster.play(FIRST)
    meter = cluster.meters[0]
    meter.parent = bytes(32)  # of no head
    bad = meter.ballot(FIRST + 1, [])
    cluster.say(meter.message(bad))
    # a third of the members must be in the round before it closes
    cluster.say(*[m.message(m.reading(FIRST + 1)) for m in cluster.meters[1:]])
    cluster.run()
    refused = "rejected." + codes.NAMES[codes.UNKNOWN_PARENT]
    cluster.wait(11)
    cluster.run()
    # this node may only lack the newest block: it asks again for a while
    cluster.wait(AGAIN_S)
    cluster.run()
    assert [gateway.counters[refused] for gateway in cluster.gateways] == [0, 0, 0]
    assert [gateway.queue.waiting for gateway in cluster.gateways] == [1, 1, 1]
    cluster.wait(PATIENCE_S)
    cluster.run()
    for gateway in cluster.gateways:
        assert gateway.counters[refused] == 1
        assert gateway.queue.waiting == 0
        assert len(gateway.book) == 0


def test_record_sent_again_is_answered_by_everybody(cluster: Cluster) -> None:
    sent = cluster.play(FIRST)
    cluster.published.clear()
    cluster.say(cluster.meters[0].message(sent[0]))
    cluster.run()
    assert sorted(cluster.speakers("receipt")) == [0, 1, 2]


def test_gateway_that_hears_late_what_the_others_told_does_not_tell_it_again(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, count=4)
    slow = cluster.gateways[3]
    slow.link = False
    sent = [record for round_ in range(FIRST, FIRST + 6) for record in cluster.play(round_)]
    cluster.wait(STAND_IN_ALL_S)
    cluster.run()
    assert slow.app.height == 6
    before = len(cluster.published)
    slow.connect()
    cluster.run()
    cluster.wait(STAND_IN_ALL_S)
    cluster.run()
    assert slow.counters["duplicate.in_chain"] == len(sent)
    assert cluster.published[before:] == []
    # whoever sends once more has no receipt, and gets it from all
    cluster.say(cluster.meters[0].message(sent[0]))
    cluster.run()
    assert sorted(cluster.speakers("receipt")[-4:]) == [0, 1, 2, 3]
    assert_all_is_well(cluster, sent)
    cluster.close()


def test_registry_change_comes_in_once_and_its_news_go_out(cluster: Cluster) -> None:
    change = records.RegistryChange(
        cluster.genesis.chain, 1, records.JOIN, signer(500).public_key, "street"
    )
    approval = OPERATOR.seal(change.payload())
    topic = topics.registry(cluster.genesis.chain)
    cluster.say(Message(topic, approval.raw))
    for round_ in range(FIRST, FIRST + 4):
        cluster.play(round_)
        cluster.wait(11)
        cluster.run()
    assert cluster.gateways[0].app.state.members.get(signer(500).address) is not None
    news = [p for _, t, p in cluster.published if t.endswith("/members")]
    assert [e.raw for e in messages.decode_members(news[-1])] == [approval.raw]
    # sent again it is no news: it is refused once and forgotten
    cluster.say(Message(topic, approval.raw))
    cluster.play(FIRST + 4)
    cluster.wait(11)
    cluster.run()
    for wait_s in (AGAIN_S, PATIENCE_S):
        cluster.wait(wait_s)
        cluster.run()
    assert cluster.gateways[0].counters["rejected.wrong-number"] == 1
    assert [gateway.queue.waiting for gateway in cluster.gateways] == [0, 0, 0]


# heads of others


def other_head(cluster: Cluster, height: int = 1) -> records.Head:
    own = records.decode(cluster.heads(cluster.gateways[0])[height - 1])
    assert isinstance(own, records.Head)
    return records.Head(
        own.chain,
        own.height,
        own.round,
        own.time,
        own.previous,
        own.records_root,
        own.record_count,
        bytes(32),
        own.state_root,
        own.history_root,
    )


def test_contradicting_head_of_a_gateway_becomes_evidence(cluster: Cluster) -> None:
    cluster.play(FIRST)
    bad = cluster.gateways[2].key.seal(other_head(cluster).payload())
    cluster.say(Message(topics.head(cluster.genesis.chain), bad.raw))
    cluster.run()
    assert any(bad.raw in decided.txs for decided in cluster.decided)
    cluster.say(Message(topics.head(cluster.genesis.chain), bad.raw))
    cluster.run()
    assert cluster.gateways[0].counters["heads.contradicting"] == 1
    # it is kept in the next block, and the region goes on without that gateway's closes
    for round_ in range(FIRST + 1, FIRST + 4):
        cluster.play(round_)
    stored = cluster.gateways[0].app.blocks.envelopes_of(2)
    assert bad.digest in [envelope.digest for envelope in stored]
    assert [gateway.app.height for gateway in cluster.gateways] == [4, 4, 4]
    cluster.wait(AGAIN_S)
    cluster.run()
    assert [gateway.core.submitted for gateway in cluster.gateways] == [0, 0, 0]


def test_contradicting_head_is_recognised_when_its_block_comes(cluster: Cluster) -> None:
    cluster.play(FIRST)
    first = other_head(cluster)
    second = records.Head(
        first.chain,
        2,
        FIRST + 1,
        first.time + 60,
        bytes(32),
        bytes(32),
        0,
        bytes(32),
        bytes(32),
        bytes(32),
    )
    bad = cluster.gateways[2].key.seal(second.payload())
    cluster.say(Message(topics.head(cluster.genesis.chain), bad.raw))
    cluster.run()
    assert cluster.gateways[0].counters["heads.contradicting"] == 0
    cluster.play(FIRST + 1)
    assert cluster.gateways[0].counters["heads.contradicting"] == 1
    assert any(bad.raw in decided.txs for decided in cluster.decided)


def test_heads_that_mean_nothing_are_counted_and_dropped(cluster: Cluster) -> None:
    cluster.play(FIRST)
    gateway = cluster.gateways[0]
    head = other_head(cluster)
    foreign = records.Head(
        bytes(8), 1, 1, 60, bytes(32), bytes(32), 0, bytes(32), bytes(32), bytes(32)
    )
    good = gateway.key.seal(head.payload())
    topic = topics.head(cluster.genesis.chain)
    cluster.say(
        Message(topic, b""),
        Message(topic, cluster.meters[0].reading(FIRST + 1).raw),
        Message(topic, STRANGER.seal(head.payload()).raw),
        Message(topic, gateway.key.seal(foreign.payload()).raw),
        Message(topic, good.raw[:-1] + bytes([good.raw[-1] ^ 1])),
    )
    cluster.run()
    counts = gateway.counters.snapshot()
    wanted = ("malformed", "unexpected-type", "unknown-signer", "wrong-chain", "bad-signature")
    assert {name: counts.get("rejected." + name) for name in wanted} == dict.fromkeys(wanted, 1)
    assert counts.get("heads.contradicting") is None


# crashes


def scenario(cluster: Cluster) -> list[Envelope]:
    """Play three rounds; the first gateway may crash anywhere and is started again."""
    sent: list[Envelope] = []
    first = cluster.gateways[0]

    def revive() -> None:
        if not first.alive:
            cluster.restart(first)

    for round_ in range(FIRST, FIRST + 3):
        sent += cluster.play(round_)
        revive()
        cluster.run()
    for _ in range(4):
        cluster.wait(max(AGAIN_S, STAND_IN_ALL_S, 11))
        revive()
        cluster.run()
    while not first.alive:
        revive()
        cluster.run()
    return sent


def test_steps_of_a_gateway_are_known(cluster: Cluster) -> None:
    scenario(cluster)
    names = {name.split(" ")[0] for name in cluster.gateways[0].steps}
    assert names == {
        "append",
        "acknowledge",
        "forget",
        "submit",
        "finalize_block",
        "commit",
        "sign_heads",
        "publish",
    }


@pytest.mark.parametrize("count", [3, 4])
def test_crash_between_any_two_steps_loses_nothing(tmp_path: Path, count: int) -> None:
    (tmp_path / "calm").mkdir()
    calm = Cluster(tmp_path / "calm", count=count)
    scenario(calm)
    steps = len(calm.gateways[0].steps)
    calm.close()
    assert steps > 30
    for at in range(0, steps, 1 if count == 3 else 5):
        folder = tmp_path / f"crash-{at}"
        folder.mkdir()
        cluster = Cluster(folder, count=count)
        first = cluster.gateways[0]
        first.crash_at = at + len(first.steps)
        sent = scenario(cluster)
        crashed = first.crash_at is None
        assert crashed or at > steps // 2, at
        try:
            assert_all_is_well(cluster, sent)
        except AssertionError as e:
            raise AssertionError(f"crash before step {at}: {first.steps[at : at + 1]}") from e
        finally:
            cluster.close()
