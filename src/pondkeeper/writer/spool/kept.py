"""Bodies of refused tickets: kept for a while, so that they can be looked at, and sent again when the reason is gone.

On disk, under `spool/refused/`: `<ticket>.body`, then `<ticket>.json`, which says what it is; without that it counts as nothing.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from pondkeeper.errors import BodyNotKept
from pondkeeper.files.durable import PRIVATE_FILE, make_folder, sync_file, sync_folder, write_atomic
from pondkeeper.writer.spool.log import Entry, Header

_HEAD: Final = ".json"
_BODY: Final = ".body"
_log = structlog.get_logger(__name__)


class Refused(msgspec.Struct, frozen=True):
    """A kept body: what the client said of it; `retried_as` is the ticket that it was sent again with, and it is gone."""

    header: Header
    size_bytes: int
    retried_as: str | None = None


class KeptBodies:
    """The folder of them. Everything here may wait for the disk: not on the event loop."""

    def __init__(self, folder: Path, incoming: Path, keep_s: float, max_bytes: int) -> None:
        self._folder = folder
        self._incoming = incoming
        self._keep_s = keep_s
        self._max_bytes = max_bytes

    def keep(self, ticket: str, entry: Entry) -> None:
        """Keep the body of an entry that is about to be refused. Its refusal stands whether this succeeds or not."""
        size_bytes = entry.header.size_bytes if entry.header.file is not None else len(entry.body)
        if size_bytes > self._max_bytes:
            return
        try:
            make_folder(self._folder)
            self._drop(ticket)
            self._write_body(self.path(ticket), entry)
            write_atomic(self._head(ticket), msgspec.json.encode(Refused(entry.header, size_bytes)))
        except OSError as error:
            _log.warning("the body of a refused ingest could not be kept", ticket=ticket, error=str(error))
            with suppress(OSError):
                self._drop(ticket)
        self.forget()

    def _write_body(self, path: Path, entry: Entry) -> None:
        if entry.header.file is not None:
            os.link(self._incoming / entry.header.file, path)
            return
        path.touch(PRIVATE_FILE)
        path.write_bytes(entry.body)
        sync_file(path)

    def path(self, ticket: str) -> Path:
        """Where the body lies, if it is there."""
        return self._folder / f"{ticket}{_BODY}"

    def _head(self, ticket: str) -> Path:
        return self._folder / f"{ticket}{_HEAD}"

    def find(self, ticket: str) -> Refused | None:
        """What is kept of a ticket; None when nothing is."""
        try:
            return msgspec.json.decode(self._head(ticket).read_bytes(), type=Refused)
        except (OSError, msgspec.MsgspecError):
            return None

    def body_of(self, ticket: str) -> Refused:
        """What is kept of a ticket, with its body. Raises BodyNotKept."""
        found = self.find(ticket)
        if found is not None and found.retried_as is not None:
            raise BodyNotKept(f"The body was sent again, with the ticket {found.retried_as}.", retried_as=found.retried_as)
        if found is None or _size(self.path(ticket)) != found.size_bytes:
            raise BodyNotKept
        return found

    def lend(self, ticket: str, name: str) -> None:
        """A body as a file under `incoming`, to be accepted again."""
        os.link(self.path(ticket), self._incoming / name)

    def retried(self, ticket: str, found: Refused, new_ticket: str) -> None:
        """It was accepted again: note as what, and let the body go."""
        retried = msgspec.structs.replace(found, retried_as=new_ticket)
        write_atomic(self._head(ticket), msgspec.json.encode(retried))
        self.path(ticket).unlink(missing_ok=True)

    def _drop(self, ticket: str) -> None:
        self._head(ticket).unlink(missing_ok=True)
        self.path(ticket).unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove what was kept for long enough, and of the rest the oldest, until it takes no more than it may."""
        if not self._folder.is_dir():
            return
        found = sorted((path.stat().st_mtime, path) for path in self._folder.iterdir() if path.suffix == _HEAD)
        size_bytes = sum(_size(self.path(path.stem)) or 0 for _, path in found)
        oldest_kept = time.time() - self._keep_s
        for kept_at, path in found:
            if kept_at >= oldest_kept and size_bytes <= self._max_bytes:
                break
            size_bytes -= _size(self.path(path.stem)) or 0
            self._drop(path.stem)
        heads = {path.stem for path in self._folder.iterdir() if path.suffix == _HEAD}
        for path in self._folder.glob(f"*{_BODY}"):  # a keeper ended before it wrote what the body is
            if path.stem not in heads:
                path.unlink(missing_ok=True)
        sync_folder(self._folder)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
