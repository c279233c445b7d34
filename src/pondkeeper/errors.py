"""Every error that a caller can meet: a stable code, an HTTP status, what happened, what to do.

    PondkeeperError
    ├── RequestRefused            the caller can mend it
    │   ├── InvalidRequest  SqlInvalid  StatementNotAllowed  ParameterInvalid  StatementFailed
    │   ├── Unauthenticated  Forbidden
    │   ├── DatabaseNotFound  QueryNotFound  KeyNotFound  KeyNameTaken  SnapshotNotFound
    │   ├── TicketNotFound  TicketNotWaiting
    │   ├── TableNotFound  BodyInvalid  ColumnsDiffer  RowsInvalid  TableChanged  PartsApplied  RejectsNotFound
    │   ├── VersionNotArchived  ArchiveConflict  ArchiveKeyInvalid
    │   ├── DatabaseIsReplica  PromotionRefused
    │   ├── JobNotFound  RunNotFound  SourceRefused  EmptySource  SchemaDrifted  JobStateChanged  ExtraMissing
    │   └── BodyTooLarge
    ├── LimitReached              a limit ended it
    │   ├── QueryTimedOut  WriteTimedOut  OutOfMemory  VersionNotReached
    │   └── QueueFull  SpoolFull  ReadersBusy  TooManyConnections
    ├── QueryCancelled            somebody asked for it
    ├── DatabaseUnavailable       the file cannot be had right now, or at all
    │   ├── DatabaseBusy  DatabaseMissing  DatabaseUnreadable  DatabaseEncrypted  DatabaseTooNew  DatabaseReadOnly
    │   ├── ArchiveUnavailable  ArchiveBusy  ArchiveDamaged  ObjectMissing
    │   ├── PrimaryUnreachable  ReplicaDiverged
    │   └── DiskFull  SpoolUnavailable
    ├── WorkerDied  AnswerIncomplete  OutcomeUnknown
    ├── RunFailed                 a run of a job ended without its purpose
    │   └── RunCancelled  RunTimedOut  RunLost  SourceUnavailable
    ├── KeeperRunning  KeeperNotRunning  KeeperNotAnswering  KeeperStopping
    ├── FenceMissing  EngineUnjudged
    └── ControlUnavailable  SettingInvalid  JobInvalid

An error travels between processes as `to_wire()` and comes back as the same class by `from_wire()`.
`private` is for logs and administrators: it may name paths, `message` and `remedy` never do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PondkeeperError(Exception):
    """Something went wrong inside Pondkeeper; the log of the keeper has the details."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_remedy: ClassVar[str] = "Look into the keeper's log on stderr; `pondkeeper check` examines the installation."

    fatal: bool = False
    """Whether the process that met it cannot go on with its database and must end."""

    def __init__(
        self,
        message: str | None = None,
        *,
        remedy: str | None = None,
        private: str | None = None,
        **details: Any,
    ) -> None:
        self.message = message or (self.__doc__ or self.code).strip().splitlines()[0]
        self.remedy = remedy or self.default_remedy
        self.private = private
        self.details = details
        super().__init__(self.message)

    def to_wire(self, *, with_private: bool = False) -> dict[str, Any]:
        """The error as plain data: `code`, `message`, `remedy` and its details."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message, "remedy": self.remedy, **self.details}
        if with_private and self.private:
            wire["private"] = self.private
        return wire

    def again(self) -> PondkeeperError:
        """The same error, to be raised once more. Trap: one object raised twice keeps the frames of both for ever."""
        return self.from_wire(self.to_wire(with_private=True))

    @staticmethod
    def from_wire(wire: dict[str, Any]) -> PondkeeperError:
        """The error that `to_wire` described; an unknown code becomes a plain `PondkeeperError`."""
        fields = dict(wire)
        kind = _BY_CODE.get(fields.pop("code", ""), PondkeeperError)
        return kind(
            fields.pop("message", None), remedy=fields.pop("remedy", None), private=fields.pop("private", None), **fields
        )


class RequestRefused(PondkeeperError):
    """The request cannot be carried out as it stands."""

    code = "request_refused"
    http_status = 400
    exit_code = 2
    default_remedy = "Change the request as the message says and send it again."


class InvalidRequest(RequestRefused):
    """The request is not of the expected shape."""

    code = "invalid_request"
    default_remedy = "Compare the request with the shape in the OpenAPI document at /openapi.json."


class SqlInvalid(RequestRefused):
    """DuckDB could not parse or bind the statement."""

    code = "sql_invalid"
    default_remedy = "Correct the statement; the message is DuckDB's own."


class StatementNotAllowed(RequestRefused):
    """This kind of statement is not allowed here."""

    code = "statement_not_allowed"
    http_status = 403
    default_remedy = "`query` takes one reading statement, `execute` the writing ones; neither takes statements that reach outside the database."


class ParameterInvalid(RequestRefused):
    """The parameters do not fit the statement."""

    code = "parameter_invalid"
    default_remedy = "Pass a list for ? and $1 placeholders, an object for $name placeholders, with one value for each."


class StatementFailed(RequestRefused):
    """The statement failed while it ran, and changed nothing."""

    code = "statement_failed"
    http_status = 422
    default_remedy = "Correct the statement or the data; the message is DuckDB's own."


class Unauthenticated(RequestRefused):
    """The request carries no valid key."""

    code = "unauthenticated"
    http_status = 401
    exit_code = 3
    default_remedy = "Send `Authorization: Bearer pk_…`; `pondkeeper key create` makes a key."


class Forbidden(RequestRefused):
    """This key may not do that."""

    code = "forbidden"
    http_status = 403
    exit_code = 3
    default_remedy = "Use a key whose role and databases allow it; `pondkeeper key list` shows them."


class DatabaseNotFound(RequestRefused):
    """There is no database of that name."""

    code = "database_not_found"
    http_status = 404
    default_remedy = "`pondkeeper status` lists the databases of this keeper."


class QueryNotFound(RequestRefused):
    """No query of that id is running."""

    code = "query_not_found"
    http_status = 404
    default_remedy = "It has ended, or never began; GET /v1/queries lists what runs."


class TicketNotFound(RequestRefused):
    """There is no ticket of that id: it was never given out, or its outcome was kept for long enough."""

    code = "ticket_not_found"
    http_status = 404
    default_remedy = "`pondkeeper ticket list` shows those that wait and those with an outcome; `writer.idempotency_keep_s` says how long outcomes are kept."


class TicketNotWaiting(RequestRefused):
    """The ticket does not wait any more, so it cannot be taken back."""

    code = "ticket_not_waiting"
    http_status = 409
    default_remedy = "`pondkeeper ticket show` says what became of it."


class BodyNotKept(RequestRefused):
    """The body of this ticket is not kept: it was not refused, was retried, or was kept for long enough."""

    code = "body_not_kept"
    http_status = 404
    default_remedy = "Bodies of refused tickets are kept for `spool.refused_keep_s`, up to `spool.refused_max_bytes`."


class TableNotFound(RequestRefused):
    """There is no such table."""

    code = "table_not_found"
    http_status = 404
    default_remedy = "Name a table of this database, or let the ingest make it with create=true."


class BodyInvalid(RequestRefused):
    """The body is not what its Content-Type says, or breaks off."""

    code = "body_invalid"
    default_remedy = "Send the whole body, in the format that its Content-Type names."


class ColumnsDiffer(RequestRefused):
    """The columns of the body do not fit the table."""

    code = "columns_differ"
    http_status = 422
    default_remedy = 'Give the body the columns of the table; `pondkeeper query "DESCRIBE my_table"` shows them.'


class RowsInvalid(RequestRefused):
    """Some rows of the body do not fit the table, so nothing was taken."""

    code = "rows_invalid"
    http_status = 422
    default_remedy = "Correct the rows that are named, or let on_error=reject put bad rows aside and take the others."


class TableChanged(RequestRefused):
    """The table was changed again and again while rows for it were staged."""

    code = "table_changed"
    http_status = 409
    default_remedy = "Send it again when nobody alters the table."


class RowsBroken(RequestRefused):
    """Rows break constraints of their table, and others again and again when they were left out."""

    code = "rows_broken"
    http_status = 409
    default_remedy = "Send it again when fewer programs write the same keys; the keeper leaves such rows out by itself."


class PartsApplied(RequestRefused):
    """Some of the accepted ingests that were to be loaded together are in the database already."""

    code = "parts_applied"
    http_status = 409
    default_remedy = "The keeper leaves them out and loads the others; nothing is to be done."


class RejectsNotFound(RequestRefused):
    """There is no reject file of that name."""

    code = "rejects_not_found"
    http_status = 404
    default_remedy = "They are kept for `ingest.rejects_keep_s`; the answer of an ingest names them."


class KeyNotFound(RequestRefused):
    """There is no key of that id."""

    code = "key_not_found"
    http_status = 404
    default_remedy = "`pondkeeper key list` shows the keys."


class KeyNameTaken(RequestRefused):
    """A live key of that name exists already."""

    code = "key_name_taken"
    http_status = 409
    default_remedy = "Choose another name, or revoke the other key first; `pondkeeper key list` shows them."


class IdempotencyConflict(RequestRefused):
    """The Idempotency-Key was used for another write."""

    code = "idempotency_conflict"
    http_status = 409
    default_remedy = "Take a new key for each write, and the same one only to repeat it exactly."


class SnapshotNotFound(RequestRefused):
    """There is no such snapshot."""

    code = "snapshot_not_found"
    http_status = 404
    default_remedy = "`pondkeeper snapshot list` shows those that exist; `pondkeeper snapshot take` makes one."


class VersionNotArchived(RequestRefused):
    """The archive has no such version of this database."""

    code = "version_not_archived"
    http_status = 404
    default_remedy = "`pondkeeper backup list` shows those that there are."


class ArchiveConflict(RequestRefused):
    """The archive has another history of a database of that name."""

    code = "archive_conflict"
    http_status = 409
    default_remedy = "Archive into another folder or prefix (`archive.to`): two keepers must not write the history of one name."


class ArchiveKeyInvalid(RequestRefused):
    """The archive's key is not one, or not the one that it was encrypted with."""

    code = "archive_key_invalid"
    default_remedy = "`archive.key_file` names a file of 64 hexadecimal digits: the ones that the archive was begun with."


