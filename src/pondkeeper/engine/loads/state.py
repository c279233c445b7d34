"""What a job keeps in the database itself: its own state, and which of its last loads were committed.

One row for each job in `_pondkeeper.job_state`, written in the transaction of the load, so it is there if and only if the
rows are. Why the loads too: records of keys are dropped after a day, and the next attempt of a run may come later.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import msgspec

from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.engine.names import KEEPERS_SCHEMA
from pondkeeper.errors import JobStateChanged

MOST_LOADS: Final = 64
_NAME: Final = "job_state"
_TABLE: Final = f"{KEEPERS_SCHEMA}.{_NAME}"
_SHAPE: Final = "(job VARCHAR PRIMARY KEY, state VARCHAR, loads VARCHAR NOT NULL, loaded_at TIMESTAMP NOT NULL)"
_FIND: Final = """SELECT table_name FROM system.main.duckdb_tables()
    WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"""


def counts_of(cursor: duckdb.DuckDBPyConnection, plan: LoadPlan) -> list[int] | None:
    """What the steps had counted when this very load was committed; None if it was not, as far as we remember."""
    counts = _loads(_row(cursor, plan.job)).get(plan.identity)
    return counts if counts is not None and len(counts) == len(plan.steps) else None


def insist_on_expected(cursor: duckdb.DuckDBPyConnection, plan: LoadPlan) -> None:
    """Raise JobStateChanged when the job's state is not the one that the load was made for."""
    if plan.expected is not None and state_of(cursor, plan.job) != msgspec.json.decode(_text(plan.expected.state)):
        raise JobStateChanged(f"The state of the job {plan.job!r} is not the one that this load goes on from.")


def remember(cursor: duckdb.DuckDBPyConnection, plan: LoadPlan, counts: list[int]) -> None:
    """Write the job's state and this load, to be committed with its rows."""
    if plan.is_automatic and plan.state is None:
        return
    row = _row(cursor, plan.job)
    loads = _loads(row)
    loads.pop(plan.identity, None)
    loads[plan.identity] = counts
    kept = dict(list(loads.items())[-MOST_LOADS:])
    state = _text(plan.state) if plan.state is not None else row[0] if row else None
    values = [state, _text(kept), datetime.now(UTC).replace(tzinfo=None), plan.job]
    if row is None:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {KEEPERS_SCHEMA}")
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} {_SHAPE}")
        cursor.execute(f"INSERT INTO {_TABLE} (state, loads, loaded_at, job) VALUES (?, ?, ?, ?)", values)
    else:
        cursor.execute(f"UPDATE {_TABLE} SET state = ?, loads = ?, loaded_at = ? WHERE job = ?", values)


def state_of(connection: duckdb.DuckDBPyConnection, job: str) -> dict[str, Any] | None:
    """The state that the job's last load has left in what this connection sees."""
    row = _row(connection, job)
    if row is None or row[0] is None:
        return None
    return msgspec.json.decode(row[0], type=dict[str, Any])


def _row(cursor: duckdb.DuckDBPyConnection, job: str) -> tuple[str | None, str] | None:
    if not cursor.execute(_FIND, [KEEPERS_SCHEMA, _NAME]).fetchall():  # no job has loaded anything yet
        return None
    found = cursor.execute(f"SELECT state, loads FROM {_TABLE} WHERE job = ?", [job]).fetchall()
    return found[0] if found else None


def _loads(row: tuple[str | None, str] | None) -> dict[str, list[int]]:
    return msgspec.json.decode(row[1], type=dict[str, list[int]]) if row else {}


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
