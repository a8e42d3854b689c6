"""A session's figures come from its ledger; what a fault believes counts for nothing."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hil import faults
from hil.report import make_report
from hil.status import GatewayStatus
from ledger.protocol import records
from ledger.region import RegionDirectory, RegionError
from tests.ledger.regional.lab import FIRST, Lab

NAMES = ["m0", "m1", "m2", "m3", "m4"]
ACCEPT, REJECT = records.ACCEPT, records.REJECT_VOLTAGE


class Played:
    """A ledger of two rounds, and what a session says that it did to make it.

    In round 0 all readings are accepted; in round 1 that of m0 is rejected and that of m1 stays
    open.
    """

    def __init__(self, tmp_path) -> None:
        self.directory = RegionDirectory(tmp_path)
        self.lab = Lab(5, path=self.directory.regional)
        self.directory.genesis.write_bytes(self.lab.region.genesis.encode())
        self.first = self.lab.honest_round(FIRST)
        self.second = [self.lab.reading(i, FIRST + 1) for i in range(5)]
        votes = [(e, REJECT if i == 0 else ACCEPT) for i, e in enumerate(self.second) if i != 1]
        ballots = [self.lab.ballot(i, FIRST + 1, votes) for i in range(5)]
        self.lab.close(FIRST + 1, *self.second, *ballots)
        self.first_round = FIRST
        self.names = {m.address: n for m, n in zip(self.lab.region.meters, NAMES, strict=True)}
        self.published = dict.fromkeys(NAMES, 2)
        self.plan = SimpleNamespace(rounds=2, faults=())
        self.progress = SimpleNamespace(status=replace(GatewayStatus(), counters={"a.b": 3}))


@pytest.fixture
def played(tmp_path):
    return Played(tmp_path)


def attacks(played, *played_faults):
    played.plan.faults = played_faults
    return [(a.attempts, a.stopped) for a in make_report(played).attacks]


def test_counts_are_the_ledgers(played):
    report = make_report(played, learning_rounds=1)
    assert report.readings == {"published": 10, "accepted": 8, "rejected": 1, "unconfirmed": 1}
    assert (report.meters, report.rounds, report.blocks) == (5, 2, 2)
    assert report.witnessed_height == 1
    assert report.gateway == {"a.b": 3}
    assert report.honest == {"readings": 5, "accepted": 3}
    assert report.as_json()["readings"]["published"] == 10


def test_reading_that_no_block_holds_is_unconfirmed(played):
    played.published["m4"] = 5
    assert make_report(played).readings["unconfirmed"] == 4


def test_rejected_honest_reading_is_a_false_rejection(played):
    assert make_report(played).false_rejections == 1


def test_rejected_falsehood_is_no_false_rejection(played):
    fault = faults.ScaledVoltage("m0", first=1, permille=1080)
    fault.change(1, {"voltage": 230_000})
    played.plan.faults = (fault,)
    report = make_report(played, learning_rounds=0)
    assert report.false_rejections == 0
    assert report.honest == {"readings": 9, "accepted": 8}


def test_falsehood_of_another_round_does_not_excuse_a_rejection(played):
    fault = faults.ScaledVoltage("m0", first=0, permille=1080)
    fault.change(0, {"voltage": 230_000})
    played.plan.faults = (fault,)
    assert make_report(played).false_rejections == 1


def test_falsehood_is_stopped_where_its_reading_was_not_accepted(played):
    stopped = faults.ScaledVoltage("m0", first=1, permille=1080)
    unsettled = faults.ScaledVoltage("m1", first=1, permille=1080)
    believed = faults.ScaledVoltage("m2", first=1, permille=1080)
    for fault in (stopped, unsettled, believed):
        fault.change(1, {"voltage": 230_000})
    assert attacks(played, stopped, unsettled, believed) == [(1, 1), (1, 1), (1, 0)]


def test_outsiders_record_is_stopped_where_the_chain_does_not_hold_it(played):
    forged = faults.ForgedSignature("m3", (0,))
    forged.attempts, forged.tried = 2, [bytes(32), played.first[3].digest]
    assert attacks(played, forged) == [(2, 1)]


def test_same_bytes_are_stopped_where_the_chain_holds_them_once(played):
    again = faults.SameBytes("m3", (0,))
    again.attempts, again.tried = 1, [played.first[3].digest]
    assert attacks(played, again) == [(1, 1)]


def test_attacks_are_told_in_the_order_of_the_plan(played):
    played.plan.faults = (faults.SameBytes("m1", ()), faults.OldValues("m2", 0, 1, 1))
    told = [(a.name, a.sentence) for a in make_report(played).attacks]
    assert [name for name, _ in told] == ["old reading, same bytes", "old values newly signed"]
    assert Counter(sentence.count("m") > 0 for _, sentence in told) == {True: 2}


def test_folder_without_a_region_is_refused(played):
    played.directory.genesis.unlink()
    with pytest.raises(RegionError, match="does not exist"):
        make_report(played)
