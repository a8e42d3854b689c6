"""The smallest dual module: it shows that collection and both interpreters work."""

import sys


def test_interpreter_is_one_of_the_two() -> None:
    assert sys.implementation.name in ("cpython", "micropython")


def test_assertions_are_checked() -> None:
    failed = False
    try:
        assert sys is None
    except AssertionError:
        failed = True
    if not failed:
        raise RuntimeError("assert is compiled away: the dual tests would check nothing")
