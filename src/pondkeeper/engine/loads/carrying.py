"""Carries out the steps of a load on the cursor of an open transaction."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from pondkeeper.engine.intake.shape import TableShape, table_shape
from pondkeeper.engine.intake.sources.rows import PLACE
from pondkeeper.engine.intake.values import from_value
from pondkeeper.engine.loads import state
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.engine.loads.rows import StagedRows
from pondkeeper.engine.loads.steps import (
    Delete,
    KeepOnly,
    Replace,
    RowsStep,
    Run,
    Step,
    Truncate,
    Update,
    Upsert,
)
from pondkeeper.engine.loads.targets import fit_table
from pondkeeper.engine.names import table_name
from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import Type, described
from pondkeeper.errors import ColumnsDiffer, PondkeeperError

_TARGET: Final = "t"
_SOURCE: Final = "s"
Execute = Callable[[str, Any], int]


@dataclass
class Carried:
    """What each step has counted, and how tables were changed for their rows."""

    counts: list[int] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


class Carrier:
    """One load in one transaction. `execute` runs a statement of the job's own, and raises when the load is interrupted."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, plan: LoadPlan, execute: Execute) -> None:
        self._cursor = cursor
        self._plan = plan
        self._execute = execute
        self._changes: list[str] = []
        self._rows: dict[int, StagedRows] = {}

    def run(self) -> Carried:
        """Carry out all of it, or find that it was committed before. Raises what the engine raises, or PondkeeperError."""
        known = state.counts_of(self._cursor, self._plan)
        if known is not None:
            return Carried(known)
        state.insist_on_expected(self._cursor, self._plan)
        counts: list[int] = []
        for place, step in enumerate(self._plan.steps):
            if place == 0 or isinstance(self._plan.steps[place - 1], Run):
                self._make_tables(self._plan.steps[place:])
            counts.append(self._step(step))
        state.remember(self._cursor, self._plan, counts)
        return Carried(counts, self._changes)

    def _make_tables(self, steps: Sequence[Step]) -> None:
        """Make or change the tables of all steps that follow, up to the next statement of the job's own.

        Why before any of them: a table that is changed after its rows were, in one transaction, DuckDB refuses to commit.
        """
        for step in itertools.takewhile(lambda step: not isinstance(step, Run), steps):
            if isinstance(step, RowsStep) and not (isinstance(step, Update) and self._shape(step.table) is None):
                rows = self._rows[id(step)] = StagedRows(step.paths)
                changes = fit_table(self._cursor, step, rows.types(self._cursor), self._plan.accepted)
                self._changes += [f"{step.table}: {change}" for change in changes]

    def _step(self, step: Step) -> int:
        self._execute("SELECT 1", None)  # Why: whoever interrupts between two statements is heard here.
        if isinstance(step, Run):
            parameters = step.parameters
            return self._execute(step.sql, list(parameters) if isinstance(parameters, Sequence) else parameters)
        shape = self._shape(step.table)
        if shape is None:
            return 0
        if isinstance(step, Truncate):
            return self._emptied(shape)
        if isinstance(step, (Delete, KeepOnly)):
            return self._delete(step, shape)
        assert isinstance(step, RowsStep)
        return self._put(step, shape)

    # Rows into a table

    def _put(self, step: RowsStep, shape: TableShape) -> int:
        rows = self._rows[id(step)]
        if isinstance(step, (Upsert, Update)):
            return self._merge(step, shape, rows)
        if isinstance(step, Replace):
            self._emptied(shape)
        return self._insert(shape, rows)

    def _insert(self, shape: TableShape, rows: StagedRows) -> int:
        attempt = rows.on(self._cursor, rows.names)
        with attempt as view:
            given = self._values(shape, rows.names, view.types)
            selected = f"SELECT {', '.join(value for _, value in given)} FROM {view.name}"
            [(loaded,)] = attempt.execute(
                f"INSERT INTO {shape.reference} ({_names([name for name, _ in given])}) {selected}"
            ).fetchall()
        return _all(int(loaded), rows)

    def _merge(self, step: Upsert | Update, shape: TableShape, rows: StagedRows) -> int:
        keys = self._keys(step.keys, shape, rows)
        has_twins = self._has_twins(shape, keys, rows)
        attempt = rows.on(self._cursor, rows.names, with_place=has_twins)
        with attempt as view:
            given = self._values(shape, rows.names, view.types)
            values = ", ".join(f"{value} AS {sql.name(name)}" for name, value in given)
            names = [name for name, _ in given]
            source = f"SELECT {values} FROM {view.name}"
            if has_twins:  # of several rows with equal keys the last one counts
                source = f"SELECT {values}, {sql.name(PLACE)} FROM {view.name}"
                last = f"row_number() OVER (PARTITION BY {_names(keys)} ORDER BY {sql.name(PLACE)} DESC) = 1"
                source = f"SELECT {_names(names)} FROM ({source}) QUALIFY {last}"
            [(merged,)] = attempt.execute(_merging(step, shape, source, names, keys)).fetchall()
        return int(merged)

    def _has_twins(self, shape: TableShape, keys: Sequence[str], rows: StagedRows) -> bool:
        """Whether keys come more than once. Why asked: to number all rows costs far more than to look at the keys."""
        names = self._of_file(keys, rows)
        attempt = rows.on(self._cursor, names)
        with attempt as view:
            values = ", ".join(value for _, value in self._values(shape, names, view.types))
            counted = f"SELECT count(*) AS n FROM {view.name} GROUP BY {values} HAVING count(*) > 1 LIMIT 1"
            return bool(attempt.execute(counted).fetchall())

    # Rows out of a table

    def _delete(self, step: Delete | KeepOnly, shape: TableShape) -> int:
        rows = StagedRows(step.paths)
        keys = self._keys(step.keys, shape, rows)
        names = self._of_file(keys, rows)
        attempt = rows.on(self._cursor, names)
        with attempt as view:
            given = self._values(shape, names, view.types)
            values = ", ".join(f"{value} AS {sql.name(name)}" for name, value in given)
            source = f"SELECT {values} FROM {view.name}"
            [(deleted,)] = attempt.execute(_deleting(step, shape, source, keys)).fetchall()
        return int(deleted)

    def _emptied(self, shape: TableShape) -> int:
        [(deleted,)] = self._cursor.execute(f"DELETE FROM {shape.reference}").fetchall()
        return int(deleted)

    # Names and values

    def _shape(self, table: str) -> TableShape | None:
        return table_shape(self._cursor, *table_name(table))

    def _values(self, shape: TableShape, names: Sequence[str], carried: dict[str, Type]) -> list[tuple[str, str]]:
        """Each column of the table that the rows have, and SQL for its value."""
        found = []
        for name in names:
            column = shape.column(name)
            assert column is not None, "the target was made to have all columns of the rows"
            kind = described(self._cursor.sqltype(column.type))
            found.append((column.name, from_value(kind, carried[name], sql.name(name))))
        return found

    def _keys(self, keys: Sequence[str], shape: TableShape, rows: StagedRows) -> list[str]:
        """The keys by their names in the table. Raises ColumnsDiffer."""
        given = {name.lower() for name in rows.names}
        found = []
        for key in keys:
            column = shape.column(key)
            if column is None or key.lower() not in given:
                who = f"The table {shape.table!r} has" if column is None else "The rows have"
                raise ColumnsDiffer(f"{who} no column {key!r}, which is a key of the step.", missing=[key])
            found.append(column.name)
        if not found:
            raise ColumnsDiffer("The step names no key.")
        return list(dict.fromkeys(found))

    def _of_file(self, names: Sequence[str], rows: StagedRows) -> list[str]:
        by_name = {name.lower(): name for name in rows.names}
        return [by_name[name.lower()] for name in names]


