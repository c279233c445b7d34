"""What callers ask of a database, and what they get."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True)
class ReadRequest:
    """One query with its limits, which somebody above has already cut to what the caller may have."""

    sql: str
    parameters: list[Any] | dict[str, Any] | None
    format: str
    timeout_s: float
    max_rows: int
    max_bytes: int
    memory_limit_bytes: int | None = None
    threads: int | None = None
    at_least: int | None = None
    key_id: str | None = None
    client: str | None = None


@dataclass(frozen=True)
class WriteRequest:
    """One statement or an atomic list of them, each with its parameters."""

    statements: list[tuple[str, list[Any] | dict[str, Any] | None]]
    timeout_s: float
    key_id: str | None = None
    client: str | None = None
    idempotency_key: str | None = None
    priority: str = "interactive"

    def digest(self) -> str:
        """What tells this write from another one with the same idempotency key."""
        return hashlib.sha256(msgspec.json.encode(self.statements)).hexdigest()


@dataclass(frozen=True)
class WriteOutcome:
    """A committed write: the version that will contain it, and the rows changed by each statement."""

    version: int
    rows_changed: list[int]
    outcome: str = "committed"


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot that has been published."""

    version: int
    path: str
    created_at: str
    size_bytes: int
    blocks: int = 0
    blocks_copied: int = 0
    bytes_copied: int = 0
    method: str = ""
    elapsed_ms: float = 0.0
