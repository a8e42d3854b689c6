"""A meter's own readings, key and state over restarts; on CPython, with real files."""

import asyncio
from pathlib import Path

import pytest

from firmware.meter import identity
from firmware.meter.journal import Journal, RamJournal
from firmware.meter.keys import KeyRing, rare
from firmware.meter.readings import Readings
from firmware.meter.state import State
from firmware.meter.storage import Cell
from ledger.protocol import cose, p256, records
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadSignature, InvalidKey, MalformedRecord
from tests.firmware.meter import bench

VALUES = bench.values(1)


class Board:
    """A meter's pieces on one flash; `restart` makes them anew."""

    def __init__(self, folder: Path, genesis: bytes = bench.GENESIS) -> None:
        self.folder = str(folder)
        self.genesis = genesis
        self.restart()

    def restart(self) -> None:
        self.identity, self.boot, self.fresh = identity.start(self.folder)
        self.state = State(Cell(self.folder + "/state"), self.genesis)
        self.journal = Journal(self.folder + "/journal", 4)
        self.readings = Readings(
            self.identity, self.genesis[:8], 60, self.boot, self.state, self.journal
        )

    def make(self, round_: int) -> records.Reading:
        made = self.readings.make(round_ * 60, 60, 0, VALUES)
        assert made is not None
        return made[1]

    def newest(self) -> bytes:
        return list(self.journal)[-1][0]


# -------------------------------------------------------------------------- readings


def test_reading_is_signed_and_in_the_journal_before_it_leaves(tmp_path: Path) -> None:
    board = Board(tmp_path)
    made = board.readings.make(6000, 60, records.COVER_OPEN, list(reversed(VALUES)))
    assert made is not None
    envelope, reading = made
    Envelope.parse(envelope.raw).verify(p256.PublicKey(board.identity.public_key))
    assert list(board.journal) == [(envelope.digest, envelope.raw)]
    assert (reading.boot, reading.seq, reading.time) == (1, 1, 6000)
    assert reading.values == VALUES
    assert reading.flags == records.COVER_OPEN


def test_readings_count_and_chain(tmp_path: Path) -> None:
    board = Board(tmp_path)
    previous = records.NO_DIGEST
    for seq in (1, 2, 3):
        reading = board.make(seq)
        assert (reading.seq, reading.previous) == (seq, previous)
        previous = board.newest()


