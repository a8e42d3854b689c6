"""The benchmarks: each runs at its smallest size and prints its figures; what they count is right.

No figure's value is tested: that would fail on a slow machine.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.queue import Message
from tools.bench import __main__ as bench
from tools.bench import load, network, peers, publisher, sizes, store
from tools.bench.figure import BenchError, Figure, Skipped, cpu_s, floor, limit, memory_mb


@pytest.mark.parametrize("name", bench.BENCHES)
def test_benchmark_runs_at_its_smallest_size(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    assert bench.main([name, "--size", "tiny", "--json", str(file)]) == 0
    report = json.loads(file.read_text("utf-8"))
    printed = capsys.readouterr().out
    if report["skipped"]:
        assert f"{name}: skipped: {report['skipped'][name]}" in printed
        pytest.skip(report["skipped"][name])
    assert report["version"] == 1 and report["size"] == "tiny" and not report["failed"]
    assert report["figures"]
    for figure in report["figures"]:
        assert figure["value"] > 0
        assert f"{figure['name']}: " in printed
    assert any(figure["ratio"] is not None for figure in report["figures"])


def test_every_figure_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["sizes"]) == 0
    table = capsys.readouterr().out.split("sizes took")[1]
    assert "COSE" in table and "MQTT packet" in table and "limit" in table


def test_unknown_benchmark_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        bench.main(["speed"])
    assert error.value.code == 2
    assert "speed" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(Skipped("no such"), 0), (BenchError("no such"), 1)])
def test_benchmark_that_cannot_measure_prints_no_figure(
    error: Exception,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(**_: Any) -> Iterator[Figure]:
        raise error

    monkeypatch.setattr(sizes, "measure", measure)
    file = tmp_path / "figures.json"
    assert bench.main(["sizes", "--json", str(file)]) == code
    report = json.loads(file.read_text("utf-8"))
    assert report["figures"] == []
    assert {**report["skipped"], **report["failed"]} == {"sizes": "no such"}
    assert "no such" in capsys.readouterr().out


def test_limit_is_met_up_to_itself() -> None:
    assert limit("n", 200, "B", 200).met is True
    assert limit("n", 201, "B", 200).met is False


def test_floor_is_met_from_itself_on() -> None:
    assert floor("n", 3000, "1/s", 3000).met is True
    assert floor("n", 2999, "1/s", 3000).met is False


def test_figure_without_target_is_neither_met_nor_missed() -> None:
    assert Figure(name="n", value=1, unit="B").met is None
    assert Figure(name="n", value=1, unit="B", peer=2, against="whole").met is None


def test_openssl_counts_verifications_by_cpu_second() -> None:
    lines = ["+DTP:256:sign:ecdsa:1", "+R5:48380:256:0.96", "+R6:16500:256:1.10", "+F4:3:256:1:2"]
    assert peers.parse_verifications(lines) == pytest.approx(15_000)


def test_openssl_that_prints_something_else_is_noticed() -> None:
    with pytest.raises(ValueError, match="R6"):
        peers.parse_verifications(["speed: unknown algorithm"])


def test_openssl_that_is_missing_skips_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.shutil, "which", lambda _: None)
    with pytest.raises(Skipped, match="openssl"):
        peers.openssl_verifications(1)


def test_packet_size_counts_every_field_of_a_publish() -> None:
    # 30 0a | 00 03 "a/b" | 00 01 | "xyz"
    assert sizes.publish_packet_bytes("a/b", b"xyz") == 2 + 5 + 2 + 3
    # a remaining length of 128 takes a second byte
    assert sizes.publish_packet_bytes("a/b", bytes(127 - 7)) == 2 + 127
    assert sizes.publish_packet_bytes("a/b", bytes(128 - 7)) == 3 + 128


def test_publisher_reads_what_was_packed() -> None:
    messages = [Message("gw/1/a", b"one"), Message("gw/1/b", b""), Message("ü", bytes(1024))]
    assert list(publisher.unpack(publisher.pack(messages))) == messages


def test_load_is_the_same_on_every_run() -> None:
    def first() -> list[bytes]:
        keys = load.meter_keys(9)
        round_ = load.Fleet(keys, load.genesis_of(keys)).round(0)
        return [message.payload for message in round_.messages()]

    assert first() == first()


def test_ballots_judge_the_seven_neighbours_of_the_cluster() -> None:
    keys = load.meter_keys(load.CLUSTER * 2)
    round_ = load.Fleet(keys, load.genesis_of(keys)).round(0)
    of_meter = {topic.split("/")[4]: envelope.digest for topic, envelope in round_.readings}
    for topic, envelope in round_.ballots:
        cluster, address = topic.split("/")[3:5]
        neighbours = {
            digest
            for meter, digest in of_meter.items()
            if meter != address and load.cluster_of(list(of_meter).index(meter)) == cluster
        }
        verdicts = load.records.decode(envelope.payload).verdicts
        assert {digest for digest, _ in verdicts} == neighbours
        assert len(verdicts) == 7


def test_parts_of_the_store_make_up_its_whole() -> None:
    whole, *parts = store.measure(meters=16, rounds=2)
    assert sum(part.value for part in parts) == pytest.approx(whole.value)


def test_cpu_time_and_memory_of_a_process_are_told() -> None:
    import os

    assert cpu_s(os.getpid()) > 0
    assert memory_mb(os.getpid(), "VmHWM") >= memory_mb(os.getpid()) * 0.9 > 0


def test_catching_up_counts_from_the_first_block(monkeypatch):
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(network, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    # for 3 s it finds nobody, then ten blocks come at each look
    heights = iter([5] * 150 + list(range(15, 206, 10)))
    rate = network._pace(SimpleNamespace(height=lambda: next(heights)), 199)
    assert math.isclose(rate, 10 / network._TICK_S)


def test_catching_up_that_was_over_before_the_first_look_is_no_figure():
    with pytest.raises(BenchError, match="before it was looked at"):
        network._pace(SimpleNamespace(height=lambda: 7), 7)