class DatabaseIsReplica(RequestRefused):
    """The database is a replica here, so it can be read and not written."""

    code = "database_is_replica"
    http_status = 409
    default_remedy = "Write at its primary, which the answer names; `pondkeeper promote` makes a primary of this one when that is lost."


class PromotionRefused(RequestRefused):
    """The replica is not made a primary, since that could make two of them."""

    code = "promotion_refused"
    http_status = 409
    default_remedy = "Stop the primary first, so that nobody writes there any more, and try again; `--force` does without."


class JobNotFound(RequestRefused):
    """There is no job of that name."""

    code = "job_not_found"
    http_status = 404
    default_remedy = "`pondkeeper job list` shows the jobs of this keeper; they stand in pondkeeper.toml as [jobs.NAME]."


class RunNotFound(RequestRefused):
    """There is no run of that id."""

    code = "run_not_found"
    http_status = 404
    default_remedy = "`pondkeeper job history` shows the runs that are kept; `runs.keep` and `runs.keep_s` say how many and how long."


class SourceRefused(RequestRefused):
    """The source of a job refuses what the job asks of it."""

    code = "source_refused"
    http_status = 422
    default_remedy = "Correct the job or the rights of its user at the source; the message is the source's own."


class EmptySource(RequestRefused):
    """The source has no rows, so the full table here was left as it is."""

    code = "empty_source"
    http_status = 422
    default_remedy = "If the source is meant to be empty, set `allow_empty = true` for the job."


