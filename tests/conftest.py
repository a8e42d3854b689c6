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


# Whole networks and sessions are a dozen processes each, which wait for each other's timeouts: one
# after the other on each of two workers, beside what only computes (pytest-xdist's loadgroup).
_GROUPS = {
    "gateway/test_comet.py": "chains",
    "gateway/test_comet_disk.py": "chains",
    "hil/test_broker_group.py": "commands",
    "hil/test_demo_network.py": "commands",
    "hil/test_network_faults.py": "chains",
    "hil/test_network_wrong.py": "chains",
    "hil/test_session.py": "commands",
    "hil/test_sites.py": "chains",
    "ledger/engine/test_comet.py": "chains",
    "ledger/light/test_comet.py": "chains",
    "ledger/light/test_comet_wide.py": "chains",
    "tools/test_bench.py": "commands",
    "tools/test_network.py": "commands",
    "tools/test_network_refusals.py": "commands",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each group on one worker."""
    here = Path(__file__).parent
    lost = [name for name in _GROUPS if not (here / name).is_file()]
    assert not lost, f"tests/conftest.py groups files that are not there: {lost}"
    paths = {here / name: group for name, group in _GROUPS.items()}
    for item in items:
        group = paths.get(item.path)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


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
