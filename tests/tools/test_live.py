"""The view of a session: every block told once, every rejection with its reason."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from hil import faults
from hil.session import MeterProgress, Progress
from ledger.protocol import records
from ledger.region import RegionDirectory
from tests.ledger.regional.lab import FIRST, Lab
from tools.live import SessionView

NAMES = ["m0", "m1", "m2", "m3", "m4"]


class Stage:
    """A region's ledger on disk, the session that the view asks about it, and what was drawn."""

    def __init__(self, folder, *, terminal: bool) -> None:
        self.directory = RegionDirectory(folder)
        self.lab = Lab(5, path=self.directory.regional)
        self.directory.genesis.write_bytes(self.lab.region.genesis.encode())
        self.names = {m.address: n for m, n in zip(self.lab.region.meters, NAMES, strict=True)}
        self.plan = SimpleNamespace(rounds=9, faults=())
        self.text = io.StringIO()
        self.console = Console(
            file=self.text, force_terminal=terminal, width=120, color_system=None
        )
        self.progress = Progress(meters={name: MeterProgress("c0", online=True) for name in NAMES})

    def play(self, reason: int | None = None) -> None:
        """Close a round in which the reading of m0 is rejected with a reason, or nothing is."""
        round_ = FIRST + self.progress.height
        readings = [self.lab.reading(i, round_) for i in range(5)]
        votes = [(e, records.ACCEPT) for e in readings]
        if reason is not None:
            votes[0] = (readings[0], reason)
        self.lab.close(round_, *readings, *[self.lab.ballot(i, round_, votes) for i in range(5)])
        self.progress.height += 1
        self.progress.index += 1


@pytest.fixture
def lines(tmp_path):
    return Stage(tmp_path, terminal=False)


@pytest.fixture
def picture(tmp_path):
    return Stage(tmp_path, terminal=True)


def test_every_block_is_told_once_with_its_votes(lines):
    with SessionView(lines, lines.console) as view:
        for _ in range(2):
            lines.play()
            view.update(lines.progress)
            view.update(lines.progress)
    told = [line for line in lines.text.getvalue().splitlines() if "block" in line]
    assert len(told) == 2
    assert "block   1  5 readings, 5 accepted, 5 ballots: 25 accept, 0 reject" in told[0]
    assert "block   2" in told[1]
    assert "witnessed to 1" in told[1]


def test_blocks_that_came_between_two_updates_are_all_told(lines):
    with SessionView(lines, lines.console) as view:
        for _ in range(3):
            lines.play()
        view.update(lines.progress)
    assert [f"block   {h}" in lines.text.getvalue() for h in (1, 2, 3, 4)] == [True] * 3 + [False]


def test_rejection_is_told_with_the_reason_of_most_voters(lines):
    readings = [lines.lab.reading(i, FIRST) for i in range(5)]
    reasons = [0, 20, 21, 21, 21]  # no voter judges itself
    ballots = [lines.lab.ballot(i, FIRST, [(readings[0], reasons[i])]) for i in range(1, 5)]
    lines.lab.close(FIRST, *readings, *ballots)
    lines.progress.height = 1
    with SessionView(lines, lines.console) as view:
        view.update(lines.progress)
    assert "block 1: reading of m0 rejected (voltage, 4 of 4 votes)" in lines.text.getvalue()


def test_reason_without_a_name_is_told_by_its_number(lines):
    lines.play(reason=63)
    with SessionView(lines, lines.console) as view:
        view.update(lines.progress)
    assert "reading of m0 rejected (63, 4 of 4 votes)" in lines.text.getvalue()


def test_attack_is_told_once_when_it_is_first_tried(lines):
    fault = faults.ScaledVoltage("m1", first=0, permille=1080)
    lines.plan.faults = (fault,)
    with SessionView(lines, lines.console) as view:
        view.update(lines.progress)
        assert "attack" not in lines.text.getvalue()
        fault.change(0, {"voltage": 1})
        view.update(lines.progress)
        view.update(lines.progress)
    assert lines.text.getvalue().count(f"attack: {fault.sentence}") == 1


def test_stage_is_told_once_before_there_is_a_ledger(lines):
    lines.directory.genesis.unlink()
    with SessionView(lines, lines.console) as view:
        lines.progress.stage = "starting the broker"
        view.update(lines.progress)
        view.update(lines.progress)
    assert lines.text.getvalue().count("starting the broker") == 1


def test_picture_shows_rounds_meters_chains_and_rejections(picture):
    picture.play()
    picture.play(reason=21)
    picture.progress.meters["m4"].online = False
    with SessionView(picture, picture.console) as view:
        view.update(picture.progress)
    drawn = picture.text.getvalue()
    assert "round 2/9" in drawn
    assert "regional chain: block 2, witnessed to 1" in drawn
    assert "wide-area chain: block 0" in drawn
    assert "m0 ✗" in drawn
    assert "m4 ●" in drawn
    assert "block 2: reading of m0 rejected (voltage, 4 of 4 votes)" in drawn


def test_picture_joins_rejections_of_consecutive_blocks_and_no_others(picture):
    with SessionView(picture, picture.console) as view:
        for reason in (21, 21, None, 21):
            picture.play(reason)
            view.update(picture.progress)
    last = picture.text.getvalue()[-2000:]
    assert "blocks 1 to 2: readings of m0 rejected (voltage, 4 of 4 votes)" in last
    assert "block 4: reading of m0 rejected (voltage, 4 of 4 votes)" in last
    assert "blocks 1 to 4" not in last


def test_picture_fits_into_80_columns(picture):
    picture.console.width = 80
    with SessionView(picture, picture.console) as view:
        for _ in range(3):
            picture.play(reason=21)
        picture.progress.stage, picture.progress.time_s = "replaying", 1_465_232_400
        view.update(picture.progress)
    first, second, third = picture.text.getvalue().splitlines()[:3]
    assert first.rstrip().endswith(" s")
    assert "round 3/9" in first
    assert "replaying, 2016-06-06 17:00   5 ballots: 20 accept, 5 reject" in second
    assert "regional chain: block 3, witnessed to 2   wide-area chain: block 0" in third


def test_dumb_terminal_is_told_in_lines(picture, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with SessionView(picture, picture.console) as view:
        picture.play()
        view.update(picture.progress)
        assert "block   1  5 readings, 5 accepted" in picture.text.getvalue()
