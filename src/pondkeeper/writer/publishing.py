"""When the writer checkpoints, and which version a commit will be in.

A publish is: CHECKPOINT, fsync of the folder, `checkpointed` to the keeper, the copier takes the changed blocks, and
`resume` comes back. Until then there is no other checkpoint. A commit is in the version whose checkpoint begins next
after it: that number is its answer.

The first commit after a pause is published at once. While commits come in a stream, publishing rests longer between two
versions (STREAM_PAUSE_S), because each CHECKPOINT keeps every write waiting; unless somebody waits for a version.

Commits go on while the copier works, and not during the CHECKPOINT itself: DuckDB holds its checkpoint lock for as long
as that takes, and whatever writes waits for it, deaf to interrupts. So we wait for it here instead, where we can hear.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pondkeeper.engine.bulk import ROW_GROUP_ROWS
from pondkeeper.engine.writing import CheckpointPostponed
from pondkeeper.errors import DatabaseUnavailable, PondkeeperError
from pondkeeper.files.durable import sync_folder
from pondkeeper.writer.session import Session

POSTPONED_POLL_S = 0.01
POSTPONED_LIMIT_S = 30.0
SHORTEST_PAUSE_S = 0.002
STREAM_PAUSE_S = 0.1
STREAM_FROM_COMMITS = 4
WAIT_POLL_S = 0.01


class Publisher:
    """Turns commits into versions, as often as the copier keeps up."""

    def __init__(self, send: Callable[[dict[str, Any]], None], folder: Path, next_version: int, pause_ratio: float) -> None:
        self._send = send
        self._folder = folder
        self._next_version = next_version
        self._pause_ratio = pause_ratio
        self._is_dirty = False
        self._has_bulk = False
        self._done = threading.Event()
        self._done.set()
        self._no_checkpoint = threading.Event()
        self._no_checkpoint.set()
        self._began_at = 0.0
        self._not_before = 0.0
        self._commits = 0
        self._wanted = 0
        self.failed = False

    def record_commit(self, rows: int = 0) -> int:
        """Note that there is something to publish; the version that will contain it. `rows`: so many were changed."""
        self._is_dirty = True
        self._has_bulk = self._has_bulk or rows >= ROW_GROUP_ROWS
        self._commits += 1
        return self._next_version

    def want(self, version: int) -> None:
        """Somebody waits for this version. Called on the receiving thread."""
        self._wanted = max(self._wanted, version)

    def version_of_all(self) -> int:
        """The version that has, or will have, everything that is committed by now."""
        if self._is_dirty or self._began_at == 0.0:
            return self.record_commit()
        return self._next_version - 1

    @property
    def is_clean(self) -> bool:
        """Whether every commit is in a published snapshot."""
        return not self._is_dirty and self._done.is_set()

    @property
    def is_copying(self) -> bool:
        """Whether a checkpoint runs, or the copier reads what it made."""
        return not self._done.is_set()

    @property
    def due_in_s(self) -> float | None:
        """Seconds until `advance` has something to do; None when nothing is to be published or a publish is under way."""
        if not self._is_dirty or not self._done.is_set():
            return None
        is_stream = self._commits >= STREAM_FROM_COMMITS and self._wanted < self._next_version
        return max(0.0, self._not_before + (STREAM_PAUSE_S if is_stream else 0.0) - time.monotonic())

    def advance(self, session: Session) -> None:
        """Begin a publish if one is due."""
        if self.due_in_s == 0.0:
            self._begin(session)

    def finish(self, session: Session, is_interrupted: Callable[[], bool]) -> bool:
        """Publish until everything committed is published; False when interrupted or failed before that."""
        while not self.is_clean and not self.failed:
            if is_interrupted():
                return False
            if self._done.is_set():
                self._begin(session)
            self._done.wait(WAIT_POLL_S)
        return self.is_clean

    def fold_bulk(self, session: Session, is_interrupted: Callable[[], bool]) -> bool:
        """Begin the checkpoint that a bulk load needs before the next commit (engine/bulk.py); False when interrupted before that."""
        if self._has_bulk and not session.must_be_folded():
            self._has_bulk = False
        while self._has_bulk and not self.failed:
            if is_interrupted():
                return False
            if self._done.is_set():
                self._begin(session)
            self._done.wait(WAIT_POLL_S)
        return True

    def wait_for_checkpoint(self, is_interrupted: Callable[[], bool]) -> bool:
        """Wait until no CHECKPOINT runs; False when interrupted before that."""
        while not self._no_checkpoint.wait(WAIT_POLL_S):
            if is_interrupted():
                return False
        return True

    def resume(self) -> None:
        """The copier has what it needs: the next checkpoint is allowed. Called on the receiving thread."""
        now = time.monotonic()
        self._not_before = now + max(SHORTEST_PAUSE_S, self._pause_ratio * (now - self._began_at))
        self._done.set()

    def _begin(self, session: Session) -> None:
        version = self._next_version
        self._next_version += 1  # Why: a commit that ends from here on may miss this checkpoint.
        self._is_dirty = self._has_bulk = False
        self._commits = 0
        self._began_at = time.monotonic()
        self._done.clear()
        self._no_checkpoint.clear()
        threading.Thread(target=self._checkpoint, args=(session, version), name="checkpoint", daemon=True).start()

    def _checkpoint(self, session: Session, version: int) -> None:
        try:
            self._checkpoint_soon(session)
            sync_folder(self._folder)
        except Exception as error:  # noqa: BLE001  Why: a checkpoint that ends unheard would keep every later one waiting.
            self.failed = True
            self._is_dirty = True
            self.report_failure(error if isinstance(error, PondkeeperError) else PondkeeperError(private=repr(error)))
            self._done.set()
            return
        finally:
            self._no_checkpoint.set()
        elapsed_ms = (time.monotonic() - self._began_at) * 1000
        self._send({"op": "checkpointed", "version": version, "elapsed_ms": elapsed_ms})

    def _checkpoint_soon(self, session: Session) -> None:
        """CHECKPOINT, again and again while a transaction stands in the way; not for ever, since none of ours is long."""
        while True:
            try:
                session.checkpoint()
                return
            except CheckpointPostponed as postponed:
                if time.monotonic() - self._began_at > POSTPONED_LIMIT_S:
                    message = f"DuckDB refused to checkpoint for {POSTPONED_LIMIT_S:g} s."
                    raise DatabaseUnavailable(message, private=str(postponed.__cause__)) from postponed
                time.sleep(POSTPONED_POLL_S)

    def report_failure(self, error: PondkeeperError) -> None:
        """Tell the keeper that nothing can be published right now."""
        self._send({"op": "publish_failed", "error": error.to_wire(with_private=True)})
