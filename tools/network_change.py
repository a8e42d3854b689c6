"""``gridwitness network validator-add`` and others: changes that operators approve (SPEC 16).

Each operator signs the same change; with the last approval that is needed it takes effect in the
block that holds it. An approval goes to any node's RPC, or into a file for another machine.
"""

import argparse
import base64
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.network.create import Tie, check_settings, find_region, tie_region
from gateway.network.folder import WIDE, Genesis, NetworkFolder
from ledger.engine.comet.rpc import Rpc, RpcError
from ledger.genesis import GenesisValidator, WideGenesis
from ledger.network import (
    NetworkChange,
    RegionGateways,
    Remove,
    Upgrade,
    What,
)
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import ProtocolError
from ledger.region import RegionError
from ledger.regional.application import RegionalApplication
from ledger.wide.application import WideApplication
from tools import operators
from tools.errors import CommandError
from tools.options import named_path
from tools.registry import read_gateways, read_state

_EFFECT_LIMIT_S = 20.0
_POLL_S = 0.2
_MOST_BYTES = 1 << 16
_LEAST_AHEAD = 10
"""Blocks that a version's height has to be ahead, so that all approvals come before it."""


def add_commands(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the commands that change a network."""
    add = _change(actions, "validator-add", "let a validator join, or give it another key or power")
    add.add_argument("name", metavar="NAME", help="its name")
    add.add_argument(
        "--validator",
        metavar="FILE|HEX",
        help="its priv_validator_key.json, of which the public key is taken, or that key in 64 "
        "hex digits (default: the home in DIR/nodes/NAME)",
    )
    add.add_argument("--power", type=int, help="its power (default: as the genesis' first has)")
    remove = _change(actions, "validator-remove", "take a validator out")
    remove.add_argument("name", metavar="NAME", help="its name")
    upgrade = _change(actions, "upgrade", "put newer rules in force at a height")
    upgrade.add_argument("version", type=int, metavar="VERSION", help="the rules' version")
    upgrade.add_argument("height", type=int, metavar="HEIGHT", help="the first block under them")
    upgrade.add_argument(
        "--force", action="store_true", help="though this program does not have that version"
    )
    region = _change(actions, "region-add", "let a region send summaries, or renew its keys")
    region.add_argument("region", type=named_path, metavar="REGIONDIR", help="its folder")
    submit = actions.add_parser("submit", help="hand in approvals that --out has written")
    submit.add_argument("dir", type=named_path, metavar="DIR", help="folder of the network")
    submit.add_argument("file", type=named_path, nargs="+", metavar="FILE", help="the approvals")
    submit.add_argument("--node", metavar="URL", help="RPC address of a node (default: any here)")


def _change(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text)
    parser.add_argument("dir", type=named_path, metavar="DIR", help="folder of the network")
    operators.add_options(parser, "DIR/operators/operator-*.key", "write approvals, send none")
    parser.add_argument(
        "--number", type=int, metavar="N", help="with --out: the change's number; asks no node"
    )
    parser.add_argument("--node", metavar="URL", help="RPC address of a node (default: any here)")
    return parser


def run(network: NetworkFolder, options: argparse.Namespace) -> int:
    """Sign and hand over a change, or hand over what was signed; raises CommandError."""
    genesis = network.load_genesis()
    if options.action == "submit":
        return _submit(network, genesis, options)
    if options.number is not None and (options.out is None or options.number < 1):
        raise CommandError("--number N goes with --out, and counts from 1")
    what = _what(network, genesis, options)
    if options.number is not None:
        return _write(network, genesis, NetworkChange(genesis.chain, options.number, what), options)
    with_rpc = _connect(network, options)
    try:
        if isinstance(what, Upgrade):
            _check_upgrade(network, with_rpc, what, force=options.force)
        if isinstance(what, RegionGateways) and _stands(with_rpc, genesis, what):
            return _tell_region(genesis, options, with_rpc, what)
        number = read_state(with_rpc, genesis).changes + 1
        change = NetworkChange(genesis.chain, number, what)
        if options.out is not None:
            return _write(network, genesis, change, options)
        approvals = _sign(network, genesis, change, options)
        if isinstance(what, RegionGateways):
            check_settings([find_region(options.region, "")])
        _hand_over(with_rpc, list(approvals.values()))
        if isinstance(what, RegionGateways):
            _tie(genesis, options, with_rpc)
        return _wait(with_rpc, genesis, change, list(approvals))
    except RpcError as e:
        raise CommandError(str(e)) from e
    finally:
        with_rpc.close()


def _sign(
    network: NetworkFolder, genesis: Genesis, change: NetworkChange, options: argparse.Namespace
) -> dict[bytes, bytes]:
    """Give each operator's approval by the operator's address; raises CommandError."""
    paths = sorted(network.operators.glob("operator-*.key"))[: genesis.threshold]
    keys = operators.load_keys(options.key or paths, genesis.operators, "network")
    # with --out, standard output is for the names of the files
    signed = f"signing change {change.number} of chain {change.chain.hex()}: {_words(change.what)}"
    print(signed, file=sys.stdout if options.out is None else sys.stderr)
    return {key.address: key.seal(change.payload()).raw for key in keys}


def _words(what: What) -> str:
    """Tell a change in words."""
    if isinstance(what, GenesisValidator):
        return f"validator {what.name} has key {what.public_key.hex()} and power {what.power}"
    if isinstance(what, Remove):
        return f"validator {what.name} is removed"
    if isinstance(what, Upgrade):
        return f"version {what.version} of the rules from height {what.height} on"
    keys = ", ".join(key.hex() for key in what.gateways)
    return f"region {what.chain.hex()} has the gateways {keys}"


def _write(
    network: NetworkFolder, genesis: Genesis, change: NetworkChange, options: argparse.Namespace
) -> int:
    approvals = _sign(network, genesis, change, options)
    files = {
        f"change-{change.number}-{address.hex()[:8]}.cose": raw
        for address, raw in approvals.items()
    }
    print(*operators.write_approvals(options.out, files), sep="\n")
    return 0


def _check_upgrade(network: NetworkFolder, rpc: Rpc, upgrade: Upgrade, *, force: bool) -> None:
    """Refuse what would stop the chain; raises CommandError, RpcError."""
    height = rpc.status().height
    if upgrade.height < height + _LEAST_AHEAD:
        raise CommandError(
            f"height {upgrade.height} is not ahead enough: the chain is at height {height}; plan "
            f"the version from height {height + _LEAST_AHEAD} on, or later"
        )
    known = (WideApplication if network.kind == WIDE else RegionalApplication).VERSIONS
    if upgrade.version not in known and not force:
        raise CommandError(
            f"this program has version {max(known)} of the rules, and not {upgrade.version}: at "
            f"height {upgrade.height} every node without the rules stops, and starts only with a "
            "program that has them. A change that is in effect cannot be taken back. --force "
            "plans it all the same"
        )


def _what(network: NetworkFolder, genesis: Genesis, options: argparse.Namespace) -> What:
    try:
        if options.action == "validator-add":
            key = _validator_key(network, options)
            power = genesis.validators[0].power if options.power is None else options.power
            return GenesisValidator.decode([options.name, key, power])
        if options.action == "validator-remove":
            return Remove(options.name)
        if options.action == "upgrade":
            return Upgrade(options.version, options.height)
        if network.kind != WIDE:
            raise CommandError("regions are of a wide-area network; this one is a region")
        region = find_region(options.region, "").genesis
        return RegionGateways(region.chain, region.gateways)
    except (ProtocolError, RegionError) as e:
        raise CommandError(str(e)) from e


def _validator_key(network: NetworkFolder, options: argparse.Namespace) -> bytes:
    text = options.validator
    if text is not None and len(text) == 64:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    if text:
        return read_validator_key(Path(text))
    path = network.paths(options.name).validator_key
    if not path.exists():
        raise CommandError(
            f"{options.name} has no home in {network.path}: make one with gridwitness network "
            "add-node, or name the key of a node elsewhere with --validator"
        )
    return read_validator_key(path)


def read_validator_key(path: Path) -> bytes:
    """Give the public key in a priv_validator_key.json; raises CommandError."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MOST_BYTES))
        return base64.b64decode(data["pub_key"]["value"], validate=True)
    except OSError as e:
        raise CommandError(f"{path}: cannot be read: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CommandError(f"{path}: is not a CometBFT validator's key file") from e


def _connect(network: NetworkFolder, options: argparse.Namespace) -> Rpc:
    """Give a node that answers; raises CommandError."""
    said = ""
    for address in [options.node] if options.node else [entry.rpc for entry in network.nodes]:
        try:
            rpc = Rpc(address)
        except ValueError as e:
            raise CommandError(str(e)) from e
        try:
            rpc.status()
        except RpcError as e:
            rpc.close()
            said = str(e)
            continue
        return rpc
    if getattr(options, "out", None) is not None:
        said += (
            "; to sign without one give --number N, one more than the changes in effect, which "
            "gridwitness network status tells where the nodes are"
        )
    raise CommandError(f"no node answers: {said}")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as e:
        raise CommandError(f"{path}: cannot be read: {e.strerror}") from e


def _submit(network: NetworkFolder, genesis: Genesis, options: argparse.Namespace) -> int:
    """Hand in what others have signed, and tell what became of each change."""
    approvals = [_read(file) for file in options.file]
    signers: dict[NetworkChange, list[bytes]] = {}
    for file, raw in zip(options.file, approvals, strict=True):
        try:
            envelope = Envelope.parse(raw)
            change = NetworkChange.decode(envelope.payload)
        except ProtocolError as e:
            raise CommandError(f"{file}: is not an approval of a network change: {e}") from e
        signers.setdefault(change, []).append(envelope.kid)
    with_rpc = _connect(network, options)
    try:
        _hand_over(with_rpc, approvals)
        return max(_wait(with_rpc, genesis, change, kids) for change, kids in signers.items())
    except RpcError as e:
        raise CommandError(str(e)) from e
    finally:
        with_rpc.close()


def _hand_over(rpc: Rpc, approvals: Sequence[bytes]) -> None:
    for result in rpc.broadcast(approvals):
        if result.code:
            raise CommandError(f"refused with code {result.code}: {result.log}")
    print(f"{len(approvals)} approvals handed over to {rpc.base_url}")


def _wait(rpc: Rpc, genesis: Genesis, change: NetworkChange, signers: Sequence[bytes]) -> int:
    """Wait until the approvals are in a block; tell what became of the change."""
    number, payload = change.number, change.payload()
    deadline = time.monotonic() + _EFFECT_LIMIT_S
    while True:
        state = read_state(rpc, genesis)
        if state.changes >= number:
            print(f"change {number} is in effect")
            return 0
        there = [a.operators for a in state.approvals if a.payload == payload]
        if there and set(signers) <= set(there[0]):
            count = len(there[0])
            print(f"change {number}: {count} of {genesis.threshold} approvals, not in effect yet")
            return 0
        if time.monotonic() > deadline:
            if not isinstance(genesis, WideGenesis):
                print(f"change {number}: not in effect yet; a region counts approvals as it")
                print(f"closes a round, each {genesis.parameters.round_s} s")
                return 0
            print(f"change {number}: no block yet; gridwitness network status tells why")
            return 1
        time.sleep(_POLL_S)


# --------------------------------------------------------------------------------------- regions


def _stands(rpc: Rpc, genesis: Genesis, region: RegionGateways) -> bool:
    """Tell whether the chain has the region with these gateways; raises RpcError, CommandError."""
    assert isinstance(genesis, WideGenesis)
    return read_gateways(rpc, genesis, region.chain) == region.gateways


def _tell_region(
    genesis: Genesis, options: argparse.Namespace, rpc: Rpc, region: RegionGateways
) -> int:
    """Nothing is to be changed on the chain: tell the region of it, where it does not know."""
    said = f"region {region.chain.hex()} is there with these gateways"
    if options.out is not None or _tied(find_region(options.region, ""), genesis):
        raise CommandError(said)
    print(said)
    _tie(genesis, options, rpc)
    return 0


def _tied(tie: Tie, genesis: Genesis) -> bool:
    files = [directory.wide_genesis for directory in tie.directories]
    return all(file.exists() and file.read_bytes() == genesis.encode() for file in files)


def _tie(genesis: Genesis, options: argparse.Namespace, rpc: Rpc) -> None:
    """Tell the gateways of a region where its summaries go; one that knows is left alone."""
    assert isinstance(genesis, WideGenesis)
    tie = find_region(options.region, "")
    if _tied(tie, genesis):
        return
    try:
        tie_region(tie, genesis, rpc.base_url)
    except OSError as e:
        raise CommandError(f"{options.region} cannot be told of the network: {e}") from e
    region = tie.genesis
    print(f"region {region.name}, id {region.chain.hex()}, sends its summaries to {rpc.base_url}")
    print("start its gateways anew once the change is in effect")
