"""How fast the offline audit re-checks a chain, signatures and all."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ledger.audit import audit
from tools.bench import chain
from tools.bench.figure import BenchError, Figure, floor

LEAST_PER_S = 3000


def measure(*, meters: int, rounds: int) -> Iterator[Figure]:
    """Audit a chain of ``rounds`` rounds of ``meters``; raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        directory = chain.make(Path(folder) / "region", meters, rounds)
        cpu, wall = time.process_time(), time.perf_counter()
        report = audit(directory)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if not report.ok or report.records != 2 * meters * rounds:
        raise BenchError(f"{report.records} records checked: {report.failure}")
    # CPU time of all threads: what one core would do
    yield floor("audit: records a core", report.records / cpu, "1/CPU-s", LEAST_PER_S)
    yield Figure(name="audit: records", value=report.records / wall, unit="1/s")
