"""The logical export: a database as Parquet files with the SQL that loads them, checked against the database.

Trap: Parquet has no type for everything that DuckDB has. An INTERVAL loses its microseconds and a time its zone, without a
word. So each file is compared with its table, and a column that did not come back as it was is
written as text, which DuckDB casts back exactly when it loads the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from pondkeeper.engine.catalog import OWN_SCHEMA, Table, fingerprint, literal, quoted, tables_of
from pondkeeper.engine.faults import translated
from pondkeeper.engine.opening import FENCED
from pondkeeper.files.durable import sync_file, sync_folder

Tell = Callable[[str], None]
LOAD = "load.sql"
TEXT = "VARCHAR"
_OWN = re.compile(rf"^(?:COPY {OWN_SCHEMA}\.|CREATE TABLE {OWN_SCHEMA}\.|CREATE SCHEMA {OWN_SCHEMA};).*\n", re.MULTILINE)


def answer(question: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Export `path` into the empty folder `folder`; what was written. Raises PondkeeperError."""
    folder = Path(question["folder"])
    with translated():
        connection = _opened(question, folder)
        try:
            tell("writing the tables")
            connection.execute(f"EXPORT DATABASE {literal(str(folder))} (FORMAT parquet)")
            _leave_out_own(folder)
            written = _checked(connection, folder, tell)
        finally:
            connection.close()
    load = folder / LOAD
    # Why: the files will lie elsewhere; IMPORT DATABASE finds them by their names.
    load.write_text(load.read_text().replace(f"FROM '{_escaped(folder)}/", "FROM '"))
    for file in folder.iterdir():
        sync_file(file)
    sync_folder(folder)
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return {"tables": written, "size_bytes": size_bytes, "duckdb": duckdb.__version__}


def _opened(question: dict[str, Any], folder: Path) -> duckdb.DuckDBPyConnection:
    """The snapshot, read-only; of all other files only those in `folder` can be had."""
    config: dict[str, str | bool | int | float | list[str]] = {
        **{name: value for name, value in FENCED.items() if name != "enable_external_access"},
        "memory_limit": f"{question['memory_limit_bytes']}B",
        "threads": str(question["threads"]),
        "temp_directory": question["temp_directory"],
    }
    connection = duckdb.connect(question["path"], read_only=True, config=config)
    for statement in (
        f"SET allowed_directories = [{literal(str(folder) + '/')}]",  # Trap: cannot be given at the connect
        "SET enable_external_access = false",
        "SET enable_progress_bar = false",
        "SET preserve_insertion_order = true",
        "SET GLOBAL TimeZone = 'UTC'",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    return connection


def _leave_out_own(folder: Path) -> None:
    """What the keeper notes about writes that are repeated is of no use elsewhere."""
    for name in (LOAD, "schema.sql"):
        file = folder / name
        file.write_text(_OWN.sub("", file.read_text()))
    for parquet in folder.glob(f"{OWN_SCHEMA}_*.parquet"):
        if f"'{_escaped(parquet)}'" not in (folder / LOAD).read_text():
            parquet.unlink()


def _checked(connection: duckdb.DuckDBPyConnection, folder: Path, tell: Tell) -> list[dict[str, Any]]:
    [catalog] = connection.execute("SELECT current_database()").fetchone() or ("",)
    tables = [table for table in tables_of(connection, catalog) if table.schema != OWN_SCHEMA]
    files = _files(folder)
    written = []
    for number, table in enumerate(tables, 1):
        tell(f"comparing table {number} of {len(tables)}")
        as_text = _mended(connection, catalog, table, folder / files[table.schema, table.name])
        [rows] = connection.execute(f"SELECT count(*) FROM {table.within(catalog)}").fetchone() or (0,)
        written.append({"table": table.shown, "file": files[table.schema, table.name], "rows": rows, **as_text})
    return written


def _mended(connection: duckdb.DuckDBPyConnection, catalog: str, table: Table, file: Path) -> dict[str, list[str]]:
    """Which columns are in the file as text, and which are not in it as they are in the table."""
    differing = _differing(connection, catalog, table, file)
    if not differing:
        return {"as_text": [], "inexact": []}
    stored = _stored(connection, file)
    # Why the types in the file: EXPORT DATABASE writes a HUGEINT as text by itself, and COPY would as a DOUBLE.
    kinds = {name: TEXT if name in differing else kind for name, kind in stored.items()}
    chosen = [f"{quoted(name)}::{kind} AS {quoted(name)}" for name, kind in kinds.items()]
    temp = file.with_name(file.name + ".text")
    connection.execute(f"COPY (SELECT {', '.join(chosen)} FROM {table.within(catalog)}) TO {literal(str(temp))} (FORMAT parquet)")
    inexact = _differing(connection, catalog, table, temp)
    temp.replace(file)
    return {"as_text": differing, "inexact": inexact}


def _differing(connection: duckdb.DuckDBPyConnection, catalog: str, table: Table, file: Path) -> list[str]:
    """The columns that come back from the file as something else."""
    stored = _stored(connection, file)
    columns = [(name, kind) for name, kind in table.columns if name in stored]
    back = [f"{quoted(name)}::{kind}" for name, kind in columns]
    own = [f"{quoted(name)}" for name, _ in columns]
    parquet = f"read_parquet({literal(str(file))})"
    if _same(connection, own, table.within(catalog), back, parquet):
        return []
    pairs = zip(columns, own, back, strict=True)
    return [
        name for (name, _), mine, theirs in pairs if not _same(connection, [mine], table.within(catalog), [theirs], parquet)
    ]


def _same(connection: duckdb.DuckDBPyConnection, own: list[str], table: str, back: list[str], parquet: str) -> bool:
    try:
        return fingerprint(connection, own, table) == fingerprint(connection, back, parquet)
    except duckdb.ConversionException:
        return False


def _stored(connection: duckdb.DuckDBPyConnection, file: Path) -> dict[str, str]:
    """The columns of a file with their types in it. Generated ones are in none."""
    found = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({literal(str(file))})").fetchall()
    return {str(name): str(kind) for name, kind, *_ in found}


def _files(folder: Path) -> dict[tuple[str, str], str]:
    """The file of each table, as the export's own `load.sql` says."""
    found = {}
    for statement in duckdb.extract_statements((folder / LOAD).read_text()):
        into, _, source = statement.query.strip().rpartition(" FROM '")
        names = _names(into.removeprefix("COPY ").strip())
        file = source[: source.rindex("' (FORMAT")].replace("''", "'")
        schema, table = names if len(names) == 2 else ("main", *names)
        found[schema, table] = Path(file).name
    return found


def _names(path: str) -> tuple[str, ...]:
    """The parts of a dotted name, without their quotes."""
    parts, current, is_quoted = [], "", False
    for character in path:
        if character == '"':
            is_quoted = not is_quoted
            current += character
        elif character == "." and not is_quoted:
            parts.append(current)
            current = ""
        else:
            current += character
    return tuple(_unquoted(part) for part in [*parts, current])


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _escaped(folder: Path) -> str:
    return str(folder).replace("'", "''")
