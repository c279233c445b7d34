"""What has come is made durable and visible in batches, and only then is the database told."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pondkeeper.files.durable import sync_file, sync_folder
from pondkeeper.kinds.batching import Batch
from pondkeeper.kinds.download.fetching import Fetched
from pondkeeper.kinds.download.place import Place
from pondkeeper.kinds.download.trouble import Trouble
from pondkeeper.kinds.download.wanted import Wanted

SYNCING: Final = 16
POLL_S: Final = 0.2
_END: Final = object()


class Finisher:
    """Makes files durable under their final names. Why in batches: sixteen fsyncs at once cost the disk little more than one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(SYNCING, thread_name_prefix="sync")

    def finish(self, files: Iterable[Fetched]) -> None:
        """Sync, then rename, then sync the folders: after a power cut a file is whole, or it is not there."""
        parts = [each.place for each in files if each.changed]
        for _ in self._pool.map(_settle, [parts[begin::SYNCING] for begin in range(min(SYNCING, len(parts)))]):
            pass
        for folder in _folders([place.final for place in parts], self._folder):
            sync_folder(folder)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _settle(places: Iterable[Place]) -> None:
    """Why renamed here, too: one that replaces a file frees what that had on the disk, and may wait for it (`discard`)."""
    for place in places:
        sync_file(place.part)
        place.part.replace(place.final)


def _folders(files: Iterable[Path], top: Path) -> list[Path]:
    """The folders that may have new names in them, from the files' own up to the one that `top` is in."""
    found: dict[Path, None] = {}
    for folder in {file.parent for file in files}:
        for each in (folder, *folder.parents):
            found[each] = None
            if each == top.parent:
                break
    return list(found)


class Marker:
    """Tells the database, in a thread of its own: files go on coming while somebody else has the lease for an hour."""

    def __init__(self, done: Batch | None, failed: Batch | None, columns: Iterable[str]) -> None:
        self._done, self._failed = done, failed
        self._columns = tuple(columns)
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="marker", daemon=True)
        self._thread.start()

    def came(self, files: Iterable[Fetched]) -> None:
        """These files are there. Raises what went wrong with earlier ones."""
        at = datetime.now(UTC)
        self._put(self._done, (
            {**row, "size_bytes": each.size_bytes, "sha256": each.sha256, "etag": each.etag, "changed": each.changed, "downloaded_at": at}
            for each in files for row in self._rows(each.wanted)
        ))  # fmt: skip

    def failed(self, wanted: Wanted, trouble: Trouble, attempts: int) -> None:
        """This file could not be had. Raises what went wrong with earlier ones."""
        fault = {"error": trouble.message, "http_status": trouble.http_status, "attempts": attempts}
        self._put(self._failed, ({**row, **fault, "failed_at": datetime.now(UTC)} for row in self._rows(wanted)))

    def close(self) -> None:
        """Everything is in the database when this returns. Raises PondkeeperError."""
        self._waiting.put(_END)
        self._thread.join()
        self._raise()

    @property
    def marked(self) -> int:
        """Rows that the database knows of."""
        return sum(batch.written for batch in (self._done, self._failed) if batch is not None)

    def _rows(self, wanted: Wanted) -> Iterable[Mapping[str, str | None]]:
        return (dict(zip(self._columns, values, strict=True)) for values in wanted.rows)

    def _put(self, batch: Batch | None, rows: Iterable[Mapping[str, Any]]) -> None:
        self._raise()
        if batch is not None:
            self._waiting.put((batch, list(rows)))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not _END:
                self._mark(taken)
            for batch in (self._done, self._failed):
                if batch is not None:
                    batch.flush()
        except BaseException as error:  # noqa: BLE001  Why: raised again in the thread that has something to mark
            self._error = error

    def _take(self) -> Any:
        try:
            return self._waiting.get(timeout=POLL_S)
        except queue.Empty:
            return None

    def _mark(self, taken: Any) -> None:
        if taken is not None:
            batch, rows = taken
            for row in rows:
                batch.put(row)
        for batch in (self._done, self._failed):
            if batch is not None:
                batch.write_due()
