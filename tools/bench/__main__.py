"""``python -m tools.bench [NAME...] [--json FILE] [--quick]``: measure and print the figures.

Ends with 0, with 1 when a benchmark could not do what it measures, with 2 for wrong use. A figure
that misses its target is printed as such and changes nothing about that: a benchmark on a shared
machine is no test.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tools.bench.figure import BenchError, Figure, Skipped

_WIDTH = 140
SIZES = ("full", "quick", "tiny")

# name -> (what it measures, how much of it: full, quick, tiny; tiny tells that it runs, no more)
BENCHES: dict[str, tuple[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]] = {
    "sizes": ("bytes of a reading on the wire", ({}, {}, {})),
    "gateway": (
        "CPU time of the gateway a record, MQTT to block, against openssl",
        (
            {"meters": 1000, "rounds": 15, "openssl_s": 3},
            {"meters": 200, "rounds": 10, "openssl_s": 1},
            {"meters": 16, "rounds": 2, "openssl_s": 1},
        ),
    ),
    "memory": (
        "memory of the gateway with many meters",
        ({"meters": 10_000}, {"meters": 1000}, {"meters": 16}),
    ),
    "store": (
        "bytes of the regional store a reading",
        (
            {"meters": 1000, "rounds": 20},
            {"meters": 200, "rounds": 10},
            {"meters": 16, "rounds": 2},
        ),
    ),
    "audit": (
        "records a second that the offline audit checks",
        (
            {"meters": 1000, "rounds": 10},
            {"meters": 200, "rounds": 10},
            {"meters": 16, "rounds": 2},
        ),
    ),
    "meter": (
        "heap left on a meter with eleven neighbours; its signing and checking",
        (
            {"rounds": 30, "curve_runs": 200},
            {"rounds": 4, "curve_runs": 50},
            {"rounds": 2, "curve_runs": 2},
        ),
    ),
    "network": (
        "transactions a second and finality of four validators, against CometBFT's kvstore",
        (
            {"txs": 6000, "singles": 15, "windows": 4, "idle_s": 20, "behind": 200},
            {"txs": 1000, "singles": 5, "windows": 2, "idle_s": 5, "behind": 40},
            {"txs": 40, "singles": 2, "windows": 1, "idle_s": 1, "behind": 5},
        ),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; gives the exit code."""
    options = _parse(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)  # a log has no edge to wrap at
    figures: list[Figure] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    for name in options.names or BENCHES:
        start = time.monotonic()
        try:
            for figure in _measure(name, options.size):
                figures.append(figure)
                console.print(_line(figure), soft_wrap=True)
        except Skipped as e:
            skipped[name] = str(e)
            console.print(f"{name}: skipped: {e}", soft_wrap=True)
        except BenchError as e:
            failed[name] = str(e)
            console.print(f"{name}: FAILED: {e}", soft_wrap=True)
        console.print(f"{name} took {time.monotonic() - start:.1f} s")
    console.print(_table(figures))
    if options.json is not None:
        report = {
            "version": 1,
            "size": options.size,
            "figures": [figure.as_json() for figure in figures],
            "skipped": skipped,
            "failed": failed,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    names = "\n".join(f"  {name:8} {text}" for name, (text, _) in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description="Measure figures beside their limits or peers.",
        epilog=f"benchmarks:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all when none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--size", choices=SIZES, default="full", help="how much is measured")
    parser.add_argument("--quick", action="store_true", help="the same as --size quick")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}: choose from {', '.join(BENCHES)}")
    if options.quick:
        options.size = "quick"
    return options


def _measure(name: str, size: str) -> Iterator[Figure]:
    module = importlib.import_module(f"tools.bench.{name}")
    figures: Iterator[Figure] = module.measure(**BENCHES[name][1][SIZES.index(size)])
    return figures


def _line(figure: Figure) -> str:
    parts = [f"{figure.name}: {_number(figure.value)} {figure.unit}"]
    if figure.peer is not None and figure.ratio is not None:
        parts.append(f"{figure.against} {_number(figure.peer)} {figure.unit}")
        parts.append(f"ratio {figure.ratio:.3f}")
    if figure.met is not None:
        parts.append(f"target {figure.target}: {_verdict(figure)}")
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _verdict(figure: Figure) -> str:
    return {True: "met", False: "not met", None: ""}[figure.met]


def _table(figures: list[Figure]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("limit or peer", justify="right")
    table.add_column("which")
    table.add_column("ratio", justify="right")
    table.add_column("target")
    for f in figures:
        peer = "" if f.peer is None else _number(f.peer)
        ratio = "" if f.ratio is None else f"{f.ratio:.3f}"
        target = f"{f.target} {_verdict(f)}"
        table.add_row(f.name, _number(f.value), f.unit, peer, f.against, ratio, target)
    return table


if __name__ == "__main__":
    sys.exit(main())
