"""What a run does with each table: where it goes, how it is copied, which columns it has here, by what a row is named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pondkeeper.errors import JobInvalid, SourceRefused
from pondkeeper.kinds.postgres.connecting import quoted
from pondkeeper.kinds.postgres.describing import SourceColumn, SourceTable, full_name
from pondkeeper.kinds.postgres.types import Mapped, mapped

if TYPE_CHECKING:
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings, TableSettings

FULL, INCREMENTAL, CDC = "full", "incremental", "cdc"
NONE, COMPARE, TOMBSTONE = "none", "compare", "tombstone"
PUBLIC, MAIN = "public", "main"
_TIMES: Final = ("date", "timestamp", "timestamptz")


@dataclass(frozen=True)
class TablePlan:
    """One table of a run. `where` and `tombstone` are conditions of PostgreSQL, empty for none."""

    table: SourceTable
    schema: str
    name: str
    columns: tuple[Mapped, ...]
    mode: str
    cursor: SourceColumn | None
    keys: tuple[str, ...]
    where: str
    deletes: str
    tombstone: str

    @property
    def target(self) -> str:
        """Its name here, as steps take it."""
        return ".".join(f'"{part}"' if "." in part or '"' in part else part for part in (self.schema, self.name))

    @property
    def key_columns(self) -> tuple[Mapped, ...]:
        """The columns that name a row."""
        by_name = {each.column: each for each in self.columns}
        return tuple(by_name[key] for key in self.keys)

    @property
    def live(self) -> tuple[str, ...]:
        """Conditions for the rows that are to be here."""
        return tuple(each for each in (self.where, f"NOT ({self.tombstone})" if self.tombstone else "") if each)

    @property
    def shape(self) -> list[list[str]]:
        """Columns with their types there and here: when it changes, the table has to be copied whole."""
        declared = {column.name: column.declared for column in self.table.columns}
        return [[each.column, declared[each.column], each.type] for each in self.columns]

    @property
    def is_by_time(self) -> bool:
        """Whether the cursor is a moment."""
        return self.cursor is not None and self.cursor.kind.name in _TIMES


def plan(settings: PostgresSettings, tables: Sequence[SourceTable]) -> list[TablePlan]:
    """The plan of each table. Raises SourceRefused for what the source does not have, JobInvalid for types that are none."""
    said = {full_name(each.name): each for each in settings.table}
    names = {table.full_name for table in tables}
    unknown = [name for name in said if name not in names]
    if unknown:
        raise SourceRefused(f"`table` speaks of {', '.join(unknown)}, which the job does not copy.", remedy="Name it in `tables` too.")
    plans = [_plan(settings, table, said.get(table.full_name)) for table in tables]
    _refuse_twins((f"{each.schema}.{each.name}" for each in plans), "Two tables of the source would have one name here", "Give one of them another name by `to`.")
    return plans


def _plan(settings: PostgresSettings, table: SourceTable, own: TableSettings | None) -> TablePlan:
    columns = _columns(settings, table, own)
    mode = (own.mode if own and own.mode else settings.mode) or FULL
    cursor = _cursor(table, _say(own.cursor if own else "", settings.cursor)) if mode == INCREMENTAL else None
    deletes = _say(own.deletes if own else "", settings.deletes)
    tombstone = _tombstone(table, own, settings) if deletes == TOMBSTONE else ""
    keys = tuple(own.keys) if own and own.keys else table.key
    if mode == INCREMENTAL:
        _check_keys(table, keys, columns)
    schema, name = _target(settings, table, own.to if own else "")
    where = own.where if own else ""
    return TablePlan(table, schema, name, columns, mode, cursor, keys, where, deletes, tombstone)


def _cursor(table: SourceTable, name: str) -> SourceColumn:
    if not name:
        raise JobInvalid(f"{table.full_name} is copied incrementally, and no column is named that grows with every change.", remedy="Set `cursor` for the job or for the table.")
    return table.column(name)


def _say(own: str, common: str) -> str:
    return own or common


def _columns(settings: PostgresSettings, table: SourceTable, own: TableSettings | None) -> tuple[Mapped, ...]:
    without = set(own.without) if own else set()
    types = dict(own.types) if own else {}
    for name in (*without, *types):
        table.column(name)
    kept = [column for column in table.columns if column.name not in without]
    if not kept:
        raise SourceRefused(f"{table.full_name} has no columns that could be copied.", remedy="Leave it out by `exclude`.")
    _refuse_twins((column.name for column in kept), f"Two columns of {table.full_name} differ in their case alone", "Leave one of them out by `without`: in DuckDB they are one.")
    return tuple(mapped(column, types.get(column.name, ""), settings.numeric) for column in kept)


def _refuse_twins(names: Iterable[str], what: str, remedy: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            raise SourceRefused(f"{what}: {seen[name.lower()]} and {name}.", remedy=remedy)
        seen[name.lower()] = name


def _check_keys(table: SourceTable, keys: Sequence[str], columns: Sequence[Mapped]) -> None:
    if not keys:
        raise SourceRefused(
            f"{table.full_name} has no primary key, so that nothing names a changed row.",
            remedy='Say which columns do: `[[jobs.NAME.table]]` with `keys`; or copy it whole by `mode = "full"`.',
        )
    for key in keys:
        table.column(key)
    missing = [key for key in keys if key not in {each.column for each in columns}]
    if missing:
        raise SourceRefused(f"`without` leaves out {', '.join(missing)} of {table.full_name}, which names its rows.")


def _tombstone(table: SourceTable, own: TableSettings | None, settings: PostgresSettings) -> str:
    column = table.column(_say(own.tombstone if own else "", settings.tombstone))
    return f"{quoted(column.name)} IS {'TRUE' if column.kind.name == 'bool' else 'NOT NULL'}"


def _target(settings: PostgresSettings, table: SourceTable, to: str) -> tuple[str, str]:
    schema = settings.schema or (MAIN if table.schema == PUBLIC else table.schema)
    if not to:
        return schema, table.name
    before, dot, after = to.partition(".")
    return (before, after) if dot else (schema, to)
