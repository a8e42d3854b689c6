"""What a reader sees of a ledger is what its blocks hold."""

import pytest

from ledger.protocol import records, tally
from ledger.protocol.errors import MalformedRecord
from ledger.regional.blocks import record_id
from ledger.regional.view import LedgerView
from ledger.store import StoreError
from tests.ledger.regional.generate import ROUND_S
from tests.ledger.regional.lab import FIRST, Lab

ACCEPT, REJECT = records.ACCEPT, records.REJECT_VOLTAGE


@pytest.fixture
def lab(tmp_path):
    """Three rounds: all accepted; meter 0 rejected by the others; meter 1 settled a round late."""
    lab = Lab(5, path=tmp_path / "regional.sqlite")
    lab.honest_round(FIRST)
    readings = [lab.reading(i, FIRST + 1) for i in range(5)]
    lab.false = readings[0]
    votes = [(e, REJECT if e is lab.false else ACCEPT) for e in readings]
    lab.close(FIRST + 1, *readings, *[lab.ballot(i, FIRST + 1, votes) for i in range(5)])
    lab.slow = lab.reading(1, FIRST + 2)
    lab.close(FIRST + 2, lab.slow, *lab.ballots(FIRST + 2, [lab.slow], voters=[2]))
    lab.close(FIRST + 3, *lab.ballots(FIRST + 3, [lab.slow], voters=[0, 3]))
    return lab


@pytest.fixture
def view(lab):
    view = LedgerView(lab.path, ROUND_S)
    yield view
    view.close()


def test_readings_come_by_block_with_their_newest_outcome(lab, view):
    found = list(view.readings())
    assert [r.height for r in found] == [1] * 5 + [2] * 5 + [3]
    outcomes = {r.digest: r.outcome for r in found}
    assert outcomes[lab.false.digest] == tally.REJECTED
    assert outcomes[lab.slow.digest] == tally.ACCEPTED
    assert list(outcomes.values()).count(tally.ACCEPTED) == 10
    (slow,) = view.block_readings(3)
    assert (slow.address, slow.round) == (lab.slow.kid, FIRST + 2)
    assert (slow.drawn, slow.accepts, slow.rejects, slow.abstains) == (4, 3, 0, 0)


def test_newest_readings_of_a_meter_come_first_and_are_no_more_than_asked_for(lab, view):
    address = lab.slow.kid
    assert [r.height for r in view.readings_of(address, 2)] == [3, 2]
    assert [r.height for r in view.readings_of(address, 9)] == [3, 2, 1]
    assert view.readings_of(bytes(16), 9) == []


def test_votes_on_a_late_reading_are_told_up_to_the_block_that_settled_it(lab, view):
    (slow,) = view.block_readings(3)
    addresses = [meter.address for meter in lab.region.meters]
    votes = {(v.voter, v.verdict, v.height) for v in view.votes_on(slow)}
    assert votes == {
        (addresses[2], ACCEPT, 3),
        (addresses[0], ACCEPT, 4),
        (addresses[3], ACCEPT, 4),
    }


def test_votes_on_an_open_reading_are_told_up_to_the_newest_block(lab):
    open_ = lab.reading(2, FIRST + 4)
    lab.close(FIRST + 4, open_, *lab.ballots(FIRST + 4, [open_], voters=[0]))
    lab.close(FIRST + 5, *lab.ballots(FIRST + 5, [open_], voters=[1]))
    view = LedgerView(lab.path, ROUND_S)
    settled = view.reading_that_starts(open_.digest.hex())
    assert settled is not None
    assert settled.outcome == tally.OPEN
    assert [v.height for v in view.votes_on(settled)] == [5, 6]
    view.close()


def test_reading_is_found_by_16_or_more_digits_of_its_digest(lab, view):
    digits = lab.slow.digest.hex()
    for length in (16, 17, 64):
        found = view.reading_that_starts(digits[:length])
        assert found is not None
        assert found.digest == lab.slow.digest
    other = digits[:16] + ("0" if digits[16] != "0" else "1")
    assert view.reading_that_starts(other) is None
    assert view.reading_that_starts("0" * 16) is None


def test_ballots_of_a_block_are_counted_by_verdict(view):
    count = view.count_ballots(2)
    assert count.ballots == 5
    assert count.verdicts == {ACCEPT: 20, REJECT: 5}
    assert view.count_ballots(3).verdicts == {ACCEPT: 1}


def test_members_and_witnessed_height_are_the_applications(lab, view):
    assert view.witnessed() == lab.app.state.registry.witnessed > 0
    assert view.state().root() == lab.app.state.root()


def test_view_follows_a_ledger_that_goes_on(lab, view):
    lab.honest_round(FIRST + 4)
    assert view.blocks.height() == 5
    assert len(list(view.block_readings(5))) == 5


def test_absent_ledger_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        LedgerView(tmp_path / "absent.sqlite", ROUND_S)


def test_reading_without_an_outcome_is_a_store_error(lab, view):
    lab.database.connection.execute("DELETE FROM results WHERE id=?", (record_id(3, 0),))
    with pytest.raises(StoreError, match="record 0 of block 3 has no outcome"):
        list(view.readings())


def test_stored_record_that_is_none_is_malformed(lab, view):
    sql = lab.database.connection
    column = sql.execute("SELECT * FROM records").description[1][0]
    sql.execute(f"UPDATE records SET {column}=? WHERE id=?", (b"?", record_id(3, 0)))
    with pytest.raises(MalformedRecord):
        list(view.readings())
