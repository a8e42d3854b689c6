"""One owner, one version, our own file, whole transactions; what goes wrong is a StoreError."""

import contextlib
import multiprocessing
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from ledger.genesis import RegionGenesis
from ledger.regional.application import TABLES, RegionalApplication
from ledger.store import Database, StoreError
from ledger.verify import Verifier
from tests.ledger.regional.lab import FIRST, Lab

SIMPLE = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY);"
NOBODY = 65534


def names(database: Database) -> list[str]:
    return [name for (name,) in database.connection.execute("SELECT name FROM things")]


def add(database: Database, name: str) -> None:
    database.connection.execute("INSERT INTO things VALUES (?)", (name,))


def test_second_owner_is_refused_with_a_sentence(tmp_path):
    path = tmp_path / "a.sqlite"
    with Database(path, SIMPLE):
        with pytest.raises(StoreError, match="in use: only one may own it"):
            Database(path, SIMPLE)
    Database(path, SIMPLE).close()


def _try_to_own(path: Path, answers) -> None:
    try:
        Database(path, SIMPLE).close()
        answers.put("owned")
    except StoreError as e:
        answers.put(str(e))


def test_owner_in_another_process_is_refused_until_the_first_lets_go(tmp_path):
    path = tmp_path / "a.sqlite"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()

    def ask() -> str:
        process = context.Process(target=_try_to_own, args=(path, answers))
        process.start()
        answer = answers.get(timeout=30)
        process.join(30)
        return answer

    with Database(path, SIMPLE):
        assert "only one may own it" in ask()
    assert ask() == "owned"
    answers.close()
    answers.join_thread()


def test_readers_come_while_the_owner_writes(tmp_path):
    path = tmp_path / "a.sqlite"
    with Database(path, SIMPLE) as owner:
        with Database(path, SIMPLE, read_only=True) as reader:
            with owner.transaction():
                add(owner, "one")
                assert names(reader) == []
            assert names(reader) == ["one"]
            with pytest.raises(StoreError, match="cannot be written"), reader.transaction():
                add(reader, "two")


