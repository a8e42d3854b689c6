"""A region that four gateways serve, each with a broker and a node of its own; real everything."""

import shutil

import pytest

from hil import micropython
from hil.report import make_report
from hil.session import Session
from hil.sites import SeveralGateways
from ledger.audit import audit
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from ledger.regional.blocks import TABLES, Blocks
from ledger.store import Database
from tests.cometbft import needs_cometbft
from tests.hil.test_session import plan, play, processes_below

try:
    micropython.interpreter()
    pytestmark = needs_cometbft
except micropython.InterpreterNotFoundError as missing:
    pytestmark = pytest.mark.skip(reason=str(missing))

_ROUNDS = 8
_KILLED, _BACK = 2, 4


def heads_of(directory: RegionDirectory) -> list[bytes]:
    with Database(directory.regional, TABLES, read_only=True) as database:
        blocks = Blocks(database)
        return [blocks.head_payload(h) or b"" for h in range(1, blocks.height() + 1)]


def signers_of(directory: RegionDirectory) -> set[bytes]:
    with Database(directory.regional, TABLES, read_only=True) as database:
        blocks = Blocks(database)
        raws = [blocks.head_envelope(h) for h in range(1, blocks.height() + 1)]
    return {Envelope.parse(raw).kid for raw in raws if raw is not None}


def test_a_site_that_loses_power_costs_no_reading_and_comes_back_to_the_same_heads(tmp_path):
    async def lose_and_return(index, session):
        assert isinstance(session.sites, SeveralGateways)
        if index == _KILLED:
            await session.sites.kill("gw-1")
        if index == _BACK:
            await session.sites.bring_back("gw-1")

    session = Session(plan(tmp_path, _ROUNDS, gateways=4, script=lose_and_return))
    play(session)

    assert isinstance(session.sites, SeveralGateways)
    directories = [session.sites.directory_of(name) for name in session.sites.names]
    heads = [heads_of(directory) for directory in directories]
    longest = max(heads, key=len)
    assert len(longest) >= _ROUNDS
    assert all(own == longest[: len(own)] for own in heads)
    # the rig stops all sites as soon as one has told of the last block
    assert all(len(own) >= _ROUNDS - 1 for own in heads[1:])
    assert len(heads[0]) > _BACK
    # not even while it lay behind did the one that came back refuse what the others took
    counters = session.sites.status.counters
    assert not [name for name in counters if name.startswith("rejected")], counters
    assert len({frozenset(signers_of(directory)) for directory in directories}) == 4
    report = make_report(session)
    found = report.readings
    assert (found["published"], found["rejected"]) == (4 * _ROUNDS, 0)
    assert found["accepted"] + found["unconfirmed"] == 4 * _ROUNDS
    # Nobody hears anybody while the brokers agree anew: votes on the readings of that one round may
    # be missing.
    assert found["accepted"] >= 4 * (_ROUNDS - 1)
    for directory in directories:
        audited = audit(directory)
        assert audited.ok, str(audited.failure)
    assert not processes_below(tmp_path)
    shutil.rmtree(tmp_path)
