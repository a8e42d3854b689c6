"""CometBFT for tests that run real nodes: found as production finds it, or skipped by name."""

from pathlib import Path

import pytest

from gateway.network.errors import ProgramError
from gateway.network.program import find_checked


def _look() -> Path | str:
    try:
        return find_checked()
    except ProgramError as e:
        return str(e)


_found = _look()
needs_cometbft = pytest.mark.skipif(isinstance(_found, str), reason=str(_found))


def need_cometbft() -> Path:
    """Give the program, or skip the test."""
    if isinstance(_found, str):
        pytest.skip(_found)
    return _found
