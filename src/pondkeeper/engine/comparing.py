"""What differs between two databases: tables, columns, rows, and the objects beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb

from pondkeeper.engine.catalog import OWN_SCHEMA, Table, fingerprint, literal, objects_of, quoted, tables_of
from pondkeeper.engine.faults import translated
from pondkeeper.engine.opening import FENCED

Tell = Callable[[str], None]


def answer(question: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Compare the files `left` and `right`, both read-only. Raises PondkeeperError."""
    with translated():
        connection = _opened(question)
        try:
            return _compared(connection, tell)
        finally:
            connection.close()


def _opened(question: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        **{name: value for name, value in FENCED.items() if name != "enable_external_access"},
        "memory_limit": f"{question['memory_limit_bytes']}B",
        "threads": str(question["threads"]),
        "temp_directory": question["temp_directory"],
    }
    connection = duckdb.connect(":memory:", config=config)
    for name in ("left", "right"):
        connection.execute(f"ATTACH {literal(question[name])} AS {quoted(name)} (READ_ONLY)")
    for statement in (
        "SET enable_external_access = false",
        "SET enable_progress_bar = false",
        "SET GLOBAL TimeZone = 'UTC'",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    return connection


def _compared(connection: duckdb.DuckDBPyConnection, tell: Tell) -> dict[str, Any]:
    left, right = (_by_name(tables_of(connection, name)) for name in ("left", "right"))
    names = sorted({*left, *right})
    tables = []
    for number, name in enumerate(names, 1):
        tell(f"comparing table {number} of {len(names)}")
        entry = _table(connection, left.get(name), right.get(name))
        if entry is not None:
            tables.append(entry)
    return {"tables": tables, "tables_compared": len(names), "objects": _objects(connection)}


def _by_name(tables: list[Table]) -> dict[tuple[str, str], Table]:
    return {(table.schema, table.name): table for table in tables if table.schema != OWN_SCHEMA}


def _table(connection: duckdb.DuckDBPyConnection, left: Table | None, right: Table | None) -> dict[str, Any] | None:
    """How the table differs; None when it does not."""
    if left is None or right is None:
        there = left or right
        assert there is not None, "a name comes from one of the two"
        rows = fingerprint(connection, [], there.within("left" if left else "right"))[0]
        found: dict[str, Any] = {"only_left": rows, "only_right": 0, "difference": "only_left"}
        if left is None:
            found = {"only_left": 0, "only_right": rows, "difference": "only_right"}
        return {"table": there.shown, "changed": 0, "columns": [], **found}
    columns = sorted({name for name, _ in set(left.columns) ^ set(right.columns)})
    rows = _rows(connection, left, right)
    if not columns and rows is None and left.columns == right.columns and left.key == right.key:
        return None
    kind = "rows" if rows is not None and not columns else "columns"
    return {"table": left.shown, "difference": kind, "columns": columns, **(rows or _NONE)}


_NONE = {"only_left": 0, "only_right": 0, "changed": 0}


def _rows(connection: duckdb.DuckDBPyConnection, left: Table, right: Table) -> dict[str, int] | None:
    """How many rows differ in the columns that both have; None when none does.

    With one primary key in both, a row that was changed counts as that, and not as one here and one there.
    """
    shared = [name for name, kind in left.columns if (name, kind) in right.columns]
    columns = [quoted(name) for name in shared]
    mine, theirs = left.within("left"), right.within("right")
    if fingerprint(connection, columns, mine) == fingerprint(connection, columns, theirs):
        return None
    if not columns:
        counts = [fingerprint(connection, [], each)[0] for each in (mine, theirs)]
        return {"only_left": max(0, counts[0] - counts[1]), "only_right": max(0, counts[1] - counts[0]), "changed": 0}
    listed = ", ".join(columns)
    key = left.key if left.key == right.key and set(left.key) <= set(shared) else ()
    both = f"JOIN r USING ({', '.join(map(quoted, key))})" if key else "WHERE false"
    found = connection.execute(
        f"WITH l AS MATERIALIZED (SELECT {listed} FROM {mine} EXCEPT ALL SELECT {listed} FROM {theirs}), "
        f"r AS MATERIALIZED (SELECT {listed} FROM {theirs} EXCEPT ALL SELECT {listed} FROM {mine}) "
        f"SELECT (SELECT count(*) FROM l), (SELECT count(*) FROM r), (SELECT count(*) FROM l {both})"
    ).fetchone()
    assert found is not None, "an aggregate has one row"
    only_left, only_right, changed = found
    return {"only_left": only_left - changed, "only_right": only_right - changed, "changed": changed}


def _objects(connection: duckdb.DuckDBPyConnection) -> list[dict[str, str]]:
    """The views, indexes, macros, sequences and types that only one has, or that are defined in another way."""
    left, right = (objects_of(connection, name) for name in ("left", "right"))
    found = []
    for kind, name in sorted({*left, *right}):
        here, there = left.get((kind, name)), right.get((kind, name))
        if here != there and not name.startswith(OWN_SCHEMA + "."):
            difference = "only_right" if here is None else "only_left" if there is None else "changed"
            found.append({"kind": kind, "name": name, "difference": difference})
    return found
