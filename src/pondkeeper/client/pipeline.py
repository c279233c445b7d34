"""A pipeline: many writes on their way at once to a keeper on this machine, without HTTP.

Writes go out in the order of their calls, each with its future. While answers are outstanding, what comes within a
millisecond is gathered and sent together; so one write at a time is sent at once, and a stream of them costs little each.
"""

from __future__ import annotations

import os
import random
import select
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.client.answer import Outcome
from pondkeeper.client.keys import WriteKeys
from pondkeeper.client.pending import Pending, PendingWrites, Retries
from pondkeeper.client.transport import CONNECT_TIMEOUT_S, LEAST_WAIT_S, MOST_WAIT_S, short_socket_path
from pondkeeper.errors import BodyTooLarge, InvalidRequest, KeeperNotRunning, KeeperStopping, PondkeeperError
from pondkeeper.files.paths import HOME_NAME, Home, default_home
from pondkeeper.workers.frames import FrameInvalid
from pondkeeper.writer.wire import (
    MAX_KEY_CHARS,
    PROTOCOL,
    FrameReader,
    Hello,
    Kind,
    Welcome,
    decode_answers,
    decode_goodbye,
    decode_welcome,
    encoded,
    framed,
    writes_frame,
)

if TYPE_CHECKING:
    from pondkeeper.client.client import Parameters, Statement

GATHERED: Final = 256
GATHERING_MS: Final = 1
RECEIVE_BYTES: Final = 256 * 1024
MAX_ANSWER_BYTES: Final = 1024 * 1024 * 1024
NUMBER_BYTES: Final = 32


class Pipeline:
    """Writes to one database of the keeper on this machine whose home, folder or database file `place` is.

    Safe to share between threads. A write whose answer was lost with its connection is sent again with its
    Idempotency-Key for up to `retry_for_s`, and applied once; `retries` bounds how often, and with 0 nothing is sent
    twice and no key is made. Leaving its `with` waits for every outcome; a process that forks makes its own.
    """

    def __init__(
        self,
        place: str | Path,
        *,
        database: str | None = None,
        retry_for_s: float = 30.0,
        retries: int | None = None,
    ) -> None:
        home, of_file = _home_of(Path(place))
        self._path = home.pipeline_socket
        self._database = database or of_file
        policy = Retries(retry_for_s, retries)
        self._makes_keys = policy.count != 0
        self._keys = WriteKeys()
        self._pending = PendingWrites(policy)
        self._sending = threading.Lock()
        self._closing = threading.Event()
        self._connection, self._welcome = self._connect()
        self._bell: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pending.opened(self._welcome.window_writes, self._welcome.window_bytes)
        self._thread = threading.Thread(target=self._run, name="pondkeeper-pipeline", daemon=True)
        self._thread.start()

    # Writing

    def execute(
        self,
        statements: str | Sequence[Statement],
        parameters: Parameters | None = None,
        *,
        timeout_s: float | None = None,
        wait_s: float | None = None,
        idempotency_key: str | None = None,
        priority: str | None = None,
    ) -> Future[Outcome]:
        """Send one writing statement, or a list of them that is applied as a whole; the future of its outcome.

        It waits for its turn for `wait_s` at most, and runs for `timeout_s` at most. The call itself waits while as much is on its way as the keeper takes. A future ends with the error that refused the write.
        """
        is_single = isinstance(statements, str)
        if key := idempotency_key or (self._keys.new() if self._makes_keys else None):
            _check_key(key)
        listed = _listed(statements, parameters)
        body = encoded((listed, key, timeout_s, priority or "interactive", wait_s))
        if len(body) + NUMBER_BYTES > self._welcome.max_frame_bytes:
            raise BodyTooLarge(f"The write is larger than {self._welcome.max_frame_bytes:,} bytes.")
        one = Pending(body, is_single=is_single, has_key=key is not None)
        # Why not on our own thread: it is the one that makes room, and runs the callbacks of futures.
        may_wait = threading.current_thread() is not self._thread
        gathered = self._pending.add(one, may_wait=may_wait)
        if gathered >= GATHERED or self._pending.nothing_is_sent:
            self._send()
        elif gathered == 1:
            self._ring()
        return one.future

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every write so far has its outcome; False when that takes longer than `timeout_s`."""
        self._send()
        return self._pending.wait_until_empty(timeout_s)

    def close(self) -> None:
        """Close at once. What has no outcome yet ends as unknown: leave the `with`, or `flush`, to wait for it."""
        self._closing.set()
        self._pending.close()
        self._hang_up()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._sending:
            if self._bell is not None:
                os.close(self._bell)
                self._bell = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        self.close()

    # Sending

    def _send(self) -> None:
        """Send all that is gathered, in its order."""
        with self._sending:
            while burst := self._pending.take_unsent(self._welcome.max_frame_bytes):
                try:
                    self._connection.sendall(writes_frame(burst))
                except OSError:  # Why: the thread that receives notices too, and it alone repairs.
                    self._hang_up()
                    return

    def _hang_up(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is closed already
            pass

    # Receiving, on a thread of its own

    def _run(self) -> None:
        while not self._closing.is_set():
            reason = self._receive_all()
            self._connection.close()
            if not self._closing.is_set():
                self._reconnect(reason)
        self._connection.close()
        self._pending.end_all(KeeperStopping("The pipeline was closed."))

    def _receive_all(self) -> PondkeeperError:
        """Take what comes until nothing more comes; why."""
        frames = FrameReader(MAX_ANSWER_BYTES)
        ear = Ear(self._connection, self._bell)
        try:
            while True:
                while not ear.hears(self._pending.next_repeat_s()):
                    self._pending.put_back_due()
                    self._send()
                data = self._connection.recv(RECEIVE_BYTES)
                if not data:
                    return KeeperNotRunning("The connection to the keeper was lost.")
                for kind, body in frames.feed(data):
                    if kind is Kind.GOODBYE:
                        return PondkeeperError.from_wire(decode_goodbye(body))
                    if kind is Kind.ANSWERS:
                        self._pending.answered(decode_answers(body))
                self._send()
        except (OSError, FrameInvalid) as error:
            return KeeperNotRunning("The connection to the keeper was lost.", private=str(error))

    def _ring(self) -> None:
        """Have the thread that receives send what is gathered."""
        with self._sending:
            if self._bell is not None:
                os.eventfd_write(self._bell, 1)

    def _reconnect(self, reason: PondkeeperError) -> None:
        """Connect anew and send again what has no outcome, until that works or the pipeline is closed."""
        self._pending.lost()
        if not isinstance(reason, (KeeperNotRunning, KeeperStopping)):
            self._pending.end_all(reason)  # Why: a keeper that refuses us would refuse the same again.
        wait_s = LEAST_WAIT_S
        while not self._closing.is_set():
            self._pending.wait_for_work()
            try:
                connection, welcome = self._connect()
            except PondkeeperError as error:
                self._pending.end_late(error)
                self._closing.wait(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(2 * wait_s, MOST_WAIT_S)
                continue
            with self._sending:
                self._connection, self._welcome = connection, welcome
            self._pending.opened(welcome.window_writes, welcome.window_bytes)
            self._send()
            return

    def _connect(self) -> tuple[socket.socket, Welcome]:
        """A connection that the keeper has welcomed. Raises PondkeeperError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            with short_socket_path(self._path) as path:
                connection.connect(path)
            connection.sendall(framed(Kind.HELLO, encoded(Hello(PROTOCOL, self._database))))
            welcome = _welcome(connection)
            connection.settimeout(None)
        except (OSError, FrameInvalid) as error:
            connection.close()
            raise KeeperNotRunning(private=f"{self._path}: {error}") from error
        except PondkeeperError:
            connection.close()
            raise
        return connection, welcome