class SchemaDrifted(RequestRefused):
    """The source has other columns or types than the table here, and the job's setting for that refuses it."""

    code = "schema_drifted"
    http_status = 409
    default_remedy = 'Look at the change that the message names; `drift = "allow"` takes such changes over, `pondkeeper job accept JOB` just this one where it is "ask".'


class JobStateChanged(RequestRefused):
    """Another load of the job was committed meanwhile, so this one was not applied on top of it."""

    code = "job_state_changed"
    http_status = 409
    default_remedy = "Nothing is to be done: the next attempt of the run goes on from the state that was committed."


class ExtraMissing(RequestRefused):
    """A package that this kind of job needs is not installed."""

    code = "extra_missing"
    http_status = 501
    default_remedy = "Install the extra that the message names into the environment of the keeper."


class HttpInvalid(RequestRefused):
    """The bytes received are not an HTTP/1.1 request."""

    code = "http_invalid"
    default_remedy = "The keeper speaks plain HTTP/1.1; for HTTPS give it a certificate (server.tls_cert)."


class HostNotAllowed(RequestRefused):
    """The Host header names a host that this keeper does not answer for."""

    code = "host_not_allowed"
    http_status = 421
    default_remedy = "Use the address that the keeper listens on, or add the name to `server.allowed_hosts`."


class RouteNotFound(RequestRefused):
    """There is nothing at this path."""

    code = "not_found"
    http_status = 404
    default_remedy = "The OpenAPI document at /openapi.json lists every path."


