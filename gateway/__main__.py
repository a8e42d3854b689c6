"""``python -m gateway --config DIR/gateway.toml [--status FILE]``: run one gateway.

Its exit codes are those of ``gateway.process``. What it had taken in is durable in every case.
"""

import argparse
import sys
from pathlib import Path

from gateway import config as configuration
from gateway import process
from gateway.counters import start_log
from gateway.service import Service


def main(arguments: list[str] | None = None) -> int:
    """Run a gateway; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Run a gateway.")
    parser.add_argument("--config", type=Path, required=True, help="the gateway.toml to use")
    parser.add_argument("--status", type=Path, help="a JSON file to keep up to date")
    options = parser.parse_args(arguments)

    def make() -> Service:
        config = configuration.load(options.config)
        start_log(config.log.level)
        return Service(config, status=options.status)

    return process.run("gateway", make)


if __name__ == "__main__":
    sys.exit(main())