class Ear:
    """Waits for answers, and for the bell: then what is gathered is due a moment later."""

    def __init__(self, connection: socket.socket, bell: int | None) -> None:
        self._bell = bell
        self._answers, self._both = select.poll(), select.poll()
        self._answers.register(connection, select.POLLIN)
        self._both.register(connection, select.POLLIN)
        if bell is not None:
            self._both.register(bell, select.POLLIN)

    def hears(self, at_most_s: float | None) -> bool:
        """Whether answers have arrived; False when there is something to send before."""
        ready = [place for place, _ in self._both.poll(None if at_most_s is None else 1000 * at_most_s)]
        if self._bell in ready:
            os.eventfd_read(self._bell)
            return bool(self._answers.poll(GATHERING_MS))
        return bool(ready)


def _welcome(connection: socket.socket) -> Welcome:
    """The keeper's answer to our HELLO: nothing else is on its way yet."""
    frames = FrameReader(MAX_ANSWER_BYTES)
    while data := connection.recv(RECEIVE_BYTES):
        for kind, body in frames.feed(data):
            if kind is Kind.HELLO:
                return decode_welcome(body)
            if kind is Kind.GOODBYE:
                raise PondkeeperError.from_wire(decode_goodbye(body))
            raise FrameInvalid(f"a frame of kind {kind} before the welcome")
    raise FrameInvalid("the keeper closed the connection before its welcome")


def _listed(statements: str | Sequence[Statement], parameters: Parameters | None) -> list[Any]:
    """The statements as the wire carries them."""
    if isinstance(statements, str):
        return [(statements, parameters)]
    if parameters is not None:
        raise ValueError("parameters belong to the statements of a list: pass (sql, parameters) pairs")
    return [(each, None) if isinstance(each, str) else each for each in statements]


def _check_key(key: str) -> None:
    if not (len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"An idempotency key is 1 to {MAX_KEY_CHARS} printable ASCII characters.")


def _home_of(place: Path) -> tuple[Home, str | None]:
    """The home that was named: itself, the folder that it lies in, or its database file, which names the database too."""
    place = place.absolute()
    if place.name != HOME_NAME and (place / HOME_NAME).is_dir():
        return Home(place / HOME_NAME), None
    if place.is_file():
        return Home(default_home(place)), place.stem
    return Home(place), None
