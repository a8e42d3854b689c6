"""What a region reports of a window follows from its chain (SPEC 13.2)."""

import pytest

from ledger.genesis import Parameters
from ledger.protocol import quantities, records
from ledger.protocol.cose import payload_digest
from ledger.regional.aggregate import Aggregate
from ledger.regional.summary import summarise
from ledger.wide.summary import MAX_ADJUSTMENTS, MAX_ENERGY, Summary
from tests.ledger.regional.generate import FIRST_ROUND, Play, Region, eventful, summaries

WIDE = b"widechan"


def reported(play: Play) -> list[Summary]:
    return [Summary.decode(envelope.payload) for envelope in summaries(play)]


@pytest.fixture(scope="module")
def play() -> Play:
    return eventful()


def test_summaries_cover_all_heights_without_gap_or_overlap(play: Play) -> None:
    found = reported(play)
    assert [s.from_height for s in found] == [0, *(s.to_height for s in found[:-1])]
    assert found[-1].to_height == play.app.height == 40
    assert [s.from_round for s in found] == list(range(FIRST_ROUND, FIRST_ROUND + 40, 5))


def test_counts_are_those_of_the_results(play: Play) -> None:
    outcomes = [row[2] for row in play.app.blocks.all_results()]
    found = reported(play)
    late = [row for s in found for row in s.adjustments]
    assert sum(s.accepted for s in found) + sum(r[1] for r in late) == outcomes.count(1)
    assert sum(s.rejected for s in found) + sum(r[2] for r in late) == outcomes.count(2)
    assert sum(s.unconfirmed for s in found) + sum(r[3] for r in late) == outcomes.count(3)


def test_late_readings_are_adjustments_of_their_own_window(play: Play) -> None:
    # rounds 108 to 111 came with round 112: two of the window of rounds 105 to 109
    (window,) = [s for s in reported(play) if s.from_round == 110]
    assert window.adjustments == ((21, 2, 0, 0),)


def test_energy_is_the_registers_difference() -> None:
    region = Region(size=6, cluster_size=6)
    play = Play(region)
    before = sum(meter.energy_mwh for meter in region.meters)
    for _ in range(10):
        play.play()
    rise = sum(meter.energy_mwh for meter in region.meters) - before
    first = rise // 10  # a first reading tells no difference
    assert sum(s.energy_in for s in reported(play)) == rise - first


def test_witnessed_head_and_log_are_those_of_the_windows_end(play: Play) -> None:
    app = play.app
    for summary in reported(play):
        assert summary.log_root == app.log.root(summary.to_height)
        # every member names the newest head that it knows: the one before its round's
        assert summary.witnessed_height == summary.to_height - 1
        head = app.blocks.head(summary.witnessed_height)
        assert summary.witnessed_digest == payload_digest(head.payload())


def test_summary_before_any_witness_names_the_genesis() -> None:
    play = Play(Region(size=6, cluster_size=6))
    play.silent = {meter.address for meter in play.region.meters}
    for _ in range(5):
        play.play()
    (summary,) = reported(play)
    assert (summary.witnessed_height, summary.accepted, summary.power) == (0, 0, None)
    assert summary.witnessed_digest == play.region.genesis.digest


def test_summary_is_the_same_however_much_later_it_is_made(play: Play) -> None:
    again = eventful(rounds=30)
    assert reported(play)[:6] == reported(again)


def test_adjustments_beyond_a_summarys_room_go_over_to_the_next() -> None:
    parameters = Parameters(round_s=60, open_rounds=200, window_rounds=1)
    region = Region(size=4, cluster_size=4, parameters=parameters)
    play = Play(region)
    offline = region.meters[0]
    late = []
    play.silent.add(offline.address)
    for _ in range(40):
        late.append(region.reading(offline, play.round))
        play.play()
    for start in (0, 20):  # a ballot has room for 24 verdicts
        for meter in region.meters[1:]:
            verdicts = [(e.digest, records.ACCEPT) for e in late[start : start + 20]]
            ballot = region.ballot(meter, play.round, play.app.last_digest, verdicts)
            extra = late[start : start + 20] if meter is region.meters[1] else []
            assert all(r.code == 0 for r in play.execute([*extra, ballot]).tx_results)
        play.round += 1
    play.execute([region.close(play.round - 1)])  # both rounds' ballots are in one block
    play.play()
    adjusted = [row for s in reported(play) for row in s.adjustments]
    assert [len(s.adjustments) for s in reported(play)][-2:] == [MAX_ADJUSTMENTS, 8]
    assert sorted(row[0] for row in adjusted) == list(range(FIRST_ROUND, FIRST_ROUND + 40))
    assert all(row[1:] == (1, 0, 0) for row in adjusted)


def test_aggregate_with_more_adjustments_than_room_is_split() -> None:
    many = {window: [1, 0, 0] for window in range(40)}
    aggregate = Aggregate(50, 10, adjustments=many)
    assert sorted(aggregate.left_over()) == list(range(MAX_ADJUSTMENTS, 40))
    assert Aggregate.decode(aggregate.encode()) == aggregate
    play = Play(Region(size=4, cluster_size=4))
    for _ in range(10):
        play.play()
    summary = summarise(play.app, 10, aggregate, WIDE)
    assert [row[0] for row in summary.adjustments] == list(range(MAX_ADJUSTMENTS))


def test_accepted_value_that_no_meter_can_show_is_not_counted() -> None:
    region = Region(size=6, cluster_size=6)
    play = Play(region)
    play.play()
    impossible = [(code, 1 << 62) for code in sorted(row.code for row in quantities.TABLE)]
    liar = region.reading(region.meters[0], play.round, values=impossible)
    play.silent.add(region.meters[0].address)
    for _ in range(4):
        play.play(late=[liar])
        liar = region.reading(region.meters[0], play.round, values=impossible)
    (summary,) = reported(play)
    assert summary.accepted == 6 + 4 * 6
    assert summary.energy_in < MAX_ENERGY
    assert summary.power == (600_000, 600_000)