def test_restart_counts_boots_and_chains_on_from_the_journal(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.make(1)
    newest = board.newest()
    board.restart()
    reading = board.make(2)
    assert (reading.boot, reading.seq, reading.previous) == (2, 1, newest)


def test_restart_chains_on_from_the_state_where_the_journal_is_empty(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.make(1)
    newest = board.newest()
    board.state.save()
    board.journal.remove(newest)
    board.journal.sync()
    board.restart()
    assert board.make(2).previous == newest


def test_round_has_one_reading_also_after_a_restart(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.make(5)
    assert board.readings.make(5 * 60 + 59, 60, 0, VALUES) is None
    board.restart()
    assert board.readings.make(5 * 60 + 30, 60, 0, VALUES) is None
    assert board.readings.make(4 * 60, 60, 0, VALUES) is None
    assert board.make(6).seq == 1


def test_dropped_readings_are_counted_in_the_next(tmp_path: Path) -> None:
    board = Board(tmp_path)
    lost = [board.make(round_).lost for round_ in range(1, 8)]
    # capacity 4: the fifth pushes out the first, which the sixth tells
    assert lost == [0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("values", [[], [(1, 230_000), (1, 230_000)], [(99, 1)], [(1, 1 << 70)]])
def test_sample_that_makes_no_record_is_refused_and_not_counted(
    values: list[tuple[int, int]],
) -> None:
    state = State(_NoCell(), bench.GENESIS)
    readings = Readings(bench.ALICE, bench.CHAIN, 60, 1, state, RamJournal(4))
    with pytest.raises((MalformedRecord, ValueError)):
        readings.make(60, 60, 0, values)
    made = readings.make(60, 60, 0, VALUES)
    assert made is not None
    assert made[1].seq == 1


class _NoCell:
    damaged = False

    def read(self) -> bytes | None:
        return None


# -------------------------------------------------------------------------- identity


def test_key_is_made_once_and_boots_are_counted(tmp_path: Path) -> None:
    first, boot, fresh = identity.start(str(tmp_path))
    again, next_boot, still_fresh = identity.start(str(tmp_path))
    assert (boot, fresh, next_boot, still_fresh) == (1, True, 2, False)
    assert first.public_key == again.public_key
    assert identity.next_boot(str(tmp_path)) == 3


def test_two_boards_have_two_keys(tmp_path: Path) -> None:
    keys = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keys.add(identity.start(str(tmp_path / name))[0].address)
    assert len(keys) == 2


def test_lost_boot_counter_means_a_new_key(tmp_path: Path) -> None:
    first = identity.start(str(tmp_path))[0]
    for path in tmp_path.glob("boot*"):
        path.unlink()
    second, boot, fresh = identity.start(str(tmp_path))
    assert (boot, fresh) == (1, True)
    assert second.address != first.address


def test_rotten_boot_counter_means_a_new_key(tmp_path: Path) -> None:
    first = identity.start(str(tmp_path))[0]
    for path in tmp_path.glob("boot*"):
        path.write_bytes(b"rotten")
    second, _, fresh = identity.start(str(tmp_path))
    assert fresh
    assert second.address != first.address
    assert identity.start(str(tmp_path))[0].address == second.address


def test_secret_out_of_range_is_drawn_again() -> None:
    drawn = [bytes(32), b"\xff" * 32, (5).to_bytes(32, "big")]
    assert identity.make_secret(lambda n: drawn.pop(0)) == (5).to_bytes(32, "big")


def test_enrolment_is_signed_by_the_key_that_it_names() -> None:
    envelope = bench.ALICE.enrolment(bench.CHAIN, "unix")
    request = records.decode(envelope.payload)
    assert cose.address_of(request.public_key) == envelope.kid
    envelope.verify(p256.PublicKey(request.public_key))
    assert request.hardware == "unix"


def test_derived_secrets_differ_by_purpose_and_board() -> None:
    found = {one.derive(purpose) for one in (bench.ALICE, bench.BOB) for purpose in (b"a", b"b")}
    assert len(found) == 4


# ------------------------------------------------------------------------------ state


def test_state_comes_back_after_a_restart(tmp_path: Path) -> None:
    state = State(Cell(str(tmp_path / "s")), bench.GENESIS)
    assert state.may_vote(0)
    state.head, state.ballot_round, state.reading_round = (7, b"h" * 32), 41, 42
    state.previous = b"p" * 32
    state.save()
    again = State(Cell(str(tmp_path / "s")), bench.GENESIS)
    assert (again.head, again.ballot_round, again.reading_round) == ((7, b"h" * 32), 41, 42)
    assert again.previous == b"p" * 32
    assert not again.may_vote(41)
    assert again.may_vote(42)


def test_state_of_another_region_does_not_count(tmp_path: Path) -> None:
    state = State(Cell(str(tmp_path / "s")), bench.GENESIS)
    state.head, state.ballot_round = (7, b"h" * 32), 41
    state.save()
    again = State(Cell(str(tmp_path / "s")), bytes(32))
    assert again.moved
    assert (again.head, again.ballot_round) == (None, -1)


def test_rotten_state_leaves_out_one_ballot_rather_than_giving_two(tmp_path: Path) -> None:
    state = State(Cell(str(tmp_path / "s")), bench.GENESIS)
    for round_ in (41, 42):
        state.ballot_round = round_
        state.save()
    newest = max(tmp_path.iterdir(), key=lambda path: path.read_bytes()[:4])
    newest.write_bytes(b"rotten")
    again = State(Cell(str(tmp_path / "s")), bench.GENESIS)
    assert not again.may_vote(42)
    assert again.may_vote(43)


# ------------------------------------------------------------------------------- keys


def test_key_table_is_kept_and_used_again(tmp_path: Path) -> None:
    folder = str(tmp_path / "keys")
    envelope = bench.ALICE.enrolment(bench.CHAIN, "unix")
    for _ in range(2):
        ring = KeyRing(folder, bytes(32))
        asyncio.run(ring.get(bench.ALICE.public_key)).verify(envelope.digest, envelope.signature)
    assert len(list(Path(folder).iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40])
def test_damaged_or_foreign_table_is_built_anew(tmp_path: Path, damage: bytes) -> None:
    folder = tmp_path / "keys"
    ring = KeyRing(str(folder), bytes(32))
    asyncio.run(ring.get(bench.ALICE.public_key))
    (path,) = folder.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage)
    envelope = bench.ALICE.enrolment(bench.CHAIN, "unix")
    key = asyncio.run(KeyRing(str(folder), bytes(32)).get(bench.ALICE.public_key))
    key.verify(envelope.digest, envelope.signature)
    assert path.read_bytes() == good
    asyncio.run(KeyRing(str(folder), b"other board's secret".ljust(32)).get(bench.ALICE.public_key))
    assert path.read_bytes() != good


def test_bytes_that_are_no_key_are_refused(tmp_path: Path) -> None:
    ring = KeyRing(str(tmp_path / "keys"), bytes(32))
    with pytest.raises(InvalidKey):
        asyncio.run(ring.get(bytes(33)))
    with pytest.raises(InvalidKey):
        asyncio.run(rare(bytes(33)))


def test_keys_that_are_not_needed_are_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    ring = KeyRing(str(folder), bytes(32))
    for one in (bench.ALICE, bench.BOB):
        asyncio.run(ring.get(one.public_key))
    ring.keep_only([bench.BOB.public_key])
    assert [path.name for path in folder.iterdir()] == [bench.BOB.address.hex()]


def test_rare_key_verifies_too() -> None:
    envelope = bench.ALICE.enrolment(bench.CHAIN, "unix")
    key = asyncio.run(rare(bench.ALICE.public_key))
    key.verify(envelope.digest, envelope.signature)
    with pytest.raises(BadSignature):
        key.verify(envelope.digest, bytes(63) + b"\x01")
