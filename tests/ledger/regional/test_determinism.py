"""The chain follows from the sequence of transactions and from nothing else (SPEC 11.2)."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.engine.abci import Info
from ledger.engine.solo import Solo
from ledger.protocol import records
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional import application, codes
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import eventful, signer
from tests.ledger.regional.lab import FIRST, Lab

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def play():
    play = eventful(rounds=30)
    yield play
    play.close()


def end(app: RegionalApplication) -> tuple[object, ...]:
    """Give everything that two nodes must agree on."""
    heads = [app.blocks.head_payload(h) for h in range(1, app.height + 1)]
    results = list(app.blocks.all_results())
    windows = app.blocks.windows_after(0)
    return heads, app.app_hash, results, windows, app.blocks.state_rows(), app.state.root()


class Node:
    """A fresh node that can be closed and opened again."""

    def __init__(self, genesis, path: Path | None = None) -> None:
        self.genesis, self.path = genesis, path
        self.open()

    def open(self) -> None:
        self.database = Database(self.path, TABLES)
        self.app = RegionalApplication(self.genesis, self.database, Verifier())
        self.solo = Solo(self.app)

    def reopen(self) -> None:
        before = self.app.info(), self.app.app_hash, self.app.state.root(), self.app.last_round
        self.database.close()
        self.open()
        after = self.app.info(), self.app.app_hash, self.app.state.root(), self.app.last_round
        assert before == after


@pytest.mark.parametrize("seed", range(6))
def test_other_block_boundaries_and_restarts_give_the_same_chain(play, tmp_path, seed):
    rng = random.Random(seed)
    txs = [tx for block in play.blocks for tx in block]
    node = Node(play.region.genesis, tmp_path / "regional.sqlite")
    hashes = {}
    at = 0
    while at < len(txs):
        size = rng.choice([0, 1, 2, rng.randrange(1, 400)])
        result = node.solo.execute(txs[at : at + size])
        at += size
        hashes[at] = result.app_hash
        assert all(tx.code == codes.OK for tx in result.tx_results)
        if rng.random() < 0.2:
            node.reopen()
    assert end(node.app) == end(play.app)
    node.database.close()
    # after any prefix the hash is that of a node which took it in one block
    for cut in rng.sample(sorted(hashes), 2):
        other = Node(play.region.genesis)
        assert other.solo.execute(txs[:cut]).app_hash == hashes[cut]
        other.database.close()


def test_hash_changes_with_every_record_that_waits_and_with_their_order():
    hashes = set()
    for order in ((0, 1), (1, 0), (0,), (1,), ()):
        lab = Lab()
        envelopes = [lab.reading(0, FIRST), lab.reading(1, FIRST)]
        lab.deliver(*(envelopes[i] for i in order))
        hashes.add(lab.app.app_hash)
        lab.database.close()
    assert len(hashes) == 5


@pytest.mark.parametrize("seed", range(4))
def test_order_of_records_before_a_close_does_not_matter(play, seed):
    rng = random.Random(seed)
    node = Node(play.region.genesis)
    for block in play.blocks[:24]:
        waiting, close = block[:-1], block[-1]
        rng.shuffle(waiting)
        assert all(tx.code == codes.OK for tx in node.solo.execute([*waiting, close]).tx_results)
    reference = play.app.blocks.head_payload(24)
    assert node.app.blocks.head_payload(24) == reference
    node.database.close()


def test_gateways_that_close_do_not_show_in_the_head():
    heads = []
    for gateways in ((0, 1), (1, 2), (2, 0)):
        lab = Lab(gateways=3)
        lab.deliver(lab.reading(0, FIRST), *(lab.region.close(FIRST, i) for i in gateways))
        heads.append(lab.app.last_digest)
        lab.database.close()
    assert heads[0] == heads[1] == heads[2]


_PROGRAM = """
import json, locale
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
from tests.ledger.regional.generate import eventful
app = eventful(rounds=30).app
heads = [app.blocks.head_payload(h).hex() for h in range(1, app.height + 1)]
print(json.dumps([heads, app.app_hash.hex(), app.state.root().hex()]))
"""


@pytest.mark.parametrize(
    ("seed", "zone", "locale"),
    [
        ("0", "UTC", "C"),
        ("1", "Pacific/Kiritimati", "C.UTF-8"),
        ("4711", "America/St_Johns", "tr_TR"),
    ],
)
def test_other_hash_seeds_zones_and_locales_give_the_same_chain(play, seed, zone, locale):
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale}
    program = [sys.executable, "-c", _PROGRAM]
    output = subprocess.run(
        program, env=environment, cwd=ROOT, capture_output=True, check=True, timeout=60
    ).stdout
    app = play.app
    heads = [app.blocks.head_payload(h).hex() for h in range(1, app.height + 1)]
    assert json.loads(output) == [heads, app.app_hash.hex(), app.state.root().hex()]


# ---------------------------------------------------------------------------- the application


def ready(lab: Lab) -> list[Envelope]:
    """Bring a region into the middle of things; gives records for its next round."""
    lab.honest_round(FIRST)
    lab.close(FIRST + 1, lab.reading(0, FIRST + 1))
    lab.deliver(lab.reading(1, FIRST + 3), lab.reading(2, FIRST + 2))
    return [lab.reading(3, FIRST + 2), lab.ballot(3, FIRST + 2)]


def test_proposals_are_judged_without_changing_anything(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    fresh = ready(lab)
    close = lab.region.close(FIRST + 2).raw
    before, made = lab.snapshot(), lab.app.made()
    right = [e.raw for e in fresh] + [close]
    assert lab.app.process_proposal(99, right)
    assert lab.app.process_proposal(99, [])
    for wrong in ([*right, close], [fresh[0].raw] * 2, [b"junk"], [*right, fresh[1].raw]):
        assert not lab.app.process_proposal(99, wrong)
    assert lab.snapshot() == before
    assert lab.app.made() == made
    lab.reopen()
    assert lab.snapshot() == before
    lab.database.close()


def test_prepared_proposal_holds_what_the_rules_take_with_closes_last(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    fresh = [e.raw for e in ready(lab)]
    before = lab.snapshot()
    closes = [lab.region.close(FIRST + 2).raw, lab.region.close(FIRST + 3).raw]
    offered = [closes[0], b"junk", fresh[0], fresh[0], closes[1], fresh[1]]
    prepared = lab.app.prepare_proposal(offered, 1 << 20)
    assert prepared == [fresh[0], fresh[1], *closes]
    assert lab.app.process_proposal(99, prepared)
    small = lab.app.prepare_proposal(offered, len(fresh[0]) + 10)
    assert small == [fresh[0]]
    assert lab.app.prepare_proposal(offered, 0) == []
    assert lab.snapshot() == before
    lab.database.close()


def test_check_tx_changes_nothing(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    fresh = ready(lab)
    before = lab.snapshot()
    for envelope in (*fresh, lab.region.close(FIRST + 2), lab.region.close(FIRST)):
        lab.node.check_tx(envelope.raw)
        lab.node.check_tx(envelope.raw[:-1])
    assert lab.snapshot() == before
    lab.database.close()


class Broken(RuntimeError):
    pass


@pytest.mark.parametrize("where", ["put_state", "append", "put_pending", "set_meta", "put_window"])
def test_exception_inside_a_block_leaves_the_application_as_before(tmp_path, monkeypatch, where):
    lab = Lab(path=tmp_path / "r.sqlite")
    for i in range(4):
        lab.honest_round(FIRST + i)
    twins = [lab.reading(0, FIRST + 4), lab.reading(0, FIRST + 4, power=1)]
    ahead = lab.reading(2, FIRST + 5)
    sent = (*twins, lab.reading(1, FIRST + 4), ahead, lab.region.close(FIRST + 4))
    txs = [e.raw for e in sent]
    before = lab.snapshot()

    def broken(*_):
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(lab.app.blocks, where, broken)
        with pytest.raises(Broken):
            lab.node.execute(txs)
    assert lab.snapshot() == before
    lab.node.execute(txs)
    fine = Lab()
    for i in range(4):
        fine.honest_round(FIRST + i)
    fine.node.execute(txs)
    assert end(lab.app) == end(fine.app)
    for one in (lab, fine):
        one.database.close()


def test_block_that_was_not_committed_is_not_told_and_can_be_decided_again(tmp_path):
    """An engine that goes away between the two calls comes back and asks where we stand."""
    lab = Lab(path=tmp_path / "r.sqlite")
    ready(lab)
    before = lab.app.info()
    assert before == Info(lab.node.height, lab.app.app_hash)
    first = [lab.reading(3, FIRST + 2).raw, lab.region.close(FIRST + 2).raw]
    lab.app.finalize_block(lab.node.height + 1, first)
    assert lab.app.info() == before
    second = [lab.region.close(FIRST + 2).raw]
    result = lab.app.finalize_block(lab.node.height + 1, second)
    lab.app.commit()
    assert lab.app.info() == Info(before.last_block_height + 1, result.app_hash)
    assert lab.outcome(lab.reading(3, FIRST + 2)) is None
    lab.reopen()
    assert lab.app.info() == Info(before.last_block_height + 1, result.app_hash)
    lab.database.close()


def test_heads_are_signed_once_and_after_the_fact(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    for i in range(3):
        lab.close(FIRST + i)
    gateway, other = lab.region.gateways[0], signer("lab gateway 1")
    assert lab.app.blocks.head_envelope(2) is None
    assert lab.app.sign_heads(gateway) == [1, 2, 3]
    assert lab.app.sign_heads(other) == []
    lab.reopen()
    for height in (1, 2, 3):
        envelope = Envelope.parse(lab.app.blocks.head_envelope(height))
        envelope.verify(Verifier().key(gateway.public_key))
        assert envelope.payload == lab.app.blocks.head_payload(height)
    lab.database.close()


def test_heads_of_a_long_past_are_signed_newest_first_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(application, "SIGNED_AT_ONCE", 3)
    lab = Lab()
    for i in range(7):
        lab.close(FIRST + i)
    gateway = lab.region.gateways[0]
    assert lab.app.sign_heads(gateway) == [5, 6, 7]
    lab.close(FIRST + 7)
    assert lab.app.sign_heads(gateway) == [3, 4, 8]
    assert lab.app.sign_heads(gateway) == [1, 2]
    assert lab.app.sign_heads(gateway) == []
    assert all(lab.app.blocks.head_envelope(height) for height in range(1, 9))


def test_signer_that_fails_leaves_the_application_usable(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    lab.close(FIRST)

    class Mute:
        def seal(self, payload):
            raise Broken

    with pytest.raises(Broken):
        lab.app.sign_heads(Mute())
    lab.close(FIRST + 1)
    assert lab.app.sign_heads(lab.region.gateways[0]) == [1, 2]
    lab.database.close()


def test_two_closes_in_one_block_make_two_heads():
    lab = Lab()
    reading = lab.reading(0, FIRST)
    votes = lab.ballots(FIRST + 1, [reading], voters=range(1, 5))
    envelopes = [reading, lab.region.close(FIRST), *votes, lab.region.close(FIRST + 1)]
    assert lab.deliver(*envelopes) == [0] * 7
    made = lab.app.made()
    assert [block.head.height for block in made] == [1, 2]
    assert made[1].head.previous == payload_digest(made[0].head.payload())
    assert lab.outcome(reading) == 1
    assert isinstance(made[1].records[0][1], records.Ballot)
    lab.database.close()
