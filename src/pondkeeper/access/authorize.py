"""The one gate: whether a key may do an action on a database. Every door calls `authorize`, none decides by itself."""

from __future__ import annotations

import os
import socket
import struct
from enum import Enum, StrEnum

from pondkeeper.access.keys import EVERY_DATABASE, Key, Role
from pondkeeper.errors import Forbidden


class Action(StrEnum):
    """Everything that can be asked for."""

    QUERY = "query"
    DATABASE_STATUS = "database_status"
    SNAPSHOT_READ = "snapshot_read"
    EXECUTE = "execute"
    INGEST = "ingest"
    REJECTS_READ = "rejects_read"
    LEASE = "lease"
    TICKETS = "tickets"
    SNAPSHOT_TAKE = "snapshot_take"
    BACKUP_READ = "backup_read"
    BACKUP_TAKE = "backup_take"
    BACKUP_VERIFY = "backup_verify"
    BACKUP_PRUNE = "backup_prune"
    RESTORE = "restore"
    QUERY_SEE_OTHERS = "query_see_others"
    QUERY_CANCEL_OTHERS = "query_cancel_others"
    QUERY_SEE_OWN = "query_see_own"
    REPLICATE = "replicate"
    PROMOTE = "promote"
    QUERY_CANCEL_OWN = "query_cancel_own"
    DATABASES_LIST = "databases_list"
    EVENTS = "events"
    JOBS_LIST = "jobs_list"
    JOB_SEE = "job_see"
    JOB_LOG = "job_log"
    JOB_RUN = "job_run"
    JOB_CANCEL = "job_cancel"
    JOB_ENABLE = "job_enable"
    METRICS = "metrics"
    SETTINGS_SEE = "settings_see"
    KEYS = "keys"


class Scope(Enum):
    """What an action is done to."""

    DATABASE = "one database: the key must name it"
    JOB = "a job: the key must name its database, or be for every database where it has none"
    KEEPER = "the whole keeper: the key must be for every database"
    OWN = "what belongs to the key: any live key"


RULES: dict[Action, tuple[Role, Scope]] = {
    Action.QUERY: (Role.READER, Scope.DATABASE),
    Action.DATABASE_STATUS: (Role.READER, Scope.DATABASE),
    Action.SNAPSHOT_READ: (Role.READER, Scope.DATABASE),
    Action.EXECUTE: (Role.WRITER, Scope.DATABASE),
    Action.INGEST: (Role.WRITER, Scope.DATABASE),
    Action.REJECTS_READ: (Role.WRITER, Scope.DATABASE),
    Action.LEASE: (Role.WRITER, Scope.DATABASE),
    Action.TICKETS: (Role.WRITER, Scope.DATABASE),
    Action.SNAPSHOT_TAKE: (Role.WRITER, Scope.DATABASE),
    # Why admin: it takes back what everybody has written since.
    Action.RESTORE: (Role.ADMIN, Scope.DATABASE),
    Action.BACKUP_READ: (Role.READER, Scope.DATABASE),
    Action.BACKUP_TAKE: (Role.WRITER, Scope.DATABASE),
    # Why admin: it takes as much disk as the database for a while.
    Action.BACKUP_VERIFY: (Role.ADMIN, Scope.DATABASE),
    # Why the whole keeper: databases share their blocks.
    Action.BACKUP_PRUNE: (Role.ADMIN, Scope.KEEPER),
    # Why admin: the text of somebody's SQL carries their data.
    Action.QUERY_SEE_OTHERS: (Role.ADMIN, Scope.DATABASE),
    Action.QUERY_CANCEL_OTHERS: (Role.ADMIN, Scope.DATABASE),
    Action.QUERY_SEE_OWN: (Role.READER, Scope.OWN),
    # Why admin: blocks hold what is deleted too, and whoever promotes decides who is written to.
    Action.REPLICATE: (Role.ADMIN, Scope.DATABASE),
    Action.PROMOTE: (Role.ADMIN, Scope.DATABASE),
    Action.QUERY_CANCEL_OWN: (Role.READER, Scope.OWN),
    # The list itself: what stands in it is filtered by DATABASE_STATUS.
    Action.DATABASES_LIST: (Role.READER, Scope.OWN),
    # The stream itself: which events are in it is decided by DATABASE_STATUS and QUERY_SEE_OWN or QUERY_SEE_OTHERS.
    Action.EVENTS: (Role.READER, Scope.OWN),
    # The list itself: what stands in it is filtered by JOB_SEE.
    Action.JOBS_LIST: (Role.READER, Scope.OWN),
    Action.JOB_SEE: (Role.READER, Scope.JOB),
    # Why writer: what a program prints carries data, and names of machines that it comes from.
    Action.JOB_LOG: (Role.WRITER, Scope.JOB),
    Action.JOB_RUN: (Role.WRITER, Scope.JOB),
    Action.JOB_CANCEL: (Role.WRITER, Scope.JOB),
    # Why admin: a job that is off stays off, also after a restart, and nobody misses it at once.
    Action.JOB_ENABLE: (Role.ADMIN, Scope.JOB),
    Action.METRICS: (Role.READER, Scope.KEEPER),
    Action.SETTINGS_SEE: (Role.ADMIN, Scope.KEEPER),
    # Why the whole keeper: an admin of one database could else make a key for every other.
    Action.KEYS: (Role.ADMIN, Scope.KEEPER),
}

# What a replica leaves to its primary.
CHANGING = frozenset(
    {Action.EXECUTE, Action.INGEST, Action.REJECTS_READ, Action.LEASE, Action.TICKETS, Action.SNAPSHOT_TAKE, Action.RESTORE}
)

# What a key for some tables may do: nothing that shows, or keeps, more of a database than what it may read.
FOR_SOME_TABLES = frozenset(
    {Action.QUERY, Action.DATABASE_STATUS, Action.DATABASES_LIST, Action.EVENTS}
    | {Action.QUERY_SEE_OWN, Action.QUERY_CANCEL_OWN}
)

LOCAL_KEY = Key(id="local", name="local", role=Role.ADMIN, databases=(EVERY_DATABASE,), created_at=0.0)


def authorize(key: Key, action: Action, database: str | None = None) -> None:
    """Raise Forbidden unless the key may do that to that database (None: not to one database).

    Ask before looking a database up: to a key that may not see it, one that exists and one that does not are the same.
    """
    role, scope = RULES[action]
    if key.role.rank < role.rank:
        raise Forbidden(f"The role {key.role} may not do `{action}`; that takes the role {role}.", action=action.value)
    if key.tables is not None and action not in FOR_SOME_TABLES:
        raise Forbidden(f"A key for some tables may not do `{action}`.", action=action.value)
    if scope is Scope.OWN or (key.is_for_every_database and (scope is not Scope.DATABASE or database is not None)):
        return
    if scope in (Scope.DATABASE, Scope.JOB) and database is not None and database in key.databases:
        return
    what = "the keeper as a whole" if scope is Scope.KEEPER or database is None else f"the database {database[:100]!r}"
    raise Forbidden(f"This key is not for {what}.", action=action.value)


def is_allowed(key: Key, action: Action, database: str | None = None) -> bool:
    """Whether `authorize` lets it through."""
    try:
        authorize(key, action, database)
    except Forbidden:
        return False
    return True


def key_of_peer(connection: socket.socket) -> Key | None:
    """The key of who is at the other end of the control socket: our own user and root are trusted; else None."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return LOCAL_KEY if uid in (0, os.geteuid()) else None
