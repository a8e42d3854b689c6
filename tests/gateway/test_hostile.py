"""Bad input gets its code and its counter, and everybody else's round goes on undisturbed."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.queue import Message
from gateway.verification import Rejected, Signer, inspect
from ledger.genesis import RegionGenesis
from ledger.protocol import cbor, cose, records, tally, topics
from ledger.protocol.cose import Envelope
from tests.gateway.region import FIRST, GATEWAY, STRANGER, Meter, Region, genesis_of, signer

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

Attack = Callable[[Meter], Message]


def signed(meter: Meter, payload: bytes, kind: str = topics.READING) -> Message:
    return Message(meter.topic(kind), meter.key.seal(payload).raw)


def raw_reading(meter: Meter, **changes: object) -> bytes:
    """Give a reading's payload with fields replaced by position name."""
    names = ["type", "version", "chain", "boot", "seq", "time", "interval", "flags", "lost"]
    names += ["previous", "values"]
    fields: list[object] = [1, 1, meter.genesis.chain, 1, 9, FIRST * 60, 60, 0, 0, bytes(32)]
    fields.append([[1, 230_000]])
    for name, value in changes.items():
        fields[names.index(name)] = value
    return cbor.dumps(fields)


def truncated(meter: Meter) -> Message:
    return Message(meter.topic(topics.READING), meter.reading(FIRST).raw[:-1])


def too_long(meter: Meter) -> Message:
    return Message(meter.topic(topics.READING), meter.reading(FIRST).raw + bytes(1024))


def noise(meter: Meter) -> Message:
    return Message(meter.topic(topics.READING), random.Random(1).randbytes(200))


def empty(meter: Meter) -> Message:
    return Message(meter.topic(topics.READING), b"")


def nonsense_under_a_valid_signature(meter: Meter) -> Message:
    return signed(meter, cbor.dumps("no record"))


def unknown_type(meter: Meter) -> Message:
    return signed(meter, raw_reading(meter, type=99))


def unknown_version(meter: Meter) -> Message:
    return signed(meter, raw_reading(meter, version=2))


def long_integer_form(meter: Meter) -> Message:
    payload = raw_reading(meter)
    assert payload[1:2] == b"\x01"
    return signed(meter, payload[:1] + b"\x18\x01" + payload[2:])


def bytes_after_the_end(meter: Meter) -> Message:
    return signed(meter, raw_reading(meter) + b"\x00")


def unknown_quantity(meter: Meter) -> Message:
    return signed(meter, raw_reading(meter, values=[[999, 1]]))


def field_out_of_range(meter: Meter) -> Message:
    return signed(meter, raw_reading(meter, seq=0))


def another_region(meter: Meter) -> Message:
    return signed(meter, raw_reading(meter, chain=b"elsewher"))


def head_as_a_reading(meter: Meter) -> Message:
    head = records.Head(meter.genesis.chain, 1, FIRST, 0, *[bytes(32)] * 2, 0, *[bytes(32)] * 3)
    return signed(meter, head.payload())


def close_by_a_meter(meter: Meter) -> Message:
    return signed(meter, records.Close(meter.genesis.chain, FIRST).payload())


def ballot_on_the_reading_topic(meter: Meter) -> Message:
    return Message(meter.topic(topics.READING), meter.ballot(FIRST, []).raw)


def another_meters_topic(meter: Meter) -> Message:
    other = Meter(meter.genesis, signer(2))
    return Message(other.topic(topics.READING), meter.reading(FIRST).raw)


def another_clusters_topic(meter: Meter) -> Message:
    topic = topics.meter(meter.genesis.chain, "elsewhere", meter.address, topics.READING)
    return Message(topic, meter.reading(FIRST).raw)


def upper_case_address(meter: Meter) -> Message:
    name = meter.address.hex()
    topic = meter.topic(topics.READING).replace(name, name.upper())
    assert name != name.upper()
    return Message(topic, meter.reading(FIRST).raw)


