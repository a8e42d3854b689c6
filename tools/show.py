"""``gridwitness show DIR``: a region's ledger for people, or for machines with ``--json``."""

import argparse
import json
import sqlite3
import sys
import time
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ledger.genesis import RegionGenesis
from ledger.protocol import quantities, records, tally
from ledger.protocol.errors import MalformedRecord
from ledger.region import RegionDirectory, RegionError
from ledger.regional.aggregate import Aggregate
from ledger.regional.blocks import place_of
from ledger.regional.state import Member
from ledger.regional.view import LedgerView, SettledReading
from ledger.store import StoreError
from tools.errors import CommandError
from tools.member import find_member
from tools.options import PipeConsole, named_path

_NEWEST = 10
_PIPE_WIDTH = 160
# what a table shows of an address or digest: enough to be given back to --meter and --reading
_SHORT = {"address": 12, "meter": 12, "voter": 12, "digest": 16}

Data = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("dir", type=named_path, metavar="DIR", help="folder of the region")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--meter", metavar="A", help="one member: its address, or the start of it")
    what.add_argument("--block", type=int, metavar="H", help="one block: its height")
    what.add_argument("--reading", metavar="DIGEST", help="one reading: 16 or more hex digits")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Show; raises CommandError."""
    directory = RegionDirectory(options.dir.absolute())
    try:
        genesis = directory.load_genesis()
        if not directory.regional.exists():
            raise CommandError(
                f"{genesis.name} has no ledger yet: the gateway makes {directory.regional} "
                "when it first starts"
            )
        ledger = LedgerView(directory.regional, genesis.parameters.round_s)
    except (RegionError, StoreError) as e:
        raise CommandError(str(e)) from e
    try:
        data = _collect(options, genesis, ledger)
    except (StoreError, MalformedRecord, LookupError, sqlite3.Error) as e:
        raise CommandError(f"{directory.regional} is damaged ({e}): gridwitness audit") from e
    finally:
        ledger.close()
    if options.json:
        print(json.dumps(data, indent=2))
    else:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        _print(PipeConsole(width=width), data)
    return 0


def _collect(options: argparse.Namespace, genesis: RegionGenesis, ledger: LedgerView) -> Data:
    if options.meter is not None:
        return _meter(ledger, options.meter)
    if options.block is not None:
        return _block(ledger, options.block)
    if options.reading is not None:
        return _reading(ledger, options.reading)
    return _region(genesis, ledger)


# gathering


def _region(genesis: RegionGenesis, ledger: LedgerView) -> Data:
    state = ledger.state()
    height = ledger.blocks.height()
    newest = range(height, max(0, height - _NEWEST), -1)
    return {
        "region": {
            "name": genesis.name,
            "id": genesis.chain.hex(),
            "genesis": genesis.digest.hex(),
            "height": height,
            "witnessed": state.registry.witnessed,
            "operators": len(genesis.operators),
            "threshold": genesis.threshold,
            "open readings": len(state.open),
        },
        "members": [_member(a, m) for a, m in sorted(state.members.items())],
        "blocks": [_block_line(ledger, h) for h in newest],
        "alarms": _alarms(ledger),
        "summaries": [_summary(to, blob) for to, blob in ledger.blocks.windows_after(0)][-_NEWEST:],
    }


def _member(address: bytes, member: Member) -> Data:
    status = "active"
    if member.suspended:
        status = f"suspended from round {member.active_until}"
    elif member.active_until is not None:
        status = f"left at round {member.active_until}"
    return {
        "address": address.hex(),
        "cluster": member.cluster,
        "status": status,
        "boot": member.boot,
        "seq": member.seq,
        "missing": sum(last - first + 1 for _, first, last in member.gaps if last < 0xFFFFFFFF),
        "named head": member.named_height,
    }


def _block_line(ledger: LedgerView, height: int) -> Data:
    head = ledger.blocks.head(height)
    outcomes = [tally.OUTCOME_NAMES[r.outcome] for r in ledger.block_readings(height)]
    line: Data = {"height": height, "round": head.round, "time": _time(head.time)}
    line["records"] = head.record_count
    for name in tally.OUTCOME_NAMES.values():
        line[name] = outcomes.count(name)
    return line


def _alarms(ledger: LedgerView) -> list[Data]:
    """Give readings with two payloads for one slot, and who is suspended."""
    found = []
    for row in ledger.blocks.all_results():
        if row[2] == tally.EQUIVOCATED:
            height, index = place_of(row[0])
            settled = next(r for r in ledger.block_readings(height) if r.index == index)
            found.append({"alarm": "equivocation", **_reading_line(settled)})
    for address, member in sorted(ledger.state().members.items()):
        if member.suspended:
            since = {"alarm": "suspended", "meter": address.hex(), "round": member.active_until}
            found.append(since)
    return found


def _summary(to_height: int, blob: bytes) -> Data:
    a = Aggregate.decode(blob)
    return {
        "heights": f"{a.from_height}-{to_height}",
        "energy in Wh": a.energy_in / 1000,
        "energy out Wh": a.energy_out / 1000,
        "voltage V": None if a.voltage is None else [v / 1000 for v in a.voltage],
        "accepted": a.accepted,
        "rejected": a.rejected,
        "unconfirmed": a.unconfirmed,
        "alarms": a.alarms,
    }


def _reading_line(settled: SettledReading) -> Data:
    return {
        "digest": settled.digest.hex(),
        "meter": settled.address.hex(),
        "block": settled.height,
        "round": settled.round,
        "boot": settled.reading.boot,
        "seq": settled.reading.seq,
        "outcome": tally.OUTCOME_NAMES[settled.outcome],
        "votes": f"{settled.accepts} accept, {settled.rejects} reject of {settled.drawn}",
    }


def _meter(ledger: LedgerView, start: str) -> Data:
    address, member = find_member(ledger.state(), start)
    newest = ledger.readings_of(address, _NEWEST)
    return {
        "member": {**_member(address, member), "public key": member.public_key.hex()},
        "readings": [_reading_line(settled) for settled in newest],
    }


def _block(ledger: LedgerView, height: int) -> Data:
    newest = ledger.blocks.height()
    if not 1 <= height <= newest:
        blocks = f"blocks 1 to {newest}" if newest else "no blocks yet"
        raise CommandError(f"--block {height}: the chain has {blocks}")
    head = ledger.blocks.head(height)
    ballots = [
        {
            "voter": voter.hex(),
            "round": ballot.round,
            "accepts": sum(v == records.ACCEPT for _, v in ballot.verdicts),
            "rejects": sum(records.is_reject(v) for _, v in ballot.verdicts),
            "abstains": sum(v == records.ABSTAIN for _, v in ballot.verdicts),
        }
        for voter, ballot in ledger.ballots(height)
    ]
    return {
        "head": {
            "height": head.height,
            "round": head.round,
            "time": _time(head.time),
            "prev": head.previous.hex(),
            "records root": head.records_root.hex(),
            "records": head.record_count,
            "results root": head.results_root.hex(),
            "state root": head.state_root.hex(),
            "history root": head.history_root.hex(),
        },
        "readings": [_reading_line(settled) for settled in ledger.block_readings(height)],
        "ballots": ballots,
    }


def _reading(ledger: LedgerView, text: str) -> Data:
    start = text.lower()
    if not 16 <= len(start) <= 64 or set(start) - set("0123456789abcdef"):
        raise CommandError(f"--reading {text}: give 16 to 64 hex digits of a digest")
    settled = ledger.reading_that_starts(start)
    if settled is None:
        raise CommandError(f"--reading {text}: no reading in this ledger has this digest")
    values = {}
    for code, value in settled.reading.values:
        quantity = quantities.BY_CODE[code]
        values[f"{quantity.name} ({quantity.obis})"] = f"{value / 1000:.3f} {quantity.unit}"
    votes = [
        {
            "voter": vote.voter.hex(),
            "verdict": records.VERDICT_NAMES.get(vote.verdict, str(vote.verdict)),
            "block": vote.height,
        }
        for vote in ledger.votes_on(settled)
    ]
    line = {**_reading_line(settled), "time": _time(settled.reading.time)}
    line["simulated input"] = bool(settled.reading.flags & records.SIMULATED_INPUT)
    return {"reading": line, "values": values, "votes": votes}


def _time(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))


# printing


def _print(console: Console, data: Data) -> None:
    for title, part in data.items():
        if isinstance(part, dict):
            _print_pairs(console, title, part)
        elif part:
            _print_rows(console, title, part)
        else:
            console.print(f"{title}: none")


def _print_pairs(console: Console, title: str, pairs: Data) -> None:
    table = Table(title=title, show_header=False, title_justify="left", box=SIMPLE)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, str(value))
    console.print(table)


def _print_rows(console: Console, title: str, rows: list[Data]) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*[_cell(row.get(name))[: _SHORT.get(name)] for name in names])
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(str(item) for item in value)
    return str(value)
