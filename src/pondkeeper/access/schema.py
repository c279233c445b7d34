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
)
