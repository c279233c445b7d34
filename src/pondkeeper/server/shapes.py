"""The shapes of answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType


class Column(Struct):
    """A column of an answer, with DuckDB's name of its type."""

    name: str
    type: str


class QueryAnswer(Struct):
    """The answer of a query as JSON. docs/reference/types.md says how each type is written."""

    columns: list[Column]
    rows: list[list[Any]]
    row_count: int
    truncated: Annotated[bool, Meta(description="Whether a limit cut the answer.")]
    limit: Annotated[str | None, Meta(description="The limit that cut it.")]
    version: int
    elapsed_ms: float


class WriteAnswer(Struct):
    """What became of a write."""

    outcome: Annotated[str, Meta(description="committed; a refused or unknown outcome is an error.")]
    version: Annotated[int, Meta(description="The version that contains it: pass it on as `at_least`.")]
    rows_changed: Annotated[int | list[int], Meta(description="A number for one statement, a list for a list.")]


class IngestAnswer(Struct):
    """What became of an ingest."""

    outcome: Annotated[str, Meta(description="committed; a refused or unknown outcome is an error.")]
    version: Annotated[int, Meta(description="The version that contains the rows: pass it on as `at_least`.")]
    rows: Annotated[int, Meta(description="Rows that were taken; of an upsert each key once.")]
    rejected: Annotated[int, Meta(description="Rows that were not, with on_error=reject.")]
    staging_ms: Annotated[float, Meta(description="Time that staging took, which needs no file of the database.")]
    hold_ms: Annotated[float, Meta(description="Time that the writer's transaction was open.")]
    rejects: Annotated[str | UnsetType, Meta(description="GET …/rejects/{id} has the rejected rows.")] = UNSET


class Error(Struct):
    """An error; some carry more fields."""

    code: str
    message: str
    remedy: str


class Problem(Struct):
    """The envelope of every error."""

    error: Error


class RunningEntry(Struct):
    """A query or write on its way."""

    id: str
    kind: str
    database: str
    sql: str
    key_id: str | None
    client: str | None
    state: str
    elapsed_ms: float


class RunningList(Struct):
    """What runs now."""

    queries: list[RunningEntry]


class Cancelled(Struct):
    """A query that was killed."""

    id: str
    state: str


class DatabaseState(Struct):
    """A database: version, snapshot, lease, queue, sizes; what holds it up."""

    name: str
    state: Annotated[str, Meta(description="ready, starting or unavailable")]
    version: int | None
    snapshot: dict[str, Any] | None
    file: dict[str, Any]
    lease: dict[str, Any]
    foreign: Annotated[list[dict[str, Any]], Meta(description="Programs that have the file open without the lease.")]
    writer: dict[str, Any]
    queue: dict[str, Any]
    problem: dict[str, Any] | None
    archive: Annotated[
        dict[str, Any] | None, Meta(description="What is archived, and how far behind that is; null where nothing is.")
    ]
    spool: Annotated[dict[str, Any], Meta(description="What was accepted and is not applied yet, in numbers.")]
    repair: Annotated[dict[str, Any] | None, Meta(description="How its file was made whole the last time that it was torn.")]
    counters: Annotated[dict[str, Any], Meta(description="What was done since the keeper started.")]
    replica: Annotated[
        dict[str, Any] | UnsetType, Meta(description="Of a replica: whose (`of`), how it fares (`state`), how far behind (`lag_s`).")
    ] = UNSET


class DatabaseList(Struct):
    """The databases that the key may see."""

    databases: list[DatabaseState]


class WaitingWrite(Struct):
    """A write in the queue. What it says and whose it is: only to its own key and to administrators."""

    id: Annotated[str, Meta(description="DELETE /v1/queries/{id} cancels it.")]
    kind: str
    priority: Annotated[str, Meta(description="interactive, normal or background")]
    state: Annotated[str, Meta(description="waiting, running or committing")]
    age_ms: float
    statements: Annotated[int, Meta(description="How many it has.")]
    sql: Annotated[str | None, Meta(description="The beginning of the first one.")]
    idempotency_key: str | None
    key_id: str | None
    client: str | None


