"""The command ``gridwitness``.

Exit codes: 0 done; 1 what was checked or played is not in order; 2 wrong use, a sentence says
what; 130 stopped by Ctrl-C.
"""

import argparse
import importlib
import sys

from tools.errors import CommandError

# name -> (module, what it does); modules load only when their command runs
_COMMANDS = {
    "demo": ("tools.demo", "run meters, gateway and both chains on the sample day, with attacks"),
    "replay": ("tools.replay", "the same on your own recordings"),
    "init": ("tools.init", "make a region: genesis, operators' keys, parameters"),
    "board": ("tools.board", "fetch a flashed board's enrolment request; tell it its region"),
    "member": ("tools.member", "let a meter join or leave, signed by m of n operators"),
    "audit": ("tools.audit", "check a region's ledger offline, from genesis"),
    "show": ("tools.show", "members, readings with their votes, blocks, alarms, summaries"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of our output went away (`gridwitness show | head`)
        sys.stderr.close()
        return 0


def _run(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="gridwitness",
        description="Electricity meters that witness each other: run, check and look at regions.",
        epilog="gridwitness COMMAND --help tells a command's options.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in _COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        importlib.import_module(module).add_arguments(sub)
    options = parser.parse_args(arguments)
    run = importlib.import_module(_COMMANDS[options.command][0]).run
    try:
        return int(run(options))
    except CommandError as e:
        print(f"gridwitness {options.command}: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
