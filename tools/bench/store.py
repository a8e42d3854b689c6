"""What a reading costs on the gateway's card: bytes of the regional store, and where they go."""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.bench import chain
from tools.bench.figure import Figure, limit

MAX_BYTES = 700

# table or index -> what it is called in the split
_PARTS = {
    "records": "records",
    "slots": "index by slot",
    "digests": "index by digest",
    "results": "results",
    "state": "state",
}
_OTHER = "heads, history and the rest"


def measure(*, meters: int, rounds: int) -> Iterator[Figure]:
    """Store ``rounds`` rounds of ``meters`` readings and ballots (k = 7)."""
    readings = meters * rounds
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = chain.make(Path(folder) / "region", meters, rounds).regional
        split = _split(path)
        size = path.stat().st_size
    name = "store: a reading with its ballots, k = 7"
    yield limit(name, size / readings, "B", MAX_BYTES)
    for part, part_bytes in sorted(split.items(), key=lambda item: -item[1]):
        yield Figure(
            name=f"  {part}",
            value=part_bytes / readings,
            unit="B",
            peer=size / readings,
            against="whole",
        )


def _split(path: Path) -> dict[str, int]:
    """Give the bytes of each part; moves what is in the write-ahead log into the file first."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall()
    except sqlite3.OperationalError:
        rows = []  # SQLite was built without dbstat: the sum has to do
    finally:
        connection.close()
    split: dict[str, int] = {}
    for name, size in rows:
        part = _PARTS.get(name, _OTHER)
        split[part] = split.get(part, 0) + size
    return split
