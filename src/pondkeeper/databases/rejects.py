"""Reject files: the rows that ingests did not take, kept for a while; beside each what it is, so that they can be listed.

`rejects/<name>.ndjson` has the rows; `rejects/<name>.json` says of which ingest. The first is the truth: one without the
second is listed too.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from pondkeeper.files.durable import write_atomic

_ROWS: Final = ".ndjson"
_ABOUT: Final = ".json"


class About(msgspec.Struct, frozen=True):
    """Of which ingest the rows are."""

    table: str | None = None
    rejected: int | None = None
    key_id: str | None = None
    client: str | None = None


class Rejects:
    """The folder of reject files of one database. Everything here may wait for the disk: not on the event loop."""

    def __init__(self, folder: Path, keep_s: float) -> None:
        self._folder = folder
        self._keep_s = keep_s

    def path(self, name: str) -> Path:
        """Where the rows of that reject file are; there may be no such file."""
        return self._folder / f"{name}{_ROWS}"

    def keep(self, name: str, written: Path, about: About) -> None:
        """Put bad rows where they can be fetched, durable, before anything is committed: none of them may be lost."""
        self.forget()
        with written.open("rb") as file:
            os.fsync(file.fileno())
        write_atomic(self._folder / f"{name}{_ABOUT}", msgspec.json.encode(about))
        written.replace(self.path(name))

    def drop(self, name: str) -> None:
        """Nothing came of the ingest."""
        self.path(name).unlink(missing_ok=True)
        (self._folder / f"{name}{_ABOUT}").unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove what was kept for long enough."""
        oldest = time.time() - self._keep_s
        for path in [*self._folder.glob(f"*{_ROWS}"), *self._folder.glob(f"*{_ABOUT}")]:
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def list(self) -> list[dict[str, Any]]:
        """Every reject file, the youngest first."""
        found = []
        for path in self._folder.glob(f"*{_ROWS}"):
            with suppress(FileNotFoundError):
                found.append((path.stat(), path.stem))
        found.sort(key=lambda each: each[0].st_mtime, reverse=True)
        return [
            {"rejects": name, **msgspec.to_builtins(self._about(name)), "size_bytes": status.st_size, "made_at": _moment(status.st_mtime)}
            for status, name in found
        ]

    def _about(self, name: str) -> About:
        try:
            return msgspec.json.decode((self._folder / f"{name}{_ABOUT}").read_bytes(), type=About)
        except (OSError, msgspec.MsgspecError):  # one of an earlier release: its rows are what counts
            return About()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
