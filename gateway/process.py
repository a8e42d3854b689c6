"""A service as a process of its own: what ends it, and what its exit code tells.

0 after SIGTERM or SIGINT; 2 and a sentence where settings, files or the chain's rules do not let it
go on (CometBFT of another network, an upgrade that this program does not have), so that somebody
must change something; 1 where it had to give up or the disk is full, so that a service manager is
to try again.
"""

import errno
import logging
import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import Protocol

from gateway.schema import ConfigError
from ledger.engine.abci import UpgradeNeeded
from ledger.engine.comet.node import Mismatch
from ledger.engine.comet.server import ServerError
from ledger.region import RegionError
from ledger.store import StoreError


class Runnable(Protocol):
    """A service that runs until it is told to stop."""

    def run(self) -> None:
        """Work until ``stop``; raises what ended it before."""

    def stop(self) -> None:
        """Ask ``run`` to end; may be called from a signal handler."""


def run(name: str, make: Callable[[], Runnable]) -> int:
    """Make a service and run it until a signal; gives the exit code.

    ``name`` begins the sentences that people get, and is the log's.
    """
    try:
        service = make()
    except (ConfigError, RegionError, StoreError, UpgradeNeeded) as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 1 if _may_pass(e) else 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    try:
        service.run()
    except (Mismatch, ServerError, UpgradeNeeded) as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 2
    except Exception:  # the process's edge: logged, and the exit code tells
        logging.getLogger(name).exception("event=gave-up")
        return 1
    finally:
        # Python puts the default handlers back when it ends: a signal that comes then would change
        # the exit code
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    return 0


def _may_pass(error: Exception) -> bool:
    """Tell disk trouble from wrong files."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.OperationalError) or (
        isinstance(cause, OSError) and cause.errno == errno.ENOSPC
    )
