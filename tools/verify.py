"""``gridwitness verify FILE --trust GENESIS``: what a proof file shows, checked offline."""

import argparse
import json

from ledger.proof import MAX_PROOF_BYTES, UnknownProof, verify_proof
from ledger.protocol.errors import ProtocolError
from tools import trust
from tools.errors import CommandError
from tools.options import named_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", type=named_path, metavar="FILE", help="a proof file")
    trust.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print what is shown as JSON")


def run(options: argparse.Namespace) -> int:
    """Verify; gives 0 when the proof holds and 1 when not. Raises CommandError."""
    trusted = trust.load(options)
    try:
        with options.file.open("rb") as file:
            data = file.read(MAX_PROOF_BYTES + 1)
    except OSError as e:
        raise CommandError(f"{options.file} cannot be read: {e.strerror}") from e
    try:
        found = verify_proof(data, trusted.genesis, trusted.pin, trusted.clock)
    except UnknownProof as e:
        raise CommandError(f"{options.file}: {e}") from e
    except ProtocolError as e:
        if options.json:
            print(json.dumps({"ok": False, "failure": str(e)}))
        else:
            print(f"the proof does NOT hold: {e}")
        return 1
    if options.json:
        print(json.dumps({"ok": True, **found.as_json()}, indent=2))
    else:
        print("\n".join(found.sentences()))
    return 0