class MethodNotAllowed(RequestRefused):
    """This path does not take this method."""

    code = "method_not_allowed"
    http_status = 405
    default_remedy = "The Allow header names the methods that it takes."


class NotAcceptable(RequestRefused):
    """None of the formats asked for can be answered."""

    code = "not_acceptable"
    http_status = 406
    default_remedy = "Name one of the formats in the Accept header, or leave it out for JSON."


class MediaTypeUnsupported(RequestRefused):
    """The request body is encoded in a way that is not understood."""

    code = "media_type_unsupported"
    http_status = 415
    default_remedy = "Send the JSON as it is, without a Content-Encoding."


class UrlTooLong(RequestRefused):
    """The URL of the request is too long."""

    code = "url_too_long"
    http_status = 414
    default_remedy = "Send what is long in the body of the request, not in its URL."


class HeadTooLarge(RequestRefused):
    """The request's URL or headers are larger than the server accepts."""

    code = "head_too_large"
    http_status = 431
    default_remedy = "Send fewer or shorter headers; the statement belongs into the body."


class RequestTooSlow(RequestRefused):
    """The request did not arrive in time."""

    code = "request_too_slow"
    http_status = 408
    default_remedy = "Send it faster, or raise `server.header_timeout_s` or `server.body_timeout_s`."


class BodyTooLarge(RequestRefused):
    """The request body is larger than the server accepts."""

    code = "body_too_large"
    http_status = 413
    default_remedy = "Send less at once, or raise `server.max_body_bytes`."


class LimitReached(PondkeeperError):
    """A limit ended the request."""

    code = "limit_reached"
    http_status = 429
    exit_code = 4
    default_remedy = "Ask for less, or raise the limit that the message names."


class QueryTimedOut(LimitReached):
    """The query did not finish within its deadline and was stopped."""

    code = "query_timed_out"
    http_status = 408
    default_remedy = "Make the query cheaper, or raise the `timeout_s` of its limits up to the server's `readers.timeout_s`."


class WriteTimedOut(LimitReached):
    """The turn of the write did not come in time, or it did not finish in time; nothing of it was applied."""

    code = "write_timed_out"
    http_status = 408
    default_remedy = "Write in smaller pieces, or raise the request's `timeout_s` (where it waited: `wait_s`) up to the server's `writer.timeout_s` and `writer.wait_s`."


class OutOfMemory(LimitReached):
    """The query needed more memory or temporary disk than its limit."""

    code = "out_of_memory"
    http_status = 422
    default_remedy = "Make the query cheaper, or raise `readers.memory_limit_bytes` or `readers.temp_limit_bytes`."


class VersionNotReached(LimitReached):
    """The version asked for by `at_least` was not published within the deadline."""

    # Why 503 as for all that is not to be had now, and without Retry-After: its caller has just waited for his whole deadline.
    code = "version_not_reached"
    http_status = 503
    default_remedy = "Ask again later; GET /v1/databases/{name} shows the newest version and what holds it up."


class QueueFull(LimitReached):
    """Too many requests are waiting already."""

    code = "queue_full"
    http_status = 503
    default_remedy = "Retry after the time in the Retry-After header."


class SpoolFull(LimitReached):
    """As many accepted ingests wait as may."""

    code = "spool_full"
    http_status = 503
    default_remedy = "Retry after the time in the Retry-After header, or raise `spool.max_bytes` or `spool.max_entries`; `pondkeeper queue` shows who has the database."


class ReadersBusy(LimitReached):
    """No reader became free in time."""

    code = "readers_busy"
    http_status = 503
    default_remedy = "Retry after the time in the Retry-After header, or raise `readers.count`."


class RateLimited(LimitReached):
    """This key has asked more often, or for more at once, than it may."""

    code = "rate_limited"
    http_status = 429
    default_remedy = "Wait as long as Retry-After says; the limit is the key's, its role's, its database's or the server's."


class TooManyFailedLogins(LimitReached):
    """Too many requests from this address had no valid key."""

    code = "too_many_failed_logins"
    http_status = 429
    default_remedy = "Correct the key, and wait as long as Retry-After says. Valid keys are not held up by it."


class TooManyConnections(LimitReached):
    """The server has as many connections open as it can."""

    code = "too_many_connections"
    http_status = 503
    default_remedy = "Close idle connections, or use fewer of them; then retry."