class PlaceInLine(Struct):
    """A write or a program in the one line of a database."""

    place: Annotated[int, Meta(description="How many have their turn before it.")]
    kind: Annotated[str, Meta(description="write, ingest, load (of a job), or lease for a program that waits with a ticket")]
    id: Annotated[str | None, Meta(description="Of a write: DELETE /v1/queries/{id} cancels it.")]
    state: Annotated[str, Meta(description="waiting, running or committing")]
    priority: str | None
    who: Annotated[str | None, Meta(description="The program, or the client of a write.")]
    why: Annotated[str | None, Meta(description="The reason that it gave, or the beginning of the statement.")]
    since: str
    pid: Annotated[int | None, Meta(description="Of a program.")]
    key_id: str | None


class WaitingLine(Struct):
    """Who has a database, and who waits to write to it, in order."""

    database: str
    holder: Annotated[dict[str, Any] | None, Meta(description="Who has the lease: who, why, since, pid.")]
    foreign: Annotated[list[dict[str, Any]], Meta(description="Programs that have the file open without the lease.")]
    programs_waiting: Annotated[int, Meta(description="Programs that wait for the lease.")]
    waiting_for: Annotated[dict[str, Any] | None, Meta(description="Whom the keeper's writer waits for.")]
    spool: Annotated[dict[str, Any], Meta(description="What was accepted and is applied later, in numbers.")]
    line: Annotated[list[PlaceInLine], Meta(description="What runs and waits, writes and programs, in one order.")]
    writes: Annotated[list[WaitingWrite], Meta(description="The writes among them, in the same order.")]


class TicketShown(Struct):
    """An ingest that was accepted. Which fields it has follows from its outcome."""

    ticket: str
    outcome: Annotated[str, Meta(description="waiting, committed, refused or cancelled")]
    table: str
    accepted_at: str
    key_id: str | None
    client: str | None
    place: Annotated[int | UnsetType, Meta(description="While it waits: how many have their turn before it.")] = UNSET
    is_being_applied: Annotated[bool | UnsetType, Meta(description="While it waits: whether its turn has come.")] = UNSET
    holder: Annotated[dict[str, Any] | UnsetType | None, Meta(description="While it waits: who has the lease.")] = UNSET
    problem: Annotated[dict[str, Any] | UnsetType | None, Meta(description="While it waits: what holds it up.")] = UNSET
    settled_at: Annotated[str | UnsetType, Meta(description="When it got its outcome.")] = UNSET
    version: Annotated[int | UnsetType, Meta(description="Committed: the version that contains it.")] = UNSET
    rows: Annotated[int | UnsetType, Meta(description="Committed: the rows that were taken.")] = UNSET
    rejected: Annotated[int | UnsetType, Meta(description="Committed: the rows that were not.")] = UNSET
    rejects: Annotated[str | UnsetType, Meta(description="Committed: the reject file that has them.")] = UNSET
    error: Annotated[Error | UnsetType, Meta(description="Refused: why.")] = UNSET
    body_bytes: Annotated[int | UnsetType, Meta(description="Refused: its body is kept, of this size.")] = UNSET
    retried_as: Annotated[str | UnsetType, Meta(description="Refused: the ticket with which it was sent again.")] = UNSET


class RejectsFile(Struct):
    """Rows that one ingest did not take."""

    rejects: Annotated[str, Meta(description="The name: GET …/rejects/{id} has the rows.")]
    table: str | None
    rejected: Annotated[int | None, Meta(description="How many rows.")]
    key_id: str | None
    client: str | None
    size_bytes: int
    made_at: str


class RejectsList(Struct):
    """The reject files of a database."""

    rejects: list[RejectsFile]


class TicketAccepted(Struct):
    """An ingest is on disk and will be applied."""

    outcome: Annotated[str, Meta(description="accepted")]
    ticket: str


class TicketList(Struct):
    """Accepted ingests, and the spool in numbers."""

    tickets: list[TicketShown]
    spool: dict[str, Any]


