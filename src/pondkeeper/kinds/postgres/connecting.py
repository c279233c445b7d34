"""Sessions at the source: how they are opened, what is set in each of them, what their errors mean, how long one waits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pondkeeper.errors import JobInvalid, RunCancelled, SourceRefused, SourceUnavailable
from pondkeeper.jobs.secrets import reveal

if TYPE_CHECKING:
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
    from pondkeeper.kinds.context import RunContext

Connection = psycopg.Connection[Any]
T = TypeVar("T")

SESSION: Final = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "0",
    "row_security": "on",
}
"""What is set in every session, so that values read the same whatever the source's own settings are."""

CONNECT_TIMEOUT_S: Final = 15
BETWEEN_TRIES_S: Final = 1.0
_ALIVE: Final = {"keepalives": "1", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
_TURNED_AWAY: Final = re.compile(r"FATAL:|no password supplied|certificate|invalid ")
_COMING_BACK: Final = re.compile(
    r"starting up|shutting down|in recovery|not (yet )?accepting connections|too many clients|connection slots|too many connections", re.IGNORECASE
)
_AWAY: Final = ("08", "57P", "53", "40")
"""Classes of SQLSTATE that pass: connections, shutdown and crash, resources, and a standby that had to cancel."""


def conninfo(settings: PostgresSettings, context: RunContext) -> str:
    """How to reach the source, password and all, as libpq takes it. Raises JobInvalid, SettingInvalid."""
    given: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, **_ALIVE}
    try:
        given |= {name: value for name, value in conninfo_to_dict(settings.source).items() if value is not None}
    except psycopg.Error as error:
        raise JobInvalid(f"`source` is not an address that libpq understands: {said(error)}.") from error
    if settings.password:
        given["password"] = reveal(settings.password)
        context.secret(given["password"])
    return make_conninfo(**given | {"client_encoding": "UTF8", "application_name": f"pondkeeper {context.plan.job.name}"[:63]})


def session_sql(settings: PostgresSettings) -> str:
    """The statement that makes a session one of ours."""
    values = SESSION | {"statement_timeout": str(round(settings.statement_timeout_s * 1000))}
    return "; ".join(f"SET {name} = '{value}'" for name, value in values.items())


def connect(address: str, settings: PostgresSettings) -> Connection:
    """A session of ours, autocommit; the caller closes it. Raises SourceUnavailable, SourceRefused."""
    with answering():
        connection = psycopg.connect(address, autocommit=True)
        try:
            connection.execute(session_sql(settings).encode())
        except BaseException:  # Why: nobody else has it yet.
            connection.close()
            raise
    return connection


@contextmanager
def answering() -> Iterator[None]:
    """psycopg's errors as ours."""
    try:
        yield
    except psycopg.Error as error:
        raise meant(said(error), error.sqlstate, is_connection=isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))) from error


def meant(message: str, sqlstate: str | None, *, is_connection: bool) -> SourceUnavailable | SourceRefused:
    """What a source's error means: whether it passes by itself, or the job or the source has to be changed."""
    refused = SourceRefused(f"The source refuses: {message}")
    if sqlstate:
        return SourceUnavailable(f"The source gave up: {message}") if sqlstate.startswith(_AWAY) else refused
    # Why by text: of a connection that did not come about libpq tells nothing else.
    if is_connection and _TURNED_AWAY.search(message) and not _COMING_BACK.search(message):
        return refused
    return SourceUnavailable(f"The source does not answer: {message}") if is_connection else refused


def said(error: psycopg.Error) -> str:
    """What the source said, in one line."""
    text = error.diag.message_primary or str(error).strip()
    return " ".join(text.split()) or "no reason given"


def patiently(context: RunContext, wait_s: float, work: Callable[[], T]) -> T:
    """Do the work; where the source was away, once more from its beginning, until it has been away for that long."""
    away_since: float | None = None
    while True:
        began = time.monotonic()
        try:
            context.check_stopping()
            return work()
        except SourceUnavailable as error:
            now = time.monotonic()
            # Why: what went on for longer than a connect had found the source there; from now on it is away.
            if away_since is None or now - began > CONNECT_TIMEOUT_S + BETWEEN_TRIES_S:
                away_since = now
            if now - away_since >= wait_s:
                raise
            context.say(f"{error.message} Trying again for {wait_s - (now - away_since):.0f} s.")
        if context.stopping.wait(BETWEEN_TRIES_S):
            raise RunCancelled


def quoted(name: str) -> str:
    """The name as SQL of PostgreSQL (and of DuckDB) takes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a literal of both."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
