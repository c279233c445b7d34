"""Settings of jobs of the kind `postgres`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Tables of a PostgreSQL server."""
