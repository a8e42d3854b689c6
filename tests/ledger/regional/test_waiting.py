"""Records that wait over a close, and a node that is opened anew (SPEC 11.2)."""

from pathlib import Path

from ledger.audit import audit
from ledger.engine.solo import Solo
from ledger.genesis import Parameters
from ledger.protocol import records
from ledger.region import RegionDirectory
from ledger.regional import codes
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import Play, Region, fingerprint


def test_waiting_record_of_a_meter_that_a_close_suspends_is_dropped(tmp_path: Path) -> None:
    """Otherwise the next block would hold what its state refuses, and no audit could follow."""
    directory = RegionDirectory(tmp_path)
    region = Region(size=6, cluster_size=6)
    directory.genesis.write_bytes(region.genesis.encode())
    play = Play(region, directory.regional)
    play.play()
    thief, honest = region.meters[:2]
    ahead = region.reading(thief, play.round + 1, seq=9)
    honest_ahead = region.reading(honest, play.round + 1, seq=9)
    twins = [region.reading(thief, play.round, seq=8, power_w=power) for power in (1, 2)]
    assert all(r.code == 0 for r in play.play(extra=[ahead, honest_ahead, *twins]).tx_results)
    member = play.app.state.members.get(thief.address)
    assert member is not None
    assert member.suspended
    play.play()
    assert play.app.blocks.find_reading(ahead.digest) is None
    assert play.app.blocks.find_reading(honest_ahead.digest) is not None
    assert play.app.blocks.find_reading(twins[0].digest) is not None
    report = audit(directory)
    assert report.ok, report.failure
    play.close()


def test_close_of_a_round_that_ends_after_what_a_head_can_say_is_refused() -> None:
    region = Region(size=4, cluster_size=4, parameters=Parameters(round_s=86_400))
    play = Play(region)
    (result,) = play.execute([region.close(records.MAX_ROUND)]).tx_results
    assert result.code == codes.WRONG_ROUND
    assert play.app.height == 0


def test_members_of_whom_nothing_came_survive_a_restart(tmp_path: Path) -> None:
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
        assert fingerprint(reopened) == fingerprint(whole.app)
