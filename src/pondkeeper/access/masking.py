"""What of a text may be kept: tokens cut to their public ids, and on demand SQL without its literals."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "?"
_TOKEN: Final = re.compile(r"pk_([0-9A-Za-z]+)_[0-9A-Za-z_-]+")
# One alternative at a time, from left to right, so that a quote inside a comment opens nothing and the other way round.
_LITERALS: Final = re.compile(
    r"""
      (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<comment>--[^\n]*|/\*)
    | [eE]'(?:[^'\\]|''|\\.)*(?:'|\Z)
    | [xXbB]?'(?:[^']|'')*(?:'|\Z)
    | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)
    | (?P<word>[A-Za-z_\x80-\uffff][\w$]*)
    | (?P<place>\$\w+)
    | 0[xX][0-9A-Fa-f_]+
    | (?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_FIRST_WORD: Final = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z)|[;(])*([A-Za-z]+)", re.DOTALL)


def without_tokens(text: str) -> str:
    """The text with every token cut to its public id."""
    return _TOKEN.sub(r"pk_\1_…", text) if "pk_" in text else text


def without_literals(sql: str) -> str:
    """The SQL with `?` for each literal, and without comments: both may hold data. Names stay."""
    parts: list[str] = []
    at = 0
    while (found := _LITERALS.search(sql, at)) is not None:
        parts.append(sql[at : found.start()])
        at = found.end()
        if found["comment"] == "/*":
            at = _end_of_comment(sql, at)
        elif found["comment"] is None:
            parts.append(found[0] if found["name"] or found["word"] or found["place"] else MASK)
    return "".join([*parts, sql[at:]])


def _end_of_comment(sql: str, at: int) -> int:
    """Where the comment that is open at `at` ends; comments nest."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, at):
        depth += 1 if edge[0] == "/*" else -1
        if not depth:
            return edge.end()
    return len(sql)


def first_word(sql: str) -> str | None:
    """The word that the statement begins with, in capitals: SELECT, INSERT, WITH …"""
    found = _FIRST_WORD.match(sql)
    return found[1].upper() if found else None
