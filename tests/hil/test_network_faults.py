"""Faults of a wide-area network of four CometBFT nodes: no fork, nothing lost, the same audit."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cometbft import needs_cometbft
from tests.hil.wide_network import NAMES, Bench, seeds

pytestmark = needs_cometbft

# a node that has been told nothing needs this long to find out; far beyond a block's 0.3 s
STILL_S = 2.0


@pytest.fixture(params=seeds())
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, request.param) as bench:
        yield bench


def stands_still(bench: Bench, names: list[str]) -> bool:
    """Tell whether nodes make no block for a while."""
    time.sleep(STILL_S / 2)  # what is under way may come through
    before = bench.network.top(names)
    time.sleep(STILL_S)
    return bench.network.top(names) == before


def test_one_killed_node_stops_nobody_and_catches_up(bench: Bench) -> None:
    killed = bench.rng.choice(NAMES)
    bench.network.nodes[killed].kill()
    bench.network.wait_blocks(3, bench.others(killed))
    bench.network.start(killed)
    bench.network.wait_blocks(1)
    bench.settle()


def test_two_killed_nodes_halt_the_chain_and_it_resumes(bench: Bench) -> None:
    killed = bench.rng.sample(NAMES, 2)
    for name in killed:
        bench.network.nodes[name].kill()
    assert stands_still(bench, bench.others(*killed))
    bench.network.start(*killed)
    bench.network.wait_blocks(2)
    bench.settle()


def test_paused_node_stops_nobody_and_catches_up(bench: Bench) -> None:
    paused = bench.rng.choice(NAMES)
    bench.network.nodes[paused].pause()
    bench.network.wait_blocks(3, bench.others(paused))
    bench.network.nodes[paused].resume()
    bench.network.wait_blocks(1)
    bench.settle()


@pytest.mark.parametrize("way", ["cut", "hold"])
def test_halves_that_cannot_reach_each_other_halt_and_do_not_fork(bench: Bench, way: str) -> None:
    half = bench.rng.sample(NAMES, 2)
    getattr(bench.network.wires, way)(half)
    assert stands_still(bench, list(NAMES))
    bench.network.wires.mend()
    bench.network.wait_blocks(2)
    bench.settle()


@pytest.mark.parametrize("way", ["cut", "hold"])
def test_node_that_is_cut_off_stops_nobody_and_catches_up(bench: Bench, way: str) -> None:
    alone = bench.rng.choice(NAMES)
    getattr(bench.network.wires, way)([alone])
    bench.network.wait_blocks(3, bench.others(alone))
    bench.network.wires.mend()
    bench.network.wait_blocks(1)
    bench.settle()
