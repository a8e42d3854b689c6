"""Writes tests/vectors/proof.json: `python -m tests.ledger.light.record_proof`.

Not from a second writing of the SPEC, as the other vectors, but recorded: a region is played and
reported by the project's own code, with keys that follow from names, and the file is what the
project's own prover makes of it. It is recorded once; a verifier must read it ever after.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from ledger import proof, proving
from ledger.protocol import cbor, tally
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import ProtocolError
from ledger.proving import Sections, prove_reading, prove_region
from ledger.region import RegionDirectory
from ledger.regional.view import LedgerView
from ledger.wide.state import Region
from tests.ledger.light.proofs import WideNode, reported_region

PATH = Path(__file__).parents[2] / "vectors" / "proof.json"


def _altered(sections: Sections, number: int, place: int, value: object) -> Sections:
    fields = list(sections[number])
    fields[place] = value
    return {**sections, number: fields}


def _valid(whole: Sections, other: Sections) -> list[tuple[str, Sections]]:
    raw, shown, _, _ = whole[proof.SUMMARY]
    figures = {n: whole[n] for n in (proof.CHAIN, proof.REGION)}
    payload = Envelope.parse(raw).payload
    return [
        ("down to a reading and its meter", whole),
        ("a reading that was rejected", other),
        ("figures alone", figures),
        (
            "a summary without its signature",
            {**figures, proof.SUMMARY: [payload, shown, None, None]},
        ),
    ]


def _invalid(whole: Sections, other: Sections, older: list[Any]) -> list[tuple[str, Sections]]:
    raw, _, _, _ = whole[proof.SUMMARY]
    block = whole[proof.CHAIN][0][-1]
    reading = bytearray(whole[proof.READING][1])
    reading[-1] ^= 1
    leaf = cbor.loads(whole[proof.REGION][1])
    leaf[7] += 1
    better = list(other[proof.READING][4])
    better[0] = tally.ACCEPTED
    bare = Envelope.parse(raw).payload
    return [
        ("no light block", _altered(whole, proof.CHAIN, 0, [])),
        ("a light block with a field that nobody knows", {**whole, 1: [[block + b"\x1a\x00"]]}),
        ("more energy than reported", _altered(whole, proof.REGION, 1, cbor.dumps(leaf))),
        ("another region", _altered(whole, proof.REGION, 0, b"another!")),
        ("a bare summary with gateways", _altered(whole, proof.SUMMARY, 0, bare)),
        ("a reading with another signature", _altered(whole, proof.READING, 1, bytes(reading))),
        ("a better outcome", _altered(other, proof.READING, 4, better)),
        ("its meter's leaf in a block before the reading's", {**whole, proof.MEMBER: older}),
        ("no reading, but its meter", {n: f for n, f in whole.items() if n != proof.READING}),
        ("a section that is not known", {**whole, 6: [b"x"]}),
    ]


def _older_member(directory: RegionDirectory, whole: Sections, leaf: Region) -> list[Any]:
    view = LedgerView(directory.regional, 60)
    head = proving._Regional(view, leaf).head(1)
    view.close()
    address = Envelope.parse(whole[proof.READING][1]).kid
    return [*head, *proving._replayed(directory, 1, address)]


def _error(data: bytes, node: WideNode) -> str:
    try:
        proof.verify_proof(data, node.genesis)
    except ProtocolError as e:
        return type(e).__name__
    raise AssertionError("it is not refused")


def content() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        play, directory, node = reported_region(Path(folder), rounds=15)
        region = play.region.chain
        view = LedgerView(directory.regional, 60)
        digests = {r.outcome: r.digest for r in view.readings()}
        view.close()
        wide = prove_region(node, node.follower(), region)
        leaf = node.app.state.region(region)
        whole, other = (
            {**wide, **prove_reading(directory, digests[outcome], leaf)}
            for outcome in (tally.ACCEPTED, tally.REJECTED)
        )
        play.close()
        older = _older_member(directory, whole, leaf)
    files = [(note, proof.encode(node.genesis, s)) for note, s in _valid(whole, other)]
    wrong = [(note, proof.encode(node.genesis, s)) for note, s in _invalid(whole, other, older)]
    return {
        "about": "SPEC section 18: proof files, the genesis that is trusted, what they show. "
        "Recorded by python -m tests.ledger.light.record_proof.",
        "genesis": node.genesis.encode().hex(),
        "valid": [
            {
                "note": note,
                "findings": proof.verify_proof(data, node.genesis).as_json(),
                "file": data.hex(),
            }
            for note, data in files
        ],
        "invalid": [
            {"reason": reason, "error": _error(data, node), "file": data.hex()}
            for reason, data in wrong
        ],
    }


def main() -> None:
    """Write the file."""
    parts = []
    for name, value in content().items():
        if isinstance(value, list):
            lines = ",\n".join("  " + json.dumps(item) for item in value)
            parts.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    PATH.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
