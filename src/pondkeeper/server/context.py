"""What the routes work with: the rooms below, and the server's own state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pondkeeper.access.authorize import CHANGING, authorize
from pondkeeper.server.listeners import Seats
from pondkeeper.server.scopes import caller_of, entry_of

if TYPE_CHECKING:
    from starlette.types import Scope

    from pondkeeper.access.audit import Audit
    from pondkeeper.access.authorize import Action
    from pondkeeper.access.keyring import Keyring
    from pondkeeper.access.limit_book import LimitBook
    from pondkeeper.access.throttle import Throttle
    from pondkeeper.archive.desk import ArchiverDesk
    from pondkeeper.archive.replica.feed import Feed
    from pondkeeper.archive.replica.keeper import ReplicaKeeper
    from pondkeeper.databases.database import Database
    from pondkeeper.databases.registry import Registry
    from pondkeeper.databases.running import RunningQueries
    from pondkeeper.jobs.desk import JobsDesk
    from pondkeeper.server.metrics import Meters
    from pondkeeper.settings import Settings


@dataclass
class Context:
    """One per app. `is_stopping` is set when the drain begins."""

    registry: Registry
    running: RunningQueries
    keys: Keyring
    settings: Settings
    meters: Meters
    limits: LimitBook
    throttle: Throttle
    audit: Audit | None = None
    archiver: ArchiverDesk | None = None
    feed: Feed | None = None
    replicas: ReplicaKeeper | None = None
    jobs: JobsDesk | None = None
    is_stopping: bool = False
    seats: Seats = field(default_factory=Seats)

    def database(self, scope: Scope, action: Action) -> Database:
        """The database that the path names, or the only one, for a caller who may do that to it."""
        name = scope["path_params"].get("name")
        if name is not None:
            entry_of(scope).database = name
            authorize(caller_of(scope), action, name)
            return _usable(self.registry.get(name), action)
        database = self.registry.get(None)
        entry_of(scope).database = database.name
        authorize(caller_of(scope), action, database.name)
        return _usable(database, action)


def _usable(database: Database, action: Action) -> Database:
    """The database, unless it is a replica and the action is for its primary. Raises DatabaseIsReplica."""
    if action in CHANGING and database.refuses_writes is not None:
        raise database.refuses_writes.again()
    return database
