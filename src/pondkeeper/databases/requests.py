"""What callers ask of a database, and what they get."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import msgspec

from pondkeeper.writer.order import Priority
from pondkeeper.writer.write import Demand, Identity

INGEST_TIMEOUT_S: Final = 600.0


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
    grants: tuple[tuple[str, str | None], ...] | None = None


@dataclass(frozen=True)
class WriteRequest:
    """One statement or an atomic list of them, each with its parameters.

    `wait_s`: how long it may wait for its turn (None: as long as any write may); `timeout_s`: how long it may then run.
    """

    statements: list[tuple[str, list[Any] | dict[str, Any] | None]]
    timeout_s: float
    wait_s: float | None = None
    key_id: str | None = None
    client: str | None = None
    idempotency_key: str | None = None
    priority: str = "interactive"

    def digest(self) -> str:
        """What tells this write from another one with the same idempotency key."""
        return statements_digest(self.statements)


def statements_digest(statements: list[tuple[str, list[Any] | dict[str, Any] | None]]) -> str:
    """What tells statements with their parameters from others; the same whichever door they came through."""
    return hashlib.sha256(msgspec.json.encode(statements)).hexdigest()


def demand_of(write_id: str, request: WriteRequest, wait_s: float) -> Demand:
    """What is asked of the queue; `wait_s` unless the request says how long it waits."""
    key = request.idempotency_key
    return Demand(
        write_id,
        request.statements,
        request.timeout_s,
        wait_s if request.wait_s is None else request.wait_s,
        Identity(key, request.digest()) if key is not None else None,
        Priority(request.priority),
        request.key_id,
        request.client,
    )


@dataclass(frozen=True)
class WriteOutcome:
    """A committed write: the version that will contain it, and the rows changed by each statement."""

    version: int
    rows_changed: list[int]
    outcome: str = "committed"


@dataclass(frozen=True)
class IngestPart:
    """One of several ingests whose bodies were put together, in order: its key, its digest, and how many rows it has."""

    key: str
    digest: str
    rows: int


@dataclass(frozen=True)
class IngestRequest:
    """Rows for one table. `body` is a finished file under `DatabasePaths.incoming`; it stays the caller's.

    The caller may remove `body` as soon as `Database.ingest` has returned or raised: what still needs it has its own link.
    `parts`: the body is several accepted ingests put together (`on_error` is abort then), each with its record in the one
    transaction. If some of them are in the database already nothing is loaded, and PartsApplied names them.
    """

    schema: str
    table: str
    format: str
    body: Path
    mode: str = "append"
    keys: tuple[str, ...] = ()
    create: bool = False
    evolve: bool = False
    on_error: str = "abort"
    timeout_s: float = INGEST_TIMEOUT_S
    key_id: str | None = None
    client: str | None = None
    idempotency_key: str | None = None
    priority: str = "normal"
    delimiter: str = ","
    has_header: bool = True
    body_digest: str | None = None
    parts: tuple[IngestPart, ...] = ()

    def digest(self) -> str:
        """What tells this ingest from another one with the same idempotency key: its options and its bytes.

        Reads the whole body unless `body_digest` (SHA-256, in hex) is given: not on the event loop.
        """
        options = (self.schema, self.table, self.format, self.mode, self.keys, self.create, self.evolve, self.on_error)
        body = self.body_digest or _digest_of(self.body)
        return hashlib.sha256(msgspec.json.encode((*options, self.delimiter, self.has_header, body))).hexdigest()

    @property
    def title(self) -> str:
        """The ingest as lists of writes show it."""
        return f"INGEST INTO {self.schema}.{self.table} ({self.mode}, {self.format})"


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class IngestOutcome:
    """A committed ingest: `rows` were taken, `rejected` were not and lie in the reject file named `rejects`.

    `staging_ms` went by without the file of the database, for `hold_ms` the writer had a transaction open.
    """

    version: int
    rows: int
    rejected: int = 0
    rejects: str | None = None
    outcome: str = "committed"
    staging_ms: float = 0.0
    hold_ms: float = 0.0


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

    @classmethod
    def of_report(cls, report: dict[str, Any]) -> SnapshotInfo:
        """What the copier said of it."""
        return cls(**{field.name: report[field.name] for field in fields(cls)})
