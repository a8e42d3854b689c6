"""One node's two processes: both run, or both are stopped, in order, and it is said why."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway import supervisor as module
from gateway.supervisor import AlreadyRunning, BoundedLog, Phase, Supervisor

LIMIT_S = 20
# an application that listens and tells when it is asked to end
APPLICATION = """
import signal, socket, sys, time
listener = socket.socket(socket.AF_UNIX); listener.bind("app.sock"); listener.listen()
def end(*_):
    open("order", "a").write("application ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(0.01)
"""
ENGINE = """
import signal, sys, time
def end(*_):
    open("order", "a").write("engine ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("engine runs", flush=True)
while True:
    time.sleep(0.01)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


class Node:
    """A supervisor over two scripts, and what it says."""

    def __init__(self, folder: Path, application: str = APPLICATION, engine: str = ENGINE) -> None:
        self.said: list[str] = []
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.logs = (folder / "application.log", folder / "comet.log")
        self.supervisor = Supervisor(
            "n1",
            folder,
            application=python(application),
            engine=python(engine),
            socket_path=folder / "app.sock",
            logs=self.logs,
            say=self.said.append,
        )

    def until(self, condition) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, (self.supervisor.phase, self.said)
            self.supervisor.step()
            time.sleep(0.01)

    def run(self) -> None:
        self.until(lambda: self.logs[1].exists() and b"runs" in self.logs[1].read_bytes())

    def end(self) -> None:
        self.supervisor.stop()
        self.until(lambda: self.supervisor.phase is Phase.ENDED)


def test_engine_starts_once_the_application_listens_and_ends_before_it(tmp_path):
    node = Node(tmp_path)
    node.run()
    node.supervisor.stop()
    node.supervisor.stop()  # a second Ctrl-C
    node.end()
    assert (tmp_path / "order").read_text() == "engine application "
    assert node.supervisor.exit_code == 0
    assert node.said == []


@pytest.mark.parametrize("which", [0, 1])
def test_when_either_is_killed_the_other_is_stopped_and_it_is_said(tmp_path, which):
    node = Node(tmp_path)
    node.run()
    pids = node.supervisor.processes
    os.kill(pids[which], signal.SIGKILL)
    node.until(lambda: node.supervisor.phase is Phase.ENDED)
    assert node.supervisor.exit_code == 1
    who = ("its application", "CometBFT")[which]
    assert node.said[0].startswith(f"n1: {who} has ended (SIGKILL); the last of ")
    left = ("engine ", "application ")[which]
    assert (tmp_path / "order").read_text() == left


def test_the_last_lines_of_who_ended_are_told(tmp_path):
    node = Node(tmp_path, application="import sys; sys.exit('wide-genesis.cbor is not there')")
    node.until(lambda: node.supervisor.phase is Phase.ENDED)
    assert "exit code 1" in node.said[0]
    assert "    wide-genesis.cbor is not there" in node.said[0]
    assert not node.logs[1].exists(), "CometBFT was started without an application"


def test_wrong_files_of_the_application_are_told_from_other_ends(tmp_path):
    node = Node(tmp_path, application="import sys; sys.exit(2)")
    node.until(lambda: node.supervisor.phase is Phase.ENDED)
    assert node.supervisor.exit_code == 2


def test_engine_whose_consensus_has_failed_counts_as_ended(tmp_path):
    """CometBFT logs it and then stands idle, answering (consensus/state.go, receiveRoutine)."""
    engine = ENGINE + "\n"
    engine = engine.replace('"engine runs"', "'E[..] CONSENSUS FAILURE!!! err=\"disk\"'")
    node = Node(tmp_path, engine=engine)
    node.until(lambda: node.supervisor.phase is Phase.ENDED)
    assert node.supervisor.exit_code == 1
    assert "CometBFT has ended (consensus has failed)" in node.said[0]
    assert (tmp_path / "order").read_text() == "engine application "


def test_who_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STOP_LIMIT_S", 0.3)
    deaf = ENGINE.replace("signal.signal(signal.SIGTERM, end)", "signal.signal(15, signal.SIG_IGN)")
    node = Node(tmp_path, engine=deaf)
    node.run()
    node.end()
    assert any("does not end; it is killed" in text for text in node.said)


def test_application_that_never_listens_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "APPLICATION_LIMIT_S", 0.3)
    node = Node(tmp_path, application=ENGINE)
    node.until(lambda: node.supervisor.phase is Phase.ENDED)
    assert "does not listen on" in node.said[0]
    assert node.supervisor.exit_code == 1


def test_second_supervisor_of_one_node_is_refused(tmp_path):
    node = Node(tmp_path)
    node.run()
    with pytest.raises(AlreadyRunning, match="n1 is running already"):
        Node(tmp_path)
    assert node.supervisor.phase is Phase.RUNNING
    node.end()
    again = Node(tmp_path)
    again.run()
    again.end()


def test_socket_left_by_a_killed_application_is_not_taken_for_a_new_one(tmp_path):
    (tmp_path / "app.sock").touch()
    node = Node(tmp_path)
    node.run()
    node.end()


def test_folder_longer_than_a_socket_address_is_no_hindrance(tmp_path):
    node = Node(tmp_path / ("long" * 30))
    node.run()
    node.end()
    assert node.supervisor.exit_code == 0


def test_settings_of_other_nodes_in_the_environment_are_kept_away(tmp_path, monkeypatch):
    for name in ("CMTHOME", "TMHOME", "CMT_P2P_LADDR", "NOTIFY_SOCKET", "GRIDWITNESS_TEST"):
        monkeypatch.setenv(name, "foreign")
    code = "import os; print(sorted(k for k, v in os.environ.items() if v == 'foreign'))"
    node = Node(tmp_path, application=code)
    node.until(lambda: node.supervisor.phase is Phase.ENDED)
    assert "['GRIDWITNESS_TEST']" in node.logs[0].read_text()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux's setpriv is not installed")
def test_both_end_with_a_supervisor_that_is_killed(tmp_path):
    node = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.gateway.test_supervisor import Node
node = Node(Path({str(tmp_path)!r}))
node.run()
print(*node.supervisor.processes, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(python(node), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    deadline = time.monotonic() + LIMIT_S
    order = tmp_path / "order"
    while not (order.exists() and {"engine", "application"} <= set(order.read_text().split())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(pids) == 2


def test_log_is_bounded_and_remembers_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOG_BYTES", 1000)
    log = BoundedLog(tmp_path / "comet.log")
    for number in range(200):
        log.write(b"line %d of a log that goes on and on\n" % number)
    log.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 1100
    assert log.last[-1] == "line 199 of a log that goes on and on"
    assert len(log.last) == 12
