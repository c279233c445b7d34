"""The process that checks a restored file with the engine: opens it, and reads every column of every table to its end.

The engine checks each block that it reads. One message out: checked {"tables", "rows": {table: count}} or error.
"""

from __future__ import annotations

import socket
from typing import Any

from pondkeeper.engine.faults import translate
from pondkeeper.engine.opening import Connection, ReaderConfig, open_snapshot
from pondkeeper.errors import ArchiveDamaged
from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.interrupts import listen

_TABLES = """
    SELECT schema_name, table_name FROM duckdb_tables()
    WHERE NOT internal AND NOT temporary AND database_name = current_database() ORDER BY ALL
"""


def check(config: ReaderConfig) -> dict[str, Any]:
    """Count the rows of every table twice: as the table says, and by reading them. Raises ArchiveDamaged when these differ."""
    connection = open_snapshot(config)
    try:
        tables = connection.execute(_TABLES).fetchall()
        rows = {f"{schema}.{table}": _rows(connection, schema, table) for schema, table in tables}
    finally:
        connection.close()
    return {"tables": len(rows), "rows": rows}


def _rows(connection: Connection, schema: str, table: str) -> int:
    name = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))
    [said] = connection.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
    # Why the hash: without it the engine reads no column at all.
    [read] = connection.execute(f"SELECT count(hash(row_of)) FROM {name} AS row_of").fetchone() or (0,)
    if read != said:
        raise ArchiveDamaged("A table of the restored file has not as many rows as it says.", table=f"{schema}.{table}")
    return int(said)


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Entry point: `config` is a ReaderConfig."""
    listen(control, lambda number: None)
    try:
        answer: dict[str, Any] = {"op": "checked", **check(ReaderConfig(**config))}
    except Exception as error:  # noqa: BLE001  Why: whatever the engine makes of the file is the answer.
        answer = {"op": "error", **translate(error).to_wire(with_private=True)}
    pipe.send(answer)
