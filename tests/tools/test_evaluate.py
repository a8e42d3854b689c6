"""gridwitness evaluate: options, figures for machines, the picture, and what it refuses."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from hil.traces import SAMPLE_DAY
from tools import cli
from tools.svg import Chart, Line, draw

RECORDING = [
    *("--meters", SAMPLE_DAY / "sample_meters.csv"),
    *("--voltage", SAMPLE_DAY / "sample_V.csv.gz"),
    *("--power", SAMPLE_DAY / "sample_P.csv.gz"),
]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main(["evaluate", *(str(word) for word in (*RECORDING, *words))])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the sample day down to its first 100 minutes."""
    from dataclasses import replace

    from tools import evaluate

    read = evaluate.read_recording

    def cut(options):
        whole = read(options)
        rows = {name: getattr(whole, name)[:100] for name in ("voltage_mv", "power_mw")}
        return replace(whole, **rows, busbar=None)

    monkeypatch.setattr(evaluate, "read_recording", cut)


def test_evaluation_prints_and_writes_its_figures(capsys, short, tmp_path):
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.svg"
    words = ("--attacks", "scale:+10%,theft:30%", "--trials", 2, "--rounds", 8, "--learning", 40)
    code, out, err = run(capsys, *words, "--json", figures, "--plot", picture)
    assert code == 0, err
    assert "honest meters: 2400 readings; false rejections 0 of 2400" in out
    assert "scale" in out
    assert "2 of 2" in out
    assert "only a meter at the feeder's head" in out
    written = json.loads(figures.read_text())
    assert written["honest"] == {"readings": 2400, "false_rejections": 0, "unconfirmed": 0}
    assert [attack["kind"] for attack in written["attacks"]] == ["scale", "theft"]
    texts = [e.text for e in ET.parse(picture).iter() if e.tag.endswith("text")]
    assert {"scale", "theft", "+10%", "30%"} <= set(texts)


def test_two_processes_give_the_same_figures(capsys, short, tmp_path):
    written = []
    for jobs in (1, 2):
        path = tmp_path / f"{jobs}.json"
        words = ("--attacks", "freeze:all", "--trials", 2, "--rounds", 8, "--learning", 40)
        code, _, err = run(capsys, *words, "--jobs", jobs, "--json", path)
        assert code == 0, err
        written.append(path.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--attacks", "bribe"], "--attacks: 'bribe' is no attack: scale,"),
        (["--attacks", "scale:two"], "scale:two: give a number with its unit"),
        (["--trials", 0], "--trials 0: give 1 to 10000"),
        (["--jobs", 3], "--jobs 3: give 1 to 2"),
        (["--committee", 2], "--committee 2: give 3 to 255"),
        (["--learning", 2000], "--learning 2000: give 0 to 1439"),
        (["--rounds", 1400], "give fewer --rounds or less --learning"),
        (["--json", "absent/file.json"], "absent is not a directory"),
        (["--plot", "/"], "/ is a directory: name a file"),
    ],
)
def test_wrong_option_gets_one_sentence(capsys, words, complaint):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1
    assert not out


def test_missing_file_gets_one_sentence(capsys):
    words = ["evaluate", *(str(word) for word in RECORDING), "--voltage", "absent.csv"]
    assert cli.main(words) == 2
    assert "absent.csv" in capsys.readouterr().err


def test_chart_keeps_its_points_inside_its_frame():
    lines = [Line("a<b", [(0.001, 0), (1000, 1)])]
    root = ET.fromstring(draw([Chart("x & y", "n", 1, 100, lines)] * 4, "four"))
    paths = [e.get("d", "") for e in root.iter() if e.get("class") == "line"]
    assert len(paths) == 4
    for path in paths:
        for pair in path[1:].split("L"):
            x, y = map(float, pair.split())
            assert 0 <= x <= 300
            assert 0 <= y <= 210


def test_recordings_of_the_feeder_are_read_and_judged(capsys):
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "lv_neighbours"
    if not folder.is_dir():
        pytest.skip("the recordings of LV neighbours are not beside the project (../shared/data)")
    from hil.evaluation import Plan, evaluate
    from hil.falsehoods import parse
    from hil.traces import load_recording

    plan = Plan(
        load_recording(folder, "eulv_A"),
        tuple(parse("scale:+5%,freeze:all")),
        trials=2,
        learning=60,
        rounds=10,
        last=80,
    )
    result = evaluate(plan)
    assert result.honest.readings == 55 * 80
    assert result.honest.false_rejections == 0
    assert [score.caught() for score in result.scores] == [2, 2]
