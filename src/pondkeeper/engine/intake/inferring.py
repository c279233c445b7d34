"""The types of columns that no table has yet, from all of the values that came: the narrowest that loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import duckdb
import msgspec
import pyarrow as pa

from pondkeeper.engine.intake.passes import Pass, View
from pondkeeper.engine.intake.shape import columns_of, spelled
from pondkeeper.engine.intake.sources.rows import OnBad, Source
from pondkeeper.engine.intake.values import from_json
from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import Type
from pondkeeper.errors import BodyInvalid

_VIEW: Final = "__pondkeeper_inferred"
_TYPE: Final = b"pondkeeper.type"
# Each with what the text must look like: DuckDB's casts take more than people mean (`t` for true, 007 for 7).
_OF_TEXT: Final = (
    ("BOOLEAN", r"(?i)true|false"),
    ("BIGINT", r"-?(?:0|[1-9]\d*)"),
    ("HUGEINT", r"-?(?:0|[1-9]\d*)"),
    ("DOUBLE", r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|NaN|-?Infinity"),
    ("DATE", r"\d{4}-\d\d-\d\d"),
    ("TIME", r"\d\d:\d\d:\d\d(?:\.\d{1,6})?"),
    ("TIMESTAMP", r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?"),
    ("TIMESTAMP WITH TIME ZONE", r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d(?::?\d\d)?)"),
    ("UUID", r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
)
_OF_STRING: Final = frozenset({"DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "UUID"})
_MOST_FIELDS: Final = 200
_MOST_LEVELS: Final = 8  # Trap: what reads a list of lists grows with the power of its levels: twenty take minutes.


def inferred(cursor: duckdb.DuckDBPyConnection, source: Source, names: list[str], on_bad: OnBad) -> dict[str, str]:
    """The type of each of these columns of the body, as DuckDB spells it."""
    if source.form == "value":
        return value_types(cursor, cast("Any", source).schema, names)
    deep = [name for name in names if name in source.deep]
    others = [name for name in names if name not in source.deep]
    if not others:
        return dict.fromkeys(deep, "JSON")
    attempt = Pass(cursor, source.read(others, on_bad))
    with attempt as view:
        found = _of_text(attempt, view, others) if source.form == "text" else _of_json(attempt, view, others)
    return found | dict.fromkeys(deep, "JSON")


def _only_row(attempt: Pass, view: View, values: list[str]) -> Iterator[Any]:
    [row] = attempt.execute(f"SELECT {', '.join(values)} FROM {view.name}").fetchall()
    return iter(row)


def value_types(cursor: duckdb.DuckDBPyConnection, schema: pa.Schema, names: list[str]) -> dict[str, str]:
    """The types of columns that have types already: those that an answer of ours names, else what DuckDB makes of Arrow's."""
    # Why no empty table: Arrow can make none of lists of UUIDs or JSON.
    cursor.register(_VIEW, pa.RecordBatchReader.from_batches(schema, ()))
    try:
        columns = {column.name: column.type for column in columns_of(cursor, _VIEW)}
    finally:
        cursor.unregister(_VIEW)
    return {name: _named_by_us(cursor, schema.field(name)) or columns[name].name for name in names}


def _named_by_us(cursor: duckdb.DuckDBPyConnection, field: pa.Field) -> str | None:
    """The type that an answer of ours names. It is a stranger's text: only what DuckDB parses as a type, spelled anew."""
    named = (field.metadata or {}).get(_TYPE)
    if named is None:
        return None
    try:
        name = spelled(cursor.sqltype(named.decode()))
        cursor.sql(f"SELECT CAST(NULL AS {name})")
    except (duckdb.Error, UnicodeDecodeError, KeyError):
        return None
    return None if name in ("NULL", '"NULL"') else name


def _of_text(attempt: Pass, view: View, names: list[str]) -> dict[str, str]:
    counts = [count for name in names for count in (f"count({sql.name(name)})", *_fits(sql.name(name)))]
    row = _only_row(attempt, view, counts)
    found = {}
    for name in names:
        given = next(row)
        fitting = [kind for kind, _ in _OF_TEXT if next(row) == given]
        found[name] = fitting[0] if given and fitting else "VARCHAR"
    return found


def _fits(reference: str) -> list[str]:
    return [
        f"count(*) FILTER ({sql.call('regexp_full_match', reference, sql.literal(pattern))}"
        f" AND TRY_CAST({reference} AS {kind}) IS NOT NULL)"
        for kind, pattern in _OF_TEXT
    ]


def _of_json(attempt: Pass, view: View, names: list[str]) -> dict[str, str]:
    text = Type("varchar", "VARCHAR")
    counts = []
    for name in names:
        reference = sql.name(name)
        is_string = sql.call("starts_with", reference, "'\"'")
        string = f"CASE WHEN {is_string} THEN {from_json(text, reference)} END"
        structure = f"CAST({sql.call('json_group_structure', f'CAST({reference} AS JSON)')} AS VARCHAR)"
        counts += [structure, f"count({reference})", *_fits(string), *_integers(reference)]
    row = _only_row(attempt, view, counts)
    found = {}
    for name in names:
        structure, given = next(row), next(row)
        fitting = [kind for kind, _ in _OF_TEXT if next(row) == given and kind in _OF_STRING]
        integers = [kind for kind in _INTEGERS if next(row) == given]
        found[name] = (fitting + integers + [_of_structure(structure)])[0] if given else "VARCHAR"
    return found


_INTEGERS: Final = ("BIGINT", "HUGEINT")


def _integers(reference: str) -> list[str]:
    """Whole numbers as they are written: DuckDB's structure knows no difference between 1 and 18446744073709551616."""
    whole = sql.call("regexp_full_match", reference, r"'-?\d+'")
    return [f"count(*) FILTER ({whole} AND TRY_CAST({reference} AS {kind}) IS NOT NULL)" for kind in _INTEGERS]


def _of_structure(structure: str | None) -> str:
    try:
        return _type_of(msgspec.json.decode(structure or '"NULL"'))
    except msgspec.DecodeError as error:
        raise BodyInvalid(private=str(error)) from error


def _type_of(structure: Any, levels: int = 0) -> str:
    """What `json_structure` describes, as a type; of values that differ in kind, or are nested too deeply, JSON."""
    if isinstance(structure, (list, dict)) and levels == _MOST_LEVELS:
        return "JSON"
    if isinstance(structure, list):
        return f"{_type_of(structure[0], levels + 1) if structure else 'JSON'}[]"
    if isinstance(structure, dict):
        lowered = {name.lower() for name in structure}
        if not structure or len(structure) > _MOST_FIELDS or len(lowered) < len(structure) or "" in lowered:
            return "JSON"
        return f"STRUCT({', '.join(f'{sql.name(name)} {_type_of(child, levels + 1)}' for name, child in structure.items())})"
    return {"UBIGINT": "BIGINT", "NULL": "JSON"}.get(structure, str(structure))

