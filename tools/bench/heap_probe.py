# mypy: disable-error-code="attr-defined"
# mem_free and mem_alloc are MicroPython's alone.
"""The meter's own program on MicroPython's unix port, which tells its heap; run by ``meter``.

    micropython -X heapsize=400k tools/bench/heap_probe.py --dir DIR

It is firmware/boards/unix/main.py but for the watchdog: where a board would feed it, this one
collects garbage and writes ``heap <bytes free> <bytes used>`` to standard error.
"""

import gc
import sys

from firmware.boards import memory


def main(folder: str) -> int:
    """Run the program with ``folder`` as the board's flash; gives the exit status."""
    memory.before_imports()
    import asyncio

    from firmware.meter import program

    memory.after_imports()

    class ProbeBoard(program.Board):
        """The unix port's board with a watchdog that looks at the heap."""

        hardware = "bench"
        journal_round_s = 0

        def feed(self) -> None:
            gc.collect()
            sys.stderr.write(f"heap {gc.mem_free()} {gc.mem_alloc()}\n")

    return asyncio.run(program.run(folder, ProbeBoard()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[2]))
