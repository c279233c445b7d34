"""Where an incremental copy goes on: the last value of the cursor that was copied, and from how far before it one reads again.

A change that was committed late has a cursor's value that is older than what was copied already. So one reads again from
`overlap` before the last value; for a cursor of time also from as long before as the oldest transaction had been open that
the last snapshot could not see, because whatever that one was to commit carries a time since its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.kinds.postgres.connecting import Connection, answering, literal, quoted
from pondkeeper.kinds.postgres.planning import TablePlan

if TYPE_CHECKING:
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings

_LEAST: Final = {"int2": -(2**15), "int4": -(2**31), "int8": -(2**63), "oid": 0}
_OPEN: Final = """
SELECT greatest((SELECT max(extract(epoch FROM clock_timestamp() - xact_start)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()),
                (SELECT max(extract(epoch FROM clock_timestamp() - prepared)) FROM pg_prepared_xacts), 0)::float8
"""


@dataclass(frozen=True)
class Mark:
    """How far a table was copied. `value`: the cursor's last, as text; `late_s`: for how long a transaction was open then.

    `shape`, `rules`: what the copy was made by; when they change it is made anew.
    """

    value: str | None
    late_s: float
    shape: list[list[str]]
    rules: list[Any]

    def to_wire(self) -> dict[str, Any]:
        return {"value": self.value, "late_s": self.late_s, "shape": self.shape, "rules": self.rules}

    @staticmethod
    def of(wire: Mapping[str, Any] | None) -> Mark | None:
        """The mark in a job's state; None where there is none that this release understands."""
        try:
            return Mark(wire["value"], float(wire["late_s"]), wire["shape"], wire["rules"]) if wire else None
        except (KeyError, TypeError, ValueError):
            return None


def rules_of(plan: TablePlan) -> list[Any]:
    """What decides which rows a copy has and by what they are named."""
    assert plan.cursor is not None
    return [plan.target, plan.cursor.name, list(plan.keys), plan.where, plan.tombstone]


def goes_on(mark: Mark | None, plan: TablePlan) -> bool:
    """Whether the last copy can be gone on with. Not with other columns: what is in those of rows that did not change?"""
    return mark is not None and mark.value is not None and mark.shape == plan.shape and mark.rules == rules_of(plan)


def open_for_s(connection: Connection) -> float:
    """For how long the oldest transaction at the source has been open, as far as our user may see it.

    Trap: to be asked before the snapshot is taken. Who had ended in between would be seen by neither.
    """
    with answering():
        [[age_s]] = connection.execute(_OPEN).fetchall()
    return float(age_s)


def changed_since(mark: Mark, plan: TablePlan, settings: PostgresSettings) -> str:
    """The condition for rows that may have changed since. Rows without a value of the cursor may always have."""
    assert plan.cursor is not None
    assert mark.value is not None
    name = quoted(plan.cursor.name)
    return f"{name} >= {_begin(mark, plan, settings)} OR {name} IS NULL"


def _begin(mark: Mark, plan: TablePlan, settings: PostgresSettings) -> str:
    assert plan.cursor is not None
    last = f"{literal(mark.value or '')}::{plan.cursor.declared}"
    if plan.is_by_time:
        seconds = round(settings.overlap_s + mark.late_s, 3)
        # Why the cast back: only a comparison of the column's own type finds its index.
        return f"({last} - interval '{seconds} seconds')::{plan.cursor.declared}"
    if plan.cursor.kind.name in _LEAST:
        begin = max(int(mark.value or 0) - settings.overlap, _LEAST[plan.cursor.kind.name])
        return f"{literal(str(begin))}::{plan.cursor.declared}"
    return f"({last} - {settings.overlap})" if plan.cursor.kind.name == "numeric" else last


def newest(connection: Connection, plan: TablePlan, since: str) -> str | None:
    """The cursor's last value in this snapshot, as text; of moments none in the future, which would keep what follows out."""
    assert plan.cursor is not None
    name = quoted(plan.cursor.name)
    value = f"max({name})"
    conditions = [f"({each})" for each in (*([plan.where] if plan.where else []), *([since] if since else []))]
    if plan.is_by_time:
        conditions.append(f"isfinite({name})")
        value = f"least(max({name}), now()::{plan.cursor.declared})"
    if plan.cursor.kind.name == "numeric":
        conditions.append(f"{name} NOT IN ('NaN', 'Infinity', '-Infinity')" if connection.info.server_version >= 140_000 else f"{name} <> 'NaN'")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    with answering():
        [[found]] = connection.execute(f"SELECT ({value})::text FROM {plan.table.sql}{where}".encode()).fetchall()
    return None if found is None else str(found)
