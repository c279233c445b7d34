"""The way back of `render`: SQL that reads a value from its canonical text, from its JSON, or as Arrow carries it.

Every expression is strict: what cannot be read raises, nothing is dropped or made NULL. `TRY(…)` around it asks whether
it would. Types of ours by their names in DuckDB; `docs/reference/types.md` is the table of both ways.
"""

from __future__ import annotations

import re
from typing import Final

from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import NESTED, Type

_AS_TEXT: Final = frozenset({"uhugeint", "bignum", "bit", "time with time zone", "interval"})
_MOMENTS: Final = frozenset({"timestamp", "timestamp_s", "timestamp_ms"})
_FAR: Final = r"'^[+-]\d{6,7}-'"
_FAR_PARTS: Final = r"'^([+-]\d{6,7})-(\d\d)-(\d\d)'"
_KEEPS_EMPTY: Final = frozenset({"varchar", "blob"})
_EMPTY_MEMBER: Final = re.compile(r"(?:\(|, )''(?=[,)])")


def keeps_empty(kind: Type) -> bool:
    """Whether the empty text is a value of this type; of all others it is no value, that is NULL."""
    return kind.id in _KEEPS_EMPTY or (kind.id == "enum" and _EMPTY_MEMBER.search(kind.name) is not None)


def when(kind: Type, condition: str, value: str) -> str:
    """SQL for the value where the condition holds, else NULL. Trap: 1.5 has no CASE of arrays, so they go as lists."""
    if kind.id != "array":
        return f"CASE WHEN {condition} THEN {value} END"
    return _cast(kind, f"CASE WHEN {condition} THEN CAST({value} AS {kind.child.name}[]) END")


def from_text(kind: Type, reference: str) -> str:
    """SQL for the value of a canonical text (a CSV cell). The text is not NULL."""
    if kind.id == "varchar":
        return reference
    if kind.id in NESTED:
        return from_json(kind, reference)
    if kind.id == "blob":
        return sql.call("from_base64", reference)
    if kind.id == "date":
        return f"CASE WHEN {_is_far(reference)} THEN {_far_day(reference)} ELSE {_cast(kind, reference)} END"
    if kind.id in _MOMENTS:
        return f"CASE WHEN {_is_far(reference)} THEN {_cast(kind, _far_moment(reference))} ELSE {_cast(kind, reference)} END"
    if kind.id == "timestamp with time zone":
        far = f"CAST({_far_moment(reference)} AS TIMESTAMP WITH TIME ZONE)"  # the session is in UTC, as the text is
        return f"CASE WHEN {_is_far(reference)} THEN {far} ELSE {_cast(kind, reference)} END"
    return _cast(kind, reference)


def _cast(kind: Type, reference: str) -> str:
    return f"CAST({reference} AS {kind.name})"


def _is_far(reference: str) -> str:
    return sql.call("regexp_matches", reference, _FAR)


def _far_day(reference: str) -> str:
    parts = [f"CAST({sql.call('regexp_extract', reference, _FAR_PARTS, str(group))} AS BIGINT)" for group in (1, 2, 3)]
    return sql.call("make_date", *parts)


def _far_moment(reference: str) -> str:
    clock = sql.call("regexp_extract", reference, r"'\d\d:\d\d:\d\d(\.\d+)?'")
    return f"({_far_day(reference)} + CAST({clock} AS TIME))"


# JSON


def from_json(kind: Type, reference: str, depth: int = 0) -> str:
    """SQL for the value of a JSON text. The text is neither NULL nor `null`."""
    read = _FROM_JSON.get(kind.id)
    if read is not None:
        return read(kind, reference, depth + 1)
    if kind.id == "json":
        return f"CAST({reference} AS JSON)"
    return from_text(kind, _text_of(reference))


def _text_of(reference: str) -> str:
    """The text inside a JSON string, and of anything else its very digits and brackets."""
    is_string = sql.call("starts_with", reference, "'\"'")
    return f"CASE WHEN {is_string} THEN {sql.call('json_extract_string', reference, _ROOT)} ELSE {reference} END"


