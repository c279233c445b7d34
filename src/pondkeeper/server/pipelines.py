"""The door of pipelined writes: frames on a socket in the home, many writes of a connection on their way at once.

The same trust as the control socket (0600, and the kernel says who is at the other end), the same gate (`authorize`), the
same queue as every other door. It carries writes only: reading goes over HTTP.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

import structlog

from pondkeeper.access.audit import Entry
from pondkeeper.access.authorize import LOCAL_KEY, Action, authorize, key_of_peer
from pondkeeper.databases.pipelining import Limits, Tally
from pondkeeper.errors import Forbidden, InvalidRequest, KeeperStopping, PondkeeperError, TooManyConnections
from pondkeeper.server.bounds import peer_of
from pondkeeper.server.limiting import check_statement
from pondkeeper.server.listening import BACKLOG
from pondkeeper.workers.frames import FrameInvalid
from pondkeeper.writer.wire import (
    PROTOCOL,
    FrameReader,
    Kind,
    Welcome,
    WireAnswer,
    decode_hello,
    decode_writes,
    encoded,
    framed,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from pondkeeper.access.keys import Key
    from pondkeeper.databases.pipelining import PipelinedWrites
    from pondkeeper.server.context import Context
    from pondkeeper.writer.wire import WireWrite

WINDOW_WRITES: Final = 2048
# Why more than the window: from a client that keeps to it we never stop reading, so that we hear when it goes.
PAUSE_FROM: Final = 2
END_TIMEOUT_S: Final = 1.0
MAX_CONNECTIONS: Final = 256
HELLO_TIMEOUT_S: Final = 10.0
MAX_HELLO_BYTES: Final = 64 * 1024
UNSENT_BYTES: Final = 1024 * 1024
POLL_S: Final = 0.02
_log = structlog.get_logger(__name__)


class Pipelines:
    """All pipelines of a keeper: accepts them, counts them, and drains them when it is to stop."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.connections: set[PipelineConnection] = set()
        self._listener: asyncio.Server | None = None
        self._give_up_at = 0.0

    async def start(self, listening: socket.socket) -> None:
        """Begin to accept connections."""
        self.context.meters.pipelines.set_function(lambda: len(self.connections))
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(lambda: PipelineConnection(self), sock=listening, backlog=BACKLOG)

    async def stop(self, grace_s: float) -> None:
        """Accept and read nothing more, let the writes that came end within the grace, then say so and close."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.begin_to_stop()
        await self._emptied(grace_s)
        for connection in list(self.connections):
            connection.cut_short()
        await self._emptied(END_TIMEOUT_S)
        for connection in list(self.connections):
            connection.abort()

    async def _emptied(self, timeout_s: float) -> None:
        """Wait until every pipeline is closed; `hurry` cuts it short."""
        self._give_up_at = time.monotonic() + timeout_s
        while self.connections and time.monotonic() < self._give_up_at:  # noqa: ASYNC110  Why: once per life
            await asyncio.sleep(POLL_S)

    def hurry(self) -> None:
        """End a `stop` that waits."""
        self._give_up_at = 0.0


class PipelineConnection(asyncio.Protocol):
    """One pipeline. Nothing on it is trusted but who is at its other end."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines
        self._context = pipelines.context
        server = self._context.settings.server
        self._max_frame_bytes = server.max_body_bytes
        writer = self._context.settings.writer
        self._limits = Limits(writer.wait_s, writer.timeout_s)
        self._frames = FrameReader(MAX_HELLO_BYTES)
        self._transport: asyncio.Transport | None = None
        self._key: Key | None = None
        self._client = "unknown"
        self._database = ""
        self._line: PipelinedWrites | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._is_reading = True
        self._is_full = False

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected; a stranger, or one too many, is refused at once."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._pipelines.connections.add(self)
        connection = transport.get_extra_info("socket")
        self._client = f"pid {peer_of(connection).pid}"
        self._key = key_of_peer(connection)
        if self._key is None:
            self._say_goodbye(Forbidden("The pipeline's socket belongs to the user who runs the keeper."))
        elif self._context.is_stopping:
            self._say_goodbye(KeeperStopping())
        elif len(self._pipelines.connections) > MAX_CONNECTIONS:
            self._say_goodbye(TooManyConnections())
        else:
            late = InvalidRequest(f"A pipeline begins with a HELLO within {HELLO_TIMEOUT_S:g} s.")
            self._hello_timer = asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self._say_goodbye, late)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  Why: asyncio passes it
        """The client has gone: what of its writes still waits is dropped."""
        self._pipelines.connections.discard(self)
        self._end_hello()
        if self._line is not None:
            self._line.drop()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take the frames that have arrived."""
        try:
            for kind, body in self._frames.feed(data):
                self._take(kind, body)
                if self._is_stopping or self._transport is None:
                    return
        except FrameInvalid as error:
            self._say_goodbye(InvalidRequest(f"The pipeline sent what is no frame of writes: {error}."))
        except PondkeeperError as error:
            self._say_goodbye(error)

    def pause_writing(self) -> None:
        """The client does not take its answers: nothing more is read from it until it does."""
        self._is_full = True
        self._pace()

    def resume_writing(self) -> None:
        """It has taken them."""
        self._is_full = False
        self._pace()

    # Frames

    def _take(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.HELLO and self._line is None:
            self._on_hello(body)
        elif kind is Kind.WRITES and self._line is not None:
            self._on_writes(self._line, body)
        else:
            raise InvalidRequest("A pipeline has one HELLO, and WRITES after it.")

    def _on_hello(self, body: bytes) -> None:
        hello = decode_hello(body)
        if hello.protocol != PROTOCOL:
            raise InvalidRequest(
                f"The pipeline speaks protocol {hello.protocol}, and this keeper {PROTOCOL}.",
                remedy="Use a client of the keeper's own version.",
            )
        assert self._key is not None
        if hello.database is not None:
            authorize(self._key, Action.EXECUTE, hello.database)
        database = self._context.registry.get(hello.database)
        authorize(self._key, Action.EXECUTE, database.name)
        self._line = database.pipelined(key_id=self._key.id, client=self._client, on_answers=self._answer)
        self._database = database.name
        self._end_hello()
        self._frames.max_bytes = self._max_frame_bytes
        frame = Welcome(PROTOCOL, database.name, WINDOW_WRITES, self._max_frame_bytes, self._max_frame_bytes)
        self._send(framed(Kind.HELLO, encoded(frame)))

    def _on_writes(self, line: PipelinedWrites, body: bytes) -> None:
        assert self._key is not None
        authorize(self._key, Action.EXECUTE, self._database)
        writes = decode_writes(body)
        numbers = {write.number for write in writes}
        if len(numbers) < len(writes) or any(map(line.has, numbers)):
            raise InvalidRequest("A write has the number of one that is still on its way.")
        try:
            if self._context.audit is not None:
                self._context.audit.check()
        except PondkeeperError as error:  # what cannot be recorded is not done
            line.refuse(writes, error)
            return
        fitting = self._fitting(line, writes)
        if fitting:
            line.take(fitting, self._limits, len(body))
        self._pace()

    def _fitting(self, line: PipelinedWrites, writes: list[WireWrite]) -> list[WireWrite]:
        """Those whose statements are within their limits; the others are told so, each for itself."""
        assert self._key is not None
        effective = self._context.limits.of(self._key, self._database)
        fitting = []
        for write in writes:
            try:
                for sql, parameters in write.statements:
                    check_statement(effective, sql, parameters)
            except PondkeeperError as error:
                line.refuse([write], error)
            else:
                fitting.append(write)
        return fitting

    def _answer(self, answers: list[WireAnswer], tallies: Iterable[Tally]) -> None:
        """Send what has ended, as one frame."""
        for tally in tallies:
            self._context.meters.write(tally.outcome, tally.count)
            self._record(tally)
        self._send(framed(Kind.ANSWERS, encoded(answers)))
        self._pace()
        if self._is_stopping:
            self._close_when_done()

    def _record(self, tally: Tally) -> None:
        """Let the audit tell of them. Why together: equal records of each would be a third of the keeper's work."""
        if (audit := self._context.audit) is None:
            return
        entry = Entry(
            key=self._key,
            client=self._client,
            door="pipeline",
            request=f"{tally.count} WRITES",
            database=self._database,
            sql=tally.sql,
            outcome=tally.outcome,
            began_at=time.time() - tally.longest_s,
            elapsed_s=tally.longest_s,
        )
        if tally.outcome == "committed":
            entry.status, entry.rows, entry.version = 200, tally.rows, tally.version
        audit.note(entry)

    def _pace(self) -> None:
        """Read on, or not: back-pressure in both directions."""
        if self._transport is None or self._transport.is_closing():
            return
        may_read = not (self._is_full or self._is_stopping or self._is_beyond_window())
        if may_read != self._is_reading:
            self._is_reading = may_read
            (self._transport.resume_reading if may_read else self._transport.pause_reading)()

    def _is_beyond_window(self) -> bool:
        line = self._line
        if line is None:
            return False
        return line.count >= PAUSE_FROM * WINDOW_WRITES or line.size_bytes >= PAUSE_FROM * self._max_frame_bytes

    def _send(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    # The end

    def begin_to_stop(self) -> None:
        """Read nothing more; close as soon as everything is answered."""
        self._is_stopping = True
        self._pace()
        self._close_when_done()

    def cut_short(self) -> None:
        """Answer what is left by what is known of it, and close."""
        if self._line is not None:
            self._line.stop()
        if self._transport is not None:
            self._say_goodbye(KeeperStopping())

    def abort(self) -> None:
        """Close without waiting for a client that takes nothing."""
        if self._transport is not None:
            self._transport.abort()

    def _close_when_done(self) -> None:
        if self._line is None or not self._line.count:
            self._say_goodbye(KeeperStopping())

    def _say_goodbye(self, error: PondkeeperError) -> None:
        """The last frame, and the end of the connection; answers that are still to be sent go before it."""
        if self._transport is None or self._transport.is_closing():
            return
        self._end_hello()
        _log.debug("a pipeline is closed", client=self._client, code=error.code, message=error.message)
        self._send(framed(Kind.GOODBYE, encoded(error.to_wire(with_private=self._key is LOCAL_KEY))))
        self._transport.close()

    def _end_hello(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None