class SnapshotEntry(Struct):
    """A snapshot on disk."""

    version: int
    created_at: str
    age_s: float
    size_bytes: int
    method: Annotated[str | None, Meta(description="How it was made: full, difference or compare.")]
    path: Annotated[str | UnsetType, Meta(description="Only for administrators.")] = UNSET
    open_by: Annotated[list[dict[str, Any]] | UnsetType, Meta(description="Who has it open; for administrators.")] = UNSET


class BackupEntry(Struct):
    """A version in the archive: what the database was at that time."""

    version: int
    created_at: str


class BackupList(Struct):
    """Archived versions of a database, the newest first."""

    database: str
    versions: list[BackupEntry]
    total: Annotated[int, Meta(description="How many there are, with those that are not listed.")]
    oldest: BackupEntry | None


class BackupTaken(Struct):
    """The version that was archived, or was there already with all that is committed."""

    database: str
    version: int
    created_at: str


class BackupVerified(Struct):
    """A version that was restored and checked."""

    database: str
    version: int
    created_at: str
    size_bytes: int
    blocks: Annotated[int, Meta(description="Blocks of the database that were checked.")]
    bytes_fetched: int
    tables: int
    rows: Annotated[dict[str, int], Meta(description="The rows of each table, counted by reading them.")]
    elapsed_ms: float


class BackupsPruned(Struct):
    """What was removed from the archive. Which fields it has follows from `dry_run`."""

    dry_run: bool
    versions_removed: Annotated[int, Meta(description="Of a dry run: that would be.")]
    versions: Annotated[list[dict[str, Any]] | UnsetType, Meta(description="Of a dry run: which, the first thousand.")] = UNSET
    versions_kept: int | UnsetType = UNSET
    objects_removed: Annotated[int | UnsetType, Meta(description="Blocks and pages that no version needed.")] = UNSET
    bytes_freed: int | UnsetType = UNSET


class SnapshotTaken(Struct):
    """A snapshot that was just published."""

    version: int
    created_at: str
    size_bytes: int
    blocks: int
    blocks_copied: int
    bytes_copied: int
    method: Annotated[str, Meta(description="How it was made: full, difference or compare.")]
    elapsed_ms: float
    path: Annotated[str | UnsetType, Meta(description="Only for administrators.")] = UNSET


class SnapshotList(Struct):
    """The snapshots of a database, the newest first."""

    snapshots: list[SnapshotEntry]


class RestoreAnswer(Struct):
    """A database that is what it was."""

    published: Annotated[int, Meta(description="The new version that has it.")]
    restored: Annotated[
        dict[str, Any],
        Meta(description="Which version it was, of when, and where it came from; of an undo what was undone."),
    ]


class KeyEntry(Struct):
    """A key without its secret."""

    id: str
    name: str
    role: str
    databases: list[str]
    tables: Annotated[list[str] | None, Meta(description="What it may read; null for everything.")]
    limits: dict[str, float]
    state: Annotated[str, Meta(description="live, expired or revoked")]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class KeyList(Struct):
    """Every key."""

    keys: list[KeyEntry]


class KeyMade(Struct):
    """A new key; its token is shown this once."""

    key: KeyEntry
    token: str


class KeyRevoked(Struct):
    """A key that opens nothing any more."""

    key: KeyEntry


class Promoted(Struct):
    """A replica that is a primary now."""

    database: str
    version: Annotated[int, Meta(description="The last version that it has of its primary.")]
    created_at: Annotated[str, Meta(description="When the primary published that.")]
    lineage: Annotated[str, Meta(description="The name of its own history, which begins with the next version.")]


class ReplicaSeen(Struct):
    """A replica that asked lately."""

    replica: str
    version: Annotated[int, Meta(description="The newest that it has.")]
    seen_s_ago: float


class ReplicaList(Struct):
    """The replicas of a database, and what they have cost since the keeper started."""

    replicas: list[ReplicaSeen]
    blocks_hashed: Annotated[int, Meta(description="Blocks of snapshots that were looked at, once for all replicas.")]
    blocks_read: Annotated[int, Meta(description="Blocks that were read to be given out, once for all replicas.")]
    blocks_given: int
    bytes_given: int


class Health(Struct):
    """A health check that passed."""

    status: str