def topic_without_an_address(meter: Meter) -> Message:
    return Message("gw/1/x/reading", meter.reading(FIRST).raw)


def stranger(meter: Meter) -> Message:
    other = Meter(meter.genesis, STRANGER)
    return other.message(other.reading(FIRST))


def reading_to_the_registry(meter: Meter) -> Message:
    return Message(topics.registry(meter.genesis.chain), meter.reading(FIRST).raw)


def changed_content(meter: Meter) -> Message:
    good = meter.reading(FIRST)
    forged = raw_reading(meter, values=[[1, 231_000]])
    return Message(meter.topic(topics.READING), cose.join(good.kid, forged, good.signature).raw)


def signed_by_another_key(meter: Meter) -> Message:
    payload = raw_reading(meter)
    signature = STRANGER.seal(payload).signature
    return Message(meter.topic(topics.READING), cose.join(meter.address, payload, signature).raw)


def high_s(meter: Meter) -> Message:
    good = meter.reading(FIRST)
    s = ORDER - int.from_bytes(good.signature[32:], "big")
    signature = good.signature[:32] + s.to_bytes(32, "big")
    return Message(meter.topic(topics.READING), cose.join(good.kid, good.payload, signature).raw)


def zero_signature(meter: Meter) -> Message:
    return Message(
        meter.topic(topics.READING), cose.join(meter.address, raw_reading(meter), bytes(64)).raw
    )


BEFORE_THE_BOOK: list[tuple[Attack, str]] = [
    (truncated, "malformed"),
    (too_long, "malformed"),
    (noise, "malformed"),
    (empty, "malformed"),
    (nonsense_under_a_valid_signature, "malformed"),
    (unknown_type, "malformed"),
    (unknown_version, "malformed"),
    (long_integer_form, "malformed"),
    (bytes_after_the_end, "malformed"),
    (unknown_quantity, "malformed"),
    (field_out_of_range, "malformed"),
    (another_region, "wrong-chain"),
    (head_as_a_reading, "unexpected-type"),
    (close_by_a_meter, "unexpected-type"),
    (ballot_on_the_reading_topic, "unexpected-type"),
    (reading_to_the_registry, "unexpected-type"),
    (another_meters_topic, "wrong-topic"),
    (another_clusters_topic, "wrong-topic"),
    (topic_without_an_address, "wrong-topic"),
    (upper_case_address, "wrong-topic"),
    (stranger, "unknown-signer"),
    (changed_content, "bad-signature"),
    (signed_by_another_key, "bad-signature"),
    (high_s, "bad-signature"),
    (zero_signature, "bad-signature"),
]


def assert_undisturbed(region: Region, readings: list[Envelope]) -> None:
    """Everybody's readings are accepted in the round's own block, and nothing is left over."""
    for reading in readings:
        id_ = region.app.blocks.find_reading(reading.digest)
        assert id_ is not None
        assert region.app.blocks.results_of(id_)[-1][1] == tally.ACCEPTED
    assert region.queue.waiting == len(region.book)


@pytest.mark.parametrize(
    ("attack", "code"), BEFORE_THE_BOOK, ids=lambda v: getattr(v, "__name__", v)
)
def test_bad_message_is_refused_with_its_code(attack: Attack, code: str) -> None:
    region = Region()
    attacker = Meter(region.genesis, signer(1))
    region.send(attack(attacker))
    assert region.rejected() == {code: 1}
    assert region.acknowledged == 1
    assert len(region.book) == 0
    assert_undisturbed(region, region.play(FIRST))
    assert region.rejected() == {code: 1}
    region.stop()


