"""CSV by RFC 4180, made by the engine: NULL is an empty cell, the empty string is `""`, nested values are their JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pondkeeper.engine.render import json, scalars, sql
from pondkeeper.engine.render.types import FLOATING, NESTED, WHOLE, Column, Type

_NEVER_QUOTED: Final = scalars.PLAIN | WHOLE | FLOATING | {"boolean", "null"}


def row(columns: Sequence[Column], references: Sequence[str]) -> str:
    """SQL for the row as one CSV record without its line end."""
    parts: list[str] = []
    for column, reference in zip(columns, references, strict=True):
        parts += ["','", _cell(column.type, reference)]
    return sql.concat(*parts[1:])


def header(columns: Sequence[Column]) -> str:
    """The names of the columns as one CSV record."""
    return ",".join(_quoted(column.name) for column in columns)


def _quoted(name: str) -> str:
    special = not name or any(character in name for character in ',"\r\n')
    return '"' + name.replace('"', '""') + '"' if special else name


def _cell(kind: Type, reference: str) -> str:
    if kind.id in NESTED or kind.id == "json":
        return _escaped(f"CASE WHEN {reference} IS NULL THEN NULL ELSE {json.exact(kind, reference)} END")
    text = scalars.text(kind, reference)
    if kind.id == "blob":
        return f"CASE WHEN {reference} = ''::BLOB THEN '\"\"' ELSE {text} END"
    return text if kind.id in _NEVER_QUOTED else _escaped(text)


def _escaped(text: str) -> str:
    doubled = sql.call("replace", text, "'\"'", "'\"\"'")
    special = f"({text}) = '' OR {sql.call('regexp_matches', text, _SPECIAL)}"
    return f"CASE WHEN {special} THEN {sql.concat(_QUOTE, doubled, _QUOTE)} ELSE {text} END"


_QUOTE: Final = "'\"'"
_SPECIAL: Final = "'[\",\\r\\n]'"
