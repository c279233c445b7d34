"""What the databases tell the archive, which stands above them: each version as it is published, and when it all begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from pondkeeper.databases.events import EventHub
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.workers.spawning import Template


@dataclass(frozen=True)
class Publication:
    """A version that was published. `changed`: ranges of blocks that may differ from version `changed_since`; None: any may."""

    version: int
    path: str
    created_at: str
    block_size_bytes: int = 0
    changed_since: int | None = None
    changed: list[tuple[int, int]] | None = None

    @classmethod
    def of_report(cls, report: dict[str, Any]) -> Publication:
        """What the copier said of it."""
        return msgspec.convert(report, cls)


class Archiving(Protocol):
    """Whoever keeps versions. None of this waits for a store; what cannot be archived now is told by `status`."""

    async def start(self, databases: list[DatabasePaths]) -> None:
        """These databases are served from now on; again, with all of them, when one more has come."""

    def published(self, name: str, publication: Publication) -> None:
        """The newest version of a database is this one now."""

    async def first_version(self, name: str) -> int:
        """Where a database begins whose home is new: above all that was archived of it."""

    def status(self, name: str) -> dict[str, Any] | None:
        """What of a database is archived, as its status shows it; None when nothing is to be."""

    async def stop(self, grace_s: float) -> None:
        """No more versions come: archive the last ones, if that can be done within the grace."""


class NoArchive:
    """Nothing is archived."""

    async def start(self, databases: list[DatabasePaths]) -> None:
        pass

    def published(self, name: str, publication: Publication) -> None:
        pass

    async def first_version(self, name: str) -> int:  # noqa: ARG002  Why: of no database
        return 1

    def status(self, name: str) -> dict[str, Any] | None:  # noqa: ARG002  Why: of no database
        return None

    async def stop(self, grace_s: float) -> None:
        pass


MakeArchiving = Callable[[Template, EventHub], Archiving]