def test_good_messages_in_one_batch_with_bad_ones_come_in() -> None:
    region = Region()
    attacker = Meter(region.genesis, signer(1))
    readings = [m.reading(FIRST) for m in region.meters]
    good = [m.message(e) for m, e in zip(region.meters, readings, strict=True)]
    bad = [attack(attacker) for attack, _ in BEFORE_THE_BOOK]
    mixed = good + bad
    random.Random(3).shuffle(mixed)
    region.send(*mixed)
    region.send(*[m.message(m.ballot(FIRST, readings)) for m in region.meters])
    assert_undisturbed(region, readings)
    assert sum(region.rejected().values()) == len(bad)
    region.stop()


def test_duplicated_and_reordered_messages_change_nothing() -> None:
    region = Region()
    readings = [m.reading(FIRST) for m in region.meters]
    ballots = [m.ballot(FIRST, readings) for m in region.meters]
    sent = [m.message(e) for m, e in zip(region.meters * 2, readings + ballots, strict=True)]
    sent *= 3
    random.Random(5).shuffle(sent)
    region.send(*sent[:11])
    region.send(*sent[11:])
    assert region.app.height == 1
    assert_undisturbed(region, readings)
    snapshot = region.counters.snapshot()
    repeats = snapshot.get("duplicate.in_chain", 0) + snapshot.get("duplicate.waiting", 0)
    assert repeats == 20
    assert region.app.blocks.head(1).record_count == 10
    region.stop()


def test_two_readings_for_one_slot_are_evidence_and_suspend_the_signer() -> None:
    region = Region()
    attacker = Meter(region.genesis, signer(1))
    two = [attacker.reading(FIRST, power=p, seq=1) for p in (1, 2)]
    region.send(*[attacker.message(e) for e in two])
    readings = region.play(FIRST, region.meters[1:])
    region.wait(10)
    region.core.close_due(region.now)
    assert_undisturbed(region, readings)
    assert all(region.in_chain(e) for e in two)
    member = region.app.state.members.get(attacker.address)
    assert member is not None and member.suspended
    # the others are not kept waiting for somebody who is out
    readings = region.play(FIRST + 1, region.meters[1:])
    assert region.app.height == 2
    assert_undisturbed(region, readings)
    region.send(attacker.message(attacker.reading(FIRST + 2)))
    region.play(FIRST + 2, region.meters[1:])
    assert region.rejected() == {"not-active": 1}
    region.stop()


def test_voter_that_votes_twice_is_suspended_and_its_votes_do_not_count() -> None:
    region = Region()
    attacker = region.meters[0]
    readings = [m.reading(FIRST) for m in region.meters]
    region.send(*[m.message(e) for m, e in zip(region.meters, readings, strict=True)])
    for verdict in (records.ACCEPT, records.REJECT_RANGE):
        region.send(attacker.message(attacker.ballot(FIRST, readings, verdict)))
    region.send(*[m.message(m.ballot(FIRST, readings)) for m in region.meters[1:]])
    assert_undisturbed(region, readings)
    member = region.app.state.members.get(attacker.address)
    assert member is not None and member.suspended
    region.stop()


def test_ballot_from_outside_the_committee_does_not_count() -> None:
    region = Region(members=15)
    readings = region.play(FIRST)
    drawn = set()
    for reading in readings:
        id_ = region.app.blocks.find_reading(reading.digest)
        assert id_ is not None
        _, outcome, seats, accepts, rejects, _ = region.app.blocks.results_of(id_)[-1]
        assert (outcome, seats, rejects) == (tally.ACCEPTED, 11, 0)
        drawn.add(accepts)
    assert drawn == {11}  # 14 ballots accepted it, 11 were asked
    region.stop()


def test_ballot_that_names_an_unknown_head_is_refused_and_the_round_goes_on() -> None:
    region = Region()
    attacker = region.meters[0]
    readings = [m.reading(FIRST) for m in region.meters]
    region.send(*[m.message(e) for m, e in zip(region.meters, readings, strict=True)])
    attacker.parent = bytes(32)
    region.send(*[m.message(m.ballot(FIRST, readings)) for m in region.meters])
    assert_undisturbed(region, readings)
    assert region.rejected() == {"unknown-parent": 1}
    region.stop()


