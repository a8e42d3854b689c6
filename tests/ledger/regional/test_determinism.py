"""The chain follows from the sequence of transactions and from nothing else (SPEC 11.8)."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.engine.solo import Solo
from ledger.genesis import Parameters
from ledger.protocol import records
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import Play, Region, eventful, fingerprint

ROOT = Path(__file__).parents[3]
PRINT = "from tests.ledger.regional import generate as g; print(g.fingerprint(g.eventful().app))"


@pytest.fixture(scope="module")
def play() -> Play:
    return eventful()


def replayed(play: Play, blocks: list[list[bytes]]) -> RegionalApplication:
    app = RegionalApplication(play.region.genesis, Database(None, TABLES), Verifier())
    node = Solo(app)
    for txs in blocks:
        assert all(result.code == 0 for result in node.execute(txs).tx_results)
    return app


@pytest.mark.parametrize("seed", range(4))
def test_other_block_boundaries_give_the_same_chain(play: Play, seed: int) -> None:
    rng = random.Random(seed)
    txs = [tx for block in play.blocks for tx in block]
    blocks = []
    while txs:
        size = rng.randint(1, 90)
        blocks.append(txs[:size])
        txs = txs[size:]
    assert fingerprint(replayed(play, blocks)) == fingerprint(play.app)


def test_all_in_one_block_gives_the_same_chain(play: Play) -> None:
    txs = [tx for block in play.blocks for tx in block]
    assert fingerprint(replayed(play, [txs])) == fingerprint(play.app)


@pytest.mark.parametrize(
    ("seed", "zone", "locale"),
    [("0", "Asia/Kolkata", "C"), ("77", "America/St_Johns", "tr_TR.UTF-8")],
)
def test_hash_seed_time_zone_and_locale_change_nothing(
    play: Play, seed: str, zone: str, locale: str
) -> None:
    env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale}
    ran = subprocess.run(
        [sys.executable, "-c", PRINT],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.strip() == fingerprint(play.app)


def test_node_that_is_reopened_after_each_block_comes_to_the_same_chain(
    play: Play, tmp_path: Path
) -> None:
    """The first block holds records of all members but one, whose state must survive too."""
    region = Region(size=6, cluster_size=6)
    whole, path = Play(region), tmp_path / "regional.sqlite"
    whole.silent.add(region.meters[3].address)
    for _ in range(4):
        whole.play()
    for txs in whole.blocks:
        with Database(path, TABLES) as database:
            Solo(RegionalApplication(region.genesis, database, Verifier())).execute(txs)
    with Database(path, TABLES) as database:
        reopened = RegionalApplication(region.genesis, database, Verifier())
        assert len(reopened.state.members) == 6
        assert reopened.state.root() == whole.app.state.root()
        assert fingerprint(reopened) == fingerprint(whole.app)


def test_waiting_record_of_a_meter_that_a_close_suspends_is_dropped() -> None:
    region = Region(size=6, cluster_size=6)
    play = Play(region)
    play.play()
    thief = region.meters[0]
    ahead = region.reading(thief, play.round + 1, seq=9)
    twins = [region.reading(thief, play.round, seq=8, power_w=power) for power in (1, 2)]
    assert all(r.code == 0 for r in play.play(extra=[ahead, *twins]).tx_results)
    member = play.app.state.members.get(thief.address)
    assert member is not None
    assert member.suspended
    play.play()
    assert play.app.blocks.find_reading(ahead.digest) is None
    assert play.app.blocks.find_reading(twins[0].digest) is not None


def test_close_of_a_round_that_no_head_can_name_is_refused() -> None:
    region = Region(size=4, cluster_size=4, parameters=Parameters(round_s=86_400))
    play = Play(region)
    (result,) = play.execute([region.close(records.MAX_ROUND)]).tx_results
    assert result.code != 0
    assert play.app.height == 0
