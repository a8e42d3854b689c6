"""Settings files: a dataclass a section, a field a setting, and from them all that is needed.

A setting is a field made by ``setting``, with description, default and range; a section is a frozen
dataclass of such fields; a program's settings are a ``Settings`` with a field for each section. The
loader, the file that is written and the table in the guide all come from these.
"""

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

VERSION = 1

_T = TypeVar("_T")


class ConfigError(ValueError):
    """The configuration cannot be used; the message says what, where, and what is allowed."""


def setting(
    default: _T,
    description: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> _T:
    """Declare a field of a section; numbers need their range."""
    meta = {"text": description, "unit": unit, "low": low, "high": high, "choices": choices}
    value: _T = dataclasses.field(default=default, metadata=meta)
    return value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a program; ``path`` is the file they came from, or None."""

    path: Path | None = None

    def beside(self, name: str) -> Path:
        """Give a path: absolute, or told from the folder of the file."""
        return (self.path.parent if self.path else Path.cwd()) / name


_S = TypeVar("_S", bound=Settings)
_Field = dataclasses.Field[Any]


class Schema(Generic[_S]):
    """What a settings file may hold, by its class; version 1 of every one so far."""

    def __init__(self, settings: type[_S]) -> None:
        self._class = settings
        made: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(settings)}
        self._sections = {name: cls for name, cls in made.items() if isinstance(cls, type)}

    def load(self, path: Path) -> _S:
        """Read and check a settings file; raises ConfigError."""
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as e:
            raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise ConfigError(f"{path}: is not TOML: {e}") from e
        return dataclasses.replace(self.parse(data, str(path)), path=path.absolute())

    def parse(self, data: Mapping[str, Any], source: str) -> _S:
        """Check a table of settings; ``source`` names it in messages. Raises ConfigError."""
        version = data.get("version")
        if type(version) is not int or version != VERSION:
            raise ConfigError(f"{source}: version = {VERSION} is needed in the first line")
        sections = {}
        for name, table in data.items():
            if name == "version":
                continue
            _check_known(name, ["version", *self._sections], f"{source}: [{name}]")
            if not isinstance(table, dict):
                raise ConfigError(f"{source}: [{name}] is a section, not a value")
            sections[name] = _section(self._sections[name], table, f"{source}: [{name}]")
        return self._class(**sections)

    def render(self, settings: Mapping[str, object] | None = None) -> str:
        """Give the text of a file with every setting and its description.

        ``settings`` maps "section.key" to values other than the defaults. Raises ConfigError.
        """
        rest = dict(settings or {})
        lines = [f"version = {VERSION}"]
        for section, fields in self._fields():
            lines += ["", f"[{section}]"]
            for field in fields:
                value = rest.pop(f"{section}.{field.name}", field.default)
                lines += [f"# {field.metadata['text']}", f"{field.name} = {_toml(value)}"]
        if rest:
            known = [
                f"{section}.{field.name}" for section, fields in self._fields() for field in fields
            ]
            _check_known(min(rest), known, min(rest))
        text = "\n".join(lines) + "\n"
        self.parse(tomllib.loads(text), "settings")
        return text

    def write(self, path: Path, settings: Mapping[str, object] | None = None) -> None:
        """Write a file as ``render`` gives it, whole or not at all; raises ConfigError, OSError.

        An existing file is replaced.
        """
        text = self.render(settings)
        partial = path.with_name(path.name + ".new")
        with partial.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        partial.replace(path)

    def change(self, path: Path, settings: Mapping[str, object]) -> None:
        """Set values in a file that stands, whose comments go; raises ConfigError, OSError."""
        present = self.load(path)
        values = {
            f"{section}.{field.name}": getattr(getattr(present, section), field.name)
            for section, fields in self._fields()
            for field in fields
        }
        self.write(path, {**values, **settings})

    def table(self) -> str:
        """Give the settings as a Markdown table, as it stands in the guide."""
        lines = ["| setting | default | allowed | what it is |", "|---|---|---|---|"]
        for section, fields in self._fields():
            for field in fields:
                default, text = _toml(field.default), field.metadata["text"]
                name = f"{section}.{field.name}"
                lines.append(f"| `{name}` | `{default}` | {_allowed(field)} | {text} |")
        return "\n".join(lines) + "\n"

    def _fields(self) -> Iterator[tuple[str, tuple[_Field, ...]]]:
        for name, section in self._sections.items():
            yield name, dataclasses.fields(section)


def _section(section: type[Any], table: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(section)}
    values = {}
    for key, value in table.items():
        _check_known(key, list(fields), f"{where} {key}")
        values[key] = _value(fields[key], value, f"{where} {key}")
    return section(**values)


def _check_known(key: str, known: list[str], where: str) -> None:
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    raise ConfigError(f"{where} is not a setting; the nearest is {near[0]!r}")


def _value(field: _Field, value: Any, where: str) -> Any:
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


def _allowed(field: _Field) -> str:
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


def _toml(value: object) -> str:
    if isinstance(value, str):
        # a JSON string is a TOML string, but for DEL, which TOML wants escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
