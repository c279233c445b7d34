"""A guest's text as DuckDB's own tokens: what it calls, and with which words it begins.

Trap: what separates two words is DuckDB's to say. It takes twenty Unicode characters for spaces, ends a line comment at a
carriage return too, and nests block comments; an expression of our own that missed one of these let `read_blob` through.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import duckdb

_WORD: Final = re.compile(r'"(?:[^"]|"")*"|`(?:[^`]|``)*`|[\w$]+', re.DOTALL)
QUOTES: Final = '"`'  # 2.0 takes backticks around a name too
_SEPARATORS: Final = "ZC"  # Unicode's categories of spaces, and of characters that nobody sees


class Tokens:
    """The tokens of a text, without comments: words in lower case, other tokens by their first character."""

    def __init__(self, sql: str) -> None:
        data = sql.encode()
        self.words: list[str] = []
        for offset, kind in duckdb.tokenize(sql):
            if kind != duckdb.token_type.comment:
                self.words.append(_token(data, offset, kind))

    def calls(self) -> Iterator[str]:
        """The names that stand before an opening parenthesis, unless a table's columns follow it."""
        for index, word in enumerate(self.words[:-1]):
            if self.words[index + 1] == "(" and not self._names_a_table(index):
                yield word

    def _names_a_table(self, index: int) -> bool:
        """Whether the word is the table in `INSERT INTO query (…)`, `CREATE TABLE query (…)` or `REFERENCES query (…)`."""
        while index >= 2 and self.words[index - 1] == ".":
            index -= 2
        before = self.words[:index]
        if before[-3:] == ["if", "not", "exists"]:
            before = before[:-3]
        if before[-1:] in (["into"], ["references"]):
            return True
        is_made = {"create", "temp", "temporary", "replace"}.intersection(before[-2:-1])
        return before[-1:] == ["table"] and bool(is_made)


def tokens(sql: str) -> Tokens | None:
    """The tokens of the text; None when they cannot be relied on."""
    if not sql.isascii() and has_odd_spaces(sql):
        return None  # Trap: the parser takes these for spaces, the tokenizer takes them for letters.
    try:
        return Tokens(sql)
    except Exception:  # noqa: BLE001  Why: whatever the tokenizer raises on a guest's text, nothing is known of it.
        return None


def has_odd_spaces(sql: str) -> bool:
    """Whether the text has a character beyond ASCII that a parser may take for a space, or for nothing."""
    return any(map(_is_odd_space, set(sql)))


def with_plain_spaces(sql: str) -> str:
    """The text with a space for each such character, wherever it stands: to be judged, never to be run."""
    if sql.isascii():
        return sql
    return "".join(" " if _is_odd_space(character) else character for character in sql)


def leading_words(sql: str, count: int) -> list[str] | None:
    """The first words of the text, in lower case; None when that cannot be said."""
    found = tokens(with_plain_spaces(sql))
    return None if found is None else found.words[:count]


def _is_odd_space(character: str) -> bool:
    return not character.isascii() and unicodedata.category(character)[0] in _SEPARATORS


def _token(data: bytes, offset: int, kind: object) -> str:
    if kind == duckdb.token_type.string_const:
        return "'"  # Why not its text: it may be megabytes, and is no name.
    text = data[offset : offset + _REACH].decode(errors="ignore")
    word = _WORD.match(text)
    return word[0].lower() if word else text[:1]


_REACH: Final = 256  # bytes: longer than any name that is asked about
