"""The command ``gridwitness``.

Exit codes: 0 done; 1 what was checked or played is not in order; 2 wrong use, a sentence says
what; 130 stopped by Ctrl-C; 141 nobody reads the output any more, so that it may be incomplete.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.network.errors import NetworkFolderError, ProgramError
from tools.errors import CommandError

# name -> (module, what it does); modules load only when their command runs
_COMMANDS = {
    "demo": ("tools.demo", "run meters, gateway and both chains on the sample day, with attacks"),
    "demo-network": ("tools.demo_network", "two regions, four validators, faults that they bear"),
    "replay": ("tools.replay", "run meters, gateway and both chains on your own recordings"),
    "evaluate": ("tools.evaluate", "measure how the meters' judging does on a recording"),
    "init": ("tools.init", "make a region: genesis, operators' keys, parameters"),
    "board": ("tools.board", "fetch a flashed board's enrolment request; tell it its region"),
    "member": ("tools.member", "let a meter join or leave, signed by m of n operators"),
    "audit": ("tools.audit", "check a region's or a node's ledger offline, from genesis"),
    "cometbft": ("tools.cometbft", "install CometBFT, which orders blocks among many nodes"),
    "network": ("tools.network", "make, run, watch and change networks of CometBFT nodes"),
    "verify": ("tools.verify", "check a proof file, from a genesis or a header that you trust"),
    "figure": ("tools.figure", "read a region's figure from a node, with its proof"),
    "show": ("tools.show", "members, readings with their votes, blocks, alarms, summaries"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader went away (`gridwitness show | head`): what is buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as e:
        print(f"gridwitness: {e}", file=sys.stderr)
        return 2
    return code


def _run(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="gridwitness",
        description="Electricity meters that witness each other: run, check and look at regions.",
        epilog="gridwitness COMMAND --help tells a command's options.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in _COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        with _interruptible():
            importlib.import_module(module).add_arguments(sub)
    options = parser.parse_args(arguments)
    run = importlib.import_module(_COMMANDS[options.command][0]).run
    try:
        return int(run(options))
    except (CommandError, NetworkFolderError, ProgramError) as e:
        print(f"gridwitness {options.command}: {e}", file=sys.stderr)
        return 2


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once: an import may turn KeyboardInterrupt into another error.

    Nothing has been made yet that would have to be ended or removed.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
