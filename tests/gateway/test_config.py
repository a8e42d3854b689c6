"""Settings: one schema, refused mistakes, a file and a table made of it."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import config as configuration
from gateway.config import Config, load, parse, render, write_default
from gateway.schema import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "gateway.md"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(tomllib.loads(text), "gateway.toml")
    return str(caught.value)


def test_only_the_version_is_needed() -> None:
    assert parse({"version": 1}, "x") == Config()


@pytest.mark.parametrize("text", ["", "version = 2", "version = true", 'version = "1"'])
def test_other_version_is_refused(text: str) -> None:
    assert refusal(text) == "gateway.toml: version = 1 is needed in the first line"


def test_unknown_setting_names_the_nearest() -> None:
    message = refusal('version = 1\n[mqtt]\nhots = "broker"')
    assert message == "gateway.toml: [mqtt] hots is not a setting; the nearest is 'host'"


def test_unknown_section_names_the_nearest() -> None:
    message = refusal("version = 1\n[round]\ngrace_s = 1")
    assert message == "gateway.toml: [round] is not a setting; the nearest is 'rounds'"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("port = 0", "port = 0: allowed is a whole number from 1 to 65535"),
        ('port = "1883"', "port = '1883': allowed is a whole number from 1 to 65535"),
        ("port = true", "port = True: allowed is a whole number from 1 to 65535"),
        ("port = 1.5", "port = 1.5: allowed is a whole number from 1 to 65535"),
        ("host = 1", "host = 1: allowed is a text"),
        ("keepalive_s = 1", "keepalive_s = 1: allowed is a whole number from 5 to 3600 s"),
    ],
)
def test_wrong_value_says_what_where_and_what_is_allowed(line: str, message: str) -> None:
    assert refusal(f"version = 1\n[mqtt]\n{line}") == f"gateway.toml: [mqtt] {message}"


def test_pace_is_one_of_two_words() -> None:
    message = refusal('version = 1\n[rounds]\npace = "fast"')
    assert message == 'gateway.toml: [rounds] pace = \'fast\': allowed is "clock" or "trace"'


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "-0.5"])
def test_no_number_and_endless_waits_are_refused(value: str) -> None:
    assert "allowed is a number from" in refusal(f"version = 1\n[rounds]\ntimeout_s = {value}")


def test_switch_is_true_or_false() -> None:
    message = refusal("version = 1\n[wide]\nforward = 1")
    assert message == "gateway.toml: [wide] forward = 1: allowed is true or false"


def test_section_must_be_a_table() -> None:
    assert "is a section" in refusal("version = 1\nmqtt = 3")


def test_whole_number_stands_for_a_decimal_one() -> None:
    assert parse(tomllib.loads("version = 1\n[rounds]\ngrace_s = 3"), "x").rounds.grace_s == 3.0


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    with pytest.raises(ConfigError, match=r"gateway\.toml: cannot be read"):
        load(path)
    for content in (b"version = ", b"\xff", b"\x00"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"gateway\.toml: is not TOML"):
            load(path)


def test_written_file_gives_the_settings_back(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    write_default(path, {"mqtt.port": 8883, "rounds.pace": "trace", "region.directory": "a/b"})
    config = load(path)
    assert (config.mqtt.port, config.rounds.pace) == (8883, "trace")
    assert config.mqtt.host == Config().mqtt.host
    assert config.directory == tmp_path / "a/b"
    assert [p.name for p in tmp_path.iterdir()] == ["gateway.toml"]


def test_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    settings = {"region.directory": "/var/lib/region", "mqtt.ca_file": "/etc/ca.pem"}
    write_default(tmp_path / "gateway.toml", settings)
    config = load(tmp_path / "gateway.toml")
    assert config.directory == Path("/var/lib/region")
    assert config.file(config.mqtt.ca_file) == Path("/etc/ca.pem")


def test_writing_an_unknown_or_wrong_setting_is_refused(tmp_path: Path) -> None:
    for settings in ({"mqtt.prot": 1}, {"mqtt.port": 0}, {"mqtt.port": "1"}):
        with pytest.raises(ConfigError):
            write_default(tmp_path / "gateway.toml", settings)
    assert list(tmp_path.iterdir()) == []


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, st.integers(1, 65535), st.floats(0.05, 3600))
def test_any_value_survives_the_file(host: str, port: int, timeout_s: float) -> None:
    settings = {"mqtt.host": host, "mqtt.port": port, "rounds.timeout_s": timeout_s}
    config = parse(tomllib.loads(render(settings)), "x")
    assert config.mqtt.host == host
    assert config.mqtt.port == port
    assert config.rounds.timeout_s == timeout_s


JSON: "st.SearchStrategy[Any]" = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
NAMES = st.sampled_from(["version", "mqtt", "rounds", "port", "pace", "grace_s", "log", "x"])


@given(st.dictionaries(NAMES, st.one_of(JSON, st.dictionaries(NAMES, JSON))))
def test_any_table_gives_settings_or_config_error(table: dict[str, Any]) -> None:
    try:
        parse({"version": 1} | table, "x")
    except ConfigError as e:
        assert str(e).startswith("x: ")


def test_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    write_default(path, {"mqtt.password_file": "secret"})
    with pytest.raises(ConfigError, match="cannot be read"):
        configuration.read_password(load(path))
    (tmp_path / "secret").write_text("pä ss\nmore\n", encoding="utf-8")
    assert configuration.read_password(load(path)) == "pä ss"
    (tmp_path / "secret").write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a password"):
        configuration.read_password(load(path))


def test_documented_table_is_the_schema() -> None:
    assert configuration.table() in DOCS.read_text(encoding="utf-8")
