"""The terminal's picture of a session: a live table where there is a terminal, lines elsewhere."""

import time
from collections import Counter

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from hil.session import Progress, Session
from ledger.protocol import records, tally
from ledger.regional.view import LedgerView, SettledReading
from ledger.store import StoreError
from tools.screen import Screen

_MARKS = {
    tally.OPEN: ("?", "yellow"),
    tally.ACCEPTED: ("●", "green"),
    tally.REJECTED: ("✗", "bold red"),
    tally.UNCONFIRMED: ("○", "yellow"),
    tally.EQUIVOCATED: ("!", "bold magenta"),
}
_EVENTS_SHOWN = 8
_BAR = 30


class SessionView(Screen):
    """Draws a session's progress: rounds, votes, verdicts, blocks, the wide-area chain."""

    def __init__(self, session: Session, console: Console) -> None:
        super().__init__(console)
        self._session = session
        self._directory = session.directory
        self._total = session.plan.rounds
        self._announced: set[str] = set()
        self._ledger: LedgerView | None = None
        self._shown_height = 0
        self._stage = ""
        self._outcomes: dict[str, SettledReading] = {}
        self._events: list[Text] = []
        self._rejections: dict[tuple[str, str], tuple[int, int, Text]] = {}
        self._votes = ""
        self._witnessed = 0

    def _end(self) -> None:
        if self._ledger is not None:
            self._ledger.close()

    def update(self, progress: Progress) -> None:
        """Take the newest blocks in and draw."""
        for fault in self._session.plan.faults:
            if fault.attempts and fault.sentence not in self._announced:
                self._announced.add(fault.sentence)
                self._say(Text(f"attack: {fault.sentence}", "bold cyan"))
        self._read_blocks(progress)
        if self._live is not None:
            self._live.update(self._picture(progress), refresh=True)
        elif progress.stage != self._stage:
            self._console.print(f"{self._elapsed()}  {progress.stage}")
        self._stage = progress.stage

    def _say(self, text: Text) -> None:
        self._events.append(text)
        if self._live is None:
            self._console.print(f"{self._elapsed()}    ", text, soft_wrap=True)

    def _say_rejected(self, height: int, name: str, why: str) -> None:
        """Tell a rejection; in a live picture, one more in the next block lengthens the line."""
        first, last, line = self._rejections.get((name, why), (0, 0, Text()))
        if self._live is not None and last == height - 1 > 0:
            line.plain = f"blocks {first} to {height}: readings of {name} rejected ({why})"
        else:
            first = height
            line = Text(f"block {height}: reading of {name} rejected ({why})", "red")
            self._say(line)
        self._rejections[name, why] = (first, height, line)

    def _read_blocks(self, progress: Progress) -> None:
        if progress.height <= self._shown_height:
            return
        if self._ledger is None:
            try:
                round_s = self._directory.load_genesis().parameters.round_s
                self._ledger = LedgerView(self._directory.regional, round_s)
            except StoreError:
                return
        self._witnessed = self._ledger.witnessed()
        for height in range(self._shown_height + 1, self._ledger.blocks.height() + 1):
            self._read_block(self._ledger, height, progress)
            self._shown_height = height

    def _read_block(self, ledger: LedgerView, height: int, progress: Progress) -> None:
        readings = list(ledger.block_readings(height))
        for settled in readings:
            name = self._session.names.get(settled.address, settled.address.hex()[:8])
            self._outcomes[name] = settled
            if settled.outcome == tally.REJECTED:
                self._say_rejected(height, name, self._reason(ledger, settled))
        count = ledger.count_ballots(height)
        accepts = count.verdicts[records.ACCEPT]
        rejects = sum(n for v, n in count.verdicts.items() if records.is_reject(v))
        self._votes = f"{count.ballots} ballots: {accepts} accept, {rejects} reject"
        if self._live is None:
            accepted = sum(r.outcome == tally.ACCEPTED for r in readings)
            self._console.print(
                f"{self._elapsed()}  block {height:3}  {len(readings)} readings, "
                f"{accepted} accepted, {self._votes}, "
                f"witnessed to {self._witnessed}, wide area {progress.status.wide_height}",
                soft_wrap=True,
            )

    def _reason(self, ledger: LedgerView, settled: SettledReading) -> str:
        """Give the reason that most voters give, and how many reject."""
        votes = Counter(vote.verdict for vote in ledger.votes_on(settled))
        rejects = [verdict for verdict, _ in votes.most_common() if records.is_reject(verdict)]
        reason = records.VERDICT_NAMES.get(rejects[0], str(rejects[0])).removeprefix("reject: ")
        return f"{reason}, {settled.rejects} of {settled.drawn} votes"

    def _picture(self, progress: Progress) -> Group:
        return Group(
            self._headline(progress), self._meters(progress), *self._events[-_EVENTS_SHOWN:]
        )

    def _headline(self, progress: Progress) -> Text:
        """Give three lines that fit into 80 columns."""
        done = round(_BAR * progress.index / max(1, self._total))
        bar = "█" * done + "░" * (_BAR - done)
        clock = time.strftime("%Y-%m-%d %H:%M", time.gmtime(progress.time_s))
        wide = f"wide-area chain: block {progress.status.wide_height}"
        now = f"{progress.stage}, {clock}" if progress.time_s else progress.stage
        lines = [
            f"{bar} round {progress.index}/{self._total}, {self._elapsed().strip()}",
            f"{now}   {self._votes}",
            f"regional chain: block {progress.height}, witnessed to {self._witnessed}   {wide}",
        ]
        text = Text("\n".join(lines))
        text.stylize("bold", 0, len(lines[0]))
        return text

    def _meters(self, progress: Progress) -> Table:
        table = Table(box=None, padding=(0, 1), show_header=False)
        clusters: dict[str, list[str]] = {}
        for name, meter in progress.meters.items():
            clusters.setdefault(meter.cluster, []).append(name)
        for cluster, names in clusters.items():
            row = Text()
            for name in names:
                settled = self._outcomes.get(name)
                mark, style = _MARKS[settled.outcome] if settled else ("·", "dim")
                online = progress.meters[name].online
                row.append(f"{name} ", "" if online else "dim")
                row.append(f"{mark}  ", style)
            table.add_row(Text(cluster, "bold"), row)
        return table
