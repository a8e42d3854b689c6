"""What all tests share: dual collection, hypothesis's settings, the peer library."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.dual_host import MicroPythonModule

# The same examples on every run, and none kept between runs: a failure here is a failure there.
# `--hypothesis-profile=explore` draws new ones.
hypothesis.settings.register_profile(
    "gridwitness", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("gridwitness")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect dual modules once more, for MicroPython; pytest's own collector takes them too."""
    if file_path.match("test_*_dual.py"):
        return MicroPythonModule.from_parent(parent, path=file_path)
    return None


@pytest.fixture(scope="session")
def cwt_environment() -> dict[str, str]:
    """Environment variables under which this Python imports cwt, an independent COSE library.

    It needs an older cbor2 than ours, so it lies in a folder of its own: run it in a child process,
    `subprocess.run([sys.executable, "-c", …], env=cwt_environment)`.
    """
    folder = Path(sys.prefix) / "peers"
    if not (folder / "cwt").is_dir():
        pytest.skip("the peer library cwt is not installed (requirements/peers.txt)")
    return {**os.environ, "PYTHONPATH": str(folder)}
