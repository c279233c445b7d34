"""A replication connection: slots, and the stream of what a server's log says. One thread's own.

Everything is asked for without blocking, so that a run that is being ended never hangs in libpq. Raises SourceUnavailable
when the connection is lost and SourceRefused when the source says no.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from pondkeeper.errors import RunCancelled, SourceUnavailable
from pondkeeper.kinds.postgres.cdc.lsn import format_lsn, parse_lsn
from pondkeeper.kinds.postgres.cdc.messages import Keepalive, Logged, decode_frame, encode_status
from pondkeeper.kinds.postgres.connecting import SESSION, answering, meant, quoted, said

_LOOK_S: Final = 0.5  # how often a wait looks whether the run is being ended


@dataclass(frozen=True)
class Identity:
    """Which server it is: two with the same `system` share a history, up to where their timelines part."""

    system: str
    timeline: int
    position: int


@dataclass(frozen=True)
class NewSlot:
    """A slot just made: every transaction that commits at `position` or later comes through it, and none before.

    `snapshot` names what the database holds exactly there, until the next command on this connection.
    """

    position: int
    snapshot: str


class ReplicationConnection:
    """`with ReplicationConnection(address, stopping) as replication:`; `address` as libpq takes it."""

    def __init__(self, address: str, stopping: threading.Event) -> None:
        self._stopping = stopping
        with answering():
            self._connection = psycopg.connect(make_conninfo(address, replication="database"), autocommit=True)
        self._wire = self._connection.pgconn
        self._wire.nonblocking = 1
        self._readable = select.poll()
        self._readable.register(self._wire.socket, select.POLLIN)
        for name, value in SESSION.items():
            self._ask(f"SET {name} = '{value}'")
        self._ask("SET statement_timeout = 0")

    def __enter__(self) -> ReplicationConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it. The server frees the slot as soon as it has seen that."""
        with suppress(psycopg.Error):
            self._connection.close()

    # Commands

    def identify(self) -> Identity:
        """Who is at the other end."""
        [row] = self._ask("IDENTIFY_SYSTEM")
        return Identity(row[0], int(row[1]), parse_lsn(row[2]))

    def create_slot(self, slot: str, *, temporary: bool) -> NewSlot:
        """Make a slot. It waits for the transactions that write at the source right now."""
        kind = "TEMPORARY " if temporary else ""
        [row] = self._ask(f"CREATE_REPLICATION_SLOT {quoted(slot)} {kind}LOGICAL pgoutput EXPORT_SNAPSHOT")
        return NewSlot(parse_lsn(row[1]), row[2])

    def drop_slot(self, slot: str) -> None:
        """Remove a slot that nobody uses."""
        self._ask(f"DROP_REPLICATION_SLOT {quoted(slot)}")

    def start(self, slot: str, publication: str, position: int) -> None:
        """Begin the stream with the first transaction that commits at `position` or later."""
        names = quoted(publication).replace("'", "''")
        options = f"proto_version '1', publication_names '{names}'"
        self._ask(f"START_REPLICATION SLOT {quoted(slot)} LOGICAL {format_lsn(position)} ({options})")

    def _ask(self, command: str) -> list[list[str]]:
        """The rows of a command. Raises RunCancelled, too, while it waits."""
        with _as_errors():
            self._wire.send_query(command.encode())
            self._send()
            while self._wire.is_busy():
                if self._stopping.is_set():
                    raise RunCancelled
                self._receive(_LOOK_S)
            result = self._wire.get_result()
        rows = _rows(result)
        if result is not None and result.status != pq.ExecStatus.COPY_BOTH:
            while self._wire.get_result() is not None:
                pass
        return rows

    # The stream

    def frames(self, wait_s: float) -> Iterator[Logged | Keepalive]:
        """What has come; waits up to `wait_s` for the first of it. Ends when nothing more is here."""
        waited = False
        while True:
            with _as_errors():
                length, data = self._wire.get_copy_data(1)
            if length > 0:
                yield decode_frame(bytes(data))
                continue
            if length < 0:
                self._ended()
            if waited:
                return
            waited = True
            with _as_errors():
                self._receive(wait_s)

    def confirm(self, position: int, *, wants_answer: bool = False) -> None:
        """Tell the source that it need not keep anything before `position`; it counts as a sign of life too."""
        with _as_errors():
            self._wire.put_copy_data(encode_status(position, time.time(), wants_answer=wants_answer))
            self._send()

    def _ended(self) -> None:
        """The server has ended the stream: with an error, or because it stops."""
        with _as_errors():
            _rows(self._wire.get_result())
        raise SourceUnavailable("The source has ended the stream of changes.")

    # Bytes

    def _send(self) -> None:
        """Trap: a server that is writing to us must be read from, or neither of us gets on."""
        while self._wire.flush():
            both = select.poll()
            both.register(self._wire.socket, select.POLLIN | select.POLLOUT)
            if any(event & select.POLLIN for _, event in both.poll(_LOOK_S * 1000)):
                self._wire.consume_input()

    def _receive(self, wait_s: float) -> None:
        if self._readable.poll(max(0.0, wait_s) * 1000):
            self._wire.consume_input()


class _as_errors:  # noqa: N801  Why: it reads as the function that contextlib would make of it, at a tenth of its cost
    """libpq's failures as errors of ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, psycopg.Error):
            raise SourceUnavailable(f"The connection to the source is lost: {said(error)}") from error


def _rows(result: pq.abc.PGresult | None) -> list[list[str]]:
    """The rows of an answer. Raises SourceRefused, with the server's words."""
    if result is None:
        raise SourceUnavailable("The connection to the source is lost.")
    if result.status in {pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE}:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode(errors="replace")
        raise meant(" ".join(text.split()), state, is_connection=not state)
    values = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return [[(value or b"").decode() for value in row] for row in values]
