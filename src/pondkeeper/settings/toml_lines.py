"""The line of each key of a TOML text, which `tomllib` does not keep. The text has been found valid by `tomllib`."""

from __future__ import annotations

import re

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(  # Of several lines, where one or two quotes may stand right before the end, or of one.
    r"""\"{3}(?:[^\\]|\\.)*?\"{3,5}|'{3}.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""", re.DOTALL
)
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")

Path = tuple[str, ...]


class _LostError(Exception):
    """The text is not what TOML says; what was found so far is found."""


def lines_of_keys(text: str) -> dict[str, int]:
    """The line of each dotted key and table; elements of arrays by their number: `jobs.sync.tables.0.name`."""
    reader = _Reader(text)
    try:
        reader.read()
    except (_LostError, RecursionError):
        pass  # Why: a line more is for people only.
    return reader.found


class _Reader:
    def __init__(self, text: str) -> None:
        self.found: dict[str, int] = {}
        self._text = text
        self._at = 0
        self._counted_to = 0
        self._line = 1
        self._arrays: dict[Path, int] = {}

    def read(self) -> None:
        table: Path = ()
        self._take(_BLANK)
        while self._at < len(self._text):
            if self._next_is("["):
                table = self._heading()
            else:
                self._pair(table)
            self._take(_BLANK)

    def _heading(self) -> Path:
        is_array = self._next_is("[[")
        self._at += 2 if is_array else 1
        table = self._in_arrays(self._key(), is_array=is_array)
        self._at += 2 if is_array else 1
        return table

    def _in_arrays(self, key: Path, *, is_array: bool) -> Path:
        """The place of a heading: below an array of tables it means the last element."""
        path: Path = ()
        for number, part in enumerate(key, start=1):
            path = (*path, part)
            if is_array and number == len(key):
                self._arrays[path] = self._arrays.get(path, -1) + 1
                self._note(path)
            if path in self._arrays:
                path = (*path, str(self._arrays[path]))
        self._note(path)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line_here()
        key = self._key()
        if not self._next_is("="):
            raise _LostError
        self._at += 1
        for length in range(1, len(key) + 1):
            self.found.setdefault(".".join((*table, *key[:length])), line)
        self._value((*table, *key))

    def _key(self) -> Path:
        parts = []
        while True:
            self._take(_SPACE)
            parts.append(self._take(_KEY_PART).strip("\"'"))
            self._take(_SPACE)
            if not self._next_is("."):
                return tuple(parts)
            self._at += 1

    def _value(self, path: Path) -> None:
        self._take(_SPACE)
        if self._next_is("["):
            self._elements(path)
        elif self._next_is("{"):
            self._inline_table(path)
        else:
            self._take(_STRING if self._text[self._at : self._at + 1] in ("'", '"') else _SCALAR)

    def _elements(self, path: Path) -> None:
        self._at += 1
        number = 0
        while not self._ends_with("]"):
            element = (*path, str(number))
            self._note(element)
            self._value(element)
            number += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while not self._ends_with("}"):
            self._pair(path)

    def _ends_with(self, bracket: str) -> bool:
        """Go on to the next element, or behind the bracket."""
        self._take(_BLANK)
        if self._next_is(","):
            self._at += 1
            self._take(_BLANK)
        if self._next_is(bracket):
            self._at += 1
            return True
        if self._at >= len(self._text):
            raise _LostError
        return False

    def _note(self, path: Path) -> None:
        self.found.setdefault(".".join(path), self._line_here())

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _next_is(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _LostError
        self._at = match.end()
        return match[0]
