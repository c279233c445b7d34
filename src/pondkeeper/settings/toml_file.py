"""The settings file as TOML, with the line of each key, which `tomllib` does not keep."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pondkeeper.errors import SettingInvalid
from pondkeeper.settings.toml_lines import lines_of_keys

MAX_FILE_BYTES = 256 * 1024

_LINE_OF_SYNTAX_ERROR = re.compile(r"at line (\d+)")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file that is valid TOML; `lines` tells where each key stands."""

    path: Path
    table: Mapping[str, Any]
    lines: Mapping[str, int]

    def line(self, name: str) -> int | None:
        """The line of a dotted key, or of the nearest group above it that has one."""
        while name and name not in self.lines:
            name = name.rpartition(".")[0]
        return self.lines.get(name)

    def place(self, name: str) -> str:
        """Where a key stands, for people: file and line."""
        line = self.line(name)
        return self.path.name if line is None else f"{self.path.name}:{line}"

    def invalid(self, name: str, message: str, *, nearest: str | None = None) -> SettingInvalid:
        """The error about a key of this file."""
        return _invalid(self.path, message, line=self.line(name), setting=name[:80], nearest=nearest)


def _invalid(path: Path, message: str, *, line: int | None = None, **details: Any) -> SettingInvalid:
    place = path.name if line is None else f"{path.name}, line {line}"
    known = {key: value for key, value in (details | {"line": line}).items() if value is not None}
    return SettingInvalid(f"{place}: {message}", private=str(path), file=path.name, **known)


def read_settings_file(path: Path, *, must_exist: bool) -> SettingsFile | None:
    """The settings file at `path`; None when there is none and none must exist."""
    text = _read(path, must_exist=must_exist)
    if text is None:
        return None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _LINE_OF_SYNTAX_ERROR.search(str(error))
        raise _invalid(path, f"not valid TOML: {error}", line=int(found[1]) if found else None) from error
    except (RecursionError, ValueError) as error:  # Why: tomllib lets both through, for deep nesting and huge integers.
        raise _invalid(path, "not valid TOML: nested too deeply, or a number is too large") from error
    return SettingsFile(path=path, table=table, lines=lines_of_keys(text))


def _read(path: Path, *, must_exist: bool) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if must_exist:
            raise _invalid(path, "there is no such file") from None
        return None
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise _invalid(path, f"larger than {MAX_FILE_BYTES} bytes; this is no settings file")
    return _decoded(path, data)


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _invalid(path, "not UTF-8 text", line=line) from error
