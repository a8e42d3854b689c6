"""``gridwitness verify FILE --trust GENESIS``: what a proof file shows, checked offline."""

import argparse
import json

from ledger.findings import moment
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
    judged = trusted.clock is not None
    if options.json:
        shown = {"ok": True, **found.as_json(), "age_judged": judged}
        print(json.dumps({**shown, "keys_of": _keys(trusted)}, indent=2))
        return 0
    print("\n".join(found.sentences()))
    if not judged:
        print(
            f"How old that header is was not judged (--trusting-period does): it is believed by the"
            f" keys of {_keys(trusted)}, or who followed them."
        )
    return 0


def _keys(trusted: trust.Trust) -> str:
    """Tell whose keys everything hangs on."""
    if trusted.pin is not None:
        return f"the validators of the trusted header at height {trusted.pin[0]}"
    return f"the validators of the genesis of {moment(trusted.genesis.created)}"
