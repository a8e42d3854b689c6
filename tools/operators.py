"""What operators do on the command line: sign a change, hand the approvals over or write them."""

import argparse
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ledger.keys import Signer
from ledger.protocol.errors import ProtocolError
from tools.errors import CommandError
from tools.options import named_path


def add_options(parser: argparse.ArgumentParser, usual_keys: str, out: str) -> None:
    """Declare ``--key`` and ``--out``; ``usual_keys`` are taken where none is named."""
    parser.add_argument(
        "--key",
        type=named_path,
        action="append",
        metavar="FILE",
        help=f"an operator's key; may be repeated (default: {usual_keys})",
    )
    parser.add_argument("--out", type=named_path, metavar="DIR", help=out)


def load_keys(paths: Iterable[Path], operators: Collection[bytes], of: str) -> list[Signer]:
    """Read the keys of some operators, whose public keys the genesis of ``of`` names.

    Raises CommandError.
    """
    keys: list[Signer] = []
    for path in paths:
        try:
            key = Signer.load(path)
        except OSError as e:
            raise CommandError(f"{path}: cannot be read: {e.strerror}") from e
        except ProtocolError as e:
            raise CommandError(str(e)) from e
        if key.public_key not in operators:
            raise CommandError(f"{path}: is not the key of an operator of this {of}")
        if key.public_key in [other.public_key for other in keys]:
            raise CommandError(f"{path}: this operator's key is named twice, and counts once")
        keys.append(key)
    if not keys:
        raise CommandError("no operator's key is here: name one with --key FILE")
    return keys


def write_approvals(folder: Path, approvals: Mapping[str, bytes]) -> list[Path]:
    """Write approvals into a folder, by the names of their files; raises CommandError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in approvals.items():
            (folder / name).write_bytes(raw)
    except OSError as e:
        raise CommandError(f"{folder}: cannot be written: {e.strerror}") from e
    return [folder / name for name in approvals]
