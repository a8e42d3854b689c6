"""What a head says, how heads hang together, and when one is witnessed (SPEC 4.6, 10, 11.5, 14)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import trie
from ledger.merkle import Log, MemoryNodes
from ledger.protocol import cbor, merkle, messages, records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional.blocks import record_id
from tests.ledger.regional.generate import eventful
from tests.ledger.regional.lab import FIRST, Lab


@pytest.fixture(scope="module")
def play():
    play = eventful(rounds=32)
    yield play
    play.close()


@pytest.fixture
def lab():
    lab = Lab()
    yield lab
    lab.database.close()


def heads(app):
    return [app.blocks.head(height) for height in range(1, app.height + 1)]


def test_payload_is_as_the_clause_says(play):
    app = play.app
    for height in range(1, app.height + 1):
        payload = app.blocks.head_payload(height)
        head = app.blocks.head(height)
        fields = cbor.loads(payload)
        assert fields[:3] == [3, 1, play.region.chain]
        assert fields[3:6] == [height, head.round, (head.round + 1) * 60]
        assert len(fields) == 12
        digests = [fields[i] for i in (6, 7, 9, 10, 11)]
        assert all(type(digest) is bytes and len(digest) == 32 for digest in digests)
        assert fields[8] == len(app.blocks.records_of(height))


def test_prev_names_the_payload_of_the_head_before_and_first_the_genesis(play):
    previous = play.region.genesis.digest
    for head in heads(play.app):
        assert head.previous == previous
        previous = payload_digest(head.payload())
    assert previous == play.app.last_digest


def test_history_root_is_the_tree_over_all_earlier_heads(play):
    digests: list[bytes] = []
    log = Log(MemoryNodes())
    for head in heads(play.app):
        assert head.history_root == merkle.root(digests) == log.root()
        digests.append(payload_digest(head.payload()))
        log.append(digests[-1])


def test_records_root_is_over_digests_in_the_order_of_the_clause(play):
    for head in heads(play.app):
        envelopes = [Envelope.parse(raw) for raw in play.app.blocks.records_of(head.height)]
        assert head.records_root == merkle.root([e.digest for e in envelopes])
        keys = []
        for envelope in envelopes:
            kind, _, fields = records.split(envelope.payload)
            slot = tuple(fields[:2]) if kind == records.READING else (fields[0], 0)
            keys.append((kind, envelope.kid, slot, envelope.digest))
        assert keys == sorted(keys)


def test_results_root_is_over_the_results_sorted_by_digest(play):
    app = play.app
    stored = list(app.blocks.all_results())
    for head in heads(app):
        leaves = []
        for id_, height, *counts in stored:
            if height == head.height:
                leaves.append((Envelope.parse(app.blocks.record(id_)).digest, counts))
        leaves.sort()
        encoded = [cbor.dumps([digest, *counts]) for digest, counts in leaves]
        assert head.results_root == merkle.root(encoded)


def test_state_root_is_the_trie_over_the_rows(play):
    fresh = trie.Trie()
    for key, value in play.app.blocks.state_rows():
        fresh.set(key, value)
    assert fresh.root() == play.app.state.root() == play.app.blocks.head(play.app.height).state_root
    address = play.region.meters[0].address
    key = play.app.state.member_key(address)
    trie.verify(fresh.root(), key, fresh.get(key), play.app.state.prove(key))


def test_every_member_of_the_genesis_is_in_the_state_after_one_record(lab):
    lab.close(FIRST, lab.reading(0, FIRST))
    lab.reopen()
    assert len(lab.app.state.members) == 5
    lab.close(FIRST + 1, lab.reading(3, FIRST + 1))
    assert lab.results(lab.reading(3, FIRST + 1))[-1][2] == 4


def test_empty_close_leaves_the_state_root(play, lab):
    root = lab.app.state.root()
    for round_ in (FIRST, FIRST + 1, FIRST + 77):
        block = lab.close(round_)
        assert block.head.state_root == root
        assert block.head.record_count == 0
        assert block.head.records_root == block.head.results_root == merkle.EMPTY_ROOT
    lab.honest_round(FIRST + 78)
    assert lab.app.state.root() != root


def test_empty_close_after_anything_leaves_the_state_root():
    play = eventful(rounds=33)
    for round_ in range(play.round, play.round + 12):
        root, expiring = play.app.state.root(), len(play.app.state.open)
        play.execute([play.region.close(round_)])
        if expiring == len(play.app.state.open):
            assert play.app.state.root() == root
    assert len(play.app.state.open) == 0
    play.close()


def test_close_that_expires_a_reading_moves_the_state_root(lab):
    lab.close(FIRST, lab.reading(0, FIRST))
    root = lab.app.state.root()
    lab.close(FIRST + 8)
    assert lab.app.state.root() != root


def test_rounds_may_be_left_out_and_heights_not(lab):
    for round_ in (0, 3, 1000, records.MAX_ROUND):
        lab.close(round_)
    assert [(h.height, h.round) for h in heads(lab.app)] == [
        (1, 0), (2, 3), (3, 1000), (4, records.MAX_ROUND),
    ]  # fmt: skip


def test_every_record_has_a_receipt_and_every_head_a_bridge(play):
    app = play.app
    gateway = play.region.gateways[0]
    for height in range(1, app.height + 1):
        head = app.blocks.head(height)
        digests = [Envelope.parse(raw).digest for raw in app.blocks.records_of(height)]
        entries = [(d, i, merkle.inclusion_path(digests, i)) for i, d in enumerate(digests)][-3:]
        signed = Envelope.parse(app.blocks.head_envelope(height))
        assert signed.kid == gateway.address
        assert signed.payload == head.payload()
        messages.Receipt(signed, entries).proved(head)
        for held in {1, height // 2, height - 1} - {0, height}:
            digest = payload_digest(app.blocks.head_payload(held))
            bridge = (held, app.bridge(held, height))
            messages.verify_extends(head, held, digest, bridge)


def test_readings_are_found_by_digest_and_slot(play):
    app = play.app
    for height in (1, 14, app.height):
        for index, raw in enumerate(app.blocks.records_of(height)):
            envelope = Envelope.parse(raw)
            record = records.decode(envelope.payload)
            if isinstance(record, records.Reading):
                id_ = record_id(height, index)
                assert app.blocks.find_reading(envelope.digest) == id_
                slot = (record.boot, record.seq)
                assert id_ in app.blocks.find_slot(records.READING, envelope.kid, slot)
    assert app.blocks.find_reading(bytes(32)) is None


# --------------------------------------------------------------------------------- witnessing


def test_head_is_witnessed_by_more_than_two_thirds_of_the_members():
    lab = Lab(6)
    lab.close(FIRST)
    named = lab.app.last_digest
    for i, witnessed in enumerate([0, 0, 0, 0, 1]):
        lab.close(FIRST + 1 + i, lab.ballot(i, FIRST + 1 + i, parent=named))
        assert lab.app.state.registry.witnessed == witnessed, i
    lab.database.close()


def test_silent_members_stay_in_the_denominator(lab):
    for round_ in range(FIRST, FIRST + 30):
        lab.close(round_, *[lab.ballot(i, round_) for i in range(3)])
    assert lab.app.state.registry.witnessed == 0
    lab.close(FIRST + 30, *[lab.ballot(i, FIRST + 30) for i in range(4)])
    assert lab.app.state.registry.witnessed == 30


def test_naming_a_descendant_names_its_forebears(lab):
    lab.close(FIRST)
    digests = {}
    for height in range(1, 5):
        digests[height] = lab.app.last_digest
        lab.close(FIRST + height)
    names = [lab.ballot(i, FIRST + 9, parent=digests[h]) for i, h in enumerate((4, 3, 2, 1))]
    lab.close(FIRST + 9, *names)
    # four of five are needed: all of them have named head 1 or a descendant
    assert lab.app.state.registry.witnessed == 1


def test_named_height_never_goes_down(lab):
    lab.close(FIRST)
    old = lab.app.last_digest
    lab.close(FIRST + 1)
    lab.close(FIRST + 2, *[lab.ballot(i, FIRST + 2) for i in range(5)])
    assert lab.app.state.registry.witnessed == 2
    lab.close(FIRST + 3, *[lab.ballot(i, FIRST + 3, parent=old) for i in range(5)])
    genesis = lab.region.genesis.digest
    lab.close(FIRST + 4, *[lab.ballot(i, FIRST + 4, parent=genesis) for i in range(5)])
    assert [lab.member(i).named_height for i in range(5)] == [2] * 5
    assert lab.app.state.registry.witnessed == 2


def test_ballots_that_are_evidence_name_nothing(lab):
    lab.close(FIRST)
    reading = lab.reading(0, FIRST + 1)
    both = [lab.ballot(1, FIRST + 1), lab.ballot(1, FIRST + 1, [(reading, 1)])]
    lab.close(FIRST + 1, reading, *both)
    assert lab.member(1).named_height == 0


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.integers(0, 40)), min_size=4, max_size=4), max_size=10
    )
)
def test_witnessed_height_is_the_largest_that_the_rule_allows(names):
    """Against counting for every head anew; the members stay the same."""
    lab = Lab(4)
    named = [0] * 4
    for step, row in enumerate(names):
        known = [lab.region.genesis.digest]
        known += [payload_digest(h.payload()) for h in heads(lab.app)]
        ballots = []
        for i, choice in enumerate(row):
            if choice is not None:
                height = choice % len(known)
                named[i] = max(named[i], height)
                ballots.append(lab.ballot(i, FIRST + step, parent=known[height]))
        lab.close(FIRST + step, *ballots)
        counted = [h for h in range(len(known)) if 3 * sum(n >= h for n in named) > 2 * 4]
        assert lab.app.state.registry.witnessed == max(counted, default=0)
    lab.database.close()
