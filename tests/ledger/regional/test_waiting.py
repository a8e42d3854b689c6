"""Records that wait over a close, and a node that is opened anew (SPEC 11.2)."""

from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.engine.solo import Solo
from ledger.genesis import Parameters
from ledger.protocol import records, rounds
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from ledger.regional import codes, waiting
from ledger.regional.application import TABLES, RegionalApplication
from ledger.regional.deliver import MAX_FAR_A_SIGNER, MAX_PENDING_A_SIGNER
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import FIRST_ROUND, Play, Region, fingerprint


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


def ahead(play: Play, meter: int, round_: int, count: int) -> list[Envelope]:
    """Sign ballots of a meter for rounds from one on."""
    region, parent = play.region, play.app.last_digest
    return [region.ballot(region.meters[meter], round_ + i, parent, []) for i in range(count)]


def codes_of(play: Play, envelopes: list[Envelope]) -> list[int]:
    return [result.code for result in play.execute(envelopes).tx_results]


def test_few_records_of_a_signer_wait_for_rounds_that_are_far() -> None:
    """Nobody may come there for years, and every close goes through what waits."""
    play = Play(Region(size=4, cluster_size=4))
    play.play()
    far = FIRST_ROUND + rounds.EPOCH_ROUNDS + 1
    near = ahead(play, 0, far - 4, 4)
    assert codes_of(play, near) == [codes.OK] * 4
    many = ahead(play, 0, far, MAX_FAR_A_SIGNER + 2)
    assert codes_of(play, many) == [codes.OK] * MAX_FAR_A_SIGNER + [codes.FULL] * 2
    # of another one too, and readings count with ballots
    reading = play.region.reading(play.region.meters[1], far + 99)
    assert codes_of(play, [reading, *ahead(play, 1, far, MAX_FAR_A_SIGNER)])[-1] == codes.FULL
    # a round that is near now takes its place among the near ones
    play.play()
    assert codes_of(play, many[-2:]) == [codes.OK, codes.FULL]


def test_before_the_first_close_no_round_is_far_and_after_it_few_are_left() -> None:
    play = Play(Region(size=4, cluster_size=4))
    far = FIRST_ROUND + rounds.EPOCH_ROUNDS + 1
    many = ahead(play, 0, far, MAX_PENDING_A_SIGNER)
    assert codes_of(play, many) == [codes.OK] * MAX_PENDING_A_SIGNER
    play.execute([play.region.close(FIRST_ROUND)])
    assert len(play.app.blocks.pending()) == MAX_FAR_A_SIGNER


def test_replay_that_skips_years_goes_on_there(tmp_path: Path) -> None:
    directory = RegionDirectory(tmp_path)
    region = Region(size=4, cluster_size=4)
    directory.genesis.write_bytes(region.genesis.encode())
    play = Play(region, directory.regional)
    for _ in range(2):
        for _ in range(3):
            assert all(result.code == codes.OK for result in play.play().tx_results)
        play.round += 1_000_000
    assert play.app.blocks.head(4).record_count == 8
    assert codes_of(play, ahead(play, 0, play.round, 3)) == [codes.OK] * 3
    play.close()
    report = audit(directory)
    assert report.ok, report.failure


def test_close_writes_only_what_changed_of_the_records_that_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play = Play(Region(size=6, cluster_size=6), tmp_path / "regional.sqlite")
    play.play()
    blocks, region = play.app.blocks, play.region
    stay = [region.reading(meter, play.round + 50) for meter in region.meters]
    due = region.reading(region.meters[0], play.round)
    assert codes_of(play, [*stay[:3], due, *stay[3:]]) == [codes.OK] * 7
    positions = {raw: position for position, raw in blocks.pending()}
    written: list[bytes] = []
    dropped: list[int] = []
    put, drop = blocks.put_pending, blocks.drop_pending
    monkeypatch.setattr(
        blocks, "put_pending", lambda raws, first: [written.extend(raws), put(raws, first)]
    )
    monkeypatch.setattr(blocks, "drop_pending", lambda gone: [dropped.extend(gone), drop(gone)])
    fresh = region.reading(region.meters[1], play.round + 51)
    play.execute([region.close(play.round), fresh])
    assert (written, dropped) == ([fresh.raw], [positions[due.raw]])
    assert [raw for _, raw in blocks.pending()] == [e.raw for e in (*stay, fresh)]
    reopened = RegionalApplication(
        region.genesis, Database(tmp_path / "regional.sqlite", "", read_only=True), Verifier()
    )
    assert reopened.app_hash == play.app.app_hash
    play.close()


def test_positions_of_waiting_records_begin_anew_when_they_are_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "WAITING_CLOSES", 9)
    play = Play(Region(size=4, cluster_size=4))
    play.play()
    region, blocks = play.region, play.app.blocks
    newest, wait = [], []
    for _ in range(30):
        # one always waits over a close, so the next one stands behind it
        wait.append(region.reading(region.meters[0], play.round + 1).raw)
        play.node.execute([wait[-1]])
        assert [raw for _, raw in blocks.pending()] == wait[-2:]
        newest.append(blocks.pending()[-1][0])
        play.execute([region.close(play.round)])
        play.round += 1
    assert newest[:10] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert max(newest) == 8
    play.close()
