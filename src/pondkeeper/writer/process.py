"""The writer process: the one that has a database open read-write, and the owner of every checkpoint.

Messages in:  apply {may_forget, writes: [{number, statements, wait_s, timeout_s, asked_ns, key, digest}]}
              publish {timeout_s}  resume {}  wanted {version}  close {}
Messages out: ready  waiting {holder, ahead}  opened {changed}  begun {numbers}
              committing {numbers}: of a lone insert it says `begun` as well
              answers {answers: [{number, kind: applied|refused|unknown, version, rows_changed | error}]}
              checkpointed {version}  publish_failed {error}  closed {state}
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pondkeeper.engine.faults import translate
from pondkeeper.engine.opening import WriterConfig
from pondkeeper.errors import DatabaseBusy, PondkeeperError, QueryCancelled, WriteTimedOut
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import FileState, file_state
from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.interrupts import listen
from pondkeeper.writer import tickets
from pondkeeper.writer.applying import Applier
from pondkeeper.writer.batch import Batch, Early, Send
from pondkeeper.writer.guests import Guests
from pondkeeper.writer.lease import KEEPER, KEEPERS_REASON, Holder, Lease
from pondkeeper.writer.opening import Opening
from pondkeeper.writer.publishing import Publisher
from pondkeeper.writer.session import Session

TICK_S = 0.02
LOCK_POLL_S = 0.03
PUBLISH_TIMEOUT_S = 5.0


class Writer:
    """The loop of this process: open when there is work, apply in order, publish, close when idle or asked."""

    def __init__(self, send: Send, inbox: queue.Queue[dict[str, Any] | None], config: dict[str, Any]) -> None:
        self._send = send
        self._inbox = inbox
        self._paths = DatabasePaths(Path(config["file"]), Path(config["home"]))
        self._lease = Lease(self._paths, who=KEEPER, why=KEEPERS_REASON)
        self._engine = WriterConfig(
            path=str(self._paths.file),
            memory_limit_bytes=config["memory_limit_bytes"],
            threads=config["threads"],
            temp_directory=config["temp_directory"],
            temp_limit_bytes=config["temp_limit_bytes"],
            may_make=config["may_make"],
            preimage=self._paths.preimage,
            snapshots=self._paths.snapshots,
        )
        self._idle_close_s: float = config["idle_close_s"]
        self._publisher = Publisher(send, self._paths.file.parent, config["next_version"], config["pause_ratio"])
        self._known_state: FileState | None = config["known_state"]
        self._guests = Guests(self._paths.file)
        self._session: Session | None = None
        self._opening: Opening | None = None
        self._applier = Applier(send, self._publisher, config["idempotency_keep_s"])
        self._batch: Batch | None = None
        self._early = Early()
        self._used_at = 0.0

    def interrupt(self, number: int) -> None:
        """Stop write `number`, whether it waits or runs; called on the thread that hears interrupts."""
        self._early.note(number)
        batch = self._batch
        if batch is not None:
            batch.cancel(number)

    def run(self) -> None:
        """Serve until the keeper closes the pipe."""
        while True:
            try:
                message = self._inbox.get(timeout=self._wait_s())
            except queue.Empty:
                self._tick()
                continue
            if message is None:
                return  # the keeper is gone: what is committed is in the WAL, and the kernel takes the locks back
            getattr(self, "_on_" + message["op"])(message)
            self._tick()

    def resume(self) -> None:
        """The copier is done with the last checkpoint; called on the receiving thread, so that it overtakes requests."""
        self._guests.forget()
        self._publisher.resume()

    def _wait_s(self) -> float | None:
        if self._session is None:
            return None if self._opening is None else TICK_S
        due_in_s = self._publisher.due_in_s
        return TICK_S if due_in_s is None else min(TICK_S, due_in_s)

    # Messages

    def _on_apply(self, message: dict[str, Any]) -> None:
        """Apply a batch: group by group, and look about between them."""
        batch = self._batch = Batch(message["writes"], self._send, may_forget=message["may_forget"])
        for number in self._early.take(batch.numbers):
            batch.cancel(number)
        try:
            while not batch.is_over:
                session = self._ready(batch.time_left_s())
                self._applier.apply_next(session, batch, tickets.oldest_ns(self._paths.tickets))
                self._used_at = time.monotonic()
                if not batch.is_over:
                    self._tick()
        except Exception as error:  # Why: whatever keeps us from the file is the answer to the rest of them.
            refused = translate(error)
            batch.refuse(batch.members, refused)
            if refused.fatal or not isinstance(error, PondkeeperError):
                raise SystemExit(1) from error  # Why: nobody foresaw this error, so nobody knows what it left open.
        finally:
            self._batch = None
            self._used_at = time.monotonic()

    def _is_cancelled(self) -> bool:
        """Whether nobody waits any more for the batch that we have."""
        return self._batch is not None and self._batch.is_over

    def _on_publish(self, message: dict[str, Any]) -> None:
        """Publish a version even if we committed nothing: somebody else changed the file."""
        try:
            self._opened(message.get("timeout_s", PUBLISH_TIMEOUT_S))
            self._publisher.record_commit()
            self._used_at = 0.0
        except Exception as error:  # noqa: BLE001  Why: whatever the engine raises is the answer to this request.
            self._publisher.report_failure(translate(error))

    def want(self, version: int) -> None:
        """Somebody waits for this version; called on the receiving thread, so that it overtakes requests."""
        self._publisher.want(version)

    def _on_wanted(self, _: dict[str, Any]) -> None:
        """Nothing to do but the tick that follows every message."""

    def _on_resumed(self, _: dict[str, Any]) -> None:
        """Nothing to do but the tick that follows every message."""

    def _on_close(self, _: dict[str, Any]) -> None:
        self._used_at = 0.0

    # The file

    def _ready(self, timeout_s: float) -> Session:
        """The open session in which a transaction may begin now.

        Waits for programs that have a ticket and for a checkpoint, at most `timeout_s`. Trap: the engine would wait for
        the checkpoint as well, but deaf; the keeper would kill us for that, and the checkpoint would begin anew for ever.
        """
        is_over = self._is_over(timeout_s)
        if self._session is not None and self._owes_a_turn() and not self._give_back(is_over):
            raise self._late("The writer publishes what others have written, and then gives way to a program that waits.")
        session = self._opened(timeout_s)
        if not self._publisher.fold_bulk(session, is_over) or not self._publisher.wait_for_checkpoint(is_over):
            raise self._late("A checkpoint of the database runs, which writes wait for.")
        if self._publisher.failed:
            raise SystemExit(1)  # Why: as in `_tick`; and what must be folded before the next commit has not been.
        return session

    def _is_over(self, timeout_s: float) -> Callable[[], bool]:
        deadline = time.monotonic() + timeout_s
        return lambda: time.monotonic() >= deadline or self._is_cancelled()

    def _late(self, why: str) -> PondkeeperError:
        return QueryCancelled() if self._is_cancelled() else WriteTimedOut(f"The write was not applied. {why}")

    def _opened(self, timeout_s: float) -> Session:
        """The open session; waits for the lease, and for a foreign program that has the file, at most `timeout_s`."""
        if self._session is not None:
            return self._session
        deadline, is_over = time.monotonic() + timeout_s, self._is_over(timeout_s)
        if self._opening is None:
            self._guests.let_in(self._is_cancelled)
            self._lease.acquire(timeout_s, self._tell_waiting, self._is_cancelled, asked_ns=self._asked_ns())
        try:
            return self._entered(self._open_file(deadline, is_over))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Without the file, or a way to it, the lease is of no use to us, and others wait for it."""
        if self._session is None and self._opening is None:
            self._lease.release()

    def _adopt(self) -> None:
        """Take over the file that an attempt has opened after whoever wanted it had to go."""
        if self._opening is None or not self._opening.is_done:
            return
        opening, self._opening = self._opening, None
        try:
            self._entered(opening.result())
        except Exception as error:
            if getattr(translate(error), "fatal", False):
                raise SystemExit(1) from error
        finally:
            self._let_go()

    def _entered(self, session: Session) -> Session:
        self._session = session
        self._used_at = time.monotonic()
        self._guests.listen()
        self._engine = replace(self._engine, may_make=False)  # Why: a file that is gone later was lost, not missing.
        changed = file_state(self._paths.file) != self._known_state
        self._send({"op": "opened", "changed": changed})
        if session.recovered or changed:  # Why: what others have written must be published, also beside no commit.
            self._publisher.record_commit()
        return session

    def _open_file(self, deadline: float, is_over: Callable[[], bool]) -> Session:
        told_at = 0.0
        while True:
            self._opening = opening = self._opening or Opening(self._engine)
            while not opening.wait(TICK_S):
                if is_over():
                    raise self._late("The database is being recovered, which goes on.")
            self._opening = None
            try:
                return opening.result()
            except DatabaseBusy as busy:
                now = time.monotonic()
                if now >= deadline or self._is_cancelled():
                    raise
                if now - told_at >= 1.0:
                    self._send({"op": "waiting", "foreign": busy.details, "ahead": 0})
                    told_at = now
                time.sleep(LOCK_POLL_S)

    def _tell_waiting(self, holder: Holder | None, ahead: int) -> None:
        self._send({"op": "waiting", "holder": asdict(holder) if holder else None, "ahead": ahead})

    def _tick(self) -> None:
        """Between requests: publish what is committed; give the file back when idle or when another program waits."""
        if self._session is None:
            self._adopt()
        if self._session is None:
            return
        if self._publisher.failed or not self._session.is_in_place():
            # Why: after a failed checkpoint DuckDB's instance may be invalid, and a file that was replaced is not the
            # database any more; a successor looks.
            raise SystemExit(1)
        self._publisher.advance(self._session)
        is_idle = self._publisher.is_clean and time.monotonic() - self._used_at > self._idle_close_s
        if is_idle or self._owes_a_turn() or self._guest_is_due():
            self._give_back(lambda: not self._inbox.empty())

    def _owes_a_turn(self) -> bool:
        """Whether a program has waited for longer than everything that we still have to write."""
        oldest_ns = tickets.oldest_ns(self._paths.tickets)
        return oldest_ns is not None and oldest_ns < self._asked_ns()

    def _asked_ns(self) -> int:
        return time.monotonic_ns() if self._batch is None else self._batch.oldest_ns()

    def _guest_is_due(self) -> bool:
        """Whether a program that knows nothing of turns has knocked and can be let in now."""
        if self._publisher.is_copying:
            self._guests.forget()
            return False
        return self._guests.are_due(self._used_at)

    def _give_back(self, is_interrupted: Callable[[], bool]) -> bool:
        """Publish what is not yet published, close the file and give the lease to whoever waits for it.

        False when interrupted before everything was published: then all stays as it was.
        """
        assert self._session is not None
        if not self._publisher.finish(self._session, is_interrupted):
            return False
        self._known_state = file_state(self._paths.file)  # before the close: nobody else's change can hide in it
        self._session.close()
        self._session = None
        self._lease.release()
        self._guests.invite()
        self._send({"op": "closed", "state": self._known_state})
        return True


def sender(pipe: Pipe) -> Send:
    """How all threads of this process speak to the keeper, one at a time; when it is gone, whoever speaks ends quietly."""
    sending = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        try:
            with sending:
                pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise SystemExit from None  # Why not an error: nobody is left to tell, and in a thread it would be a traceback

    return send


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Entry point, called by the template in the forked child."""
    send = sender(pipe)
    inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
    writer = Writer(send, inbox, config)
    listen(control, writer.interrupt)

    def receive() -> None:
        while (message := pipe.receive()) is not None:
            if message["op"] == "resume":
                writer.resume()
                message = {"op": "resumed"}
            elif message["op"] == "wanted":
                writer.want(message["version"])
            inbox.put(message)
        inbox.put(None)
        writer.resume()  # nobody is left to do it

    threading.Thread(target=receive, name="inbox", daemon=True).start()
    try:
        send({"op": "ready"})
        writer.run()
    except PondkeeperError:
        return
