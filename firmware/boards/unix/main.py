"""The meter's program as a process: MicroPython's unix port, or CPython.

    micropython firmware/boards/unix/main.py --dir DIR

DIR stands for the board's flash: key, counters, settings and journal. The rig channel is standard
input and output; end of input ends the program. The project's root must be on the search path
(MICROPYPATH or PYTHONPATH).
"""

import sys

from firmware.boards import memory


def main(arguments: "list[str]") -> int:
    """Run with the command line's arguments; gives the exit status."""
    if len(arguments) != 2 or arguments[0] != "--dir":
        sys.stderr.write("usage: main.py --dir DIR\n")
        return 2
    memory.before_imports()
    import asyncio

    from firmware.meter import program

    memory.after_imports()

    class UnixBoard(program.Board):
        """No watchdog, the host's network, and a disk that bears any number of writes."""

        hardware = "unix"
        journal_round_s = 0

    return asyncio.run(program.run(arguments[1], UnixBoard()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