def test_reader_of_what_does_not_exist_makes_nothing(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        Database(tmp_path / "a.sqlite", SIMPLE, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_transaction_is_whole_or_not_at_all(tmp_path):
    with Database(tmp_path / "a.sqlite", SIMPLE) as database:
        with contextlib.suppress(ZeroDivisionError), database.transaction():
            add(database, "lost" * (1 // 1))
            add(database, "lost" * (1 // 0))
        with database.transaction():
            add(database, "kept")
        database.begin()
        add(database, "dropped at the end")
    with Database(tmp_path / "a.sqlite", SIMPLE) as database:
        assert names(database) == ["kept"]
        database.rollback()  # nothing to drop is no fault


def test_commit_that_fails_drops_the_transaction(tmp_path):
    tables = "CREATE TABLE IF NOT EXISTS pairs (a INTEGER PRIMARY KEY, b REFERENCES pairs (a)\
 DEFERRABLE INITIALLY DEFERRED);"
    with Database(tmp_path / "a.sqlite", tables) as database:
        database.connection.execute("PRAGMA foreign_keys=ON")
        database.begin()
        database.connection.execute("INSERT INTO pairs VALUES (1, 2)")
        with pytest.raises(StoreError, match="cannot be written"):
            database.commit()
        assert not database.connection.in_transaction
        with database.transaction():
            database.connection.execute("INSERT INTO pairs VALUES (1, 1)")


def test_commits_are_durable_before_they_return(tmp_path):
    with Database(tmp_path / "a.sqlite", SIMPLE) as database:
        assert database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.connection.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("version", [1, 7, -1])
@pytest.mark.parametrize("read_only", [False, True])
def test_another_schema_version_is_refused_and_left_alone(tmp_path, version, read_only):
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute(f"PRAGMA user_version={version}")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"schema version {version}, this program reads 3"):
        Database(path, SIMPLE, read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
def test_database_of_another_program_is_refused_and_left_alone(tmp_path, read_only):
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE photos (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        Database(path, SIMPLE, read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + bytes(90)])
@pytest.mark.parametrize("read_only", [False, True])
def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path, content, read_only):
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError):
        Database(path, SIMPLE, read_only=read_only)
    assert path.read_bytes() == content
    # and whoever was refused holds no lock
    path.unlink()
    Database(path, SIMPLE).close()


def test_empty_file_is_a_new_database_for_an_owner_only(tmp_path):
    path = tmp_path / "a.sqlite"
    path.touch()
    with pytest.raises(StoreError, match="schema version 0"):
        Database(path, SIMPLE, read_only=True)
    Database(path, SIMPLE).close()


def test_schema_that_fails_halfway_leaves_a_file_that_can_be_tried_again(tmp_path):
    path = tmp_path / "a.sqlite"
    with pytest.raises(StoreError):
        Database(path, SIMPLE + " CREATE TABLE (;")
    with Database(path, SIMPLE) as database:
        assert names(database) == []


def test_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "a.sqlite").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        Database(tmp_path / "a.sqlite", SIMPLE)
    with pytest.raises(StoreError, match="does not exist"):
        Database(tmp_path / "a.sqlite", SIMPLE, read_only=True)


def test_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened for writing"):
        Database(tmp_path / "file" / "a.sqlite", SIMPLE)


def test_odd_names_are_paths_and_nothing_else(tmp_path):
    for name in ("a b?mode=memory.sqlite", "100%41.sqlite", "#.sqlite", "ä.sqlite"):
        path = tmp_path / name
        with Database(path, SIMPLE) as database, database.transaction():
            add(database, name)
        assert path.is_file()
        with Database(path, SIMPLE, read_only=True) as reader:
            assert names(reader) == [name]


def in_child(body) -> str:
    """Run a body in a child process without root's rights; gives what it returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            os.write(writer, str(body()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


def test_folder_that_cannot_be_written_is_read_and_not_owned():
    """A copy for the audit, on a medium that takes no lock files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "a.sqlite"
        with Database(path, SIMPLE) as database, database.transaction():
            add(database, "one")
        path.with_suffix(".lock").unlink()
        path.chmod(0o444)
        folder.chmod(0o555)

        def own() -> str:
            try:
                Database(path, SIMPLE)
            except StoreError as e:
                return str(e)
            return "owned"

        def read() -> list[str]:
            with Database(path, SIMPLE, read_only=True) as reader:
                return names(reader)

        assert "cannot be opened for writing: Permission denied" in in_child(own)
        assert in_child(read) == "['one']"
        folder.chmod(0o755)


def test_file_alone_is_whole_after_the_owner_closed_though_a_reader_stays(tmp_path):
    path = tmp_path / "test.sqlite"
    owner = Database(path, SIMPLE)
    add(owner, "one")
    with Database(path, SIMPLE, read_only=True) as reader:
        assert names(reader) == ["one"]
        add(owner, "two")
        owner.close()
        copy = tmp_path / "copy" / "test.sqlite"
        copy.parent.mkdir()
        shutil.copy(path, copy)
    with Database(copy, SIMPLE, read_only=True) as reader:
        assert names(reader) == ["one", "two"]


def test_chain_of_another_genesis_is_refused_and_left_alone(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    lab.honest_round(FIRST)
    before = lab.snapshot()
    lab.database.close()
    other = Lab(name="other")
    with Database(tmp_path / "r.sqlite", TABLES) as database:
        with pytest.raises(StoreError, match="another genesis"):
            RegionalApplication(other.region.genesis, database, Verifier())
    lab.open()
    assert lab.snapshot() == before
    for one in (lab, other):
        one.database.close()


def test_genesis_in_the_store_is_the_one_given(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    assert RegionGenesis.decode(lab.app.blocks.meta("genesis")) == lab.region.genesis
    lab.database.close()


def test_chain_is_not_started_by_a_reader(tmp_path):
    path = tmp_path / "r.sqlite"
    Database(path, TABLES).close()
    lab = Lab()
    with Database(path, TABLES, read_only=True) as reader:
        with pytest.raises(StoreError, match="cannot be written"):
            RegionalApplication(lab.region.genesis, reader, Verifier())
    lab.database.close()


def test_reader_sees_the_chain_as_it_was_committed(tmp_path):
    lab = Lab(path=tmp_path / "r.sqlite")
    lab.honest_round(FIRST)
    with Database(lab.path, TABLES, read_only=True) as reader:
        app = RegionalApplication(lab.region.genesis, reader, Verifier())
        assert app.info() == lab.app.info()
        assert app.state.root() == lab.app.state.root()
    lab.database.close()
