"""The same transactions give the same application hash on solo and behind the ABCI server."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from ledger.engine.abci import Application, Decision, Misbehaviour
from ledger.engine.comet import chain_id
from ledger.engine.comet.gate import Gate
from ledger.engine.comet.node import Node
from ledger.protocol import records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import MalformedRecord
from ledger.regional import codes
from ledger.regional.application import TABLES as REGIONAL_TABLES
from ledger.regional.application import RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from ledger.wide import codes as wide_codes
from ledger.wide.application import TABLES as WIDE_TABLES
from ledger.wide.application import WideApplication
from tests.ledger.engine.driver import Driver, Evidence
from tests.ledger.engine.plain import served
from tests.ledger.engine.traffic import Regional, Step, Wide
from tests.ledger.keys_of import signer

KEPT = (0, wide_codes.CONFLICT, wide_codes.OFFERED)
NO_LIMITS = dict.fromkeys(("member", "gateway", "operator"), 1 << 30)


@dataclass
class Course:
    """A chain's genesis and steps, and what an application on its own makes of them.

    Step by step: the code (None for misbehaviour), the hash after it; at the end the validators.
    """

    make: Callable[[], Application]
    genesis: object
    chain: bytes
    validators: tuple[object, ...]
    steps: list[Step]
    codes: list[int | None] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alone = self.make()
        self._first = self.alone.info().last_block_app_hash
        for height, step in enumerate(self.steps, 1):
            if isinstance(step, Misbehaviour):
                result = self.alone.finalize_block(height, [], Decision(misbehaviour=(step,)))
                self.codes.append(None)
            else:
                result = self.alone.finalize_block(height, [step])
                self.codes.append(result.tx_results[0].code)
            self.alone.commit()
            self.hashes.append(result.app_hash)

    def hash_at(self, at: int) -> bytes:
        """Give the hash after so many steps."""
        return self.hashes[at - 1] if at else self._first

    def node(self) -> Node:
        return Node(
            self.make(),
            chain_id=chain_id(self.chain),
            genesis_validators=self.validators,
            gate=Gate(limits=NO_LIMITS),
        )

    def begin(self, driver: Driver) -> None:
        """Shake hands as CometBFT does with a new node."""
        assert driver.info()[0] == 0
        digest = sha256(self.make().genesis_bytes()).hexdigest()
        driver.init_chain(
            chain_id(self.chain),
            [(v.public_key, v.power) for v in self.validators],
            b'{"genesis":"%s"}' % digest.encode(),
        )


@pytest.fixture(scope="module")
def regional():
    return Regional()


@pytest.fixture(scope="module")
def regional_course(regional):
    def make():
        return RegionalApplication(regional.genesis, Database(None, REGIONAL_TABLES), Verifier())

    genesis = regional.genesis
    return Course(make, genesis, genesis.chain, genesis.validators, regional.steps)


@pytest.fixture(scope="module")
def wide_course(regional):
    wide = Wide(regional.play)

    def make():
        return WideApplication(wide.genesis, Database(None, WIDE_TABLES), Verifier())

    return Course(make, wide.genesis, wide.genesis.chain, wide.genesis.validators, wide.steps)


@pytest.fixture(params=["regional", "wide"])
def course(request):
    return request.getfixturevalue(f"{request.param}_course")


def cut(steps: list[Step], at: int, size: int) -> tuple[list[Misbehaviour], list[bytes]]:
    """Give a block of steps from ``at`` on: misbehaviour comes before a block's transactions."""
    evidence, txs = [], []
    for step in steps[at : at + size]:
        if not isinstance(step, Misbehaviour):
            txs.append(step)
        elif txs:
            break
        else:
            evidence.append(step)
    return evidence, txs


def portions(steps: list[Step]) -> Iterator[list[Step]]:
    """Give steps as they would come between two blocks: a region's rounds, or three at a time."""
    portion: list[Step] = []
    rounds = any(map(is_close, steps))
    for step, following in zip(steps, [*steps[1:], b""], strict=True):
        portion.append(step)
        if (is_close(step) and not is_close(following)) if rounds else len(portion) == 3:
            yield portion
            portion = []
    yield portion
    yield from [[]] * 5


def is_close(step: Step) -> bool:
    try:
        return isinstance(step, bytes) and records.CLOSE == type_of(step)
    except MalformedRecord:
        return False


def type_of(tx: bytes) -> int:
    return records.split(Envelope.parse(tx).payload)[0]


def test_traffic_has_everything_that_can_happen(regional_course, wide_course, regional):
    """So that the tests below say something."""
    assert set(regional_course.codes) >= {None, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10}
    assert set(wide_course.codes) >= {None, 0, 1, 6, 21, 22, 24}
    assert len(regional_course.steps) > 700
    thief = regional.play.app.state.members.get(regional.region.meters[1].address)
    assert thief.suspended
    kinds = {
        type_of(step)
        for step, code in zip(regional_course.steps, regional_course.codes, strict=True)
        if code == 0
    }
    assert kinds >= {
        records.READING,
        records.BALLOT,
        records.HEAD,
        records.REGISTRY_CHANGE,
        records.CLOSE,
        records.NETWORK_CHANGE,
    }


