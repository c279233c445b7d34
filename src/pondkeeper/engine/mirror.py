"""What a key for some tables may read, decided by DuckDB's own binder: the statement is bound in a mirror of the snapshot.

The mirror is an empty database in memory with the same name. What is granted stands in it as an empty table, views that
are not granted as the views that they are, macros as macros, and nothing else is there. So a statement that binds in it
reads granted tables only, through whatever views, macros, subqueries and aliases; its text is never looked at. What asks
for the catalog (`SHOW TABLES`, information_schema) is answered by the mirror itself, which knows of nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from pondkeeper.engine.faults import translate
from pondkeeper.engine.opening import ReaderConfig, open_beside
from pondkeeper.engine.parameters import bind
from pondkeeper.engine.render.answer import in_their_lines
from pondkeeper.engine.render.known import Recent
from pondkeeper.engine.render.sql import name as quoted
from pondkeeper.engine.statements import ReadingStatement, wrapped
from pondkeeper.errors import Forbidden, PondkeeperError

Grants = tuple[tuple[str, str | None], ...]
"""Schema and table, both in lower case; None stands for every table of the schema."""

# What a plan may consist of that is to read granted tables. Anything else asks for the catalog, or is not known to us.
READING: Final = frozenset(
    {"SEQ_SCAN", "DUMMY_SCAN", "CHUNK_GET", "COLUMN_DATA_SCAN", "EXPRESSION_GET", "CTE_SCAN", "DELIM_GET", "EMPTY_RESULT"}
    | {"RANGE", "GENERATE_SERIES", "REPEAT", "REPEAT_ROW", "UNNEST", "JSON_EACH", "JSON_TREE"}
    | {"PROJECTION", "FILTER", "AGGREGATE", "WINDOW", "LIMIT", "ORDER_BY", "DISTINCT", "SAMPLE", "PIVOT"}
    | {"JOIN", "COMPARISON_JOIN", "DELIM_JOIN", "ANY_JOIN", "ASOF_JOIN", "CROSS_PRODUCT", "POSITIONAL_JOIN", "DEPENDENT_JOIN"}
    | {"UNION", "EXCEPT", "INTERSECT", "REC_CTE", "CTE"}
)
# What shows of the catalog no more than names and columns of what is in the mirror.
CATALOG: Final = frozenset(
    {"DUCKDB_TABLES", "DUCKDB_VIEWS", "DUCKDB_COLUMNS", "DUCKDB_SCHEMAS", "DUCKDB_DATABASES", "DUCKDB_TYPES"}
    | {"DUCKDB_CONSTRAINTS", "DUCKDB_INDEXES", "PRAGMA_TABLE_INFO", "PRAGMA_SHOW"}
)


@dataclass(frozen=True)
class _Table:
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


class Mirror:
    """The mirror of one snapshot for one set of grants."""

    def __init__(self, real: duckdb.DuckDBPyConnection, config: ReaderConfig, grants: Grants) -> None:
        self._grants = grants
        self._judged: Recent[str] = Recent()
        self.connection = open_beside(config)
        try:
            self._build(real)
        except BaseException:  # Why: whatever ended it, the instance must not stay open behind it.
            self.connection.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        self.connection.close()

    # Judging

    def answers(self, statement: ReadingStatement, parameters: object) -> bool:
        """Whether the mirror is to answer instead of the snapshot. Raises Forbidden, or what is wrong with the statement."""
        if statement.kind != "select":
            raise Forbidden(
                "A key for some tables reads by plain SELECTs.",
                remedy="Name the values of a PIVOT with IN; leave EXPLAIN to a key without tables.",
            )
        known = None if statement.parameter_names else self._judged.get(statement.sql)
        if known is None:
            known = self._judge(statement, parameters)
            if not statement.parameter_names:
                self._judged.keep(statement.sql, known)
        return known == "mirror"

    def _judge(self, statement: ReadingStatement, parameters: object) -> str:
        given = bind(statement.parameter_names, parameters)
        try:
            sql = f"EXPLAIN (FORMAT json) SELECT * FROM {wrapped(statement.sql)}"
            plan = json.loads(self.connection.execute(sql, given).fetchall()[0][1])
        except duckdb.CatalogException as error:
            raise self._forbidden(translate(error)) from error
        except (duckdb.Error, UnicodeError) as error:
            raise in_their_lines(error) from error
        finally:
            self._end_transaction()
        others = set(_operators(plan)) - READING
        if not others:
            return "snapshot"
        if others <= CATALOG and "SEQ_SCAN" not in _operators(plan):
            return "mirror"
        raise Forbidden(
            "A key for some tables cannot use what this statement uses: " + ", ".join(sorted(others))[:200].lower() + ".",
            remedy="Read tables, or the catalog (SHOW TABLES, information_schema), not both in one statement.",
        )

    def _forbidden(self, error: PondkeeperError) -> Forbidden:
        shown = ", ".join(f"{schema}.{table or '*'}" for schema, table in self._grants)
        # Why the first line only: what DuckDB thinks was meant are names of its own, when nothing else is there.
        return Forbidden(error.message.partition("\n")[0], remedy=f"This key reads {shown[:500]} only.")

    def _end_transaction(self) -> None:
        # Trap: on 1.5 a statement that fails while it is parsed into several leaves its transaction open and aborted.
        with suppress(duckdb.Error):
            self.connection.execute("ROLLBACK")

    # Building

    def _build(self, real: duckdb.DuckDBPyConnection) -> None:
        [[catalog]] = _rows(real, "SELECT current_database()")
        if catalog != "memory":
            self._run(f"ATTACH ':memory:' AS {quoted(catalog)}")
            self._run(f"USE {quoted(catalog)}")
            self._run("DETACH memory")
        self._make_schemas(real)
        self._make_types(real)
        tables, views = _tables(real), _views(real)
        granted = {table for table in tables if self._is_granted(table)}
        for table, columns in tables.items():
            self._make_table(table, columns, must=table not in granted)
        self._make_macros(real)
        self._make_views({view: sql for view, sql in views.items() if view not in granted})
        for table in set(tables) - set(views) - granted:
            self._run(f"DROP TABLE IF EXISTS {table}")
        self._forget_broken(views.keys() - granted)
        self._block(set(tables) - granted)
        for setting in ("explain_output = 'all'", "GLOBAL TimeZone = 'UTC'", "enable_progress_bar = false"):
            self._run(f"SET {setting}")
        self._run("PRAGMA disable_optimizer")  # Why: it would compute constants, and the snapshot's reader does that.
        self._run("SET lock_configuration = true")

    def _is_granted(self, table: _Table) -> bool:
        schema, name = table.schema.lower(), table.name.lower()
        return (schema, name) in self._grants or (schema, None) in self._grants

    def _run(self, sql: str) -> None:
        self.connection.execute(sql)

    def _try(self, sql: str) -> bool:
        try:
            self.connection.execute(sql)
            return True
        except duckdb.Error:
            self._end_transaction()
            return False

    def _make_schemas(self, real: duckdb.DuckDBPyConnection) -> None:
        for [schema] in _rows(real, "SELECT DISTINCT schema_name FROM duckdb_schemas() WHERE NOT internal"):
            if schema.lower() in ("information_schema", "pg_catalog"):
                raise Forbidden(
                    f"The schema {schema!r} keeps this database from being read by keys for some tables.",
                    remedy="Give it a name that no schema of DuckDB has.",
                )
            if schema.lower() != "main":
                self._run(f"CREATE SCHEMA {quoted(schema)}")

    def _make_types(self, real: duckdb.DuckDBPyConnection) -> None:
        sql = "SELECT schema_name, type_name, logical_type, labels FROM duckdb_types() WHERE NOT internal"
        for schema, name, kind, labels in _rows(real, sql):
            if kind == "ENUM" and labels:
                body = f"ENUM ({', '.join(_literal(label) for label in labels)})"
                self._try(f"CREATE TYPE {quoted(schema)}.{quoted(name)} AS {body}")

    def _make_table(self, table: _Table, columns: list[tuple[str, str]], *, must: bool) -> None:
        """An empty table. One of a kind that cannot be made again stays away, and is refused; `must`: a name, if no more."""
        listed = ", ".join(f"{quoted(column)} {kind}" for column, kind in columns)
        if not self._try(f"CREATE TABLE {table} ({listed})") and must:
            self._run(f"CREATE TABLE {table} (nothing INTEGER)")

    def _make_macros(self, real: duckdb.DuckDBPyConnection) -> None:
        """Macros must be here, for a function of DuckDB with the same name is another one. Raises Forbidden."""
        sql = (
            "SELECT schema_name, function_name, function_type, list((parameters, macro_definition)) "
            "FROM duckdb_functions() WHERE NOT internal GROUP BY ALL"
        )
        for schema, name, kind, overloads in _rows(real, sql):
            table = "TABLE " if kind == "table_macro" else ""
            bodies = ", ".join(
                f"({', '.join(map(quoted, parameters))}) AS {table}{definition}" for parameters, definition in overloads
            )
            if not self._try(f"CREATE MACRO {quoted(schema)}.{quoted(name)}{bodies}") and self._has_function(name):
                raise Forbidden(
                    f"The macro {name!r} keeps this database from being read by keys for some tables.",
                    remedy="Give it a name that no function of DuckDB has.",
                )

    def _has_function(self, name: str) -> bool:
        sql = "SELECT count(*) FROM duckdb_functions() WHERE lower(function_name) = lower(?)"
        [[count]] = self.connection.execute(sql, [name]).fetchall()
        return bool(count)

    def _make_views(self, views: dict[_Table, str]) -> None:
        """Views as they are, in place of the tables that stood for them while they were made."""
        for view, sql in views.items():
            self._run(f"DROP TABLE IF EXISTS {view}")
            self._try(sql)

    def _forget_broken(self, views: Iterable[_Table]) -> None:
        """Views that read what is not granted: nobody is to see their text."""
        broken = [view for view in views if not self._try(f"EXPLAIN FROM {view}")]
        for view in broken:
            self._try(f"DROP VIEW IF EXISTS {view}")

    def _block(self, refused: set[_Table]) -> None:
        """What is not granted and has the name of a view of DuckDB's own must not be taken for that one."""
        for table in refused:
            if self._try(f"EXPLAIN FROM {table}"):
                continue  # a view that reads granted tables only
            if table.schema == "main" and self._try(f"EXPLAIN FROM {quoted(table.name)}"):
                self._run(f"CREATE TABLE {table} (nothing INTEGER)")
                self._run(f"CREATE OR REPLACE VIEW {quoted(table.schema)}.pondkeeper_refused AS FROM {table}")
                self._run(f"DROP TABLE {table}")
                self._run(f"ALTER VIEW {quoted(table.schema)}.pondkeeper_refused RENAME TO {quoted(table.name)}")


def _operators(plan: Any) -> Iterator[str]:
    """The names of all operators of a plan."""
    if isinstance(plan, list):
        for part in plan:
            yield from _operators(part)
        return
    yield str(plan["name"]).strip().upper()
    yield from _operators(plan.get("children", []))


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        return cursor.execute(sql).fetchall()


def _tables(real: duckdb.DuckDBPyConnection) -> dict[_Table, list[tuple[str, str]]]:
    """Every table and view, with its columns in order."""
    sql = (
        "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
        "ORDER BY schema_name, table_name, column_index"
    )
    found: dict[_Table, list[tuple[str, str]]] = {}
    for schema, name, column, kind in _rows(real, sql):
        found.setdefault(_Table(schema, name), []).append((column, kind))
    return found


def _views(real: duckdb.DuckDBPyConnection) -> dict[_Table, str]:
    sql = "SELECT schema_name, view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY view_oid"
    return {_Table(schema, name): text for schema, name, text in _rows(real, sql)}


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
