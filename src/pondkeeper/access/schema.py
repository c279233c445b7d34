"""The schema of control.db as steps. A released step never changes; what comes after it is a new one."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE keys (
            id           TEXT PRIMARY KEY,
            name         TEXT NOT NULL,
            digest       BLOB NOT NULL CHECK (length(digest) = 32),
            role         TEXT NOT NULL CHECK (role IN ('reader', 'writer', 'admin')),
            databases    TEXT NOT NULL,
            created_at   REAL NOT NULL,
            expires_at   REAL,
            last_used_at REAL,
            revoked_at   REAL
        )
        """,
        "CREATE INDEX keys_by_name ON keys (name)",
    ),
    # What a key may read (a list of grants as JSON, NULL for everything), and its own limits (an object as JSON).
    ("ALTER TABLE keys ADD COLUMN tables TEXT", "ALTER TABLE keys ADD COLUMN limits TEXT"),
    # Jobs. `runs`: how each ended, its status as JSON; what retention takes is still in the totals. `marks`: what is known
    # of a job between runs, `enabled` NULL where the settings file decides. `notices`: webhooks that are not delivered yet.
    (
        """
        CREATE TABLE job_runs (
            seq         INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id      TEXT NOT NULL UNIQUE,
            job         TEXT NOT NULL,
            outcome     TEXT NOT NULL CHECK (outcome IN ('done', 'failed', 'cancelled')),
            finished_at REAL NOT NULL,
            status      TEXT NOT NULL,
            log_end     TEXT NOT NULL
        )
        """,
        "CREATE INDEX job_runs_by_job ON job_runs (job, seq)",
        """
        CREATE TABLE job_totals (
            job             TEXT PRIMARY KEY,
            done            INTEGER NOT NULL DEFAULT 0,
            failed          INTEGER NOT NULL DEFAULT 0,
            cancelled       INTEGER NOT NULL DEFAULT 0,
            rows            INTEGER NOT NULL DEFAULT 0,
            size_bytes      INTEGER NOT NULL DEFAULT 0,
            running_s       REAL NOT NULL DEFAULT 0,
            held_s          REAL NOT NULL DEFAULT 0,
            last_outcome    TEXT,
            last_at         REAL,
            last_duration_s REAL,
            last_rows       INTEGER,
            success_seq     INTEGER NOT NULL DEFAULT 0,
            success_at      REAL,
            failing_since   REAL,
            in_a_row        INTEGER NOT NULL DEFAULT 0
        )
        """,
        """
        CREATE TABLE job_marks (
            job           TEXT PRIMARY KEY,
            enabled       INTEGER,
            since         REAL NOT NULL,
            since_seq     INTEGER NOT NULL,
            after_seq     INTEGER NOT NULL DEFAULT 0,
            schedule      TEXT,
            handled_until REAL,
            told_at       REAL,
            stale_since   REAL
        )
        """,
        """
        CREATE TABLE job_notices (
            id         INTEGER PRIMARY KEY AUTOINCREMENT,
            job        TEXT NOT NULL,
            body       TEXT NOT NULL,
            created_at REAL NOT NULL,
            attempts   INTEGER NOT NULL DEFAULT 0,
            due_at     REAL NOT NULL
        )
        """,
    ),
)