@pytest.mark.parametrize("seed", range(3))
def test_same_traffic_gives_the_same_hash_at_every_step(course, tmp_path, seed):
    rng = random.Random(seed)
    voting = {v.public_key: v.power for v in course.validators}
    with served(course.node(), tmp_path) as running:
        driver = running.connect()
        course.begin(driver)
        at = 0
        while at < len(course.steps):
            evidence, txs = cut(course.steps, at, rng.choice([0, 1, 2, rng.randrange(1, 120)]))
            end = at + len(evidence) + len(txs)
            expected = [code for code in course.codes[at:end] if code is not None]
            right = all(code in KEPT for code in expected)
            assert driver.process(txs) is right
            told = [Evidence(e.kind, e.address, 10, e.height) for e in evidence]
            if rng.random() < 0.1:  # the engine starts again: between blocks, or inside this one
                if rng.random() < 0.5:
                    driver.finalize(txs, told)
                driver.close()
                driver = running.connect()
                assert driver.info()[:2] == (driver.height, course.hash_at(at))
            block = driver.decide(txs, told)
            at = end
            assert block.codes == expected
            assert block.app_hash == course.hash_at(at)
            voting.update(block.updates)
        assert running.failures == []
    left = {v.public_key: v.power for v in course.alone.validators()}
    assert {key: power for key, power in voting.items() if power} == left


def test_proposals_of_a_node_are_taken_by_the_others_and_by_solo(course, tmp_path):
    """From the mempool: what CheckTx lets in is proposed, judged elsewhere, and decided."""
    order: list[Step] = []
    (tmp_path / "other").mkdir()
    one, other = course.node(), course.node()
    with served(one, tmp_path) as proposing, served(other, tmp_path / "other") as judging:
        proposer, judge = proposing.connect(), judging.connect()
        pool, refused = [], Counter()
        for portion in portions(course.steps):
            evidence = [s for s in portion if isinstance(s, Misbehaviour)]
            # senders try again what came too early
            offered = [tx for tx, times in refused.items() if times < 5]
            offered += [s for s in portion if isinstance(s, bytes)]
            checked = proposer.check_txs(offered)
            refused.update(tx for tx, code in zip(offered, checked, strict=True) if code)
            pool = [tx for tx in pool if proposer.check_tx(tx, recheck=True) == 0]
            pool += [tx for tx, code in zip(offered, checked, strict=True) if code == 0]
            txs = proposer.prepare(pool, 50_000)
            assert sum(map(len, txs)) <= 50_000
            assert judge.process(txs)
            told = [Evidence(e.kind, e.address, 10, e.height) for e in evidence]
            blocks = [driver.decide(txs, told) for driver in (proposer, judge)]
            assert blocks[0] == blocks[1]
            assert set(blocks[0].codes) <= set(KEPT)
            pool = [tx for tx in pool if tx not in set(txs)]
            order += [*evidence, *txs]
        assert proposing.failures == judging.failures == []
    again = Course(course.make, course.genesis, course.chain, course.validators, order)
    assert again.hash_at(len(order)) == blocks[0].app_hash
    assert len(order) > 0.8 * sum(code in KEPT for code in course.codes)


def test_ballot_on_a_head_to_come_enters_the_mempool_and_does_not_stay_there(
    regional, regional_course, tmp_path
):
    """CheckTx of type New lets in what Recheck, after the next block, may refuse."""
    with served(regional_course.node(), tmp_path) as running:
        driver = running.connect()
        regional_course.begin(driver)
        for portion in itertools.islice(portions(regional_course.steps), 2):
            assert 0 in driver.decide([s for s in portion if isinstance(s, bytes)], []).codes
        application = running.node.application
        meter = regional.region.meters[3]
        ballot = regional.region.ballot(meter, application.last_round + 1, bytes(32), [])
        assert driver.check_tx(ballot.raw) == codes.OK
        assert driver.check_tx(ballot.raw, recheck=True) == codes.UNKNOWN_PARENT
        assert driver.prepare([ballot.raw], 50_000) == []
        assert not driver.process([ballot.raw])
        assert running.failures == []


def test_judging_a_proposal_stops_at_the_first_refusal(course, monkeypatch):
    right = [s for s, c in zip(course.steps, course.codes, strict=True) if c == 0][:3]
    stranger = signer("stranger").seal(records.Close(course.chain, 5).payload()).raw
    application = course.make()
    seen = []
    deliver = type(application)._deliver

    def watch(self, tx, *rest):
        seen.append(tx)
        return deliver(self, tx, *rest)

    monkeypatch.setattr(type(application), "_deliver", watch)
    assert application.process_proposal(1, right)
    assert seen == right
    seen.clear()
    assert not application.process_proposal(1, [*right[:2], *[stranger] * 20, right[2]])
    assert seen == [*right[:2], stranger]


@pytest.mark.parametrize("where", range(0, 500, 90))
def test_wrong_block_does_not_get_through(regional_course, tmp_path, where):
    """One wrong transaction among right ones, at any place: the block is rejected."""
    course = regional_course
    steps = [s for s, code in zip(course.steps, course.codes, strict=True) if code == 0]
    always = (codes.MALFORMED, codes.WRONG_CHAIN, codes.UNKNOWN_SIGNER, codes.BAD_SIGNATURE)
    wrong = {s for s, code in zip(course.steps, course.codes, strict=True) if code in always}
    rng = random.Random(where)
    with served(course.node(), tmp_path) as running:
        driver = running.connect()
        driver.decide(steps[:where])
        block = steps[where : where + 20]
        assert driver.process(block)
        before = driver.info()
        for bad in rng.sample(sorted(wrong), 5):
            place = rng.randrange(len(block) + 1)
            assert not driver.process([*block[:place], bad, *block[place:]])
        assert not driver.process([*block, block[0]])
        assert driver.info() == before
        assert driver.decide(block).codes == [0] * len(block)