def _or_null(kind: Type, reference: str, depth: int) -> str:
    """A JSON value that may be absent or `null`."""
    text = f"CAST({reference} AS VARCHAR)"
    return when(kind, f"{reference} IS NOT NULL AND {text} <> 'null'", from_json(kind, text, depth))


def _items(reference: str) -> str:
    return f"CAST(CAST({reference} AS JSON) AS JSON[])"


def _list(kind: Type, reference: str, depth: int) -> str:
    variable = f"j{depth}"
    items = sql.transformed(_items(reference), variable, _or_null(kind.child, variable, depth))
    return _cast(kind, items)


def _struct(kind: Type, reference: str, depth: int) -> str:
    if not all(name for name, _ in kind.children):
        return _tuple(kind, reference, depth)
    if not kind.children:
        return _cast(kind, f"CAST({reference} AS JSON)")
    fields = [
        f"{sql.name(name)} := {_or_null(child, sql.call('json_extract', reference, sql.literal(_pointer(name))), depth)}"
        for name, child in kind.children
    ]
    names = "[" + ", ".join(sql.literal(name) for name, _ in kind.children) + "]"
    is_known = sql.call("list_has_all", names, sql.call("json_keys", reference))
    packed = _cast(kind, sql.call("struct_pack", *fields))
    is_fit = f"{_is(reference, 'OBJECT')} AND {is_known}"
    return _if(is_fit, packed, f"no {kind.name}, or with fields that it has not: ", reference)


def _tuple(kind: Type, reference: str, depth: int) -> str:
    values = [
        _or_null(child, sql.call("json_extract", reference, f"'$[{place}]'"), depth)
        for place, (_, child) in enumerate(kind.children)
    ]
    is_fit = f"{_is(reference, 'ARRAY')} AND {sql.call('json_array_length', reference)} = {len(values)}"
    return _if(is_fit, _cast(kind, sql.call("row", *values)), f"no {kind.name}: ", reference)


def _map(kind: Type, reference: str, depth: int) -> str:
    """Pairs, as we write them; or an object, where the keys can be read from its names."""
    (_, key_type), (_, value_type) = kind.children
    variable, name = f"j{depth}", f"k{depth}"
    key, value = (sql.call("json_extract", variable, f"'$[{place}]'") for place in (0, 1))
    pair = f"row({_or_null(key_type, key, depth)}, {_or_null(value_type, value, depth)})"
    pairs = sql.call("map_from_entries", sql.transformed(_items(reference), variable, pair))
    named = sql.call("json_extract", reference, _pointer_of(name))
    entry = f"row({from_text(key_type, name)}, {_or_null(value_type, named, depth)})"
    entries = sql.call("map_from_entries", sql.transformed(sql.call("json_keys", reference), name, entry))
    return (
        f"CASE WHEN {_is(reference, 'ARRAY')} THEN {_cast(kind, pairs)}"
        f" WHEN {_is(reference, 'OBJECT')} THEN {_cast(kind, entries)}"
        f" WHEN {failing(f'no {kind.name}: ', reference)} THEN NULL END"
    )


def _union(kind: Type, reference: str, depth: int) -> str:
    cases = []
    for name, child in kind.children:
        value = _or_null(child, sql.call("json_extract", reference, sql.literal(_pointer(name))), depth)
        member = f"CAST({value} AS {child.name})"
        made = _cast(kind, sql.call("union_value", f"{sql.name(name)} := {member}"))
        cases.append(f"WHEN {sql.call('json_keys', reference)} = [{sql.literal(name)}] THEN {made}")
    return f"CASE {' '.join(cases)} WHEN {failing(f'no {kind.name}: ', reference)} THEN NULL END"


def _variant(kind: Type, reference: str, _depth: int) -> str:
    return _cast(kind, f"CAST({reference} AS JSON)")