class QueryCancelled(PondkeeperError):
    """The query was cancelled."""

    code = "query_cancelled"
    http_status = 409
    exit_code = 5
    default_remedy = "Somebody killed it on purpose, or its client went away; send it again if that was not meant."


class DatabaseUnavailable(PondkeeperError):
    """The database cannot be used right now."""

    code = "database_unavailable"
    http_status = 503
    exit_code = 6
    default_remedy = "`pondkeeper check` says what is wrong with it and what to do."


class DatabaseBusy(DatabaseUnavailable):
    """Another program holds the database and did not let go in time."""

    code = "database_busy"
    default_remedy = "Wait for the holder that the message names, or end it; start it with `pondkeeper run --` so that it takes its turn."


class DatabaseMissing(DatabaseUnavailable):
    """The database file is not there any more; reads go on from its last snapshot."""

    code = "database_missing"
    default_remedy = "Put the file back, or its newest version: `pondkeeper backup restore --at now`."


class DatabaseUnreadable(DatabaseUnavailable):
    """The file is not a DuckDB database, or it is damaged."""

    code = "database_unreadable"
    default_remedy = "`pondkeeper check` names the damage; restore the file from a snapshot or a backup."


class DatabaseEncrypted(DatabaseUnavailable):
    """The database file is encrypted."""

    code = "database_encrypted"
    default_remedy = "Encrypted databases are not served yet: copy it into an unencrypted file first."


class DatabaseTooNew(DatabaseUnavailable):
    """The database file was written by a newer DuckDB than the one installed."""

    code = "database_too_new"
    default_remedy = "Install the DuckDB that wrote it (`pip install -U duckdb`), or export it from there."


class DatabaseReadOnly(DatabaseUnavailable):
    """The database file or its folder cannot be written."""

    code = "database_read_only"
    default_remedy = "Give the keeper's user write permission on the file and its folder."


class PrimaryUnreachable(DatabaseUnavailable):
    """The primary of this replica cannot be reached; reads go on from what has come."""

    code = "primary_unreachable"
    default_remedy = "See that the primary runs and that the network lets this machine reach it; the replica catches up by itself."


class ReplicaDiverged(DatabaseUnavailable):
    """The primary has another history than this replica; reads go on from what has come."""

    code = "replica_diverged"
    default_remedy = "If the primary is the right one, stop the replica, remove its folder and begin anew."


class DiskFull(DatabaseUnavailable):
    """The disk is full."""

    code = "disk_full"
    http_status = 507
    default_remedy = "Free some space; nothing committed is lost, and writing resumes by itself."


class SpoolUnavailable(DatabaseUnavailable):
    """The spool of the database cannot be used, so nothing can be accepted for later."""

    code = "spool_unavailable"
    default_remedy = "Look into the keeper's log for the file or the disk that failed; ingests with `wait=commit` are not affected."


class ArchiveUnavailable(DatabaseUnavailable):
    """The archive cannot be reached, or refuses; the databases are not affected."""

    code = "archive_unavailable"
    default_remedy = "See that its folder or bucket is there and may be used; what was missed is archived when it is back."


class ArchiveBusy(DatabaseUnavailable):
    """Somebody else works on the archive in a way that excludes this."""

    code = "archive_busy"
    default_remedy = "Try again when the other `backup` command has ended."


class ArchiveDamaged(DatabaseUnavailable):
    """Something in the archive is not what was put there."""

    code = "archive_damaged"
    default_remedy = "`pondkeeper backup verify` names the versions that it belongs to; take another version, or a copy of the archive."


class ObjectMissing(ArchiveDamaged):
    """Something that the archive refers to is not there."""

    code = "object_missing"


class WorkerDied(PondkeeperError):
    """The process that ran the statement died; nothing else was harmed."""

    code = "worker_died"
    http_status = 502
    exit_code = 7
    default_remedy = "Send it again; if it dies again, the statement needs too much memory or meets a fault of the engine."


class AnswerIncomplete(PondkeeperError):
    """The answer broke off before its end; what arrived of it is not the whole."""

    code = "answer_incomplete"
    http_status = 502
    exit_code = 7
    default_remedy = "Send it again; the keeper's log says why it broke off."


class OutcomeUnknown(PondkeeperError):
    """The write may or may not have been committed."""

    code = "outcome_unknown"
    http_status = 502
    exit_code = 8
    default_remedy = "Look whether the change is there before you send it again."


class RunFailed(PondkeeperError):
    """The run of the job failed."""

    code = "run_failed"
    http_status = 500
    exit_code = 11
    default_remedy = "`pondkeeper job logs` shows what it wrote."


