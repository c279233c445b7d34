"""Canonical JSON, made by the engine: SQL expressions whose result is the text of one row.

Two ways lead to the same values. `json_array` of the columns is fast and serves rows of numbers, strings and times; for
anything it would spell otherwise (nested values with times or decimals, MAP, UNION, JSON, NaN) the text is concatenated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from pondkeeper.engine.render import scalars, sql
from pondkeeper.engine.render.types import FLOATING, NESTED, WHOLE, Column, Type

# What DuckDB's own to_json spells as we do, so that lists and structs of these need no help.
_NATURAL: Final = WHOLE | {"boolean", "varchar", "uuid", "enum", "time", "time_ns"}
_SUSPECT: Final = r"'(?i)nan|inf|,\s*[\]}]'"
_STRING_IN_JSON: Final = r"""'"(?:[^"\\]|\\.)*"'"""


def array_row(columns: Sequence[Column], references: Sequence[str]) -> str:
    """SQL for the row as a JSON array."""
    return _row(columns, references, keys=False)


def object_row(columns: Sequence[Column], references: Sequence[str]) -> str:
    """SQL for the row as a JSON object."""
    return _row(columns, references, keys=True)


def _row(columns: Sequence[Column], references: Sequence[str], *, keys: bool) -> str:
    pairs = list(zip(columns, references, strict=True))
    if not all(_is_fast(column.type) for column in columns):
        return _exact_row(pairs, keys=keys)
    arguments = [part for column, reference in pairs for part in _fast_parts(column, reference, keys=keys)]
    fast = sql.call("json_object" if keys else "json_array", *arguments)
    guards = [f"{sql.call('isfinite', ref)} IS NOT FALSE" for column, ref in pairs if column.type.id in FLOATING]
    if not guards:
        return fast  # Why no cast to VARCHAR: it comes as a string anyway, and a cast is a tenth of a small query.
    return f"CASE WHEN {' AND '.join(guards)} THEN {sql.text(fast)} ELSE {_exact_row(pairs, keys=keys)} END"


def _fast_parts(column: Column, reference: str, *, keys: bool) -> list[str]:
    value = _fast(column.type, reference)
    return [sql.literal(column.name), value] if keys else [value]


def _is_fast(kind: Type) -> bool:
    return kind.id not in NESTED | {"json"} or _is_natural(kind)


def _is_natural(kind: Type) -> bool:
    """Whether DuckDB's to_json gives the canonical JSON of the whole value."""
    if kind.id in ("list", "array"):
        return _is_natural(kind.child)
    if kind.id == "struct":
        return all(name and _is_natural(child) for name, child in kind.children)
    return kind.id in _NATURAL


def _fast(kind: Type, reference: str) -> str:
    if kind.id == "float":
        # Why: as a double 0.1 would read 0.10000000149011612; through its shortest text it stays 0.1.
        return f"({sql.text(reference)})::DOUBLE"
    if kind.id == "double" or _is_natural(kind):
        return reference
    return scalars.text(kind, reference)


def _exact_row(pairs: list[tuple[Column, str]], *, keys: bool) -> str:
    parts = []
    for place, (column, reference) in enumerate(pairs):
        key = _key(column.name) if keys else ""
        parts += [sql.literal(("," if place else "") + key), exact(column.type, reference)]
    opening, closing = ("{", "}") if keys else ("[", "]")
    return sql.concat(sql.literal(opening), *[part for part in parts if part != "''"], sql.literal(closing))


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False) + ":"


def exact(kind: Type, reference: str, depth: int = 0) -> str:
    """SQL for the JSON text of a value; a NULL gives the text `null`, so the result is never NULL."""
    nested = _EXACT.get(kind.id)
    if nested is not None:
        return f"CASE WHEN {reference} IS NULL THEN 'null' ELSE {nested(kind, reference, depth + 1)} END"
    if kind.id in FLOATING:
        return f"coalesce({scalars.floating(reference, quote=_QUOTE)}, 'null')"
    if kind.id in WHOLE or kind.id in ("boolean", "null"):
        return f"coalesce({sql.text(reference)}, 'null')"
    text = scalars.text(kind, reference)
    if kind.id in scalars.PLAIN:
        return f"CASE WHEN {reference} IS NULL THEN 'null' ELSE {sql.concat(_QUOTED, text, _QUOTED)} END"
    return f"coalesce({sql.text(sql.call('to_json', text))}, 'null')"


