"""The gateway's core over the real ledger: blocks, receipts, duplicates, restarts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.queue import Message, QueueFull
from gateway.receipts import Tree
from gateway.roundbook import SETTLE_S
from ledger.protocol import merkle, messages, records, rounds, tally, topics
from ledger.protocol.cose import Envelope, payload_digest
from tests.gateway.region import FIRST, GATEWAY, OPERATOR, Region, signer


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region()
    yield region
    region.stop()


def outcomes(region: Region, readings: list[Envelope]) -> set[int]:
    blocks = region.app.blocks
    ids = [blocks.find_reading(e.digest) for e in readings]
    return {blocks.results_of(id_)[-1][1] for id_ in ids if id_ is not None}


def test_round_closes_when_all_ballots_are_in(region: Region) -> None:
    readings = region.play(FIRST)
    assert region.app.height == 1
    assert region.app.last_round == FIRST
    assert outcomes(region, readings) == {tally.ACCEPTED}
    assert region.queue.waiting == 0


def test_head_is_published_retained_and_signed_by_the_gateway(region: Region) -> None:
    region.play(FIRST)
    heads = [
        p for t, p, retain in region.published if t == topics.head(region.genesis.chain) if retain
    ]
    envelope = Envelope.parse(heads[-1])
    envelope.verify(region.app.verifier.key(GATEWAY.public_key))
    assert records.decode(envelope.payload).height == 1


def test_every_meter_gets_one_receipt_that_proves_reading_and_ballot(region: Region) -> None:
    readings = region.play(FIRST)
    for meter, reading in zip(region.meters, readings, strict=True):
        (receipt,) = region.receipts(meter)
        head = records.decode(receipt.head.payload)
        proved = receipt.proved(head)
        assert reading.digest in proved
        assert len(proved) == 2
        messages.verify_extends(head, 0, region.genesis.digest, receipt.bridge)


def test_receipt_bridges_from_the_head_that_the_meter_named_last(region: Region) -> None:
    region.play(FIRST)
    held = region.app.last_digest
    away, rest = region.meters[0], region.meters[1:]
    away.parent = held
    region.send(away.message(away.ballot(FIRST + 1, [])))
    for round_ in range(FIRST + 1, FIRST + 5):
        region.play(round_, rest)
        region.wait(10)
        region.core.close_due(region.now)
    assert region.app.height == 5
    region.published.clear()
    away.parent = held
    region.send(away.message(away.ballot(FIRST + 5, [])))
    region.play(FIRST + 5, rest)
    region.wait(SETTLE_S)
    assert region.core.close_due(region.now) == 1
    receipt = region.receipts(away)[-1]
    head = records.decode(receipt.head.payload)
    assert receipt.bridge is not None and receipt.bridge[0] == 1
    messages.verify_extends(head, 1, held, receipt.bridge)


def test_record_sent_again_is_answered_by_its_receipt(region: Region) -> None:
    readings = region.play(FIRST)
    region.published.clear()
    region.send(region.meters[2].message(readings[2]))
    (receipt,) = region.receipts(region.meters[2])
    assert receipt.proved(records.decode(receipt.head.payload)) == [readings[2].digest]
    assert region.counters["duplicate.in_chain"] == 1
    assert region.queue.waiting == 0


def test_late_reading_comes_in_with_the_next_close(region: Region) -> None:
    meter = region.meters[0]
    late = meter.reading(FIRST)
    region.play(FIRST)
    region.send(meter.message(late))
    assert not region.in_chain(late)
    region.play(FIRST + 1)
    assert region.in_chain(late)


def test_absent_meter_costs_one_timeout_and_is_not_waited_for_later(region: Region) -> None:
    present = region.meters[1:]
    for round_ in range(FIRST, FIRST + 4):
        region.play(round_, present)
        height = region.app.height
        region.wait(9.9)
        assert region.core.close_due(region.now) == 0
        region.wait(0.2)
        assert region.core.close_due(region.now) == 1
        assert region.app.height == height + 1
    region.play(FIRST + 4, present)
    assert region.app.height == 5


def test_clock_pace_closes_after_the_grace() -> None:
    region = Region(pace="clock")
    region.play(FIRST)
    assert region.app.height == 0
    region.wait(61.9)
    assert region.core.close_due(region.now) == 0
    region.wait(0.2)
    assert region.core.close_due(region.now) == 1
    region.stop()


def test_clock_pace_refuses_what_is_two_rounds_ahead() -> None:
    region = Region(pace="clock")
    meter = region.meters[0]
    region.send(meter.message(meter.reading(FIRST + 1)), meter.message(meter.reading(FIRST + 2)))
    assert region.rejected() == {"early": 1}
    assert len(region.book) == 1
    region.stop()


def test_inbox_is_taken_up_after_a_restart(tmp_path: Path) -> None:
    region = Region(folder=tmp_path)
    readings = [m.reading(FIRST) for m in region.meters]
    region.send(*[m.message(e) for m, e in zip(region.meters, readings, strict=True)])
    region.stop()
    region.start()
    assert len(region.book) == len(readings)
    region.send(*[m.message(m.ballot(FIRST, readings)) for m in region.meters])
    assert outcomes(region, readings) == {tally.ACCEPTED}
    region.stop()


def test_crash_after_the_block_sends_the_receipts_later(tmp_path: Path) -> None:
    region = Region(folder=tmp_path)
    forget = region.queue.forget
    region.queue.forget = lambda rows: None  # type: ignore[method-assign]
    readings = region.play(FIRST)
    assert region.app.height == 1
    region.queue.forget = forget  # type: ignore[method-assign]
    region.stop()
    region.published.clear()
    region.start()
    assert region.published == []
    region.core.announce(region.now)
    for meter, reading in zip(region.meters, readings, strict=True):
        proved = region.receipts(meter)[0]
        assert reading.digest in proved.proved(records.decode(proved.head.payload))
    assert region.queue.waiting == 0
    region.stop()


def test_crash_before_the_head_was_signed_signs_it_at_the_start(tmp_path: Path) -> None:
    region = Region(folder=tmp_path)
    readings = [m.reading(FIRST) for m in region.meters]
    region.app.sign_heads = lambda key: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    region.send(*[m.message(e) for m, e in zip(region.meters, readings, strict=True)])
    with pytest.raises(KeyboardInterrupt):
        region.send(*[m.message(m.ballot(FIRST, readings)) for m in region.meters])
    region.stop()
    region.start()
    region.core.announce(region.now)
    assert region.app.blocks.head_envelope(1) is not None
    assert all(region.receipts(meter) for meter in region.meters)
    region.stop()


def test_full_inbox_acknowledges_nothing() -> None:
    region = Region(inbox_rows=3)
    sent = [m.message(m.reading(FIRST)) for m in region.meters[:4]]
    with pytest.raises(QueueFull):
        region.send(*sent)
    assert region.acknowledged == 0
    assert region.queue.waiting == 0
    region.stop()


def test_registry_change_in_force_is_told_to_its_cluster(region: Region) -> None:
    joining = signer(500)
    change = records.RegistryChange(
        region.genesis.chain, 1, records.JOIN, joining.public_key, "street"
    )
    approval = OPERATOR.seal(change.payload())
    region.send(Message(topics.registry(region.genesis.chain), approval.raw))
    for round_ in range(FIRST, FIRST + 4):
        region.play(round_)
    assert region.app.state.members.get(joining.address) is not None
    told = [
        p for t, p, _ in region.published if t == topics.members(region.genesis.chain, "street")
    ]
    assert [e.raw for e in messages.decode_members(told[-1])] == [approval.raw]
    assert len(told) == 1


def test_members_are_told_again_every_term_for_a_stranger_may_overwrite_them(
    region: Region,
) -> None:
    change = records.RegistryChange(
        region.genesis.chain, 1, records.JOIN, signer(500).public_key, "street"
    )
    approval = OPERATOR.seal(change.payload())
    region.send(Message(topics.registry(region.genesis.chain), approval.raw))
    for round_ in range(FIRST, FIRST + rounds.TERM_ROUNDS):
        region.play(round_)
        region.wait(11.0)  # the new member is silent
        region.send()
    assert region.app.height == rounds.TERM_ROUNDS
    topic = topics.members(region.genesis.chain, "street")
    told = [(payload, retain) for t, payload, retain in region.published if t == topic]
    assert told[0] == told[1]
    assert len(told) == 2


def test_registry_change_of_a_stranger_is_refused(region: Region) -> None:
    change = records.RegistryChange(
        region.genesis.chain, 1, records.JOIN, signer(500).public_key, "street"
    )
    forged = signer(501).seal(change.payload())
    region.send(Message(topics.registry(region.genesis.chain), forged.raw))
    assert region.rejected() == {"unknown-signer": 1}


@pytest.mark.parametrize("size", [*range(1, 20), 33, 64, 100])
def test_tree_gives_the_paths_of_rfc_9162(size: int) -> None:
    leaves = [payload_digest(bytes([i])) for i in range(size)]
    tree = Tree(leaves)
    for index in range(size):
        assert tree.path(index) == merkle.inclusion_path(leaves, index)
    with pytest.raises(IndexError):
        tree.path(size)


def test_every_signature_is_checked_once(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    verify = Envelope.verify

    def counting(envelope: Envelope, key: object) -> None:
        checked.append(envelope.digest)
        verify(envelope, key)  # type: ignore[arg-type]

    monkeypatch.setattr(Envelope, "verify", counting)
    region.play(FIRST)
    # the records, and the gateway's own order to close
    assert len(checked) == len(set(checked)) == 2 * len(region.meters) + 1
