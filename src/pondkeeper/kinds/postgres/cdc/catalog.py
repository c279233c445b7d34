"""What a source says of the tables that are captured, of its publication and of its slot, and what is unfit about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from pondkeeper.errors import SourceRefused
from pondkeeper.kinds.postgres.cdc.lsn import parse_lsn
from pondkeeper.kinds.postgres.cdc.messages import Relation
from pondkeeper.kinds.postgres.cdc.state import Column
from pondkeeper.kinds.postgres.connecting import Connection, answering, quoted, said
from pondkeeper.kinds.postgres.describing import PARTITIONED, TABLE
from pondkeeper.kinds.postgres.planning import TablePlan

OLDEST: Final = 130_000
LOST: Final = "lost"

_TABLES: Final = """
SELECT c.oid, c.relpersistence::text,
       (SELECT array_agg(DISTINCT l.identity) FROM (
           SELECT c.relreplident::text AS identity WHERE c.relkind <> 'p' UNION ALL
           SELECT p.relreplident::text FROM pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid
            WHERE c.relkind = 'p' AND t.isleaf) l),
       c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid)
FROM pg_class c WHERE c.oid = ANY(%s)
"""
_COLUMNS: Final = """
SELECT attrelid, attname, attgenerated <> '', atthasdef OR atthasmissing OR attidentity <> '' OR attnotnull
FROM pg_attribute WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped
"""
_SLOT: Final = """
SELECT plugin, database, active_pid, coalesce(wal_status, ''), confirmed_flush_lsn,
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                                restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclass(frozen=True)
class LoggedColumn:
    """A column whose changes are in the log. `was_filled`: rows that were there before it may hold something in it."""

    column: Column
    was_filled: bool


@dataclass(frozen=True)
class LoggedTable:
    """A table as it is at the source now. `identities`: how its parts name changed rows (pg_class.relreplident).

    `columns`: those that the job wants, without generated ones, which the log does not have.
    """

    plan: TablePlan
    is_logged: bool
    has_heirs: bool
    identities: frozenset[str]
    columns: tuple[LoggedColumn, ...]

    @property
    def name(self) -> str:
        return self.plan.table.full_name

    @property
    def primary(self) -> tuple[str, ...]:
        return self.plan.table.key

    def column(self, name: str) -> LoggedColumn | None:
        """The column of that name."""
        return next((each for each in self.columns if each.column.name == name), None)

    def keys_of(self, relation: Relation) -> tuple[str, ...]:
        """Which columns name a row in changes of this shape; none where only the whole row does."""
        if relation.identity in {"f", "n"}:
            return self.primary
        return tuple(column.name for column in relation.columns if column.is_key)

    def unfit(self) -> str | None:
        """Why changes of it cannot be followed. Publishing such a table makes every UPDATE at the source fail."""
        if not self.is_logged:
            return "it is UNLOGGED or temporary, so that its changes are in no log; ALTER TABLE … SET LOGGED"
        if self.has_heirs:
            return "other tables inherit from it, and their changes come by their own names"
        if "n" in self.identities:
            return "it has REPLICA IDENTITY NOTHING; ALTER TABLE … REPLICA IDENTITY DEFAULT, or FULL where it has no primary key"
        if self.plan.table.relation not in {TABLE, PARTITIONED}:
            return "it is no table of the source's own, and in no log"
        if missing := sorted(set(self.primary) - {each.column.name for each in self.columns}):
            return f"`without` takes {', '.join(missing)} away, which names its rows"
        if "d" in self.identities and not self.primary:
            return "it has no primary key, so that nothing names a changed row; add one, or ALTER TABLE … REPLICA IDENTITY FULL"
        if not self.primary and len(self.identities) > 1:
            return "its partitions name their rows in different ways; give all of them the same REPLICA IDENTITY"
        return None


@dataclass(frozen=True)
class Slot:
    """A replication slot as the source shows it. `kept_bytes`: how much of its log the source keeps because of it."""

    name: str
    plugin: str
    database: str
    active_pid: int | None
    status: str
    confirmed: int
    kept_bytes: int


def refuse_unfit_server(connection: Connection) -> str | None:
    """Raise SourceRefused where changes cannot be followed at all; what there is to be said of it otherwise."""
    with answering():
        settings = "SELECT current_setting('wal_level'), current_setting('max_slot_wal_keep_size', true)"
        [[level, keep]] = connection.execute(settings).fetchall()
    if connection.info.server_version < OLDEST:
        raise SourceRefused("Change data capture needs PostgreSQL 13 or later.", remedy='Use `mode = "incremental"` here.')
    if level != "logical":
        raise SourceRefused(
            f"The source runs with wal_level = {level}, and its changes are not in its log.",
            remedy="ALTER SYSTEM SET wal_level = 'logical', then restart the server.",
        )
    if keep == "-1":
        return (
            "the source keeps its log without limit for a slot that nobody reads (max_slot_wal_keep_size = -1): set one, or a"
            " job that does not run fills its disk"
        )
    return None


