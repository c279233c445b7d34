"""The connection: uvicorn's HTTP protocol with bounds on everything that a client can be slow or greedy with.

Where a request stands decides what it may take: IDLE (between requests), HEAD, BODY; CLOSING discards what still
comes. One sweep over all connections, some times a second, keeps the deadlines: the hot path sets no timers.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pondkeeper.access.authorize import key_of_peer
from pondkeeper.errors import (
    BodyTooLarge,
    Forbidden,
    HeadTooLarge,
    HttpInvalid,
    PondkeeperError,
    RequestTooSlow,
    TooManyConnections,
    UrlTooLong,
)
from pondkeeper.server.bounds import peer_of
from pondkeeper.server.exchange import Exchange
from pondkeeper.server.problems import raw_problem
from pondkeeper.server.scopes import EXCHANGE

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from pondkeeper.server.bounds import Bounds, Peer


class Stage(enum.IntEnum):
    """Where the parser of a connection stands."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    CLOSING = 3


class KeeperProtocol(HttpToolsProtocol):
    """One connection of a client, over TCP or (`is_control`) over the control socket."""

    def __init__(self, config: Config, state: ServerState, bounds: Bounds, *, is_control: bool) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._bounds = bounds
        self._is_control = is_control
        self._peer: Peer | None = None
        self._stage = Stage.IDLE
        self._since = self.loop.time()
        self._stage_bytes = 0
        self._was_used = False
        self._refusal: PondkeeperError | None = None
        self._running: Exchange | None = None
        self._framing_kept = b""
        self._is_retold = False
        self._unsent_bytes = 0
        self._unsent_since = self._since

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; a stranger on the control socket, or one too many, is refused at once."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self._bounds.unsent_bytes)
        if self._is_control:
            connection = transport.get_extra_info("socket")
            self._peer = peer_of(connection)
            if key_of_peer(connection) is None:
                self._refuse(Forbidden("The control socket belongs to the user who runs the keeper."))
        elif len(self.connections) > self._bounds.max_connections:
            self._refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: so is the work that was only for it."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._running is not None:
            self._running.gone()

    def shutdown(self) -> None:
        """The server stops: let the running request finish, then close."""
        self.pipeline.clear()
        if self._running is None or self._running.response_complete:
            self.transport.close()
        else:
            self._running.keep_alive = False

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._running is not None and not self._running.response_complete

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Feed the parser, within the bounds."""
        if self._stage is Stage.CLOSING:
            return
        if self._stage is Stage.IDLE:
            self._enter(Stage.HEAD)
        self._stage_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data, upgrade)
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or HttpInvalid(private=str(error)))
        else:
            self._check_size()

    def _ignore_upgrade(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """Stay with HTTP/1.1, as RFC 9110 lets us: Java's client asks for h2c on every first request.

        Trap: the parser takes the body of such a request for the other protocol. So a new parser is told, by a head of
        our own, that a body comes.
        """
        self.parser = httptools.HttpRequestParser(self)
        if framing := self._framing_kept:
            self._framing_kept, self._is_retold = b"", True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
            self._is_retold = False
        if rest := data[upgrade.args[0] :]:
            self.data_received(rest)

    def _framing(self) -> bytes:
        """The headers that say how long the body is, when the parser would not read it."""
        framing = (header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding"))
        return b"".join(b"%b: %b\r\n" % header for header in framing) if self.parser.should_upgrade() else b""

    def _check_size(self) -> None:
        if self._stage is Stage.HEAD and self._stage_bytes > self._bounds.max_head_bytes:
            self._refuse(HeadTooLarge())
        elif self._stage is Stage.BODY:
            if self._stage_bytes > self._bounds.on_the_wire(self._own_max_body_bytes):
                self._refuse(BodyTooLarge())
            elif self._own_max_body_bytes is not None:
                self._since = self.loop.time()  # Why: a large body has until its request's deadline, if only it comes.

    @property
    def _own_max_body_bytes(self) -> int | None:
        """The bound that the request whose body comes has set for itself."""
        return self.cycle.max_body_bytes if isinstance(self.cycle, Exchange) else None

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._since = self.loop.time()
        self._stage_bytes = 0

    # Callbacks of the parser; what they raise ends `feed_data`

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_retold:
            return
        super().on_message_begin()
        if self._stage is not Stage.HEAD:
            self._enter(Stage.HEAD)

    def on_url(self, url: bytes) -> None:
        """A piece of the URL."""
        if not self._is_retold:
            super().on_url(url)
            if len(self.url) > self._bounds.max_url_bytes:
                raise self._refusal_of(UrlTooLong(f"The URL is longer than {self._bounds.max_url_bytes:,} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers after a chunked body are dropped, so that they never count as headers."""
        if self._stage is Stage.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: start the app, or queue behind the request before."""
        if self._is_retold:
            return
        self._check_head()
        self._enter(Stage.BODY)
        self._was_used = True
        self._framing_kept = self._framing()
        exchange = self.cycle = self._new_exchange()
        if not self.is_busy:
            self._start_asgi_task(exchange, self.app)
            return
        if len(self.pipeline) >= self._bounds.max_pipelined:
            raise self._refusal_of(TooManyConnections("Too many requests were pipelined on one connection."))
        self.flow.pause_reading()
        self.pipeline.appendleft((exchange, self.app))

    def on_message_complete(self) -> None:
        """The request has arrived as a whole."""
        if self._framing_kept:
            return
        super().on_message_complete()
        self._enter(Stage.IDLE)

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._bounds.max_head_bytes or len(self.headers) > self._bounds.max_headers:
            raise self._refusal_of(HeadTooLarge())

    def _refusal_of(self, error: PondkeeperError) -> PondkeeperError:
        """Keep what a callback raises: the parser replaces it by an error of its own."""
        self._refusal = error
        return error

    def _new_exchange(self) -> Exchange:
        """The exchange of the request whose head has just been parsed."""
        version = self.parser.get_http_version()
        method = self.parser.get_method().decode("ascii")
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        # Why GET: a HEAD is answered as the GET would be, and the exchange leaves the body out.
        self.scope["method"] = "GET" if method == "HEAD" else method
        self.scope["http_version"] = version
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        exchange = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        exchange.is_head = method == "HEAD"
        exchange.peer = self._peer
        self.scope[EXCHANGE] = exchange  # type: ignore[typeddict-unknown-key]
        return exchange

    # Answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        assert isinstance(cycle, Exchange)
        self._running = cycle
        cycle.task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(cycle.task)
        cycle.task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        """Go on with the next request; a client that is still sending the body of this one is let go."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._stage is Stage.BODY:
            self._linger()
        elif self._stage is Stage.IDLE:
            self._since = self.loop.time()

    def _refuse(self, error: PondkeeperError) -> None:
        """Answer with the error and close. A response that is under way goes on if its own request is not at fault."""
        self._enter(Stage.CLOSING)
        self.pipeline.clear()
        running = self._running
        if running is None or running.response_complete:
            self.transport.write(raw_problem(error))
            self._linger()
        elif self.cycle is running and running.more_body:
            if running.say(error):
                self._linger()
        else:
            running.keep_alive = False

    def _linger(self) -> None:
        """Half-close, and discard what comes for a while: closing with data unread would reset what we have said."""
        self._enter(Stage.CLOSING)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # Time

    def sweep(self, now: float) -> None:
        """Keep the deadlines of this connection."""
        if self._is_stalled(now) or (
            self._stage is Stage.CLOSING and not self.is_busy and now - self._since > self._bounds.linger_s
        ):
            self.transport.abort()
        elif self.flow.read_paused:
            self._since = now
        elif self._stage is Stage.HEAD and now - self._since > self._bounds.header_timeout_s:
            self._refuse(
                RequestTooSlow(f"The head of the request did not arrive within {self._bounds.header_timeout_s:g} s.")
            )
        elif self._stage is Stage.BODY and now - self._since > self._bounds.body_timeout_s:
            self._refuse(
                RequestTooSlow(f"The body of the request did not arrive within {self._bounds.body_timeout_s:g} s.")
            )
        elif self._stage is Stage.IDLE and not self.is_busy and now - self._since > self._idle_limit_s():
            self.transport.close()

    def _idle_limit_s(self) -> float:
        return self._bounds.keep_alive_s if self._was_used else self._bounds.header_timeout_s

    def _is_stalled(self, now: float) -> bool:
        """Whether the client takes nothing of what lies ready for it, or is not done with the rest of an answer."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if not unsent_bytes or (unsent_bytes != self._unsent_bytes and self.is_busy):
            self._unsent_since = now
        self._unsent_bytes = unsent_bytes
        return now - self._unsent_since > self._bounds.body_timeout_s
