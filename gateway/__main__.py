"""``python -m gateway --config DIR/gateway.toml [--status FILE]``: run one gateway.

Ends with 0 after SIGTERM or SIGINT, with 2 and a sentence where the configuration or the files do
not let it start, with 1 where it had to give up or the disk is full; what it had taken in is
durable in every case.
"""

import argparse
import errno
import logging
import signal
import sqlite3
import sys
from pathlib import Path

from gateway import config as configuration
from gateway.config import ConfigError
from gateway.counters import start_log
from gateway.service import Service
from ledger.region import RegionError
from ledger.store import StoreError

_log = logging.getLogger("gateway")


def main(arguments: list[str] | None = None) -> int:
    """Run a gateway; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Run a gateway.")
    parser.add_argument("--config", type=Path, required=True, help="the gateway.toml to use")
    parser.add_argument("--status", type=Path, help="a JSON file to keep up to date")
    options = parser.parse_args(arguments)
    try:
        config = configuration.load(options.config)
        start_log(config.log.level)
        service = Service(config, status=options.status)
    except (ConfigError, RegionError, StoreError) as e:
        print(f"gateway: {e}", file=sys.stderr)
        return 1 if _may_pass(e) else 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    try:
        service.run()
    except Exception:  # noqa: BLE001 - the process's edge: logged; the exit code tells
        _log.exception("event=gave-up")
        return 1
    return 0


def _may_pass(error: Exception) -> bool:
    """Tell disk trouble from wrong files: a service manager is to try again."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.OperationalError) or (
        isinstance(cause, OSError) and cause.errno == errno.ENOSPC
    )


if __name__ == "__main__":
    sys.exit(main())
