"""The gateway's memory with many meters: its own program after a round of all of them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.bench import gateway
from tools.bench.figure import Figure, limit

MAX_MB = 300


def measure(*, meters: int, rounds: int = 1) -> Iterator[Figure]:
    """Let ``meters`` send ``rounds`` rounds through a gateway; raises Skipped, BenchError."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = gateway.run(Path(folder), meters, rounds)
    yield limit(f"gateway: peak memory, {meters:,} meters", run.peak_mb, "MB", MAX_MB)
