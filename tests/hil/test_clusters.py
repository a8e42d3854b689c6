"""Clusters of electrical neighbours: sizes, phases, order along the cable."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.clusters import Cluster, split_clusters
from hil.traces import Meter, load_recording, sample_day

NEIGHBOURS = Path(__file__).resolve().parents[3] / "shared" / "data" / "lv_neighbours"


def meter(number: int, phase: str | None = "L1", cable_m: float | None = None) -> Meter:
    return Meter(f"M{number}", str(number), phase, cable_m)


METER_LISTS = st.lists(
    st.tuples(
        st.sampled_from(["L1", "L2", "L3", None]), st.none() | st.integers(0, 300).map(float)
    ),
    max_size=80,
).map(lambda rows: [meter(i, *row) for i, row in enumerate(rows)])


@given(METER_LISTS)
def test_every_meter_is_in_one_cluster(meters: list[Meter]) -> None:
    names = [name for cluster in split_clusters(meters) for name in cluster.meters]
    assert sorted(names) == sorted(each.name for each in meters)


@given(METER_LISTS, st.integers(1, 6), st.integers(0, 9))
def test_sizes_stay_within_the_limits(meters: list[Meter], min_size: int, room: int) -> None:
    max_size = max(1, 2 * min_size - 1) + room
    sizes = [len(cluster.meters) for cluster in split_clusters(meters, max_size, min_size)]
    assert all(size <= max_size for size in sizes)
    assert all(size >= min(min_size, len(meters)) for size in sizes)


@given(METER_LISTS)
def test_named_phase_is_the_phase_of_every_member(meters: list[Meter]) -> None:
    phase_of = {each.name: each.phase for each in meters}
    for cluster in split_clusters(meters):
        phases = {phase_of[name] for name in cluster.meters}
        assert cluster.phase == (phases.pop() if len(phases) == 1 else None)


def test_large_phase_is_cut_into_equal_pieces_along_the_cable() -> None:
    meters = [meter(i, cable_m=float(100 - i)) for i in range(25)]
    clusters = split_clusters(meters)
    assert [len(cluster.meters) for cluster in clusters] == [8, 8, 9]
    assert [name for each in clusters for name in each.meters] == [f"M{24 - i}" for i in range(25)]


def test_phases_are_kept_apart() -> None:
    meters = [meter(i, f"L{i % 3 + 1}") for i in range(15)]
    assert split_clusters(meters) == (
        Cluster("c1", "L1", ("M0", "M3", "M6", "M9", "M12")),
        Cluster("c2", "L2", ("M1", "M4", "M7", "M10", "M13")),
        Cluster("c3", "L3", ("M2", "M5", "M8", "M11", "M14")),
    )


def test_small_phase_joins_the_next_smallest() -> None:
    meters = [meter(i, "L1" if i < 2 else "L2" if i < 6 else "L3") for i in range(14)]
    clusters = split_clusters(meters)
    assert [(each.phase, len(each.meters)) for each in clusters] == [(None, 6), ("L3", 8)]
    assert clusters[0].meters == ("M0", "M1", "M2", "M3", "M4", "M5")


def test_bus_numbers_order_meters_without_cable_length() -> None:
    meters = [Meter(f"M{i}", bus, None, None) for i, bus in enumerate(["10", "9", "100", "2"])]
    assert split_clusters(meters)[0].meters == ("M3", "M1", "M0", "M2")


def test_list_order_holds_where_neither_cable_nor_bus_number_is_known() -> None:
    meters = [Meter(f"M{i}", bus, None, None) for i, bus in enumerate(["b", "a", "3", "c"])]
    assert split_clusters(meters)[0].meters == ("M0", "M1", "M2", "M3")


def test_one_missing_length_gives_up_cable_order_for_its_phase() -> None:
    meters = [meter(2, cable_m=1.0), meter(1, cable_m=9.0), meter(3), meter(0, cable_m=5.0)]
    assert split_clusters(meters)[0].meters == ("M0", "M1", "M2", "M3")


def test_no_meters_give_no_cluster() -> None:
    assert split_clusters([]) == ()


@pytest.mark.parametrize(("max_size", "min_size"), [(6, 4), (12, 0), (0, 1)])
def test_limits_that_cannot_hold_are_refused(max_size: int, min_size: int) -> None:
    with pytest.raises(ValueError, match="max_size must be"):
        split_clusters([meter(1)], max_size, min_size)


def test_sample_day_gives_one_cluster_of_eight_a_phase() -> None:
    clusters = split_clusters(sample_day().meters)
    assert [(each.name, each.phase, len(each.meters)) for each in clusters] == [
        ("c1", "L1", 8),
        ("c2", "L2", 8),
        ("c3", "L3", 8),
    ]


def test_european_lv_feeder_gives_two_clusters_a_phase() -> None:
    if not NEIGHBOURS.is_dir():
        pytest.skip("the recordings of LV neighbours are not beside the project (../shared/data)")
    clusters = split_clusters(load_recording(NEIGHBOURS, "eulv_A").meters)
    assert [(each.phase, len(each.meters)) for each in clusters] == [
        ("L1", 10),
        ("L1", 11),
        ("L2", 9),
        ("L2", 10),
        ("L3", 7),
        ("L3", 8),
    ]
