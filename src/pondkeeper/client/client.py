"""The client: one object per keeper, safe to share between threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from pondkeeper.client.answer import Answer, Ingested, Outcome
from pondkeeper.client.backups import Backups
from pondkeeper.client.bodies import body_of, key_name
from pondkeeper.client.events import events_of
from pondkeeper.client.formats import content_type
from pondkeeper.client.jobs import Jobs
from pondkeeper.client.keys import WriteKeys
from pondkeeper.client.stream import AnswerStream
from pondkeeper.client.transport import Transport, decoded, local_http, remote_http
from pondkeeper.errors import AnswerIncomplete
from pondkeeper.files.paths import Home

if TYPE_CHECKING:
    from datetime import datetime

    import httpx
    import pyarrow as pa

DEFAULT_URL: Final = "http://127.0.0.1:8420"
RETRY_FOR_S: Final = 30.0
RELISTEN_S: Final = 0.2
LONGEST_WAIT_S: Final = 30.0

Parameters = Sequence[Any] | Mapping[str, Any]
Statement = str | tuple[str, Parameters | None]


class Client:
    """Reads and writes the databases of one keeper.

    A keeper that says it is busy (503 with Retry-After) is asked again for up to `retry_for_s`. A write is repeated also
    when its answer was lost, with the same Idempotency-Key, so that it is applied once; `retries` bounds how often, and
    with 0 nothing is repeated and no key is made. `timeout_s` bounds the silence of the keeper, not the query: that is
    `query(timeout_s=…)`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        database: str | None = None,
        timeout_s: float | None = None,
        retry_for_s: float = RETRY_FOR_S,
        retries: int | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        http = http or remote_http(url, key, timeout_s=timeout_s)
        self._transport = Transport(http, url, retry_for_s=retry_for_s, retries=retries)
        self._database = database
        self._keys = WriteKeys()
        self.backups = Backups(self._transport, self._path)
        self.jobs = Jobs(self._transport)

    @classmethod
    def local(
        cls,
        home: str | Path,
        *,
        database: str | None = None,
        timeout_s: float | None = None,
        retry_for_s: float = RETRY_FOR_S,
        retries: int | None = None,
    ) -> Client:
        """A client of the keeper whose home this is, over its control socket: its owner needs no key."""
        path = Home(Path(home)).socket
        http = local_http(path, timeout_s=timeout_s)
        return cls(str(path), database=database, retry_for_s=retry_for_s, retries=retries, http=http)

    # Reading

    def query(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        database: str | None = None,
        at_least: int | None = None,
        **limits: Any,
    ) -> Answer:
        """The whole answer of one reading statement; `limits` are timeout_s, max_rows, max_bytes, memory."""
        body = _query_body(sql, parameters, at_least, limits)
        with self._stream(body, database, "json") as answer:
            return Answer.from_wire(decoded(answer.read()))

    def stream(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        format: str = "ndjson",  # noqa: A002  the word of the API
        database: str | None = None,
        at_least: int | None = None,
        **limits: Any,
    ) -> AnswerStream:
        """The answer's bytes in one of json, ndjson, csv, arrow and parquet, as they arrive."""
        return self._stream(_query_body(sql, parameters, at_least, limits), database, format)

    def arrow(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        database: str | None = None,
        at_least: int | None = None,
        **limits: Any,
    ) -> pa.Table:
        """The whole answer as a pyarrow table; needs pyarrow, which is imported here and not before.

        The metadata of its schema names the version, and where a limit cut the answer `pondkeeper.limit` names it.
        """
        from pyarrow import ipc

        answer = self.stream(sql, parameters, format="arrow", database=database, at_least=at_least, **limits)
        with answer, ipc.open_stream(answer) as reader:
            table = reader.read_all()
            answer.read()  # Why: what follows Arrow's end mark is the end of HTTP, which must have arrived too.
        if answer.limit is None:
            return table
        return table.replace_schema_metadata({**(table.schema.metadata or {}), "pondkeeper.limit": answer.limit})

    def _stream(self, body: dict[str, Any], database: str | None, form: str) -> AnswerStream:
        accept = content_type(form)
        return AnswerStream(self._transport.open("POST", self._path(database, "query"), body=body, accept=accept))

    # Writing

    def execute(
        self,
        statements: str | Sequence[Statement],
        parameters: Parameters | None = None,
        *,
        database: str | None = None,
        timeout_s: float | None = None,
        wait_s: float | None = None,
        idempotency_key: str | None = None,
        priority: str | None = None,
    ) -> Outcome:
        """Carry out one writing statement, or a list of them (each a text, or text and parameters): all or none.

        It waits for its turn for `wait_s` at most, and runs for `timeout_s` at most.

        It is repeated for up to `retry_for_s` when the connection or the keeper is lost, and applied once: by its
        `idempotency_key`, any text that names this very write. Without one it gets one that lasts for this call.
        """
        body = _execute_body(statements, parameters)
        if idempotency_key is None and self._transport.repeats:
            idempotency_key = self._keys.new()
        limits = {name: value for name, value in (("timeout_s", timeout_s), ("wait_s", wait_s)) if value is not None}
        if limits:
            body["limits"] = limits
        if priority is not None:
            body["priority"] = priority
        return Outcome.from_wire(self._transport.write(self._path(database, "execute"), body, idempotency_key))

    def ingest(
        self,
        table: str,
        data: Any,
        *,
        format: str | None = None,  # noqa: A002  the word of the API
        mode: str = "append",
        keys: Sequence[str] = (),
        create: bool = False,
        evolve: bool = False,
        on_error: str = "abort",
        wait: str = "commit",
        database: str | None = None,
        timeout_s: float | None = None,
        priority: str | None = None,
        idempotency_key: str | None = None,
        delimiter: str | None = None,
        header: bool | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> Ingested:
        """Load rows into a table (`table` or `schema.table`): a path, bytes, a file, an Arrow table or reader, or dicts.

        The format is told by a path's suffix, or named: ndjson, json, csv, tsv, arrow, parquet. It is streamed; `on_sent`
        hears of each piece. Lost on the way it is sent again, and applied once, if the data can be read a second time.
        """
        body = body_of(data, format)
        if on_sent is not None:
            body = body.counted(on_sent)
        if idempotency_key is None and self._transport.repeats and body.is_repeatable:
            idempotency_key = self._keys.new()
        options = {
            "mode": mode,
            "key": ",".join(map(key_name, keys)) or None,
            "create": "true" if create else None,
            "evolve": "true" if evolve else None,
            "on_error": on_error,
            "wait": wait,
            "timeout_s": timeout_s,
            "priority": priority,
            "delimiter": delimiter,
            "header": None if header is None else str(header).lower(),
        }
        query = urlencode({name: value for name, value in options.items() if value is not None})
        path = self._path(database, f"tables/{quote(table, safe='')}/rows?{query}")
        return Ingested.from_wire(self._transport.write(path, body, idempotency_key))

    def rejects(self, name: str, database: str | None = None) -> Iterator[dict[str, Any]]:
        """The rows that an ingest did not take: where each stood, what is wrong with it, and the row itself."""
        path = self._path(database, f"rejects/{quote(name, safe='')}")
        with AnswerStream(self._transport.open("GET", path, accept="application/x-ndjson")) as answer:
            rest = b""
            for piece in answer:
                *lines, rest = (rest + piece).split(b"\n")
                yield from map(decoded, lines)

    def list_rejects(self, database: str | None = None) -> list[dict[str, Any]]:
        """The reject files of a database, the youngest first: name, table, how many rows."""
        return list(self._transport.call("GET", self._named_path(database, "rejects"))["rejects"])

    # Looking and steering

    def status(self, database: str | None = None) -> dict[str, Any]:
        """The state of one database: version, age of its snapshot, lease, queue, sizes."""
        name = database or self._database
        if name is None:
            name = self.databases()[0]["name"]
        return dict(self._transport.call("GET", f"/v1/databases/{quote(name, safe='')}"))

    def databases(self) -> list[dict[str, Any]]:
        """The state of every database that this key may see."""
        return list(self._transport.call("GET", "/v1/databases")["databases"])

    def queue(self, database: str | None = None) -> dict[str, Any]:
        """Who has the database, and who waits to write to it, in order."""
        name = database or self._database or self.status()["name"]
        return dict(self._transport.call("GET", f"/v1/databases/{quote(name, safe='')}/queue"))

    def tickets(self, database: str | None = None, *, waiting: int = 100, settled: int = 100) -> dict[str, Any]:
        """Accepted ingests (`tickets`): at most so many that wait, and with an outcome; and the `spool` in numbers."""
        path = self._named_path(database, f"tickets?waiting={waiting}&settled={settled}")
        return dict(self._transport.call("GET", path))

    def ticket(self, ticket: str, database: str | None = None, *, wait_s: float = 0.0) -> dict[str, Any]:
        """What became of an accepted ingest; waits at most `wait_s` for its outcome."""
        path, give_up_at = self._named_path(database, f"tickets/{quote(ticket, safe='')}"), time.monotonic() + wait_s
        while True:
            left_s = max(0.0, give_up_at - time.monotonic())
            shown = dict(self._transport.call("GET", f"{path}?wait_s={min(left_s, LONGEST_WAIT_S):.3f}"))
            if shown["outcome"] != "waiting" or left_s <= LONGEST_WAIT_S:
                return shown

    def cancel_ticket(self, ticket: str, database: str | None = None) -> None:
        """Take back an accepted ingest that is not applied yet."""
        self._transport.call("DELETE", self._named_path(database, f"tickets/{quote(ticket, safe='')}"))

    def retry_ticket(self, ticket: str, database: str | None = None) -> str:
        """Have the kept body of a refused ingest accepted again, behind all others: its new ticket."""
        path = self._named_path(database, f"tickets/{quote(ticket, safe='')}/retry")
        return str(self._transport.call("POST", path)["ticket"])

    def ticket_body(self, ticket: str, database: str | None = None) -> Iterator[bytes]:
        """The body of a refused ingest as it was sent, in pieces."""
        path = self._named_path(database, f"tickets/{quote(ticket, safe='')}/body")
        with AnswerStream(self._transport.open("GET", path, accept="*/*")) as answer:
            yield from answer

    def queries(self) -> list[dict[str, Any]]:
        """The queries that run now."""
        return list(self._transport.call("GET", "/v1/queries")["queries"])

    def events(self, database: str | None = None, kinds: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """What happens, as it happens, without an end; after a break it goes on behind the last event.

        An event of the kind `gap` says that some were missed. Raises what the keeper answers when it lets nobody listen.
        """
        asked = {"database": database or self._database, "kinds": ",".join(kinds) or None}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        last_id: str | None = None
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else None
            response = self._transport.open("GET", f"/v1/events?{query}", accept="text/event-stream", headers=headers)
            try:
                for event_id, event in events_of(response):
                    last_id = None if event["kind"] == "gap" else event_id
                    yield event
            except AnswerIncomplete:
                pass  # the connection was lost: what happened meanwhile is asked for by the id of the last event
            time.sleep(RELISTEN_S)

    def cancel(self, query_id: str) -> None:
        """Kill a running query."""
        self._transport.call("DELETE", f"/v1/queries/{quote(query_id, safe='')}")

    def snapshots(self, database: str | None = None) -> list[dict[str, Any]]:
        """The snapshots of a database, the newest first."""
        return list(self._transport.call("GET", self._path(database, "snapshots"))["snapshots"])

    def take_snapshot(self, database: str | None = None, *, only_changes: bool = False) -> dict[str, Any]:
        """Publish what is committed now, and answer with the snapshot that contains it.

        With `only_changes`, no new one is made when the newest contains everything.
        """
        path = self._path(database, "snapshots") + ("?only_changes=true" if only_changes else "")
        return dict(self._transport.call("POST", path))

    def restore(
        self,
        database: str | None = None,
        *,
        version: int | None = None,
        at: datetime | None = None,
        undo: bool = False,
    ) -> dict[str, Any]:
        """Make a database what it was: a version, what it was at a time, or what it was before the last restore (`undo`).

        Returns when it is published: `published` is the version to read it by. A time without a zone is this machine's.
        """
        wanted = {"version": version, "at": at.astimezone().isoformat() if at else None, "undo": undo or None}
        body = {name: value for name, value in wanted.items() if value is not None}
        return dict(self._transport.call("POST", self._path(database, "restore"), body=body, writes=True))

    def promote(self, database: str | None = None, *, force: bool = False) -> dict[str, Any]:
        """Make a replica a primary; refused while its primary answers, unless `force`."""
        return dict(self._transport.call("POST", self._named_path(database, f"promote?force={str(force).lower()}")))

    def keys(self) -> list[dict[str, Any]]:
        """The API keys, without their secrets."""
        return list(self._transport.call("GET", "/v1/keys")["keys"])

    def create_key(
        self,
        name: str,
        role: str,
        *,
        databases: Sequence[str] | None = None,
        expires_at: float | None = None,
        tables: Sequence[str] | None = None,
        limits: Mapping[str, float | str] | None = None,
    ) -> dict[str, Any]:
        """Make a key: `{"key": …, "token": …}`; the token is shown this once. `expires_at` is in seconds since 1970.

        `tables`: for a reader of these only, `table`, `schema.table` or `schema.*`. `limits`: its own, by name.
        """
        body: dict[str, Any] = {"name": name, "role": role, "databases": databases, "expires_at": expires_at}
        body |= {"tables": tables, "limits": limits}
        return dict(self._transport.call("POST", "/v1/keys", body={k: v for k, v in body.items() if v is not None}))

    def revoke_key(self, key_id: str) -> None:
        """End a key at once, wherever it is in use."""
        self._transport.call("DELETE", f"/v1/keys/{quote(key_id, safe='')}")

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _named_path(self, database: str | None, noun: str) -> str:
        """The path of what is there under the name of the database only."""
        name = database or self._database or self.status()["name"]
        return f"/v1/databases/{quote(name, safe='')}/{noun}"

    def _path(self, database: str | None, noun: str) -> str:
        name = database or self._database
        return f"/v1/{noun}" if name is None else f"/v1/databases/{quote(name, safe='')}/{noun}"


def _query_body(
    sql: str, parameters: Parameters | None, at_least: int | None, limits: dict[str, Any]
) -> dict[str, Any]:
    limits = {name: value for name, value in limits.items() if value is not None}
    body = {"sql": sql, "parameters": parameters, "at_least": at_least, "limits": limits or None}
    return {name: value for name, value in body.items() if value is not None}


def _execute_body(statements: str | Sequence[Statement], parameters: Parameters | None) -> dict[str, Any]:
    if isinstance(statements, str):
        return _statement(statements, parameters)
    if parameters is not None:
        raise ValueError("parameters belong to the statements of a list: pass (sql, parameters) pairs")
    return {
        "statements": [_statement(each, None) if isinstance(each, str) else _statement(*each) for each in statements]
    }


def _statement(sql: str, parameters: Parameters | None) -> dict[str, Any]:
    return {"sql": sql} if parameters is None else {"sql": sql, "parameters": parameters}
