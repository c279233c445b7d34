"""Database files that come into a served folder while the keeper runs: noticed by stat, served when they have settled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from pathlib import Path

import structlog

from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import SUFFIX, is_database_name
from pondkeeper.files.state import FileState, file_state

POLL_S = 1.0
_log = structlog.get_logger(__name__)


class Arrivals:
    """Looks into one folder again and again; a file that looked the same at two looks is handed to `add`."""

    def __init__(self, folder: Path, known: Container[str], add: Callable[[Path], Awaitable[None]]) -> None:
        self._folder = folder
        self._known = known
        self._add = add
        self._seen: dict[Path, FileState] = {}
        self._told: dict[Path, str] = {}

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            before, self._seen = self._seen, await asyncio.to_thread(self._look)
            # Why twice: a file that is being copied in would be opened in its middle.
            for file in [file for file, state in self._seen.items() if before.get(file) == state]:
                await self._try_to_add(file)

    def _look(self) -> dict[Path, FileState]:
        files = [file for file in self._folder.glob(f"*{SUFFIX}") if file.stem not in self._known]
        return {file: file_state(file) for file in files}

    async def _try_to_add(self, file: Path) -> None:
        try:
            if not is_database_name(file.stem):
                self._tell(file, "its name must be letters, digits, '_', '-' and '.' only")
                return
            await self._add(file)
        except (PondkeeperError, OSError) as error:
            self._tell(file, str(error))

    def _tell(self, file: Path, why: str) -> None:
        """Once for each reason: the same is tried again and again."""
        if self._told.get(file) != why:
            self._told[file] = why
            _log.warning("a new file in the folder cannot be served", file=file.name, why=why)
