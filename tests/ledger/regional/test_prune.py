"""A pruned node goes on as a full one and still proves old heads (SPEC 11.4, 11.10)."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.engine.solo import Solo
from ledger.genesis import Parameters
from ledger.protocol import merkle, messages, records, rounds
from ledger.protocol.cose import Envelope, payload_digest
from ledger.regional import codes, prune
from ledger.regional.application import TABLES, RegionalApplication
from ledger.regional.blocks import record_id
from ledger.snapshot import Snapshots
from ledger.store import Database
from ledger.verify import Verifier
from tests.ledger.regional.generate import Play, eventful
from tests.ledger.regional.lab import FIRST, Lab

SKIPPED = 4200


@pytest.fixture(autouse=True)
def step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "_LEAST_STEP", 1)


@pytest.fixture
def play() -> Iterator[Play]:
    """Rounds in which everything happens, long ago, and a few now."""
    play = eventful(rounds=33, gateways=2, validators=2)
    play.play()
    # the last readings of long ago have no majority: they are settled now
    stay = play.region.meters[:3]
    late = [play.region.reading(meter, play.round) for meter in stay]
    play.execute([*late, *play.region.majority(play.round)])
    play.round += SKIPPED
    play.play()
    play.play()
    yield play
    play.close()


def copy(play: Play, path: Path) -> RegionalApplication:
    play.database.connection.execute("VACUUM INTO ?", [str(path)])
    return RegionalApplication(play.region.genesis, Database(path, TABLES), Verifier())


def test_bodies_go_and_heads_history_state_stay(play: Play, tmp_path: Path) -> None:
    app = copy(play, tmp_path / "pruned.sqlite")
    height = app.height
    assert app.prune(1 << 30) == height - 1
    assert app.blocks.first_body() == height - 1
    for number in range(1, height + 1):
        assert app.blocks.head_payload(number) == play.app.blocks.head_payload(number)
        if number < height:
            bridge = (number, app.bridge(number, height))
            digest = payload_digest(app.blocks.head(number).payload())
            messages.verify_extends(app.blocks.head(height), number, digest, bridge)
    assert app.blocks.state_rows() == play.app.blocks.state_rows()
    assert app.blocks.windows_after(0) == play.app.blocks.windows_after(0)
    sql = app._database.connection
    for table in ("slots", "digests"):
        (least,) = sql.execute(f"SELECT min(id) FROM {table}").fetchone()
        assert least >= record_id(height - 1, 0)
    (least,) = sql.execute("SELECT min(height) FROM results").fetchone()
    assert least == height - 1
    for number in (height - 1, height):
        assert app.blocks.records_of(number) == play.app.blocks.records_of(number)
    app.close()


def test_operators_records_stay_and_can_be_proved(play: Play, tmp_path: Path) -> None:
    app = copy(play, tmp_path / "pruned.sqlite")
    app.prune(1 << 30)
    kept = app.blocks.kept_records(1, app.blocks.first_body())
    assert len(kept) == 4
    for id_, raw in kept:
        height, index = id_ >> 20, id_ & 0xFFFFF
        head = app.blocks.head(height)
        digest = Envelope.parse(raw).digest
        path = prune.path_of(app.blocks, height, id_)
        merkle.verify_inclusion(head.records_root, digest, index, head.record_count, path)
    app.close()


def test_result_of_a_reading_that_went_names_it(play: Play, tmp_path: Path) -> None:
    app = copy(play, tmp_path / "pruned.sqlite")
    app.prune(1 << 30)
    first = app.blocks.first_body()
    named = [row for row in app.blocks.results_from(first) if row[0] < record_id(first, 0)]
    assert named
    for row in named:
        assert row[-1] == play.app.blocks.digest_of(row[0])
    app.close()


def test_nothing_within_the_horizon_is_pruned(play: Play, tmp_path: Path) -> None:
    app = copy(play, tmp_path / "pruned.sqlite")
    for round_ in (play.round, play.round + rounds.EPOCH_ROUNDS):
        app.prune(1 << 30)
        for height in range(1, app.height + 1):
            whole = height >= app.blocks.first_body()
            assert (
                app.blocks.head(height).round >= app.last_round - rounds.EPOCH_ROUNDS or not whole
            )
            assert len(app.blocks.records_of(height)) == app.blocks.head(height).record_count or (
                not whole
            )
        Solo(app).execute([envelope.raw for envelope in play.region.majority(round_)])
    app.close()


def test_few_blocks_wait_for_the_next_time(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "_LEAST_STEP", 64)
    app = copy(play, tmp_path / "pruned.sqlite")
    assert app.prune(1 << 30) == 1
    app.close()


def old_and_new(play: Play, rng: random.Random) -> list[bytes]:
    """Records of long ago again, second payloads for old and new slots, and a round of today."""
    region = play.region
    old = [tx for block in play.blocks for tx in block]
    txs = rng.sample(old, 25)
    for meter in rng.sample(region.meters, 3):
        boot, seq = rng.choice([(meter.boot, rng.randrange(1, meter.seq + 1)), (1, 3)])
        before, meter.boot = meter.boot, boot
        txs.append(region.reading(meter, play.round, seq=seq, power_w=rng.randrange(9)).raw)
        meter.boot = before
    for meter in rng.sample(region.meters, 3):
        parent = play.app.blocks.head(rng.randrange(1, play.app.height + 1)).payload()
        round_ = rng.randrange(FIRST, play.round + 1)
        txs.append(region.ballot(meter, round_, payload_digest(parent), []).raw)
    head = play.app.blocks.head(rng.randrange(1, play.app.height + 1))
    if rng.random() < 0.2:
        head.records_root = bytes(32)
    txs.append(region.gateways[0].seal(head.payload()).raw)
    rng.shuffle(txs)
    return txs


@pytest.mark.parametrize("seed", range(4))
def test_pruned_restored_and_full_nodes_stay_equal(play: Play, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pruned = copy(play, tmp_path / "pruned.sqlite")
    pruned.prune(1 << 30)
    database = Database(tmp_path / "restored.sqlite", TABLES)
    restored = RegionalApplication(play.region.genesis, database, Verifier())
    snapshots = Snapshots(tmp_path / "snapshots", restored)
    snapshot = Snapshots(tmp_path / "snapshots", pruned).take()
    assert snapshots.offer(snapshot, pruned.app_hash) == 1
    for index in range(snapshot.chunks):
        chunk = snapshots.load(snapshot.height, snapshot.format, index)
        assert snapshots.apply(index, chunk, "").result == 1
    kinds = set()
    for step in range(12):
        txs = old_and_new(play, rng)
        if step == 6:
            play.round += SKIPPED
        for meter in play.active():
            txs.append(play.region.reading(meter, play.round).raw)
        txs += [envelope.raw for envelope in play.region.majority(play.round)]
        play.blocks.append(txs)
        full = play.node.execute(txs)
        play.round += 1
        for app in (pruned, restored):
            assert Solo(app).execute(txs) == full
            app.prune(1 << 30)
        kinds |= {result.code for result in full.tx_results}
        assert pruned.state.root() == restored.state.root() == play.app.state.root()
    assert {codes.OK, codes.DUPLICATE, codes.STALE} <= kinds
    assert pruned.blocks.windows_after(snapshot.height) == play.app.blocks.windows_after(
        snapshot.height
    )
    # and from each of them the same snapshot is taken
    made = {
        Snapshots(tmp_path / str(number), app).take()
        for number, app in enumerate((pruned, restored))
    }
    assert len(made) == 1
    for app in (pruned, restored):
        app.close()


def test_second_payload_for_a_slot_beyond_the_horizon_is_stale_on_a_full_node() -> None:
    lab = Lab()
    lab.close(FIRST, lab.reading(0, FIRST))
    twin = lab.reading(0, FIRST, power=7)
    again = lab.reading(0, FIRST)
    depth = rounds.EPOCH_ROUNDS
    lab.close(FIRST + depth)
    assert lab.node.check_tx(twin.raw).code == codes.OK
    assert lab.node.check_tx(again.raw).code == codes.DUPLICATE
    lab.close(FIRST + depth + 1)
    assert lab.node.check_tx(twin.raw).code == codes.STALE
    assert lab.node.check_tx(again.raw).code == codes.STALE
    lab.reopen()
    assert lab.node.check_tx(twin.raw).code == codes.STALE
    lab.database.close()


def test_horizon_reaches_as_far_as_readings_stay_open() -> None:
    lab = Lab(parameters=Parameters(60, 11, 6000, 5))
    reading = lab.reading(0, FIRST)
    lab.close(FIRST, reading)
    lab.close(FIRST + 5000)
    assert lab.app.prune(1 << 30) == 1
    lab.close(FIRST + 5001, *lab.ballots(FIRST + 5001, [reading], records.ACCEPT, range(1, 5)))
    assert lab.outcome(reading) == 1
    lab.database.close()
