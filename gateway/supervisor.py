"""One node's two processes, application and CometBFT: both run, or both are stopped.

CometBFT cannot go on without its application, and an application alone orders nothing; so when
either ends, the other is stopped, and who watches (systemd, a person) is told why. CometBFT goes
first: an application that ends under it looks to it like a fault.

Everything happens in ``step``, which the owner calls in a loop; it does not block.
"""

import contextlib
import enum
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

STOP_LIMIT_S = 20.0
"""How long a process may take to end in order before it is killed."""
APPLICATION_LIMIT_S = 600.0
"""How long an application may take until it listens: it may have to check its store first."""
_LOG_BYTES = 4 << 20
_LAST_LINES = 12
# consensus/state.go, receiveRoutine: from here on CometBFT answers, and takes part in nothing
_GAVE_UP = b"CONSENSUS FAILURE!!!"
# a node must not take its settings from whoever starts it
_FOREIGN = ("CMT", "CMTHOME", "TMHOME", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class AlreadyRunning(Exception):
    """Another supervisor runs this node; says so."""


class Phase(enum.Enum):
    """How far a node is."""

    OPENING = "the application opens its store"
    RUNNING = "both run"
    STOPPING_ENGINE = "CometBFT is ending"
    STOPPING_APPLICATION = "the application is ending"
    ENDED = "both have ended"


class BoundedLog:
    """A log file of at most two times ``_LOG_BYTES``: the newer part and the one before (``.1``).

    Remembers the last lines. A full disk loses lines, not the node.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size if path.exists() else 0
        self._file = path.open("ab")
        self.last: deque[str] = deque(maxlen=_LAST_LINES)

    def write(self, line: bytes) -> None:
        """Add one line."""
        self.last.append(line.decode(errors="replace").rstrip())
        try:
            if self._size > _LOG_BYTES:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("ab")
                self._size = 0
            self._file.write(line)
            self._file.flush()
            self._size += len(line)
        except (OSError, ValueError):  # ValueError: closed by a rotation that failed half way
            return

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            self._file.close()


class _Child:
    """One process; what it says goes into its log."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path) -> None:
        self.gave_up = False
        self.name = Path(command[0]).name
        self._log = BoundedLog(log)
        self.process = subprocess.Popen(
            [*_dying_with_us(), *command],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if not _is_foreign(k)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us: we end the two in order
            start_new_session=True,
        )
        self._pump = threading.Thread(target=self._copy, daemon=True)
        self._pump.start()

    def _copy(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            for line in pipe:
                self._log.write(line)
                if _GAVE_UP in line:
                    self.gave_up = True
        self._log.close()

    @property
    def ended(self) -> int | None:
        return self.process.poll()

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def last_lines(self) -> list[str]:
        """Give what it said last."""
        if self.process.poll() is not None:
            self._pump.join(timeout=2)
        return list(self._log.last)


class Supervisor:
    """One node. ``folder`` is its own, the working directory of both processes.

    ``socket_path`` is where the application listens once it is ready; ``engine`` is started then.
    ``say`` gets sentences for people; ``exit_code`` is not 0 once one has ended by itself. Use it
    from one thread, which outlives the node: the system ends the processes when that thread ends.
    Raises AlreadyRunning.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        application: Sequence[str],
        engine: Sequence[str],
        socket_path: Path,
        logs: tuple[Path, Path],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.phase = Phase.OPENING
        self.exit_code = 0
        self._folder = folder
        self._engine_command = engine
        self._logs = logs
        self._say = say
        self._clock = clock
        self._socket = socket_path
        self._engine: _Child | None = None
        self._told: list[_Child] = []
        self._lock = _take_lock(folder / "run.lock", name)
        try:
            # what a killed application left behind would look like one that listens
            socket_path.unlink(missing_ok=True)
            self._application = _Child(application, folder, logs[0])
        except BaseException:
            os.close(self._lock)
            raise
        self._deadline = clock() + APPLICATION_LIMIT_S

    @property
    def processes(self) -> tuple[int | None, int | None]:
        """The process ids of application and engine."""
        engine = self._engine
        return self._application.process.pid, engine.process.pid if engine else None

    def stop(self) -> None:
        """Begin to end both in order; may be called again and at any time."""
        if self.phase in (Phase.OPENING, Phase.RUNNING):
            self._stop_engine()

    def step(self) -> None:
        """Look at both processes and do what is next."""
        if self.phase in (Phase.OPENING, Phase.RUNNING):
            self._watch()
        if self.phase is Phase.OPENING and _listens(self._socket):
            self._engine = _Child(self._engine_command, self._folder, self._logs[1])
            self.phase = Phase.RUNNING
        elif self.phase is Phase.STOPPING_ENGINE and self._gone(self._engine):
            self._application.signal(signal.SIGTERM)
            self._deadline = self._clock() + STOP_LIMIT_S
            self.phase = Phase.STOPPING_APPLICATION
        elif self.phase is Phase.STOPPING_APPLICATION and self._gone(self._application):
            self._judge()
            os.close(self._lock)
            self.phase = Phase.ENDED

    def _watch(self) -> None:
        """Stop both where one has ended."""
        for child, what, log in (
            (self._application, "its application", self._logs[0]),
            (self._engine, "CometBFT", self._logs[1]),
        ):
            if child is None or (child.ended is None and not child.gave_up):
                continue
            self._tell(child, what, log)
            self.exit_code = 1
            self._stop_engine()
            return
        if self.phase is Phase.OPENING and self._clock() > self._deadline:
            self._say(f"{self.name}: its application does not listen on {self._socket}")
            self.exit_code = 1
            self._stop_engine()

    def _tell(self, child: _Child, what: str, log: Path) -> None:
        end = "consensus has failed" if child.ended is None else _end(child.ended)
        lines = "\n".join(f"    {line}" for line in child.last_lines())
        self._say(f"{self.name}: {what} has ended ({end}); the last of {log}:\n{lines}")
        self._told.append(child)

    def _judge(self) -> None:
        """Look at why the application ended: where both end at once, it has the reason."""
        code = self._application.ended
        if code is not None and code > 0:
            if self._application not in self._told:
                self._tell(self._application, "its application", self._logs[0])
            # 2: its settings or files do not let it start, and will not next time
            self.exit_code = 2 if code == 2 else 1

    def _stop_engine(self) -> None:
        self.phase = Phase.STOPPING_ENGINE
        self._deadline = self._clock() + STOP_LIMIT_S
        if self._engine is not None:
            self._engine.signal(signal.SIGTERM)

    def _gone(self, child: _Child | None) -> bool:
        if child is None or child.ended is not None:
            return True
        if self._clock() > self._deadline:
            self._say(f"{self.name}: {child.name} does not end; it is killed")
            child.signal(signal.SIGKILL)
            self._deadline = self._clock() + STOP_LIMIT_S
        return False


def _dying_with_us() -> list[str]:
    """Give what makes the system end a process with its parent, even a killed one (util-linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _is_foreign(name: str) -> bool:
    return name in _FOREIGN or name.startswith(("CMT_", "TM_"))


def _end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _take_lock(path: Path, name: str) -> int:
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise AlreadyRunning(f"{name} is running already (another process holds {path})") from None
    return number


def _listens(path: Path) -> bool:
    """Tell whether somebody listens on a Unix socket; its path may be longer than an address."""
    if not path.exists():
        return False
    folder = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(f"/proc/self/fd/{folder}/{path.name}")
            return True
    except OSError:
        return False
    finally:
        os.close(folder)
