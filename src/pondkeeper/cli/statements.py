"""Where one SQL statement ends and the next begins: the semicolons that are in no string, quoted name or comment.

The keeper takes each statement by itself and lets DuckDB's parser judge it, so a wrong cut here is an error there and
never a wrong statement carried out by halves: the list is atomic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<end>;)
    | (?P<line>--[^\r\n]*)
    | (?P<block>/\*)
    | (?P<escaped>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'?)
    | (?P<text>'(?:[^']|'')*'?)
    | (?P<name>"(?:[^"]|"")*"?)
    | (?P<dollar>(?<![\w$])\$(?P<tag>(?:[A-Za-z_\u0080-\U0010ffff][\w\u0080-\U0010ffff]*)?)\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART: Final = re.compile(r"/\*|\*/")


def split(sql: str) -> list[str]:
    """The statements of a text, without their semicolons; empty ones and those of comments alone left out."""
    return [statement.strip() for statement in _pieces(sql) if _has_code(statement)]


def _pieces(sql: str) -> Iterator[str]:
    begin = 0
    for kind, start, end in _tokens(sql):
        if kind == "end":
            yield sql[begin:start]
            begin = end
    yield sql[begin:]


def _tokens(sql: str) -> Iterator[tuple[str, int, int]]:
    """Every semicolon, comment and quoted thing: its kind, where it starts and ends."""
    position = 0
    while match := _TOKEN.search(sql, position):
        kind = match.lastgroup or ""
        if kind == "block":
            position = _end_of_block(sql, match.end())
        elif match["dollar"] is not None:
            kind, position = "dollar", _end_of_dollar(sql, match[0], match.end())
        else:
            position = match.end()
        yield kind, match.start(), position


def _end_of_block(sql: str, position: int) -> int:
    """After the end of a block comment; they nest."""
    depth = 1
    while depth and (match := _COMMENT_PART.search(sql, position)):
        depth += 1 if match[0] == "/*" else -1
        position = match.end()
    return len(sql) if depth else position


def _end_of_dollar(sql: str, quote: str, position: int) -> int:
    end = sql.find(quote, position)
    return len(sql) if end < 0 else end + len(quote)


def _has_code(statement: str) -> bool:
    """Whether there is more than blanks and comments."""
    rest, position = "", 0
    for kind, start, end in _tokens(statement):
        if kind in ("line", "block"):
            rest += statement[position:start]
            position = end
    return bool((rest + statement[position:]).strip())
