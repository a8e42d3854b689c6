"""Run the functions of one dual test module, under MicroPython or CPython.

    micropython tests/dual_runner.py path/to/test_something_dual.py [test_name ...]

For every function it prints `run NAME`, then `ok NAME`, or `FAIL NAME` and the traceback. What a
test prints itself goes between those lines. The exit status is 0 when all passed, 1 otherwise. This
runs on MicroPython: no typing, pathlib or contextlib. The project is imported from the folder above
this one, wherever the command is given.
"""

import sys


def _print_traceback(error):
    try:
        sys.print_exception(error)
    except AttributeError:
        import traceback

        traceback.print_exception(error)


def load(path):
    """Import the module in the file `path`, whose folder comes last on the search path.

    Last, because folders under tests/ bear the same names as the packages that they test.
    """
    folder, _, filename = path.rpartition("/")
    sys.path.append(folder or ".")
    return __import__(filename[: -len(".py")])


def names_of_tests(module):
    """Return the names of the module's test functions, sorted: MicroPython keeps no order."""
    return sorted(
        name for name in dir(module) if name.startswith("test_") and callable(getattr(module, name))
    )


def run(module, names):
    """Run the named functions and return how many failed."""
    failures = 0
    for name in names:
        print("run " + name)
        try:
            getattr(module, name)()
        except Exception as error:  # a test may raise anything, and the rest still run
            print("FAIL " + name)
            _print_traceback(error)
            failures += 1
        else:
            print("ok " + name)
    return failures


def main(arguments):
    """Run the module at `arguments[0]`: the functions named after it, or all of them."""
    module = load(arguments[0])
    return 1 if run(module, arguments[1:] or names_of_tests(module)) else 0


if __name__ == "__main__":
    # Both interpreters put this script's folder first, where tests/ledger would hide ledger.
    _folder = __file__.rpartition("/")[0]
    sys.path[0] = (_folder.rpartition("/")[0] or ".") if _folder else ".."
    sys.exit(main(sys.argv[1:]))