def test_reading_of_the_far_future_waits_and_holds_up_nobody() -> None:
    region = Region()
    attacker = region.meters[0]
    future = Meter(region.genesis, attacker.key).reading(FIRST + 1_000_000, seq=500)
    region.send(attacker.message(future))
    for round_ in range(FIRST, FIRST + 3):
        assert_undisturbed(region, region.play(round_))
    assert region.app.last_round == FIRST + 2
    assert not region.in_chain(future)
    assert len(region.book) == 1
    region.stop()


def test_reading_of_the_end_of_time_is_refused_and_stops_nothing() -> None:
    region = Region(members=3)  # one of three is the third that opens rounds
    attacker = region.meters[0]
    payload = raw_reading(attacker, time=records.MAX_TIME)
    region.send(signed(attacker, payload))
    region.wait(60.0)
    region.send()
    assert region.rejected() == {"early": 1}
    assert region.queue.waiting == len(region.book) == 0
    assert all(region.in_chain(reading) for reading in region.play(FIRST))
    region.stop()


def test_flood_of_one_member_is_bounded_and_holds_up_nobody() -> None:
    region = Region(per_member=8, inbox_rows=60)
    attacker = region.meters[0]
    other = Meter(region.genesis, attacker.key)
    for seq in range(100, 300):
        future = FIRST + 10 + seq
        region.send(attacker.message(other.reading(future, seq=seq)))
    assert len(region.book) == region.queue.waiting == 8
    assert region.rejected() == {"backlog": 192}
    assert_undisturbed(region, region.play(FIRST))
    region.stop()


def test_gateways_own_key_on_a_meters_topic_is_no_member() -> None:
    region = Region()
    gateway = Meter(region.genesis, GATEWAY)
    region.send(gateway.message(gateway.reading(FIRST)))
    assert region.rejected() == {"unknown-signer": 1}
    region.stop()


@pytest.mark.parametrize(
    "topic", ["", "/", "gw", "gw/1/0/0/zz/status", "gw/1//////status", "ä/status"]
)
def test_strange_topics_are_refused_or_passed_over(topic: str) -> None:
    region = Region()
    region.send(Message(topic, b"online"))
    assert region.core.online == {}
    assert region.acknowledged == 1
    region.stop()


def test_status_of_members_only_is_kept_and_short() -> None:
    region = Region()
    own = region.meters[0]
    for meter in (own, Meter(region.genesis, STRANGER)):
        region.send(Message(meter.topic(topics.STATUS), b"online" + bytes(1000)))
    assert list(region.core.online) == [own.address]
    assert len(region.core.online[own.address]) == 32
    region.stop()


# fuzz

GENESIS: RegionGenesis = genesis_of(3)
METER = Meter(GENESIS, signer(1))
GOOD = [METER.reading(FIRST), METER.ballot(FIRST, [])]


def member(address: bytes) -> Signer | None:
    return Signer(METER.key.public_key, "street") if address == METER.address else None


@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
    st.text(max_size=40),
)
@settings(max_examples=300)
def test_mutated_messages_are_taken_or_rejected(
    good: Envelope, flips: list[tuple[int, int]], cut: int, topic: str
) -> None:
    raw = bytearray(good.raw)
    for at, value in flips:
        raw[at % len(raw)] = value
    for name in (METER.topic(topics.READING), METER.topic(topics.BALLOT), topic):
        for payload in (bytes(raw), bytes(raw[:cut])):
            try:
                candidate = inspect(Message(name, payload), GENESIS.chain, member, member)
            except Rejected as rejected:
                assert rejected.code
            else:
                assert candidate.envelope.kid == METER.address


@given(st.binary(max_size=300))
def test_random_bytes_are_rejected(payload: bytes) -> None:
    with pytest.raises(Rejected):
        inspect(Message(METER.topic(topics.READING), payload), GENESIS.chain, member, member)