def _is(reference: str, json_type: str) -> str:
    return f"{sql.call('json_type', reference)} = '{json_type}'"


def _if(condition: str, value: str, reason: str, reference: str) -> str:
    return f"CASE WHEN {condition} THEN {value} WHEN {failing(reason, reference)} THEN NULL END"


def failing(reason: str, reference: str) -> str:
    """SQL for a condition that raises. Trap: `TRY` takes no volatile function, which `error` is; a cast it takes."""
    return f"CAST({sql.concat(sql.literal(reason), sql.text(reference))} AS BOOLEAN)"


def _pointer(name: str) -> str:
    """The JSON pointer to a field."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _pointer_of(reference: str) -> str:
    escaped = sql.call("replace", sql.call("replace", reference, "'~'", "'~0'"), "'/'", "'~1'")
    return sql.concat("'/'", escaped)


_ROOT: Final = "'$'"
_FROM_JSON: Final = {
    "list": _list,
    "array": _list,
    "struct": _struct,
    "tuple": _tuple,
    "map": _map,
    "union": _union,
    "variant": _variant,
}


# Arrow and Parquet


def from_value(kind: Type, source: Type, reference: str, depth: int = 0) -> str:
    """SQL for the value as Arrow or Parquet carry it; the reference itself where nothing is to be done. NULL stays NULL."""
    if kind.name == source.name:
        return reference
    if source.id == "varchar" and kind.id != "blob":
        value = from_json(kind, reference) if kind.id in NESTED else from_text(kind, reference)
        return value if value == reference else when(kind, f"{reference} IS NOT NULL", value)
    if kind.id == "geometry" and source.id == "blob":
        return sql.call("st_geomfromwkb", reference)
    if kind.id in ("list", "array") and source.id in ("list", "array"):
        variable = f"v{depth}"
        inner = from_value(kind.child, source.child, variable, depth + 1)
        items = reference if inner == variable else sql.transformed(reference, variable, inner)
        return _cast(kind, items)
    if kind.id in ("struct", "tuple") and source.id in ("struct", "tuple"):
        return _cast(kind, _struct_from_value(kind, source, reference, depth + 1))
    if kind.id == "map" and source.id == "map":
        return _cast(kind, _map_from_value(kind, source, reference, depth + 1))
    return _cast(kind, reference)


def _struct_from_value(kind: Type, source: Type, reference: str, depth: int) -> str:
    named = all(name for name, _ in kind.children)
    given = {name.lower(): (name, child) for name, child in source.children}
    places = [(name or f"element{place + 1}", name, child) for place, (name, child) in enumerate(kind.children)]
    unknown = set(given) - {wanted.lower() for wanted, _, _ in places}
    if unknown:
        wrong = failing(f"fields that {kind.name} has not: ", reference)
        return f"CASE WHEN {reference} IS NULL THEN NULL WHEN {wrong} THEN NULL END"
    parts = []
    for wanted, name, child in places:
        found = given.get(wanted.lower())
        if found is None:
            value = f"CAST(NULL AS {child.name})"
        else:
            value = from_value(child, found[1], sql.call("struct_extract", reference, sql.literal(found[0])), depth)
        parts.append(f"{sql.name(name)} := {value}" if named else value)
    packed = sql.call("struct_pack", *parts) if named else sql.call("row", *parts)
    return f"CASE WHEN {reference} IS NULL THEN NULL ELSE {packed} END"


def _map_from_value(kind: Type, source: Type, reference: str, depth: int) -> str:
    variable = f"v{depth}"
    parts = []
    for part, (_, child), (_, given) in zip(("key", "value"), kind.children, source.children, strict=True):
        parts.append(from_value(child, given, sql.call("struct_extract", variable, sql.literal(part)), depth + 1))
    pairs = sql.transformed(sql.call("map_entries", reference), variable, f"row({', '.join(parts)})")
    return f"CASE WHEN {reference} IS NULL THEN NULL ELSE {sql.call('map_from_entries', pairs)} END"