def _list(kind: Type, reference: str, depth: int) -> str:
    if _is_natural(kind):
        return sql.text(sql.call("to_json", reference))
    variable = f"e{depth}"
    items = sql.transformed(reference, variable, exact(kind.child, variable, depth))
    return sql.concat("'['", sql.joined(items), "']'")


def _struct(kind: Type, reference: str, depth: int) -> str:
    if _is_natural(kind):
        return sql.text(sql.call("to_json", reference))
    if not all(name for name, _ in kind.children):
        return _tuple(kind, reference, depth)
    parts = []
    for place, (name, child) in enumerate(kind.children):
        value = sql.call("struct_extract", reference, sql.literal(name))
        parts += [sql.literal(("," if place else "{") + _key(name)), exact(child, value, depth)]
    return sql.concat(*parts, "'}'")


def _tuple(kind: Type, reference: str, depth: int) -> str:
    parts = []
    for place, (_, child) in enumerate(kind.children):
        value = sql.call("struct_extract", reference, str(place + 1))
        parts += ["','" if place else "'['", exact(child, value, depth)]
    return sql.concat(*parts, "']'")


def _map(kind: Type, reference: str, depth: int) -> str:
    variable = f"e{depth}"
    key, value = (sql.call("struct_extract", variable, sql.literal(part)) for part in ("key", "value"))
    (_, key_type), (_, value_type) = kind.children
    pair = sql.concat("'['", exact(key_type, key, depth), "','", exact(value_type, value, depth), "']'")
    return sql.concat("'['", sql.joined(sql.transformed(sql.call("map_entries", reference), variable, pair)), "']'")


def _union(kind: Type, reference: str, depth: int) -> str:
    cases = []
    for name, child in kind.children:
        value = exact(child, sql.call("union_extract", reference, sql.literal(name)), depth)
        text = sql.concat(sql.literal("{" + _key(name)), value, "'}'")
        cases.append(f"WHEN {sql.literal(name)} THEN {text}")
    return f"CASE {sql.text(sql.call('union_tag', reference))} {' '.join(cases)} END"


def _variant(_kind: Type, reference: str, _depth: int) -> str:
    # Trap: on 1.5 to_json of a VARIANT is a string of its text; the cast is right on both.
    return _embedded(sql.text(f"({reference})::JSON"))


def _json(_kind: Type, reference: str, _depth: int) -> str:
    return _embedded(sql.text(reference))


def _embedded(text: str) -> str:
    """JSON text as it stands, digits and all, on one line.

    Trap: DuckDB's JSON knows NaN, Infinity and a comma before a bracket, and a file from elsewhere may hold any text in
    a JSON column: what is not strict JSON goes out as a string, and stray commas go.
    """
    bare = sql.call("regexp_replace", text, _STRING_IN_JSON, "'\"\"'", "'g'")
    line = sql.call("translate", text, _LINE_ENDS, "'  '")
    string = sql.text(sql.call("to_json", text))
    return (
        f"CASE WHEN NOT {sql.call('json_valid', text)} THEN {string}"
        f" WHEN NOT {sql.call('regexp_matches', text, _SUSPECT)} THEN {line}"
        f" WHEN {sql.call('regexp_matches', bare, _NO_NUMBER)} THEN {string}"
        f" WHEN {sql.call('regexp_matches', bare, _STRAY_COMMA)} THEN {sql.text(sql.call('json', text))}"
        f" ELSE {line} END"
    )


_QUOTE: Final = '"'
_QUOTED: Final = "'\"'"
_LINE_ENDS: Final = "system.main.concat(system.main.chr(10), system.main.chr(13))"
_NO_NUMBER: Final = "'(?i)nan|inf'"
_STRAY_COMMA: Final = r"',\s*[\]}]'"
_EXACT: Final = {
    "list": _list,
    "array": _list,
    "struct": _struct,
    "tuple": _tuple,
    "map": _map,
    "union": _union,
    "variant": _variant,
    "json": _json,
}
