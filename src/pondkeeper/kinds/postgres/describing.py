"""What a source has: its tables and views, their columns with the types that stand behind them, their keys."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pondkeeper.errors import SourceRefused
from pondkeeper.kinds.postgres.connecting import Connection, answering, quoted

TABLE, PARTITIONED, VIEW, MATERIALIZED, FOREIGN = "r", "p", "v", "m", "f"
_WILD: Final = "*?["
_ROW_BYTES: Final = 2_000
_NO_ARRAYS: Final = ("int2vector", "oidvector")

_RELATIONS: Final = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relispartition, greatest(c.reltuples, 0)::bigint, c.relpages,
       CASE WHEN c.relkind IN ('r', 'm') THEN coalesce(pg_table_size(c.oid), 0) ELSE 0 END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_(toast|temp)' AND c.relpersistence <> 't'
ORDER BY n.nspname, c.relname
"""
_KEYS: Final = """
SELECT i.indrelid, (SELECT array_agg(a.attname::text ORDER BY k.place)
                    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
                    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE k.place <= i.indnkeyatts)
FROM pg_index i WHERE i.indisprimary AND i.indrelid = ANY(%s)
"""
_COLUMNS: Final = """
SELECT attrelid, attname, attnum, atttypid, atttypmod, format_type(atttypid, atttypmod), attndims
FROM pg_attribute WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum
"""
_TYPES: Final = """
SELECT t.oid, t.typname, t.typtype::text, t.typcategory::text, t.typbasetype, t.typtypmod, t.typelem, t.typndims, n.nspname = 'pg_catalog'
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY(%s)
"""


@dataclass(frozen=True)
class Kind:
    """The type that stands behind a column's: domains are looked through. `modifier`: as in pg_attribute.atttypmod.

    An array has `element`, and `dimensions` as declared. Types of other people's making have `is_builtin` false.
    """

    name: str
    sort: str
    modifier: int
    is_builtin: bool
    element: Kind | None = None
    dimensions: int = 0


@dataclass(frozen=True)
class SourceColumn:
    """A column as the source has it. `declared`: its type as PostgreSQL writes it."""

    name: str
    number: int
    type_oid: int
    modifier: int
    declared: str
    kind: Kind
    is_domain: bool


@dataclass(frozen=True)
class SourceTable:
    """A table, or what can be read like one. `rows` and `pages` are the source's own estimates."""

    oid: int
    schema: str
    name: str
    relation: str
    rows: int
    pages: int
    size_bytes: int
    key: tuple[str, ...]
    columns: tuple[SourceColumn, ...]

    @property
    def full_name(self) -> str:
        """`schema.table`, as settings name it."""
        return f"{self.schema}.{self.name}"

    @property
    def row_bytes(self) -> int:
        """About how large a row is, what is stored beside it counted in; a guess where nothing is known."""
        return self.size_bytes // self.rows if self.rows and self.size_bytes else _ROW_BYTES

    @property
    def sql(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def column(self, name: str) -> SourceColumn:
        """The column of that name. Raises SourceRefused."""
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            near = difflib.get_close_matches(name, [column.name for column in self.columns], 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SourceRefused(f"{self.full_name} has no column {name}.{hint}")
        return found


def describe(connection: Connection, wanted: Sequence[str], exclude: Sequence[str] = ()) -> list[SourceTable]:
    """The tables that these names and patterns mean, without those that others mean. Raises SourceRefused for a name of none."""
    with answering():
        relations = {f"{schema}.{name}": (oid, schema, name, *rest) for oid, schema, name, *rest in connection.execute(_RELATIONS)}
        chosen = _chosen(relations, wanted, exclude)
        oids = [relations[name][0] for name in chosen]
        keys = dict(connection.execute(_KEYS, [oids]).fetchall())
        columns = connection.execute(_COLUMNS, [oids]).fetchall()
        kinds = _Kinds(connection, {row[3] for row in columns})
    by_table: dict[int, list[SourceColumn]] = {}
    for oid, name, number, type_oid, modifier, declared, dimensions in columns:
        kind = kinds.kind(type_oid, modifier, dimensions)
        column = SourceColumn(name, number, type_oid, modifier, declared, kind, is_domain=kinds.is_domain(type_oid))
        by_table.setdefault(oid, []).append(column)
    found = [relations[name] for name in chosen]
    return [
        SourceTable(oid, schema, name, kind, rows, pages, size, tuple(keys.get(oid) or ()), tuple(by_table.get(oid, ())))
        for oid, schema, name, kind, _is_partition, rows, pages, size in found
    ]


def full_name(name: str) -> str:
    """A table's name of the settings with its schema."""
    return name if "." in name else f"public.{name}"


def _chosen(relations: Mapping[str, Any], wanted: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Names of relations: patterns find tables, a name whatever has it."""
    without = [full_name(pattern) for pattern in exclude]
    found: dict[str, None] = {}
    for pattern in map(full_name, wanted):
        names = [pattern] if pattern in relations else []
        if not names and any(sign in pattern for sign in _WILD):
            names = [name for name, row in relations.items() if _is_by_pattern(row) and fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise _no_such(pattern, relations)
        found |= dict.fromkeys(name for name in names if not any(fnmatch.fnmatchcase(name, each) for each in without))
    return list(found)


def _is_by_pattern(row: Sequence[Any]) -> bool:
    """Whether a pattern means it: tables of people, and of partitioned ones the whole."""
    _, schema, _, kind, is_partition, *_ = row
    return kind in {TABLE, PARTITIONED} and not is_partition and schema not in {"pg_catalog", "information_schema"}


def _no_such(pattern: str, relations: Iterable[str]) -> SourceRefused:
    if any(sign in pattern for sign in _WILD):
        return SourceRefused(f"No table of the source fits {pattern}.", remedy="Look at `tables` of the job: `schema.*` are all tables of a schema.")
    near = difflib.get_close_matches(pattern, relations, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return SourceRefused(f"The source has no table {pattern}.{hint}", remedy="Correct `tables` of the job, or the rights of its user.")


class _Kinds:
    """The types behind columns' types, as deep as domains and arrays go."""

    def __init__(self, connection: Connection, oids: set[int]) -> None:
        self._rows: dict[int, Any] = {}
        missing = set(oids)
        while missing:
            for row in connection.execute(_TYPES, [list(missing)]):
                self._rows[row[0]] = row
            needed = {oid for row in self._rows.values() for oid in (row[4], row[6]) if oid}
            missing = needed - set(self._rows)

    def is_domain(self, oid: int) -> bool:
        return bool(self._rows[oid][2] == "d")

    def kind(self, oid: int, modifier: int, dimensions: int = 0) -> Kind:
        _, name, sort, category, base, base_modifier, element, base_dimensions, is_builtin = self._rows[oid]
        if sort == "d":
            return self.kind(base, base_modifier if modifier < 0 else modifier, dimensions or base_dimensions)
        if category == "A" and element and name not in _NO_ARRAYS:
            return Kind(name, "array", modifier, is_builtin, self.kind(element, modifier), max(dimensions, 1))
        return Kind(name, {"e": "enum", "c": "composite"}.get(sort, "base"), modifier, is_builtin)