def with_logs(connection: Connection, plans: Iterable[TablePlan]) -> dict[str, LoggedTable]:
    """What the log has of these tables, by their names."""
    by_oid = {plan.table.oid: plan for plan in plans}
    with answering():
        rows = connection.execute(_TABLES, [list(by_oid)]).fetchall()
        about = connection.execute(_COLUMNS, [list(by_oid)]).fetchall()
    filled = {(oid, name): was_filled for oid, name, is_generated, was_filled in about if not is_generated}
    found = {}
    for oid, persistence, identities, has_heirs in rows:
        plan = by_oid[oid]
        wanted = {mapped.column for mapped in plan.columns}
        columns = tuple(
            LoggedColumn(Column(each.name, each.type_oid, each.modifier, each.number), filled[oid, each.name])
            for each in plan.table.columns
            if (oid, each.name) in filled and each.name in wanted
        )
        found[plan.table.full_name] = LoggedTable(plan, persistence == "p", has_heirs, frozenset(identities or ()), columns)
    return found


def refuse_unfit_tables(tables: Mapping[str, LoggedTable]) -> None:
    """Raise SourceRefused that names every table which cannot be followed, and what would help."""
    reasons = [f"{name}: {reason}" for name, table in tables.items() if (reason := table.unfit())]
    if reasons:
        raise SourceRefused(
            f"Some tables cannot be followed. {'; '.join(reasons)}.",
            remedy='Do at the source what is said of each table, or leave it out (another job can copy it with `mode = "full"`).',
        )


def ensure_publication(connection: Connection, name: str, tables: Sequence[str], *, is_ours: bool) -> bool:
    """See that the publication has the tables; make or change it when it is ours. Whether it was made just now."""
    with answering():
        found = connection.execute(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = %s",
            [name],
        ).fetchone()
        has = {row[0] for row in connection.execute(_PUBLISHED, [name]).fetchall()}
        filtered = _filtered(connection, name)
        listed = ", ".join(_table(table) for table in tables)
        if found is None:
            if not is_ours:
                raise SourceRefused(f"There is no publication {name!r}.", remedy=f"CREATE PUBLICATION {quoted(name)} FOR TABLE {listed}")
            _as_owner(connection, f"CREATE PUBLICATION {quoted(name)} FOR TABLE {listed} WITH (publish_via_partition_root = true)")
            return True
        if is_ours:
            if has != set(tables):
                _as_owner(connection, f"ALTER PUBLICATION {quoted(name)} SET TABLE {listed}")
            return False
    _refuse_publication(name, all_kinds=found[0], missing=sorted(set(tables) - has), filtered=filtered)
    return False


def _as_owner(connection: Connection, sql: str) -> None:
    try:
        connection.execute(sql.encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise SourceRefused(
            f"The source refuses to publish the tables: {said(error)}.",
            remedy=f"Have their owner type `{sql};`, and name the publication with `publication` in the job.",
        ) from error


_PUBLISHED: Final = "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %s"


def _filtered(connection: Connection, name: str) -> list[str]:
    """Tables of which the publication leaves out rows."""
    if connection.info.server_version < 150_000:
        return []
    return [row[0] for row in connection.execute(f"{_PUBLISHED} AND rowfilter IS NOT NULL", [name]).fetchall()]


def _refuse_publication(name: str, *, all_kinds: bool, missing: list[str], filtered: list[str]) -> None:
    if missing:
        raise SourceRefused(
            f"The publication {name!r} does not have {', '.join(missing)}.",
            remedy=f"ALTER PUBLICATION {quoted(name)} ADD TABLE {', '.join(map(_table, missing))}",
        )
    if not all_kinds:
        raise SourceRefused(
            f"The publication {name!r} leaves out some kinds of change.",
            remedy=f"ALTER PUBLICATION {quoted(name)} SET (publish = 'insert, update, delete, truncate')",
        )
    if filtered:
        raise SourceRefused(
            f"The publication {name!r} leaves out rows of {', '.join(filtered)}.",
            remedy="Take the WHERE out of the publication; a view here can leave out rows.",
        )


def _table(name: str) -> str:
    schema, _, table = name.partition(".")
    return f"{quoted(schema)}.{quoted(table)}"


def find_slot(connection: Connection, name: str) -> Slot | None:
    """The slot of that name."""
    with answering():
        row = connection.execute(_SLOT, [name]).fetchone()
    if row is None:
        return None
    plugin, database, pid, status, confirmed, kept_bytes = row
    return Slot(name, plugin, database or "", pid, status, parse_lsn(confirmed or "0/0"), int(kept_bytes))


def drop_slot(connection: Connection, name: str) -> None:
    """Remove the slot, so that the source keeps nothing for it any more."""
    with answering():
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name])


def log_position(connection: Connection) -> int:
    """Where the source's log ends: whatever is committed now stands before.

    Why not where it is flushed: with synchronous_commit = off that is a moment behind what everybody sees.
    """
    with answering():
        sql = """SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
                        current_setting('wal_block_size')::int"""
        [[position, block_bytes]] = connection.execute(sql).fetchall()
    end = parse_lsn(position)
    # Trap: behind the last record of a block it already counts the head of the next, where no reader gets to until one writes.
    return end - end % block_bytes if end % block_bytes in _BLOCK_HEADS else end


_BLOCK_HEADS: Final = (24, 40)
