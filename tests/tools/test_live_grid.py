"""The picture of demo-network: what a terminal and what a file gets to see."""

import io
from types import SimpleNamespace

from rich.console import Console

from hil.session import MeterProgress, Progress
from tools.live_grid import GridView


def play(console: Console) -> str:
    with GridView(console) as view:
        view.grid = SimpleNamespace(  # type: ignore[assignment]
            plan=SimpleNamespace(rounds=20), heights={"gw-a": 12, "sub-1": 9, "sub-2": -1}
        )
        progress = Progress("replaying", index=10, height=10)
        progress.meters = {"S01": MeterProgress("c1", online=True), "S02": MeterProgress("c1")}
        north = view.region("north")
        north.update(progress)
        north.update(progress)
        view.say("sub-2 is killed")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_terminal_shows_regions_validators_and_events() -> None:
    text = play(Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None))
    assert "round 10/20" in text
    assert "1 of 2 meters" in text
    assert "gw-a 12" in text
    assert "sub-2 down" in text
    assert "sub-2 is killed" in text


def test_file_gets_one_line_for_what_is_new() -> None:
    text = play(Console(file=io.StringIO(), width=120))
    assert text.count("north: replaying, block 10") == 1
    assert text.count("sub-2 is killed") == 1
    assert "\x1b" not in text
