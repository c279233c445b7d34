"""The process that checks a restored file with the engine: opens it, and reads every column of every table to its end.

The engine checks each block that it reads. One message out: checked {"tables", "rows": {table: count}} or error. For
commands without a keeper it is an entry of `workers/alone.py` as well.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from pondkeeper.engine.faults import translate, translated
from pondkeeper.engine.opening import Connection, ReaderConfig, open_snapshot
from pondkeeper.errors import ArchiveDamaged
from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.interrupts import listen

_OURS = "_pondkeeper"
_TABLES = """
    SELECT schema_name, table_name FROM duckdb_tables()
    WHERE NOT internal AND NOT temporary AND database_name = current_database() ORDER BY ALL
"""


def check(config: ReaderConfig) -> dict[str, Any]:
    """Count the rows of every table twice: as the table says, and by reading them. Raises ArchiveDamaged when these differ."""
    connection = open_snapshot(config)
    try:
        tables = connection.execute(_TABLES).fetchall()
        rows = {(schema, table): _rows(connection, schema, table) for schema, table in tables}
    finally:
        connection.close()
    shown = {_shown(*name): count for name, count in rows.items() if name[0] != _OURS}
    return {"tables": len(shown), "rows": shown}


def _shown(schema: str, table: str) -> str:
    return table if schema == "main" else f"{schema}.{table}"


def _rows(connection: Connection, schema: str, table: str) -> int:
    name = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))
    [said] = connection.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
    # Why the hash: without it the engine reads no column at all.
    [read] = connection.execute(f"SELECT count(hash(row_of)) FROM {name} AS row_of").fetchone() or (0,)
    if read != said:
        raise ArchiveDamaged("A table of the restored file has not as many rows as it says.", table=_shown(schema, table))
    return int(said)


def answer(question: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:  # noqa: ARG001  Why: the form of entries
    """For `workers/alone.py`: `question` is a ReaderConfig."""
    with translated():
        return check(ReaderConfig(**question))


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Entry point: `config` is a ReaderConfig."""
    listen(control, lambda number: None)
    try:
        pipe.send({"op": "checked", **check(ReaderConfig(**config))})
    except Exception as error:  # noqa: BLE001  Why: whatever the engine makes of the file is the answer.
        pipe.send({"op": "error", **translate(error).to_wire(with_private=True)})
