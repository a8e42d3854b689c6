"""Make the comb table of P-256's base point that boards sign and verify with.

``python -m tools.p256_tables`` writes ``ledger/protocol/_p256_base.bin``, ``--check`` compares it,
and ``--frozen FILE`` writes it as a Python module for firmware images that are built with a
manifest. ``ledger/protocol/_p256_base.py`` tells the layout and holds the digest.

The points come from the curve equation by textbook affine arithmetic (SEC 1 section 2.2.1), shared
with nothing else, so that a fault of the board's formulas cannot hide in its table.
"""

import argparse
import sys
from hashlib import sha256
from pathlib import Path

from ledger.protocol import _p256_base as base

TABLE_PATH = Path(base.__file__).with_name("_p256_base.bin")

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
# SEC 2 section 2.4.2
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

Affine = tuple[int, int]


def _add(a: Affine, b: Affine) -> Affine:
    """Add two points that are not each other's negative."""
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, _P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _P)
    x = (slope * slope - a[0] - b[0]) % _P
    return x, (slope * (a[0] - x) - a[1]) % _P


def _doublings(point: Affine, count: int) -> list[Affine]:
    out = [point]
    for _ in range(count):
        out.append(_add(out[-1], out[-1]))
    return out


def base_table() -> bytes:
    """Give the 32,768 bytes of the table."""
    spacing = base.BLOCKS * base.COLUMNS
    powers = _doublings(_G, base.TEETH * spacing)
    out = bytearray()
    for block in range(base.BLOCKS):
        for index in range(1 << (base.TEETH - 1)):
            point = powers[(base.TEETH - 1) * spacing + block * base.COLUMNS]
            for tooth in range(base.TEETH - 1):
                x, y = powers[tooth * spacing + block * base.COLUMNS]
                point = _add(point, (x, y if index >> tooth & 1 else _P - y))
            out += point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")
    return bytes(out)


def frozen_module(table: bytes) -> str:
    """Give the source of ``_p256_base_frozen.py``."""
    lines = ['"""The table of _p256_base as a constant, for firmware images."""', "", "TABLE = ("]
    lines += [f"    {table[at : at + 32]!r}" for at in range(0, len(table), 32)]
    return "\n".join([*lines, ")", ""])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    parser.add_argument("--frozen", metavar="FILE", type=Path, help="write the module to freeze")
    options = parser.parse_args(argv)
    table = base_table()
    digest = sha256(table).hexdigest()
    if options.check:
        same = TABLE_PATH.read_bytes() == table and digest == base.TABLE_SHA256
        sys.stdout.write("same\n" if same else "differs\n")
        return 0 if same else 1
    if options.frozen:
        options.frozen.write_text(frozen_module(table), encoding="utf-8")
        return 0
    TABLE_PATH.write_bytes(table)
    sys.stdout.write(f"TABLE_SHA256 = {digest!r}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
