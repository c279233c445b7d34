"""What control.db keeps of jobs: how each run ended, totals that outlive retention, marks between runs, webhooks to send.

It blocks, and belongs to the thread that opened the store: the keeper uses it through `history.History`.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.jobs.notices import Notice, notices_of
from pondkeeper.jobs.status import Phase, RunStatus, status_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pondkeeper.access.store import Store
    from pondkeeper.jobs.definition import Notify

MAX_LISTED: Final = 10_000
KEEP_OF_A_JOB: Final = 10_000
MAX_LOG_END_CHARS: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Totals:
    """All runs of a job that ever ended. Moments are seconds since the epoch; `success_seq` orders successes of all jobs."""

    job: str
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    rows: int = 0
    size_bytes: int = 0
    running_s: float = 0.0
    held_s: float = 0.0
    last_outcome: str | None = None
    last_at: float | None = None
    last_duration_s: float | None = None
    last_rows: int | None = None
    success_seq: int = 0
    success_at: float | None = None
    failing_since: float | None = None
    in_a_row: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a job between its runs.

    `enabled` None: the settings file decides. `since`, `since_seq`: from when on it is known, or counts again.
    `handled_until`: times of its schedule up to there are dealt with; `schedule`: of which schedule, empty while disabled.
    """

    job: str
    since: float
    since_seq: int
    enabled: bool | None = None
    after_seq: int = 0
    schedule: str | None = None
    handled_until: float | None = None
    told_at: float | None = None
    stale_since: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A webhook that is not delivered yet."""

    id: int
    job: str
    body: dict[str, Any]
    created_at: float
    attempts: int
    due_at: float


class Records:
    """The tables of jobs in control.db."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # Runs

    def record(
        self, status: RunStatus, log_end: str, notify: Notify | None, *, now: float, keep_s: float, keep: int = KEEP_OF_A_JOB
    ) -> tuple[Totals, Mark] | None:
        """Keep how a run ended, once; None when that was done before. `keep_s`, `keep`: how long, and how many of its job."""
        with self._store.change(marked=False) as connection:
            seq = _insert_run(connection, status, log_end, now)
            if seq is None:
                return None
            before = _totals(connection, status.job)
            after = _counted(before, status, seq, now)
            _put(connection, "job_totals", after)
            mark = _mark(connection, status.job) or Mark(status.job, since=now, since_seq=_newest_seq(connection))
            mark, notices = notices_of(status, log_end, notify, before, after, mark, now)
            _put(connection, "job_marks", mark)
            _add_notices(connection, notices, now)
            _prune(connection, status.job, now - keep_s, keep)
        return after, mark

    def runs(self, job: str | None = None, *, limit: int = 100, before: str | None = None) -> list[dict[str, Any]]:
        """How runs ended, newest first: of one job or all, older than the run `before`."""
        where = ["TRUE"] + ["job = :job"] * (job is not None) + ["run_id < :before"] * (before is not None)
        sql = f"SELECT status FROM job_runs WHERE {' AND '.join(where)} ORDER BY run_id DESC LIMIT :limit"
        values = {"job": job, "before": before, "limit": max(0, min(limit, MAX_LISTED))}
        with self._store.read() as connection:
            return [json.loads(row[0]) for row in connection.execute(sql, values)]

    def run(self, run_id: str) -> dict[str, Any] | None:
        """How a run ended, with the end of its log as `log_end`; None when nothing is known of it."""
        with self._store.read() as connection:
            row = connection.execute("SELECT status, log_end FROM job_runs WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else json.loads(row[0]) | {"log_end": row[1]}

    def prune(self, now: float, *, keep_s: float) -> int:
        """Forget runs that ended longer ago, also of jobs that are no more; how many."""
        with self._store.change(marked=False) as connection:
            return connection.execute("DELETE FROM job_runs WHERE finished_at < ?", (now - keep_s,)).rowcount

    # What is known between runs

    def totals(self) -> dict[str, Totals]:
        with self._store.read() as connection:
            return {row["job"]: Totals(**row) for row in connection.execute("SELECT * FROM job_totals")}

    def marks(self) -> dict[str, Mark]:
        with self._store.read() as connection:
            return {row["job"]: _mark_of(row) for row in connection.execute("SELECT * FROM job_marks")}

    def change_marks(
        self, changes: Mapping[str, Mapping[str, Any]], now: float, notices: Iterable[Notice] = ()
    ) -> dict[str, Mark]:
        """Change marks by the names of their jobs, and keep notices to be sent, in one step; missing marks are made.

        What was before a mark is none of its job's business. A value of `...` is the number of the newest run: up to now.
        """
        with self._store.change(marked=False) as connection:
            newest = _newest_seq(connection)
            marks = {job: _mark(connection, job) or Mark(job, since=now, since_seq=newest) for job in changes}
            for job, values in changes.items():
                given: dict[str, Any] = {name: newest if value is ... else value for name, value in values.items()}
                marks[job] = dataclasses.replace(marks[job], **given)
                _put(connection, "job_marks", marks[job])
            _add_notices(connection, notices, now)
        return marks

    def change_mark(self, job: str, now: float, **values: Any) -> Mark:
        """As `change_marks`, of one job."""
        return self.change_marks({job: values}, now)[job]

    # Webhooks

    def notices(self) -> list[Waiting]:
        """Those that are not delivered yet, the oldest first."""
        with self._store.read() as connection:
            rows = connection.execute("SELECT * FROM job_notices ORDER BY id LIMIT 1000").fetchall()
        return [Waiting(**dict(row) | {"body": json.loads(row["body"])}) for row in rows]

    def settle_notice(self, number: int, due_at: float | None) -> None:
        """A webhook was tried: again at `due_at`, or never more."""
        with self._store.change(marked=False) as connection:
            if due_at is None:
                connection.execute("DELETE FROM job_notices WHERE id = ?", (number,))
            else:
                connection.execute("UPDATE job_notices SET attempts = attempts + 1, due_at = ? WHERE id = ?", (due_at, number))

    def data_version(self) -> int:
        """A number that differs from the last time when another connection has committed."""
        return self._store.data_version()


def duration_s(status: RunStatus) -> float:
    """How long a run took, from its start to its end; 0 when it never started."""
    if status.started_at is None or status.finished_at is None:
        return 0.0
    return max(0.0, status.finished_at - status.started_at)


def _insert_run(connection: sqlite3.Connection, status: RunStatus, log_end: str, now: float) -> int | None:
    finished_at = status.finished_at or now
    data = json.dumps(status_json(status), default=str)
    cursor = connection.execute(
        "INSERT INTO job_runs (run_id, job, outcome, finished_at, status, log_end) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (run_id) DO NOTHING",
        (status.run_id, status.job, status.phase.value, finished_at, data, log_end[-MAX_LOG_END_CHARS:]),
    )
    return cursor.lastrowid if cursor.rowcount else None


def _counted(totals: Totals, status: RunStatus, seq: int, now: float) -> Totals:
    """The totals with one more run in them."""
    at = status.finished_at or now
    outcome = status.phase.value
    changed: dict[str, Any] = {
        outcome: getattr(totals, outcome) + 1,
        "running_s": totals.running_s + duration_s(status),
        "held_s": totals.held_s + status.held_s,
        "last_outcome": outcome,
        "last_at": at,
        "last_duration_s": duration_s(status),
        "last_rows": status.rows,
    }
    if status.phase is Phase.DONE:
        changed |= {"success_seq": seq, "success_at": at, "failing_since": None, "in_a_row": 0}
        changed |= {"rows": totals.rows + status.rows, "size_bytes": totals.size_bytes + status.size_bytes}
    elif status.phase is Phase.FAILED:
        changed |= {"failing_since": totals.failing_since or at, "in_a_row": totals.in_a_row + 1}
    return dataclasses.replace(totals, **changed)


def _totals(connection: sqlite3.Connection, job: str) -> Totals:
    row = connection.execute("SELECT * FROM job_totals WHERE job = ?", (job,)).fetchone()
    return Totals(job) if row is None else Totals(**row)


def _mark(connection: sqlite3.Connection, job: str) -> Mark | None:
    row = connection.execute("SELECT * FROM job_marks WHERE job = ?", (job,)).fetchone()
    return None if row is None else _mark_of(row)


def _mark_of(row: sqlite3.Row) -> Mark:
    return Mark(**dict(row) | {"enabled": None if row["enabled"] is None else bool(row["enabled"])})


def _newest_seq(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'job_runs'").fetchone()
    return 0 if row is None else int(row[0])


def _put(connection: sqlite3.Connection, table: str, row: Totals | Mark) -> None:
    values = dataclasses.asdict(row)
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", values)


def _add_notices(connection: sqlite3.Connection, notices: Iterable[Notice], now: float) -> None:
    for notice in notices:
        connection.execute(
            "INSERT INTO job_notices (job, body, created_at, due_at) VALUES (?, ?, ?, ?)",
            (notice.job, json.dumps(notice.body, default=str), now, now),
        )


def _prune(connection: sqlite3.Connection, job: str, older_than: float, keep: int) -> None:
    connection.execute(
        "DELETE FROM job_runs WHERE job = :job AND (finished_at < :older_than OR seq <= (SELECT seq FROM job_runs "
        "WHERE job = :job ORDER BY seq DESC LIMIT 1 OFFSET :keep))",
        {"job": job, "older_than": older_than, "keep": max(1, keep)},
    )
