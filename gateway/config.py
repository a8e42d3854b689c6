"""The settings of a gateway: one schema for ``gateway.toml``, its checks, its file and its table.

Every setting is one field of one dataclass below, with description, unit, default and range. The
loader, the file that ``write_default`` writes and the table in docs/gateway.md all come from these
fields. Relative paths are relative to the folder of the file.

Left out: secrets. Passwords and keys are in files of their own, named here.
"""

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

VERSION = 1

_T = TypeVar("_T")


class ConfigError(ValueError):
    """The configuration cannot be used; the message says what, where, and what is allowed."""


def _setting(
    default: _T,
    description: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> _T:
    meta = {"text": description, "unit": unit, "low": low, "high": high, "choices": choices}
    value: _T = dataclasses.field(default=default, metadata=meta)
    return value


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where the region's files are."""

    directory: str = _setting(".", "Folder of the region (genesis.cbor, keys, ledger, gateway).")


@dataclass(frozen=True, kw_only=True)
class Mqtt:
    """The broker that the meters use too."""

    host: str = _setting("127.0.0.1", "Name or address of the broker.")
    port: int = _setting(1883, "TCP port of the broker; 8883 is usual with TLS.", low=1, high=65535)
    user: str = _setting("", "User name; empty: none.")
    password_file: str = _setting("", "File with the password in its first line; empty: none.")
    ca_file: str = _setting("", "CA certificate (PEM) of the broker; empty: no TLS.")
    client_id: str = _setting(
        "", "Client identifier, the same on every start; empty: made from the gateway's address."
    )
    keepalive_s: int = _setting(
        30, "Longest silence before the link is probed.", unit="s", low=5, high=3600
    )


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """When a round ends."""

    pace: str = _setting(
        "clock",
        "clock: a round ends by this machine's clock; trace: when its ballots are in (replays).",
        choices=("clock", "trace"),
    )
    grace_s: float = _setting(
        2.0, "clock: wait this long after a round's end for its ballots.", unit="s", low=0, high=600
    )
    timeout_s: float = _setting(
        10.0,
        "trace: wait this long for missing ballots once a third of the members is in the round.",
        unit="s",
        low=0.05,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class Wide:
    """The wide-area chain that summaries go up to."""

    forward: bool = _setting(True, "Send summaries up; needs wide-genesis.cbor in the folder.")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What keeps memory and card bounded."""

    inbox_rows: int = _setting(
        250_000,
        "Messages kept between arrival and block; beyond it none is acknowledged to the broker.",
        unit="messages",
        low=1_000,
        high=10_000_000,
    )
    outbox_rows: int = _setting(
        100_000,
        "Summaries kept while the wide area cannot be reached; beyond it the gateway stops.",
        unit="summaries",
        low=100,
        high=10_000_000,
    )
    held_per_member: int = _setting(
        64, "Records of one meter that may wait for a block.", unit="records", low=4, high=10_000
    )


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is written to standard error."""

    level: str = _setting(
        "info", "Least level that is written.", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A gateway's settings; ``path`` is the file they came from, or None."""

    region: Region = dataclasses.field(default_factory=Region)
    mqtt: Mqtt = dataclasses.field(default_factory=Mqtt)
    rounds: Rounds = dataclasses.field(default_factory=Rounds)
    wide: Wide = dataclasses.field(default_factory=Wide)
    limits: Limits = dataclasses.field(default_factory=Limits)
    log: Log = dataclasses.field(default_factory=Log)
    path: Path | None = None

    @property
    def directory(self) -> Path:
        """The region's folder."""
        base = self.path.parent if self.path else Path.cwd()
        return base / self.region.directory

    def file(self, name: str) -> Path:
        """Give the path of a file named in the settings: absolute, or below the region's folder."""
        return self.directory / name


_SECTIONS: dict[str, type[Any]] = {
    "region": Region,
    "mqtt": Mqtt,
    "rounds": Rounds,
    "wide": Wide,
    "limits": Limits,
    "log": Log,
}


def load(path: Path) -> Config:
    """Read and check a configuration file; raises ConfigError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: is not TOML: {e}") from e
    return dataclasses.replace(parse(data, str(path)), path=path.absolute())


def parse(data: Mapping[str, Any], source: str) -> Config:
    """Check a configuration table; ``source`` names it in messages. Raises ConfigError."""
    version = data.get("version")
    if type(version) is not int or version != VERSION:
        raise ConfigError(f"{source}: version = {VERSION} is needed in the first line")
    sections = {}
    for name, table in data.items():
        if name == "version":
            continue
        _check_known(name, ["version", *_SECTIONS], f"{source}: [{name}]")
        if not isinstance(table, dict):
            raise ConfigError(f"{source}: [{name}] is a section, not a value")
        sections[name] = _section(name, table, source)
    return Config(**sections)


def _section(name: str, table: Mapping[str, Any], source: str) -> Any:
    cls = _SECTIONS[name]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {}
    for key, value in table.items():
        where = f"{source}: [{name}] {key}"
        _check_known(key, list(fields), where)
        values[key] = _value(fields[key], value, where)
    return cls(**values)


def _check_known(key: str, known: list[str], where: str) -> None:
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    raise ConfigError(f"{where} is not a setting; the nearest is {near[0]!r}")


def _value(field: "dataclasses.Field[Any]", value: Any, where: str) -> Any:
    wanted = type(field.default)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{where} = {value!r}: allowed is {_allowed(field)}")
    choices = field.metadata["choices"]
    low, high = field.metadata["low"], field.metadata["high"]
    # written so that a NaN fails too
    in_range = low is None or low <= value <= high
    if not in_range or (choices and value not in choices):
        raise ConfigError(f"{where} = {value!r}: allowed is {_allowed(field)}")
    return value


def _allowed(field: "dataclasses.Field[Any]") -> str:
    meta = field.metadata
    if meta["choices"]:
        return " or ".join(f'"{choice}"' for choice in meta["choices"])
    if isinstance(field.default, bool):
        return "true or false"
    if meta["low"] is None:
        return "a text"
    kind = "a whole number" if isinstance(field.default, int) else "a number"
    unit = f" {meta['unit']}" if meta["unit"] else ""
    return f"{kind} from {meta['low']} to {meta['high']}{unit}"


def _fields() -> Iterator[tuple[str, "dataclasses.Field[Any]"]]:
    for name, cls in _SECTIONS.items():
        for field in dataclasses.fields(cls):
            yield name, field


def _toml(value: object) -> str:
    if isinstance(value, str):
        # a JSON string is a TOML string, but for DEL, which TOML wants escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def render(settings: Mapping[str, object] | None = None) -> str:
    """Give the text of a configuration file with every setting and its description.

    ``settings`` maps "section.key" to values other than the defaults. Raises ConfigError.
    """
    rest = dict(settings or {})
    lines = [f"version = {VERSION}"]
    section = ""
    for name, field in _fields():
        if name != section:
            lines += ["", f"[{name}]"]
            section = name
        value = rest.pop(f"{name}.{field.name}", field.default)
        lines += [f"# {field.metadata['text']}", f"{field.name} = {_toml(value)}"]
    if rest:
        _check_known(min(rest), [f"{n}.{f.name}" for n, f in _fields()], "settings")
    text = "\n".join(lines) + "\n"
    parse(tomllib.loads(text), "settings")
    return text


def write_default(path: Path, settings: Mapping[str, object] | None = None) -> None:
    """Write a configuration file, whole or not at all; raises ConfigError, OSError.

    An existing file is replaced. ``settings`` maps "section.key" to values other than the defaults.
    """
    text = render(settings)
    partial = path.with_name(path.name + ".new")
    with partial.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    partial.replace(path)


def table() -> str:
    """Give the settings as a Markdown table, as it stands in docs/gateway.md."""
    lines = ["| setting | default | allowed | what it is |", "|---|---|---|---|"]
    for name, field in _fields():
        allowed = _allowed(field)
        text = field.metadata["text"]
        lines.append(f"| `{name}.{field.name}` | `{_toml(field.default)}` | {allowed} | {text} |")
    return "\n".join(lines) + "\n"


def read_password(config: Config) -> str | None:
    """Give the broker's password, or None where no file is named; raises ConfigError."""
    if not config.mqtt.password_file:
        return None
    path = config.file(config.mqtt.password_file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: the password cannot be read: {e}") from e
    if not lines or not lines[0]:
        raise ConfigError(f"{path}: the first line is not a password")
    return lines[0]
