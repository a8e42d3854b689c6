"""``gridwitness figure --node URL --trust GENESIS``: what regions have reported, verified.

The control centre's reading: it follows the wide-area chain from what it trusts, believes no node,
and can keep the proof of a region's figures, or of a single reading, in a file for others.
"""

import argparse
import json
import shlex
from typing import Any

from rich.table import Table

from ledger import proof
from ledger.engine.comet import chain_id
from ledger.engine.comet.rpc import Rpc
from ledger.findings import Findings, kwh
from ledger.light.client import Client
from ledger.light.verify import Trusted
from ledger.proof import verify_proof
from ledger.protocol import records
from ledger.protocol.errors import ProtocolError
from ledger.proving import Follower, NotProvable, Sections, prove_reading, prove_region
from ledger.region import RegionDirectory, RegionError
from ledger.store import StoreError
from tools import trust
from tools.errors import CommandError
from tools.options import PipeConsole, named_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--node", required=True, metavar="URL", help="RPC address of a node of the wide-area chain"
    )
    parser.add_argument(
        "--witness", metavar="URL", help="another node, which must tell the same header"
    )
    trust.add_arguments(parser)
    parser.add_argument(
        "--region", metavar="ID", help="the region, 16 hex digits (all that the genesis names)"
    )
    parser.add_argument(
        "--ledger", type=named_path, metavar="DIR", help="a copy of that region's folder"
    )
    parser.add_argument("--reading", metavar="DIGEST", help="a reading to prove, 64 hex digits")
    parser.add_argument(
        "--member",
        action="store_true",
        help="prove too that its meter is a member; takes as long as an audit of the copy",
    )
    parser.add_argument(
        "-o", "--output", type=named_path, metavar="FILE", help="keep the proof of one region here"
    )
    parser.add_argument("--timeout", type=float, default=5, metavar="S", help="of a call (5)")
    parser.add_argument("--json", action="store_true", help="print what is shown as JSON")


def run(options: argparse.Namespace) -> int:
    """Ask, verify, print; gives 0, or 1 where what the node tells does not hold.

    Raises CommandError for a wrong option, or where a node or ledger cannot give what is needed.
    """
    trusted = trust.load(options)
    regions = _regions(options, trusted)
    node = _rpc(options.node, options.timeout)
    witness = None if options.witness is None else _rpc(options.witness, options.timeout)
    try:
        found = [_verified(options, trusted, region, (node, witness)) for region in regions]
    except ProtocolError as e:
        print(f"what {options.node} tells does NOT hold: {e}")
        return 1
    except (OSError, NotProvable, RegionError, StoreError) as e:
        raise CommandError(str(e)) from e
    finally:
        for rpc in (node, witness):
            if rpc is not None:
                rpc.close()
    _print(options, found)
    return 0


def _regions(options: argparse.Namespace, trusted: trust.Trust) -> list[bytes]:
    if (options.ledger is None) != (options.reading is None):
        raise CommandError("--ledger and --reading go together")
    if options.region is not None:
        return [trust.hex_bytes(options.region, records.CHAIN_BYTES, "--region")]
    named = [region for region, _ in trusted.genesis.regions]
    if not named:
        raise CommandError("the genesis names no region: give --region")
    if len(named) > 1 and (options.output is not None or options.reading is not None):
        raise CommandError("a proof is of one region: give --region")
    return named


def _rpc(url: str, timeout_s: float) -> Rpc:
    if not 0 < timeout_s <= 600:
        raise CommandError(f"--timeout {timeout_s}: give seconds, more than 0")
    try:
        return Rpc(url, timeout_s)
    except ValueError as e:
        raise CommandError(str(e)) from e


def _verified(
    options: argparse.Namespace,
    trusted: trust.Trust,
    region: bytes,
    nodes: tuple[Rpc, Rpc | None],
) -> Findings:
    """Make the proof of one region, check it as anybody would, and keep it where asked for."""
    node, witness = nodes
    follower = _follower(trusted, node)
    sections = prove_region(node, follower, region)
    if witness is not None:
        follower.client.compare(witness)
    if options.reading is not None:
        sections |= _reading(options, sections)
    data = proof.encode(trusted.genesis, sections)
    found = verify_proof(data, trusted.genesis, trusted.pin, trusted.clock)
    if options.output is not None:
        try:
            options.output.write_bytes(data)
        except OSError as e:
            raise CommandError(f"{options.output} cannot be written: {e.strerror}") from e
    return found


def _follower(trusted: trust.Trust, node: Rpc) -> Follower:
    if trusted.pin is None:
        root = Trusted.start(trusted.genesis)
        return Follower(trusted.genesis, Client(root, trusted.clock))
    height, hash_ = trusted.pin
    first = node.light_block(height)
    root = Trusted.block(chain_id(trusted.genesis.chain), first, hash_)
    return Follower(trusted.genesis, Client(root, trusted.clock), first)


def _reading(options: argparse.Namespace, sections: Sections) -> Sections:
    digest = trust.hex_bytes(options.reading, records.DIGEST_BYTES, "--reading")
    value = sections[proof.REGION][1]
    if value is None:
        raise NotProvable("the region has reported nothing yet: wait for its first summary")
    leaf = proof.region_leaf(value)
    return prove_reading(RegionDirectory(options.ledger), digest, leaf, replay=options.member)


def _print(options: argparse.Namespace, found: list[Findings]) -> None:
    if options.json:
        shown: Any = [one.as_json() for one in found]
        print(json.dumps(shown if options.region is None else shown[0], indent=2))
        return
    if options.region is None:
        PipeConsole().print(_table(found))
    else:
        print("\n".join(found[0].sentences()))
    if options.output is not None:
        print(f"The proof is in {options.output}. This checks it, anywhere:")
        print(f"  {_verification(options)}")


def _verification(options: argparse.Namespace) -> str:
    """Give the command that verifies what was kept, with the same trust."""
    words = ["gridwitness", "verify", str(options.output), "--trust", str(options.trust)]
    if options.trusted_height is not None:
        words += ["--trusted-height", str(options.trusted_height)]
        words += ["--trusted-hash", options.trusted_hash]
    return shlex.join(words)


def _table(found: list[Findings]) -> Table:
    chain, height = found[0].header.chain, max(one.header.height for one in found)
    table = Table(title=f"chain {chain}, verified up to height {height}", box=None)
    table.add_column("region", no_wrap=True)
    for name in ("blocks", "in", "out", "accepted", "rejected", "alarms", ""):
        table.add_column(name, justify="right")
    for one in found:
        leaf = one.leaf
        if leaf is None:
            table.add_row(one.region.hex(), "none")
            continue
        energy = (kwh(leaf.energy_in), kwh(leaf.energy_out))
        counts = map(str, (leaf.accepted, leaf.rejected, leaf.alarms))
        mark = "" if leaf.conflict is None else "CONFLICT"
        table.add_row(one.region.hex(), str(leaf.to_height), *energy, *counts, mark)
    return table
