"""The terminal's picture of ``demo-network``: regions and validators, and what happens to them."""

import time

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from hil.grid import Grid
from hil.session import Progress
from tools.screen import Screen

_EVENTS_SHOWN = 10
_BAR = 16
_LEAST_S = 0.1  # between two pictures
_EVERY_BLOCKS = 5  # where lines are printed


class GridView(Screen):
    """Draws a grid: a live table where there is a terminal, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._events: list[Text] = []
        self._progress: dict[str, Progress] = {}
        self._told: dict[str, tuple[str, int]] = {}
        self._drawn = 0.0
        self.grid: Grid | None = None

    def _end(self) -> None:
        self._draw()

    def region(self, name: str) -> "RegionView":
        """Give the view of one region's session."""
        return RegionView(self, name)

    def say(self, sentence: str) -> None:
        """Tell something that happens in the story."""
        self._events.append(Text(f"{self._elapsed()}  {sentence}", "bold cyan"))
        if self._live is None:
            self._console.print(self._events[-1], soft_wrap=True)
        else:
            self._draw()

    def update(self, name: str, progress: Progress) -> None:
        """Take a region's progress in."""
        self._progress[name] = progress
        if self._live is None:
            self._tell(name, progress)
        elif time.monotonic() > self._drawn + _LEAST_S:
            self._draw()

    def _tell(self, name: str, progress: Progress) -> None:
        now = (progress.stage, progress.height // _EVERY_BLOCKS)
        if self._told.get(name) == now:
            return
        self._told[name] = now
        wide = f", wide area {progress.status.wide_height}" if progress.height else ""
        block = f", block {progress.height}" if progress.height else ""
        self._console.print(
            f"{self._elapsed()}  {name}: {progress.stage}{block}{wide}", soft_wrap=True
        )

    def _draw(self) -> None:
        if self._live is None:
            return
        self._drawn = time.monotonic()
        shown = self._events[-_EVENTS_SHOWN:]
        self._live.update(Group(self._regions(), self._validators(), *shown), refresh=True)

    def _regions(self) -> Table:
        table = Table(box=None, padding=(0, 1), show_header=False)
        for name, progress in self._progress.items():
            total = self.grid.plan.rounds if self.grid else 1
            done = round(_BAR * progress.index / total)
            bar = "█" * done + "░" * (_BAR - done)
            online = sum(meter.online for meter in progress.meters.values())
            table.add_row(
                Text(name, "bold"),
                f"{bar} round {progress.index}/{total}",
                f"block {progress.height}",
                f"{online} of {len(progress.meters)} meters",
                progress.stage,
            )
        return table

    def _validators(self) -> Text:
        heights = self.grid.heights if self.grid else {}
        top = max(heights.values(), default=0)
        text = Text("wide area  ", "bold")
        for name, height in list(heights.items()):
            style = "red" if height < 0 else "yellow" if height < top - 1 else "green"
            text.append(f"{name} {'down' if height < 0 else height}   ", style)
        return text


class RegionView:
    """What one region's session draws on."""

    def __init__(self, view: GridView, name: str) -> None:
        self._view = view
        self._name = name

    def update(self, progress: Progress) -> None:
        """See hil.session.View."""
        self._view.update(self._name, progress)