def _all(loaded: int, rows: StagedRows) -> int:
    if loaded != rows.count:
        # Why: it would mean that rows got lost between the files and the table; nothing of it may be committed.
        raise PondkeeperError(private=f"{loaded} rows were loaded, and {rows.count} were staged")
    return loaded


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(sql.name, names))


def _of(alias: str, name: str) -> str:
    return f"{alias}.{sql.name(name)}"


def _same(keys: Sequence[str]) -> str:
    return " AND ".join(f"{_of(_TARGET, key)} IS NOT DISTINCT FROM {_of(_SOURCE, key)}" for key in keys)


def _merging(step: Upsert | Update, shape: TableShape, source: str, names: Sequence[str], keys: Sequence[str]) -> str:
    changed = [name for name in names if name not in keys]
    assignments = ", ".join(f"{sql.name(name)} = {_of(_SOURCE, name)}" for name in changed)
    matched = f"UPDATE SET {assignments}" if changed else "DO NOTHING"
    merge = f"MERGE INTO {shape.reference} AS {_TARGET} USING ({source}) AS {_SOURCE} ON {_same(keys)}"
    merge += f" WHEN MATCHED THEN {matched}"
    if isinstance(step, Upsert):
        values = ", ".join(_of(_SOURCE, name) for name in names)
        merge += f" WHEN NOT MATCHED THEN INSERT ({_names(names)}) VALUES ({values})"
    return merge


def _deleting(step: Delete | KeepOnly, shape: TableShape, source: str, keys: Sequence[str]) -> str:
    if isinstance(step, Delete) and step.one_each:
        return _deleting_one_each(shape, source, keys)
    word = "NOT EXISTS" if isinstance(step, KeepOnly) else "EXISTS"
    among = f"SELECT 1 FROM ({source}) AS {_SOURCE} WHERE {_same(keys)}"
    return f"DELETE FROM {shape.reference} AS {_TARGET} WHERE {word} ({among})"


def _deleting_one_each(shape: TableShape, source: str, keys: Sequence[str]) -> str:
    """Of rows with equal keys as many as the source has, the first of them."""
    counted = f"SELECT {_names(keys)}, count(*) AS __n FROM ({source}) GROUP BY {_names(keys)}"
    numbered = f"SELECT rowid AS __row, {_names(keys)}, row_number() OVER (PARTITION BY {_names(keys)}) AS __i FROM {shape.reference}"
    chosen = (
        f"SELECT {_TARGET}.__row FROM ({numbered}) AS {_TARGET} JOIN ({counted}) AS {_SOURCE}"
        f" ON {_same(keys)} AND {_TARGET}.__i <= {_SOURCE}.__n"
    )
    return f"DELETE FROM {shape.reference} WHERE rowid IN ({chosen})"
