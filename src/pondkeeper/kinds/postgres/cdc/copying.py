"""Copying tables as they are at one position of the log, so that the changes from there on are just what is missing.

A slot of its own, which lives as long as its connection, gives the position and a snapshot of the database exactly there:
for the first copy, for tables that join later and for those copied again alike. Whoever dies in between leaves nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pondkeeper.kinds.postgres.cdc.catalog import LoggedTable
from pondkeeper.kinds.postgres.cdc.replication import NewSlot, ReplicationConnection
from pondkeeper.kinds.postgres.connecting import Connection
from pondkeeper.kinds.postgres.extracting import Extraction, Piece, pieces
from pondkeeper.kinds.postgres.types import Mapped
from pondkeeper.kinds.steps import Drift, Replace

if TYPE_CHECKING:
    import threading

    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
    from pondkeeper.kinds.context import RunContext


@contextmanager
def held_snapshot(address: str, stopping: threading.Event) -> Iterator[NewSlot]:
    """A position of the log and the name of what the database holds there, for as long as the block runs."""
    with ReplicationConnection(address, stopping) as replication:
        yield replication.create_slot(f"pondkeeper_copy_{secrets.token_hex(6)}", temporary=True)


@dataclass
class Copy:
    """The staged rows of one table, and where they go."""

    to: str
    columns: Sequence[Mapped]
    files: list[Path] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0

    def step(self, drift: Drift) -> Replace:
        """What the load does with them."""
        # Why all types: a text that is meant as one would be read as what the column was before.
        types = {each.column: each.type for each in self.columns}
        return Replace(self.to, sorted(self.files), types=types, drift=drift)


def copied(
    context: RunContext,
    settings: PostgresSettings,
    address: str,
    connection: Connection,
    snapshot: str,
    tables: Mapping[str, LoggedTable],
) -> list[Copy]:
    """Stage all rows of these tables, as they are in the snapshot."""
    copies: dict[str, Copy] = {}
    wanted: list[Piece] = []
    for number, (name, table) in enumerate(tables.items()):
        logged = {each.column.name for each in table.columns}
        columns = [each for each in table.plan.columns if each.column in logged]
        copies[name] = Copy(table.plan.target, columns)
        label, version = f"copy-{number:04d}", connection.info.server_version
        wanted += pieces(table.plan.table, columns, (), context.staging, label, server_version=version)

    def done(piece: Piece, rows: int) -> None:
        copy = copies[piece.table.full_name]
        copy.files += piece.files
        copy.rows += rows
        copy.size_bytes += sum(file.stat().st_size for file in piece.files)
        context.table(copy.to, copy.rows, copy.size_bytes)

    total = sum(table.plan.table.rows for table in tables.values())
    Extraction(context, settings, address, snapshot).copy(wanted, connection, done, total)
    return list(copies.values())


def remove(copies: Sequence[Copy]) -> None:
    """Remove what was staged; it is loaded."""
    for copy in copies:
        for file in copy.files:
            file.unlink(missing_ok=True)
