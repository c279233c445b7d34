"""The audit: every request that names data, as lines on disk that nobody can change unnoticed.

The event loop appends to a list and goes on; a thread makes the lines, chains them by their hashes and writes them in
groups. When it cannot, requests are refused (`audit.mode = required`) or counted as missing: none is dropped silently.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from pondkeeper.access.audit_writing import Chain
from pondkeeper.access.masking import first_word, without_literals, without_tokens
from pondkeeper.access.segments import moment
from pondkeeper.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pondkeeper.access.keys import Key
    from pondkeeper.settings import AuditSettings

GATHER_S: Final = 0.05
RETRY_S: Final = 1.0
MAX_WAITING: Final = 100_000
MAX_PER_WRITE: Final = 2_000
END_TIMEOUT_S: Final = 10.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Entry:
    """What became of one request. Who handles the request fills it in; what is not known stays None."""

    key: Key | None = None
    client: Any = None
    door: str = "http"
    request: str = ""
    database: str | None = None
    sql: str | Sequence[str] | None = None
    target: str | None = None
    outcome: str | None = None
    status: int = 0
    rows: int | None = None
    size_bytes: int | None = None
    limit: str | None = None
    query_id: str | None = None
    version: int | None = None
    began_at: float = 0.0
    elapsed_s: float = 0.0
    is_nothing: bool = False  # a question that is repeated every second, answered with no data: not recorded


class Audit:
    """The audit of a running keeper. Made by `open`, which blocks; ended by `close`, which blocks too."""

    def __init__(self, chain: Chain, settings: AuditSettings) -> None:
        self._chain = chain
        self._settings = settings
        self._is_required = settings.mode == "required"
        self._waiting: list[Entry] = []
        self._missing = 0
        self._refused_logins = 0
        self._is_idle = True
        self._wake = threading.Event()
        self._is_stopping = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    @staticmethod
    def open(folder: Path, settings: AuditSettings) -> Audit:
        """Go on with the chain in `folder`. Raises AuditUnavailable when it cannot be written and must be."""
        chain = Chain(folder, settings.segment_bytes, settings.keep_s, settings.keep_bytes)
        audit = Audit(chain, settings)
        try:
            chain.begin()
        except OSError as error:
            if audit._is_required:
                raise AuditUnavailable(private=str(error)) from error
            audit._failure = str(error)
        audit._thread.start()
        return audit

    # On the event loop

    def check(self) -> None:
        """Raise AuditUnavailable when a request could not be recorded and must be."""
        if self._failure is not None and self._is_required:
            raise AuditUnavailable(private=self._failure, retry_after_s=RETRY_S)
        if len(self._waiting) >= MAX_WAITING and self._is_required:
            raise AuditUnavailable("The audit is written more slowly than requests come.", retry_after_s=RETRY_S)

    def note(self, entry: Entry) -> None:
        """Record a request that has ended. Never waits."""
        if len(self._waiting) >= MAX_WAITING and not self._is_required:
            self._missing += 1
            return
        self._waiting.append(entry)
        if self._is_idle:
            self._is_idle = False
            self._wake.set()

    def note_refused_login(self) -> None:
        """Count a login that was not even looked at: a flood of them must not push records of requests out."""
        self._refused_logins += 1
        if self._is_idle:
            self._is_idle = False
            self._wake.set()

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._failure is not None

    # In the thread

    def _run(self) -> None:
        pending: list[bytes] = []
        while True:
            # Why a timeout: what is written is still to be forced to disk, and a failure to be tried again.
            self._wake.wait(RETRY_S if pending or self._failure else self._chain.sync_due_in_s(self._settings.sync_s))
            # Trap: cleared before anything is looked at, else the call to stop could be cleared away unseen.
            self._wake.clear()
            is_last = self._is_stopping
            if not is_last:
                time.sleep(GATHER_S)
            # Trap: idle before taking. The other way round, an entry that comes in between would wake nobody.
            self._is_idle = True
            pending = self._write(pending)
            if is_last and not self._waiting:
                return
            if is_last and self._failure:
                return

    def _write(self, pending: list[bytes]) -> list[bytes]:
        """Write what waits; what could not be written comes back."""
        try:
            while True:
                if not pending:
                    taken, self._waiting[:MAX_PER_WRITE] = self._waiting[:MAX_PER_WRITE], []
                    pending = [self._body(entry) for entry in taken]
                    pending += self._counts()
                if pending:
                    self._chain.append(pending)
                    pending = []
                self._chain.sync(self._settings.sync_s)
                self._recovered()
                if not self._waiting:
                    return pending
        except OSError as error:
            if self._failure is None:
                _log.error("the audit cannot be written", error=str(error), requests_are="refused" if self._is_required else "answered")
            self._failure = str(error)
            return pending

    def _counts(self) -> list[bytes]:
        """Records of what was only counted."""
        missing, self._missing = self._missing, 0
        refused, self._refused_logins = self._refused_logins, 0
        counted = (("missing", missing), ("refused_logins", refused))
        return [
            self._chain.encoded({"kind": kind, "at": moment(time.time()), "records": count})
            for kind, count in counted
            if count
        ]

    def _recovered(self) -> None:
        if self._failure is not None:
            _log.info("the audit is written again")
            self._failure = None

    def _body(self, entry: Entry) -> bytes:
        try:
            return self._chain.encoded(self._record(entry))
        except Exception as error:  # noqa: BLE001  Why: whatever a guest's text does to us, the record of it must not be lost.
            _log.error("a record of the audit was cut to its head", error=repr(error))
            return self._chain.encoded({"kind": "request", "at": moment(entry.began_at), "outcome": str(entry.outcome), "cut": repr(error)[:200]})

    def _record(self, entry: Entry) -> dict[str, Any]:
        key = entry.key
        sql = entry.sql if entry.sql is None or isinstance(entry.sql, str) else ";\n".join(entry.sql)
        record: dict[str, Any] = {
            "kind": "request",
            "at": moment(entry.began_at),
            "key": key.id if key else None,
            "name": key.name if key else None,
            "role": key.role.value if key else None,
            "from": _client(entry.client),
            "door": entry.door,
            "request": without_tokens(entry.request),
            "database": entry.database,
            "outcome": entry.outcome,
            "status": entry.status,
            "elapsed_ms": round(entry.elapsed_s * 1000, 3),
        }
        for name in ("target", "rows", "size_bytes", "limit", "query_id", "version"):
            if (value := getattr(entry, name)) is not None:
                record[name] = without_tokens(value) if isinstance(value, str) else value
        if sql is not None:
            record["statement"] = first_word(sql[:4096])
            record |= self._kept_sql(sql)
        return record

    def _kept_sql(self, sql: str) -> dict[str, Any]:
        if self._settings.sql == "none":
            return {}
        most = self._settings.max_sql_bytes
        # Why cut before masking: an unfinished literal at the cut is masked to its end, and a megabyte costs milliseconds.
        kept = sql if len(sql) <= most else sql[:most]
        text = without_tokens(without_literals(kept) if self._settings.sql == "masked" else kept)
        clean = text.encode(errors="replace").decode()
        return {"sql": clean} if kept is sql else {"sql": clean, "sql_cut_from": len(sql)}

    def close(self) -> None:
        """Write what is left and end the chain in order."""
        self._is_stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)
        if not self._thread.is_alive():
            self._chain.end()
        if self._waiting:
            _log.error("records of the audit are lost", count=len(self._waiting))


def recorder_of_repairs(audit: Audit | None) -> Callable[[str, dict[str, Any]], None]:
    """Who records what the keeper did to a file by itself; nothing where there is no audit."""

    def record(database: str, report: dict[str, Any]) -> None:
        if audit is not None:
            what = f"{report['blocks']} blocks and {report['headers']} headers from {report['donor'] or 'nowhere'}, "
            what += f"{report['wal_bytes_cut']} bytes of the WAL cut off; kept as {report['kept_as']}"
            audit.note(
                Entry(door="keeper", request="repair", database=database, target=what, outcome="ok", began_at=time.time())
            )

    return record


def _client(client: Any) -> str | None:
    """Who was at the other end: an address and port, or what the control socket's peer is called."""
    if client is None or isinstance(client, str):
        return client
    return f"{client[0]}:{client[1]}"
