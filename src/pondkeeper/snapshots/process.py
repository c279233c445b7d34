"""The copier process: the only one that reads a database file as bytes, and so the only one that may.

Messages in, answers out, one at a time:

    {"op": "publish", "version", "source", "snapshots", "links", "keep", "compare"?}
        → {"op": "published", "version", "path", "size_bytes", "blocks", "blocks_copied", "bytes_copied", "method",
           "created_at", "block_size_bytes", "changed_since", "changed", "elapsed_ms", "retired"}
    {"op": "retire", "source", "snapshots", "keep"}  → {"op": "retired", "retired"}
    {"op": "settle", "snapshots"}       → {"op": "settled"}: what was published last survives a power cut
    {"op": "verify", "path"}            → {"op": "verified", "blocks", "blocks_used", "damaged", "elapsed_ms"}
    {"op": "forget", "snapshots"}       → {"op": "forgotten"}
    {"op": "ping"}                      → {"op": "pong"}
    anything that fails                 → {"op": "error", "code", "message", "remedy", …}

Between messages it prepares the next spare, in steps of some milliseconds.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pondkeeper.errors import InvalidRequest, PondkeeperError
from pondkeeper.files.leases import ignore_lease_signals
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.copier import Copier, Published
from pondkeeper.snapshots.verifying import verify
from pondkeeper.workers.frames import Pipe

INTERRUPT = b"i"
_MAX_DAMAGED_NAMED = 100
_MAX_PAUSE_S = 0.05

Message = dict[str, Any]


class Publish(msgspec.Struct):
    """A request to publish; `compare` when somebody but the writer may have changed the file."""

    version: int
    source: str
    snapshots: str
    links: list[str]
    keep: int
    compare: bool = False


class Retire(msgspec.Struct):
    """A request to take old versions out of sight."""

    source: str
    snapshots: str
    keep: int


class Desk:
    """Takes messages, gives answers; has one copier per snapshots folder."""

    def __init__(self, cancelling: Cancelling) -> None:
        self._cancelling = cancelling
        self._copiers: dict[str, Copier] = {}
        self._handlers: dict[str, Callable[[Message], Message]] = {
            "publish": self._publish,
            "retire": self._retire,
            "settle": self._settle,
            "verify": self._verify,
            "forget": self._forget,
            "ping": lambda _: {"op": "pong"},
        }

    def answer(self, message: Message) -> Message:
        """The answer to a message, an error too; never raises."""
        self._cancelling.clear()
        try:
            return self._handler(message)(message)
        except PondkeeperError as error:
            return {"op": "error", **error.to_wire(with_private=True)}
        except msgspec.ValidationError as error:
            return {"op": "error", **InvalidRequest(str(error)).to_wire()}
        except Exception as error:  # noqa: BLE001 - an unforeseen OSError must be answered, or the keeper waits for ever
            return {"op": "error", **PondkeeperError(private=repr(error)).to_wire(with_private=True)}

    def idle_step(self) -> bool:
        """Prepare a little; False when all copiers are ready. A fault here only makes the next publish slower."""
        try:
            steps = [copier.idle_step() for copier in self._copiers.values()]
        except (OSError, PondkeeperError):
            return False
        return any(steps)

    def _handler(self, message: Message) -> Callable[[Message], Message]:
        handler = self._handlers.get(message.get("op", ""))
        if handler is None:
            raise InvalidRequest("The copier does not know this operation.", op=message.get("op"))
        return handler

    def _copier(self, source: str, snapshots: str) -> Copier:
        copier = self._copiers.get(snapshots)
        if copier is None or str(copier.source.path) != source:
            self._forget({"snapshots": snapshots})
            copier = Copier(Path(source), Path(snapshots), self._cancelling)
            self._copiers[snapshots] = copier
        return copier

    def _publish(self, message: Message) -> Message:
        request = msgspec.convert(message, Publish)
        copier = self._copier(request.source, request.snapshots)
        links = [Path(link) for link in request.links]
        return _published(copier.publish(request.version, links, request.keep, compare=request.compare))

    def _retire(self, message: Message) -> Message:
        request = msgspec.convert(message, Retire)
        copier = self._copier(request.source, request.snapshots)
        return {"op": "retired", "retired": copier.retire(request.keep)}

    def _settle(self, message: Message) -> Message:
        if (copier := self._copiers.get(message["snapshots"])) is not None:
            copier.settle()
        return {"op": "settled"}

    def _verify(self, message: Message) -> Message:
        started = time.perf_counter()
        found = verify(Path(message["path"]), self._cancelling)
        return {
            "op": "verified",
            "blocks": found.blocks,
            "blocks_used": found.blocks_used,
            "damaged": found.damaged[:_MAX_DAMAGED_NAMED],
            "elapsed_ms": (time.perf_counter() - started) * 1000,
        }

    def _forget(self, message: Message) -> Message:
        copier = self._copiers.pop(message["snapshots"], None)
        if copier:
            copier.close()
        return {"op": "forgotten"}


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Serve messages until the keeper closes its end. `config` may have `prepare`: False keeps idle time idle."""
    ignore_lease_signals()
    cancelling = Cancelling()
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(control, cancelling), daemon=True).start()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    desk = Desk(cancelling)
    try:
        while (message := _next(inbox, desk, prepare=config.get("prepare", True))) is not None:
            pipe.send(desk.answer(message))
    except (BrokenPipeError, ConnectionResetError):  # the keeper is gone: nobody is left to tell
        return


def _next(inbox: queue.SimpleQueue[Message | None], desk: Desk, *, prepare: bool) -> Message | None:
    """The next message; while there is none, prepare for it, at half speed so that others get the disk too."""
    pause_s = 0.0
    while prepare:
        try:
            return inbox.get(timeout=pause_s) if pause_s else inbox.get_nowait()
        except queue.Empty:
            started = time.perf_counter()
            prepare = desk.idle_step()
            pause_s = min(time.perf_counter() - started, _MAX_PAUSE_S)
    return inbox.get()


def _receive(pipe: Pipe, inbox: queue.SimpleQueue[Message | None]) -> None:
    try:
        while (message := pipe.receive()) is not None:
            inbox.put(message)
    finally:
        inbox.put(None)


def _listen(control: socket.socket, cancelling: Cancelling) -> None:
    """Obey `i`; when the keeper is gone, end at once: what is half-made is private and removed at the next start."""
    while control.recv(1) == INTERRUPT:
        cancelling.request()
    os._exit(0)


def _published(published: Published) -> Message:
    manifest = published.manifest
    return {
        "op": "published",
        "version": manifest.version,
        "path": str(published.path),
        "size_bytes": manifest.size_bytes,
        "blocks": manifest.blocks,
        "blocks_copied": manifest.blocks_copied,
        "bytes_copied": manifest.bytes_copied,
        "method": manifest.method,
        "created_at": manifest.created_at,
        "block_size_bytes": manifest.block_size_bytes,
        "changed_since": manifest.changed_since,
        "changed": manifest.changed,
        "elapsed_ms": published.elapsed_ms,
        "retired": published.retired,
    }
