"""Nothing committed is lost and nothing is half, whenever the process dies or the disk fails."""

import os
import random
import signal
import sqlite3

import pytest

from ledger.engine.solo import Solo
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database, StoreError
from ledger.verify import Verifier
from tests.ledger.regional.generate import eventful
from tests.ledger.regional.lab import FIRST, Lab

KILLS = 20
TXS_A_BLOCK = 9


def blocks_of(play) -> list[list[bytes]]:
    txs = [tx for block in play.blocks for tx in block]
    return [txs[i : i + TXS_A_BLOCK] for i in range(0, len(txs), TXS_A_BLOCK)]


def execute_rest(genesis, path, blocks, tell) -> None:
    """Go on from where the database is; tell every height after its block is durable."""
    with Database(path, TABLES) as database:
        node = Solo(RegionalApplication(genesis, database, Verifier()))
        for block in blocks[node.height :]:
            node.execute(block)
            tell(node.height)


def run_and_kill(genesis, path, blocks, reports: int, spin: int) -> tuple[int | None, int]:
    """Kill the child ``spin`` turns after some reports; gives the last height told, its status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            execute_rest(
                genesis, path, blocks, lambda height: os.write(writer, height.to_bytes(4, "big"))
            )
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        told = None
        for _ in range(reports):
            word = pipe.read(4)
            if not word:
                break
            told = int.from_bytes(word, "big")
        for _ in range(spin):
            pass
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while word := pipe.read(4):
            told = int.from_bytes(word, "big")
    return told, status


def test_killed_at_any_moment_nothing_told_is_lost_and_nothing_is_half(tmp_path):
    play = eventful(rounds=30)
    blocks, genesis = blocks_of(play), play.region.genesis
    reference = Solo(RegionalApplication(genesis, Database(None, TABLES), Verifier()))
    hashes = [reference.application.info().last_block_app_hash]
    roots = [reference.application.state.root()]
    for block in blocks:
        hashes.append(reference.execute(block).app_hash)
        roots.append(reference.application.state.root())
    rng = random.Random(2026)
    path = tmp_path / "regional.sqlite"
    killed = 0
    for _ in range(KILLS):
        reports = rng.randrange(1, 2 * len(blocks) // KILLS)
        told, status = run_and_kill(genesis, path, blocks, reports, rng.randrange(60_000))
        killed += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        with Database(path, TABLES) as database:
            app = RegionalApplication(genesis, database, Verifier())
            height = app.info().last_block_height
            assert told is None or told <= height <= told + 1
            assert app.info().last_block_app_hash == hashes[height]
            assert app.state.root() == roots[height]
            check = database.connection.execute("PRAGMA integrity_check").fetchone()
            assert check == ("ok",)
    assert killed >= KILLS // 2
    execute_rest(genesis, path, blocks, lambda _: None)
    with Database(path, TABLES) as database:
        app = RegionalApplication(genesis, database, Verifier())
        assert app.app_hash == play.app.app_hash
        assert app.blocks.state_rows() == play.app.blocks.state_rows()
        assert list(app.blocks.all_results()) == list(play.app.blocks.all_results())
    play.close()


class FaultyConnection:
    """An SQLite connection on which one statement, counted from now, fails."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.left: int | None = None

    def _count(self, sql: str) -> None:
        if self.left is None or sql == "ROLLBACK":
            return
        self.left -= 1
        if self.left == 0:
            self.left = None
            raise sqlite3.OperationalError("disk I/O error")

    def execute(self, sql, *arguments):
        self._count(sql)
        return self._connection.execute(sql, *arguments)

    def executemany(self, sql, rows):
        self._count(sql)
        return self._connection.executemany(sql, rows)

    def __getattr__(self, name):
        return getattr(self._connection, name)


def faulty_lab(tmp_path) -> tuple[Lab, FaultyConnection]:
    lab = Lab(path=tmp_path / "r.sqlite")
    lab.honest_round(FIRST)
    lab.deliver(lab.reading(4, FIRST + 9))
    lab.close(FIRST + 1, lab.reading(0, FIRST + 1))
    connection = FaultyConnection(lab.database.connection)
    lab.database.connection = connection
    lab._start()
    return lab, connection


def busy_block(lab: Lab) -> list[bytes]:
    """Two closes, a window's end, evidence, late votes, a registry change, a waiting record."""
    round_ = FIRST + 2
    fresh = [lab.reading(i, round_) for i in (1, 2)]
    twins = [lab.reading(3, round_), lab.reading(3, round_, power=1)]
    late = lab.reading(0, FIRST + 1)
    votes = lab.ballots(round_, [*fresh, late], voters=[0, 1, 2, 4])
    changes = [lab.leave(i, 1, 2) for i in (0, 1)]
    records_ = [*fresh, *twins, *votes, *changes, lab.reading(1, FIRST + 8)]
    first = [*records_, lab.region.close(round_)]
    return [e.raw for e in (*first, lab.reading(1, FIRST + 4), lab.region.close(FIRST + 4))]


def test_fault_at_any_statement_leaves_the_application_as_before(tmp_path):
    lab, connection = faulty_lab(tmp_path)
    txs = busy_block(lab)
    before = lab.snapshot()
    faults = 0
    while True:
        connection.left = faults + 1
        try:
            result = lab.node.execute(txs)
        except (sqlite3.OperationalError, StoreError):
            faults += 1
            assert lab.snapshot() == before
            continue
        break
    connection.left = None
    assert faults > 30
    assert {tx.code for tx in result.tx_results} == {0}
    # and the block came out as on a node without faults
    (tmp_path / "fine").mkdir()
    fine, _ = faulty_lab(tmp_path / "fine")
    assert fine.node.execute(txs) == result
    assert fine.snapshot() == lab.snapshot()
    lab.database.connection = connection._connection
    lab.reopen()
    assert fine.snapshot() == lab.snapshot()
    for one in (lab, fine):
        one.database.close()


def test_fault_at_any_statement_of_signing_heads_leaves_them_unsigned(tmp_path):
    lab, connection = faulty_lab(tmp_path)
    faults = 0
    while True:
        connection.left = faults + 1
        try:
            signed = lab.app.sign_heads(lab.region.gateways[0])
        except (sqlite3.OperationalError, StoreError):
            faults += 1
            assert not lab.database.connection.in_transaction
            assert lab.app.blocks.head_envelope(1) is None
            continue
        break
    assert (signed, faults) == ([1, 2], 5)
    lab.database.close()


def test_interrupt_right_after_the_commit_keeps_memory_and_disk_together(tmp_path, monkeypatch):
    lab = Lab(path=tmp_path / "r.sqlite")
    lab.honest_round(FIRST)
    commit = lab.database.commit

    def commit_and_interrupt():
        commit()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lab.database, "commit", commit_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            lab.close(FIRST + 1, lab.reading(0, FIRST + 1))
    now = lab.snapshot()
    assert lab.app.last_round == FIRST + 1
    lab.reopen()
    assert lab.snapshot() == now
    lab.close(FIRST + 2, lab.reading(0, FIRST + 2))
    lab.database.close()
