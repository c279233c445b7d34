"""An eye on a database's file: who has it, what others do with it, and that their changes are published."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from pondkeeper.databases.programs import ProgramTimes
from pondkeeper.databases.watching import Sight, look
from pondkeeper.errors import DatabaseBusy, DatabaseMissing, PondkeeperError
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.files.state import FileState
from pondkeeper.writer.desk import WriterDesk

PROBLEM_RETRY_S = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Seen:
    """What the eye is told of the database: its writer, whether it has a snapshot, its problem; how to publish, and whom to tell."""

    desk: Callable[[], WriterDesk]
    has_snapshot: Callable[[], bool]
    problem: Callable[[], PondkeeperError | None]
    publish_changes: Callable[[], Awaitable[object]]
    tell: Callable[[Sight], None]


class Eye:
    """Looks again and again. `known_state`: the file as it is in the newest snapshot."""

    def __init__(self, paths: DatabasePaths, poll_s: float, seen: Seen) -> None:
        self.sight = Sight(state=[])
        self.programs = ProgramTimes()
        self.known_state: FileState = []
        self._paths = paths
        self._poll_s = poll_s
        self._seen = seen

    async def watch(self) -> None:
        """Notice what others do with the file, and publish it when they are done; until cancelled."""
        while True:
            await self.look()
            self.programs.note(self.sight)
            self._seen.tell(self.sight)
            if self.sight.is_free and self._is_changed():
                await self._publish_changes()
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """Look now, and not only when it is time to."""
        own = frozenset(filter(None, [self._seen.desk().pid]))
        self.sight = await asyncio.to_thread(look, self._paths, own)

    def quiet(self) -> int | None:
        """A number that is another one whenever somebody else has had the file; None while the newest snapshot may lack
        what somebody else does, or did. Why more than a look: it may be some time ago, and the writer meets who is there.
        """
        desk = self._seen.desk()
        is_quiet = self.sight.is_free and not self._is_changed() and not desk.is_behind_others
        return desk.others_turns if is_quiet else None

    def _is_changed(self) -> bool:
        desk = self._seen.desk()
        if desk.is_open:
            return False
        if desk.closed_state:
            self.known_state = desk.closed_state
        return not self._seen.has_snapshot() or self.sight.state != self.known_state or self._is_back()

    def _is_back(self) -> bool:
        """Whether the file was missing and is there again, the same as before."""
        return isinstance(self._seen.problem(), DatabaseMissing) and self.sight.state[0] != 0

    async def _publish_changes(self) -> None:
        self._seen.desk().others_changed_it = True
        try:
            await self._seen.publish_changes()
        except PondkeeperError as error:
            _log.debug("the changed file could not be published", database=self._paths.name, error=error.to_wire())
            if not isinstance(error, DatabaseBusy):
                await asyncio.sleep(PROBLEM_RETRY_S)
