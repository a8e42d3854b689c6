"""Writes every file of tests/vectors anew: `python -m tools.vectors`.

Vectors are what a second implementation is measured by: inputs, exact bytes, and what must be
refused with the reason. They come from a second writing of docs/SPEC.md (tools/vectors/wire.py),
not from the code that they judge, and depend on nothing but names hashed into keys. Byte strings
are hexadecimal. A test writes them again and compares byte for byte.
"""

import json
from pathlib import Path

from tools.vectors import cbor, chain, closes, cose, merkle, network, records, settings

DIRECTORY = Path(__file__).parents[2] / "tests" / "vectors"


def generate() -> dict[str, str]:
    """Text of each vector file by its name, the trees' own files included."""
    files = {
        "cbor.json": cbor.cbor_file(),
        "cose.json": cose.cose_file(),
        "records.json": records.records_file(),
        "settings.json": settings.settings_file(),
        "topics.json": settings.topics_file(),
        "committee.json": chain.committee_file(),
        "tally.json": chain.tally_file(),
        "heads.json": chain.heads_file(),
        "receipts.json": chain.receipts_file(),
        "closes.json": closes.closes_file(),
        "genesis.json": network.genesis_file(),
        "network.json": network.network_file(),
        **merkle.generate(),
    }
    return {name: render(content) for name, content in files.items()}


def render(content: object) -> str:
    """The text of one vector file: one line a case, so that a change shows what it changes.

    Not in ASCII: MicroPython's json does not join the surrogate pairs that ASCII would need.
    """
    assert isinstance(content, dict)
    parts = []
    for name, value in content.items():
        if isinstance(value, list):
            lines = ",\n".join("  " + _dumps(item) for item in value)
            parts.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {_dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dumps(item: object) -> str:
    return json.dumps(_hex(item), ensure_ascii=False)


def _hex(item: object) -> object:
    if isinstance(item, bytes):
        return item.hex()
    if isinstance(item, dict):
        return {name: _hex(value) for name, value in item.items()}
    if isinstance(item, list | tuple):
        return [_hex(value) for value in item]
    return item


def main() -> None:
    """Write the files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in generate().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
