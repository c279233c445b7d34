"""The table that rows are for: made, or changed as far as the step lets it, so that they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import duckdb

from pondkeeper.engine.faults import translate
from pondkeeper.engine.intake.shape import TableColumn, TableShape, spelled, table_shape
from pondkeeper.engine.loads.steps import Append, Replace, RowsStep
from pondkeeper.engine.names import table_name
from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import FLOATING, WHOLE, described
from pondkeeper.errors import ColumnsDiffer, InvalidRequest, SchemaDrifted, TableNotFound

_NUMBERS: Final = WHOLE | FLOATING | {"hugeint", "uhugeint", "decimal", "bignum"}
_MOMENTS: Final = frozenset(
    {"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone", "timestamptz_ns"}
)
_SHOWN: Final = 10
_DIGEST_CHARS: Final = 12


@dataclass(frozen=True)
class Change:
    """One difference between the rows and their table: in words, and what is done about it ("": nothing)."""

    text: str
    statement: str = ""


def fit_table(
    cursor: duckdb.DuckDBPyConnection, step: RowsStep, given: Mapping[str, str], accepted: Collection[str]
) -> list[str]:
    """Make the table fit rows of these columns and types; how it was changed.

    Raises SchemaDrifted, TableNotFound, ColumnsDiffer or InvalidRequest.
    """
    schema, table = table_name(step.table)
    wanted = _wanted(cursor, step.types)
    shape = table_shape(cursor, schema, table)
    if shape is None:
        if not step.create:
            raise TableNotFound(f"There is no table {table!r} in the schema {schema!r}.")
        _make(cursor, schema, table, {name: wanted.get(name.lower(), kind) for name, kind in given.items()})
        return []
    changes = list(_changes(cursor, step, shape, given, wanted))
    done = [change for change in changes if change.statement]
    if changes and step.drift != "allow":
        _insist_on_acceptance(step, changes, accepted)
    for change in done:
        cursor.execute(change.statement)
    return [change.text for change in done]


def _wanted(cursor: duckdb.DuckDBPyConnection, types: Mapping[str, str]) -> dict[str, str]:
    """The types that the step names, spelled as those of tables are."""
    try:
        return {name.lower(): spelled(cursor.sqltype(kind)) for name, kind in types.items()}
    except duckdb.Error as error:
        raise InvalidRequest(f"The step names a type that DuckDB does not know: {translate(error).message}") from error


def _make(cursor: duckdb.DuckDBPyConnection, schema: str, table: str, types: Mapping[str, str]) -> None:
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {sql.name(schema)}")
    columns = ", ".join(f"{sql.name(name)} {kind}" for name, kind in types.items())
    cursor.execute(f"CREATE TABLE {sql.name(schema)}.{sql.name(table)} ({columns})")


def _changes(
    cursor: duckdb.DuckDBPyConnection,
    step: RowsStep,
    shape: TableShape,
    given: Mapping[str, str],
    wanted: Mapping[str, str],
) -> Iterator[Change]:
    alter = f"ALTER TABLE {shape.reference}"
    for name, kind in given.items():
        column, named = shape.column(name), wanted.get(name.lower())
        if column is None:
            new = named or kind
            yield Change(f"column {name!r} {new} is new", f"{alter} ADD COLUMN {sql.name(name)} {new}")
            continue
        if column.is_generated:
            raise ColumnsDiffer(f"The column {column.name!r} of {shape.table!r} is generated: rows cannot have it.")
        held = named or _holding(cursor, step, column, kind)
        if held != column.type:
            change = f"{alter} ALTER COLUMN {sql.name(column.name)} SET DATA TYPE {held}"
            if isinstance(step, Replace):  # Why: nothing of what it holds stays, and not everything can be cast.
                change += f" USING CAST(NULL AS {held})"
            yield Change(f"column {column.name!r} becomes {held}, it was {column.type}", change)
    if isinstance(step, (Replace, Append)):
        yield from _missing(shape, {name.lower() for name in given})


def _missing(shape: TableShape, given: Collection[str]) -> Iterator[Change]:
    for column in shape.columns:
        if column.is_generated or column.name.lower() in given:
            continue
        if not column.is_optional:
            raise ColumnsDiffer(
                f"The rows have no column {column.name!r}, which must not be NULL in {shape.table!r} and has no default.",
                missing=[column.name],
            )
        yield Change(f"column {column.name!r} is missing")


def _holding(cursor: duckdb.DuckDBPyConnection, step: RowsStep, column: TableColumn, kind: str) -> str:
    """The type that a column needs to hold what it has and values of that kind; its own, if that does.

    Text is read as what the column is: Parquet carries many a type as text only.
    """
    if kind in (column.type, "VARCHAR"):
        return column.type
    joint = _joint(cursor, column.type, kind)
    if joint is not None:
        return joint
    if isinstance(step, Replace):
        return kind  # Why: nothing of what it holds stays.
    raise SchemaDrifted(
        f"The column {column.name!r} of {step.table!r} is {column.type}, and the rows have {kind}: it cannot hold both.",
        table=step.table,
        changes=[f"column {column.name!r} is {kind}, it was {column.type}"],
    )


def _joint(cursor: duckdb.DuckDBPyConnection, one: str, other: str) -> str | None:
    """The type that holds values of both, if there is one that is of their kind.

    Trap: DuckDB finds a type for nearly any two (of a number and a list, a list), and fails when it casts.
    """
    if one == "VARCHAR":
        return one
    if _family(cursor, one) != _family(cursor, other):
        return None
    try:
        relation = cursor.sql(f"SELECT CAST(NULL AS {one}) AS v UNION ALL SELECT CAST(NULL AS {other})")
    except duckdb.Error:  # Why: it says by refusing the UNION that there is none, on each line in another way.
        return None
    joint = spelled(relation.types[0])
    return joint if _family(cursor, joint) == _family(cursor, one) else None


def _family(cursor: duckdb.DuckDBPyConnection, kind: str) -> str:
    """What kind of values these are, as far as one type can become another without being read anew."""
    identity = described(cursor.sqltype(kind)).id
    return "number" if identity in _NUMBERS else "moment" if identity in _MOMENTS else identity


def _insist_on_acceptance(step: RowsStep, changes: list[Change], accepted: Collection[str]) -> None:
    """Raise SchemaDrifted, unless the step asks and a person has accepted just these changes."""
    texts = [change.text for change in changes]
    digest = hashlib.sha256("\n".join([step.table.lower(), *sorted(texts)]).encode()).hexdigest()[:_DIGEST_CHARS]
    if step.drift == "ask" and digest in accepted:
        return
    shown = "; ".join(texts[:_SHOWN]) + ("; …" if len(texts) > _SHOWN else "")
    message = f"The rows for {step.table!r} are not as the table is: {shown}."
    if step.drift != "ask":
        raise SchemaDrifted(message, table=step.table, changes=texts)
    remedy = '`pondkeeper job accept NAME` lets just this through in the next run; `drift = "allow"` everything.'
    raise SchemaDrifted(message, remedy=remedy, table=step.table, changes=texts, digest=digest)