class RunCancelled(RunFailed):
    """The run was cancelled."""

    code = "run_cancelled"
    http_status = 409
    exit_code = 5
    default_remedy = "Somebody ended it on purpose; `pondkeeper job run` starts it anew."


class RunTimedOut(RunFailed):
    """The run did not end within its time limit and was ended."""

    code = "run_timed_out"
    http_status = 408
    exit_code = 4
    default_remedy = "Look into its log for what took so long, or raise `timeout_s` of the job."


class RunLost(RunFailed):
    """The processes of the run were killed from outside, so nobody knows how far it came."""

    code = "run_lost"
    default_remedy = "Look whether it may be repeated, and run it again; with `retries` this happens by itself."


class SourceUnavailable(RunFailed):
    """The source of the job cannot be reached right now."""

    code = "source_unavailable"
    http_status = 503
    default_remedy = "See that it runs and that this machine may reach it; `retries` lets the job try again by itself."


class KeeperRunning(PondkeeperError):
    """Another keeper has this database already."""

    code = "keeper_running"
    http_status = 409
    exit_code = 9
    default_remedy = "Use the keeper that the message names, or stop it first."


class KeeperNotRunning(PondkeeperError):
    """No keeper is running here."""

    code = "keeper_not_running"
    http_status = 503
    exit_code = 10
    default_remedy = "Start one with `pondkeeper serve PATH`, or name it with --home or --url."


class KeeperNotAnswering(PondkeeperError):
    """The keeper is there, and did not answer in time."""

    code = "keeper_not_answering"
    http_status = 504
    exit_code = 10
    default_remedy = "Look whether its machine is overloaded; `pondkeeper status` shows what can be seen without it."


class KeeperStopping(PondkeeperError):
    """The keeper is stopping."""

    code = "keeper_stopping"
    http_status = 503
    exit_code = 10
    default_remedy = "Send the request again when it is back."


class ControlUnavailable(PondkeeperError):
    """The keeper's control database (control.db) cannot be used, so keys cannot be checked or changed."""

    code = "control_unavailable"
    http_status = 503
    exit_code = 6
    default_remedy = "`pondkeeper check` says what is wrong with it; the databases themselves are not affected."


class AuditUnavailable(PondkeeperError):
    """The audit cannot be written, so nothing is answered that it would have to tell of."""

    code = "audit_unavailable"
    http_status = 503
    exit_code = 6
    default_remedy = "Give the disk of the keeper's home room and rights; `audit.mode = best_effort` answers without an audit."


class AuditBroken(PondkeeperError):
    """The audit is not what the keeper wrote: something was changed, removed or added."""

    code = "audit_broken"
    http_status = 500
    exit_code = 1
    default_remedy = "Compare with a copy from elsewhere; what stands before the place that is named is proved to be unchanged."


class FenceMissing(PondkeeperError):
    """This machine cannot put the fence around the children that run SQL, and the settings say to do without no wall."""

    code = "fence_missing"
    http_status = 503
    exit_code = 2
    default_remedy = "`pondkeeper check` shows each wall and what it needs; fence.mode = auto starts without those that are missing."


class EngineUnjudged(PondkeeperError):
    """This release of DuckDB has functions, settings or kinds of statement that Pondkeeper has not judged."""

    code = "engine_unjudged"
    http_status = 503
    exit_code = 2
    default_remedy = "Install a DuckDB release that this Pondkeeper knows (1.5.5 or 2.0.0), or set fence.mode = auto, which warns."


class SettingInvalid(PondkeeperError):
    """A setting has a value that cannot be used."""

    code = "setting_invalid"
    http_status = 400
    exit_code = 2
    default_remedy = "`pondkeeper settings` prints every setting with its unit, default and origin."


class JobInvalid(PondkeeperError):
    """A job in the settings file cannot be used as it stands."""

    code = "job_invalid"
    http_status = 400
    exit_code = 2
    default_remedy = "Correct the line that the message names; `pondkeeper job list` reads the file as the keeper does."


def _tree(kind: type[PondkeeperError]) -> dict[str, type[PondkeeperError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found.update(_tree(child))
    return found


_BY_CODE = _tree(PondkeeperError)


def all_errors() -> list[type[PondkeeperError]]:
    """Every error class by its code, for the reference and the tests."""
    return [_BY_CODE[code] for code in sorted(_BY_CODE)]
