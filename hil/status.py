"""The gateway's status file as the rig reads it; absent or half-written counts as not there."""

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class GatewayStatus:
    """What the gateway says of itself (``python -m gateway --status FILE``)."""

    ready: bool = False
    outbox: int = 0
    wide_height: int = 0
    height: int = 0
    counters: dict[str, int] = field(default_factory=dict)


def read_status(path: Path) -> GatewayStatus:
    """Read a status file; gives the empty status while there is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return GatewayStatus()
    return GatewayStatus(
        ready=bool(data["running"] and data["connected"]),
        outbox=data["outbox"],
        wide_height=data.get("wide_height", 0),
        height=data.get("height", 0),
        counters=data["counters"],
    )
