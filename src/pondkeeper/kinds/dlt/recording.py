"""What dlt would do to the database, as the steps of a load.

dlt's own client for DuckDB is asked to load a package, as always; but what it reads it reads from a shadow of the database,
and what it writes is written down. When the package is complete, all of it is done in one transaction, once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from pondkeeper.engine.shadow import Shadow, split
from pondkeeper.kinds.steps import Append, Run, Step


@dataclass(frozen=True)
class Package:
    """What is to be done for one of dlt's load packages, and the bytes that it brings for each table (schema, table)."""

    load_id: str
    steps: list[Step]
    sizes: dict[tuple[str, str], int]


Commit = Callable[[Package], None]


class Answer:
    """The answer of one statement; of one that was only written down: no columns, no rows."""

    def __init__(self, description: Any = None, rows: Sequence[Any] = ()) -> None:
        self.description = description
        self._rows = list(rows)

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> Any:
        """The next row; None after the last."""
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int) -> list[Any]:
        """The next rows."""
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows


class Recorder:
    """Writes down one package after the other. Safe in threads: dlt's workers use it."""

    def __init__(self, shadow: Shadow, staging: Path, commit: Commit) -> None:
        self.shadow = shadow
        self._staging = staging
        self._commit = commit
        self._steps: list[Step] = []
        self._scratch: set[str] = set()
        self._sizes: dict[tuple[str, str], int] = {}
        self._columns: frozenset[str] = frozenset()
        self._lock = threading.RLock()

    def begin(self, shadow: Shadow) -> None:
        """Forget what was written down, and go on with this shadow."""
        with self._lock:
            self.shadow.close()
            self.shadow, self._steps, self._scratch, self._sizes = shadow, [], set(), {}

    def execute(self, sql: str, parameters: Sequence[Any] | None = None) -> Answer:
        """Read, or write down what writes; the answer of the last statement. Raises duckdb.Error."""
        answer = Answer()
        with self._lock:
            for statement in split(sql):
                if statement.reads:
                    cursor = self.shadow.execute(statement.sql, parameters)
                    answer = Answer(cursor.description, cursor.fetchall())
                    continue
                if statement.shapes:
                    self.shadow.execute(statement.sql, parameters)
                self._steps.append(Run(statement.sql, parameters=[plain(value) for value in parameters] if parameters else None))
                answer = Answer()
        return answer

    def append(self, schema: str, table: str, file: str) -> None:
        """The rows of a Parquet file go into a table."""
        with self._lock:
            kept = self._staging / Path(file).name
            kept.unlink(missing_ok=True)
            os.link(file, kept)  # Why a link: dlt moves its file when the job is done, and removes it at the end.
            types = self.shadow.columns(schema, table)
            self._sizes[schema, table] = self._sizes.get((schema, table), 0) + kept.stat().st_size
            columns = self.shadow.columns_of_file(str(kept))
            place, last = joined(schema, table), self._steps[-1] if self._steps else None
            if isinstance(last, Append) and last.table == place and columns == self._columns:
                self._steps[-1] = Append(place, [*last.files, kept], types=types, create=False)
            else:
                self._steps.append(Append(place, [kept], types=types, create=False))
            self._columns = columns

    def scratch(self, table: str) -> None:
        """The rows of this table (as SQL names it) are for the load only: none of them is committed."""
        self._scratch.add(table)

    def commit(self, load_id: str) -> None:
        """Do what was written down, in one transaction. Raises PondkeeperError."""
        with self._lock:
            for table in sorted(self._scratch):
                self.execute(f"DELETE FROM {table}")
            package = Package(load_id, self._steps, self._sizes)
            self._steps, self._scratch, self._sizes = [], set(), {}
        self._commit(package)


def plain(value: Any) -> Any:
    """A parameter as JSON can say it; DuckDB makes of the text what its column is."""
    return value.isoformat() if isinstance(value, datetime | date | time) else value


def joined(schema: str, table: str) -> str:
    """The table as steps name it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))
