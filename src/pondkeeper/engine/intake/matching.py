"""Which column of a body goes into which column of a table, and how each of its values is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import duckdb

from pondkeeper.engine.intake.inferring import inferred
from pondkeeper.engine.intake.shape import TableColumn, TableShape
from pondkeeper.engine.intake.sources.delimited import CsvSource
from pondkeeper.engine.intake.sources.rows import Source
from pondkeeper.engine.intake.values import from_json, from_text, from_value, keeps_empty, when
from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import Type, described
from pondkeeper.errors import BodyInvalid, ColumnsDiffer, InvalidRequest, TableNotFound

_MOST_NAMED: Final = 20


@dataclass(frozen=True)
class Wish:
    """What the request asks of the table."""

    schema: str
    table: str
    shape: TableShape | None
    mode: str
    keys: tuple[str, ...]
    create: bool
    evolve: bool


@dataclass(frozen=True)
class Chosen:
    """One column of the body, and the column of the table that it goes into."""

    name: str
    target: TableColumn
    kind: Type

    @property
    def reference(self) -> str:
        return sql.name(self.name)


@dataclass(frozen=True)
class Match:
    """The columns that are read, those that the table gets for them, and the keys of an upsert by their real names."""

    columns: tuple[Chosen, ...]
    new: tuple[TableColumn, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """SQL about one value of the body: whether it is one, the value itself, strictly read, and its text for people."""

    kind: Type
    given: str
    value: str
    shown: str

    @property
    def strict(self) -> str:
        return when(self.kind, self.given, self.value)


def match(cursor: duckdb.DuckDBPyConnection, source: Source, wish: Wish) -> Match:
    """Find a place for every column of the body. Raises ColumnsDiffer, TableNotFound, InvalidRequest or BodyInvalid."""
    if wish.shape is None:
        if not wish.create:
            raise TableNotFound(f"There is no table {wish.table!r} in the schema {wish.schema!r}.")
        return _match_new(cursor, source, wish)
    shape = wish.shape
    insertable = [column for column in shape.columns if not column.is_generated]
    if isinstance(source, CsvSource) and not source.has_header:
        pairs = _by_place(source.names, insertable)
    else:
        names = source.names
        if names is None:
            # Why: of a column that no row has the default is taken, and only a survey can tell that in time.
            needs_survey = wish.evolve or any(each.is_optional and not each.is_nullable for each in insertable)
            names = (source.survey() if needs_survey else []) or [column.name for column in insertable]
        pairs = [(name, shape.column(name)) for name in names]
    return _matched(cursor, source, wish, pairs)


def _match_new(cursor: duckdb.DuckDBPyConnection, source: Source, wish: Wish) -> Match:
    names = source.survey()
    if not names:
        raise BodyInvalid("The body has no columns to make a table of.")
    new = _typed(cursor, source, names)
    keys = wish.keys
    if wish.mode == "upsert":
        keys = _keys(wish, TableShape(wish.schema, wish.table, new))
    return Match(tuple(Chosen(each.name, each, _kind(cursor, each)) for each in new), new, keys)


def _matched(
    cursor: duckdb.DuckDBPyConnection, source: Source, wish: Wish, pairs: Sequence[tuple[str, TableColumn | None]]
) -> Match:
    assert wish.shape is not None
    unknown = [name for name, target in pairs if target is None]
    if unknown and not wish.evolve:
        raise unknown_columns(wish.shape, unknown)
    _check_targets(wish.shape, [target for _, target in pairs if target is not None])
    new = {column.name: column for column in _typed(cursor, source, unknown)} if unknown else {}
    targets = [(name, target or new[name]) for name, target in pairs]
    keys = _keys(wish, wish.shape) if wish.mode == "upsert" else ()
    if source.names is not None:
        missing = [key for key in keys if key not in {target.name for _, target in targets}]
        if missing:
            raise ColumnsDiffer(f"The body has no column {missing[0]!r}, which is a key of the upsert.", missing=missing)
        _check_missing(wish, {target.name for _, target in targets})
    return Match(
        tuple(Chosen(name, target, _kind(cursor, target)) for name, target in targets), tuple(new.values()), keys
    )


def _by_place(names: list[str], insertable: list[TableColumn]) -> list[tuple[str, TableColumn | None]]:
    if len(names) != len(insertable):
        raise ColumnsDiffer(f"The body has {len(names)} columns and no header, and the table {len(insertable)}.")
    return list(zip(names, insertable, strict=True))


def _kind(cursor: duckdb.DuckDBPyConnection, column: TableColumn) -> Type:
    return described(cursor.sqltype(column.type))


def _typed(cursor: duckdb.DuckDBPyConnection, source: Source, names: list[str]) -> tuple[TableColumn, ...]:
    types = inferred(cursor, source, names, lambda bad: None)
    return tuple(TableColumn(name, types[name]) for name in names)


def _keys(wish: Wish, shape: TableShape) -> tuple[str, ...]:
    keys = wish.keys or shape.primary_key
    if not keys:
        raise InvalidRequest(
            f"The table {shape.table!r} has no primary key, so an upsert must name its keys.", remedy="Add key=a,b."
        )
    found = []
    for key in keys:
        column = shape.column(key)
        if column is None:
            raise ColumnsDiffer(f"The table {shape.table!r} has no column {key!r} to be a key.", unknown=[key])
        found.append(column.name)
    return tuple(dict.fromkeys(found))


def unknown_columns(shape: TableShape, unknown: list[str]) -> ColumnsDiffer:
    """The error that names the columns that the table has not."""
    named = ", ".join(repr(name[:100]) for name in unknown[:_MOST_NAMED])
    what = f"a column {named}" if len(unknown) == 1 else f"columns {named}"
    return ColumnsDiffer(
        f"The body has {what}, and the table {shape.table!r} has not.",
        remedy="Leave it out, or let the ingest add it to the table with evolve=true.",
        unknown=unknown[:_MOST_NAMED],
    )


def _check_targets(shape: TableShape, targets: list[TableColumn]) -> None:
    for target in targets:
        if target.is_generated:
            raise ColumnsDiffer(f"The column {target.name!r} of {shape.table!r} is generated: a body cannot have it.")


def _check_missing(wish: Wish, given: set[str]) -> None:
    """Raise ColumnsDiffer for a column that must have a value and gets none. An upsert may only change rows."""
    assert wish.shape is not None
    missing = [column.name for column in wish.shape.columns if not column.is_optional and column.name not in given]
    if missing and wish.mode != "upsert":
        raise ColumnsDiffer(
            f"The body has no column {missing[0]!r}, which must not be NULL and has no default.", missing=missing
        )


def check_seen(wish: Wish, rows: int, present: set[str], others: dict[str, int]) -> None:
    """After a pass over a body whose columns nobody knew before: raise ColumnsDiffer where it does not fit after all."""
    if wish.shape is None:
        return
    if others:
        error = unknown_columns(wish.shape, list(others))
        error.details["first_at"] = min(others.values())
        raise error
    if rows:
        _check_missing(wish, present)


def cells(source: Source, columns: Sequence[Chosen], types: dict[str, Type]) -> list[Cell]:
    """How each of the columns is read; `types` are those of the columns as the pass carries them."""
    return [_cell(source, column, types[column.name]) for column in columns]


def _cell(source: Source, column: Chosen, carried: Type) -> Cell:
    reference, kind = column.reference, column.kind
    given = f"{reference} IS NOT NULL"
    if source.form == "text":
        if not keeps_empty(kind):
            given += f" AND {reference} <> ''"
        return Cell(kind, given, from_text(kind, reference), reference)
    if source.form == "json":
        return Cell(kind, given, from_json(kind, reference), reference)
    return Cell(kind, given, from_value(kind, carried, reference), f"CAST({reference} AS VARCHAR)")
