"""``gridwitness network validator-add`` and others: changes that operators approve (SPEC 16).

Each operator signs the same change; with the last approval that is needed it takes effect in the
block that holds it. An approval goes to any node's RPC, or into a file for another machine.
"""

import argparse
import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path

from ledger.engine.comet.rpc import Rpc, RpcError
from ledger.genesis import GenesisValidator
from ledger.keys import Signer
from ledger.network import (
    NetworkChange,
    NetworkRules,
    NetworkState,
    RegionGateways,
    Remove,
    Upgrade,
    What,
)
from ledger.protocol.errors import ProtocolError
from ledger.region import RegionError
from tools.errors import CommandError
from tools.network_folder import WIDE, Genesis, NetworkFolder
from tools.network_init import find_region
from tools.options import named_path

_EFFECT_LIMIT_S = 20.0
_POLL_S = 0.2
_MOST_BYTES = 1 << 16
_PATH = "network"


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
    add.add_argument("--power", type=int, default=1, help="its power (%(default)s)")
    remove = _change(actions, "validator-remove", "take a validator out")
    remove.add_argument("name", metavar="NAME", help="its name")
    upgrade = _change(actions, "upgrade", "put newer rules in force at a height")
    upgrade.add_argument("version", type=int, metavar="VERSION", help="the rules' version")
    upgrade.add_argument("height", type=int, metavar="HEIGHT", help="the first block under them")
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
    parser.add_argument(
        "--key",
        type=named_path,
        action="append",
        metavar="FILE",
        help="an operator's key; may be repeated (default: DIR/operators/operator-*.key)",
    )
    parser.add_argument("--node", metavar="URL", help="RPC address of a node (default: any here)")
    parser.add_argument("--out", type=named_path, metavar="DIR", help="write approvals, send none")
    return parser


def run(network: NetworkFolder, options: argparse.Namespace) -> int:
    """Sign and hand over a change, or hand over what was signed; raises CommandError."""
    genesis = network.load_genesis()
    with_rpc = _connect(network, options.node)
    try:
        if options.action == "submit":
            return _submit(with_rpc, [_read(file) for file in options.file])
        state = read_state(with_rpc, genesis)
        change = NetworkChange(genesis.chain, state.changes + 1, _what(network, options))
        keys = _load_keys(network, options.key, genesis)
        approvals = [key.seal(change.payload()).raw for key in keys]
        if options.out is not None:
            _write(options.out, change.number, keys, approvals)
            return 0
        _submit(with_rpc, approvals)
        return _wait(with_rpc, genesis, change, [key.address for key in keys])
    except RpcError as e:
        raise CommandError(str(e)) from e
    finally:
        with_rpc.close()


def _what(network: NetworkFolder, options: argparse.Namespace) -> What:
    try:
        if options.action == "validator-add":
            key = _validator_key(network, options)
            return GenesisValidator.decode([options.name, key, options.power])
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
    path = Path(text) if text else network.paths(options.name).validator_key
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


def _connect(network: NetworkFolder, url: str | None) -> Rpc:
    """Give a node that answers; raises CommandError."""
    said = ""
    for address in [url] if url else [entry.rpc for entry in network.nodes]:
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
    raise CommandError(f"no node answers: {said}")


def read_state(rpc: Rpc, genesis: Genesis) -> NetworkState:
    """Ask for the registry as it stands; raises RpcError."""
    rules = NetworkRules.of(genesis)
    return rules.load(rpc.query(_PATH, b"").value)


def _load_keys(
    network: NetworkFolder, named: Sequence[Path] | None, genesis: Genesis
) -> list[Signer]:
    paths = named or sorted(network.operators.glob("operator-*.key"))[: genesis.threshold]
    keys: list[Signer] = []
    for path in paths:
        try:
            key = Signer.load(path)
        except OSError as e:
            raise CommandError(f"{path}: cannot be read: {e.strerror}") from e
        except ProtocolError as e:
            raise CommandError(str(e)) from e
        if key.public_key not in genesis.operators:
            raise CommandError(f"{path}: is not the key of an operator of this network")
        if key.public_key in [other.public_key for other in keys]:
            raise CommandError(f"{path}: this operator's key is named twice, and counts once")
        keys.append(key)
    if not keys:
        raise CommandError("no operator's key is here: name one with --key FILE")
    return keys


def _write(folder: Path, number: int, keys: Sequence[Signer], approvals: Sequence[bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for key, raw in zip(keys, approvals, strict=True):
            file = folder / f"change-{number}-{key.address.hex()[:8]}.cose"
            file.write_bytes(raw)
            print(file)
    except OSError as e:
        raise CommandError(f"{folder}: cannot be written: {e.strerror}") from e


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as e:
        raise CommandError(f"{path}: cannot be read: {e.strerror}") from e


def _submit(rpc: Rpc, approvals: Sequence[bytes]) -> int:
    for result in rpc.broadcast(approvals):
        if result.code:
            raise CommandError(f"refused with code {result.code}: {result.log}")
    print(f"{len(approvals)} approvals handed over to {rpc.base_url}")
    return 0


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
            print(f"change {number}: {genesis.threshold - len(there[0])} more approvals are needed")
            return 0
        if time.monotonic() > deadline:
            print(f"change {number}: no block yet; gridwitness network status tells why")
            return 1
        time.sleep(_POLL_S)
