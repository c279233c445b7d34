"""Settings of jobs of the kind `postgres`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from pondkeeper.jobs.kinds_settings.leaves import mapping_setting, tables_setting
from pondkeeper.settings.tree import DAY_S, GIB, TIB, setting

MODES: Final = ("full", "incremental", "cdc")
DELETES: Final = ("none", "compare", "tombstone")
DRIFTS: Final = ("allow", "freeze", "ask")
_PASSWORD: Final = re.compile(r"\A[a-z]+://[^/@]*:[^/@]+@|\bpassword\s*=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TableSettings:
    """What holds for one table of the source; what is not said here is as the job says it."""

    required: ClassVar[tuple[str, ...]] = ("name",)

    name: str = setting("", "The table at the source, as `schema.table`; without a schema it is one of `public`.")
    to: str = setting("", "Its name here, as `table` or `schema.table`; empty is that of the source.")
    mode: str = setting("", "How this table is copied; empty is as the job says.", choices=("", "full", "incremental"))
    cursor: str = setting("", "Column that grows with every change of a row; empty is the job's.")
    keys: tuple[str, ...] = setting((), "Columns that name a row; empty is the primary key at the source.")
    without: tuple[str, ...] = setting((), "Columns that stay away.")
    where: str = setting("", "Only the rows of the source for which this SQL condition of PostgreSQL holds.", unit="sql")
    deletes: str = setting("", "How deleted rows are found; empty is as the job says.", choices=("", *DELETES))
    tombstone: str = setting("", "Column that marks a deleted row; empty is the job's.")
    types: Mapping[str, str] = mapping_setting('Types here of columns, other than the ones they would get: `{ total = "DOUBLE" }`.')


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Tables of a PostgreSQL server."""

    required: ClassVar[tuple[str, ...]] = ("source", "tables")

    source: str = setting(
        "", "The server and database: `postgresql://user@host/database`, or `host=… dbname=…` as libpq takes it. Without a password."
    )
    password: str = setting(
        "", 'The password, as "env:NAME" or "file:/path"; empty where the server asks for none, or ~/.pgpass has it.', unit="secret"
    )
    mode: str = setting(
        "full",
        "`full`: every row each time, the tables here swapped in one transaction. `incremental`: the rows changed since the "
        "last run, by `cursor`. `cdc`: every change, by logical replication.",
        choices=MODES,
    )
    tables: tuple[str, ...] = setting((), "The tables, as `schema.table` or patterns (`public.*`); without a schema it is `public`.")
    exclude: tuple[str, ...] = setting((), "Tables or patterns that `tables` names and that stay away.")
    table: tuple[TableSettings, ...] = tables_setting("What holds for single tables: `[[jobs.NAME.table]]`, with `name` and what differs.")
    schema: str = setting("", "Schema here for all tables; empty is that of the source, with `main` for its `public`.")
    cursor: str = setting("", "Incremental: column that grows with every change of a row, such as `updated_at`.")
    overlap_s: float = setting(
        300.0,
        "Incremental, a cursor of time: how far before the last value is read again, for changes that were committed late.",
        unit="s",
        minimum=0,
        maximum=30 * DAY_S,
    )
    overlap: int = setting(
        10_000, "Incremental, a cursor of numbers: how far before the last value is read again.", minimum=0, maximum=10**15
    )
    deletes: str = setting(
        "none",
        "Incremental: how rows deleted at the source are found. `compare` reads all keys each time; `tombstone`: by a column "
        "that marks them; `none`: they stay.",
        choices=DELETES,
    )
    tombstone: str = setting("", "Column that marks a deleted row: a flag that is true, or anything else that is not NULL.")
    allow_empty: bool = setting(False, "Whether a table here that has rows may become empty because the source has none.")
    drift: str = setting(
        "allow",
        "What happens when columns at the source change: `allow` changes the table here, `freeze` fails the run, `ask` fails "
        "it until `pondkeeper job accept NAME`.",
        choices=DRIFTS,
    )
    numeric: str = setting(
        "VARCHAR",
        "Type here of `numeric` columns without a precision (or of more than 38 digits): VARCHAR keeps every digit; DOUBLE "
        "or a DECIMAL to reckon with. A value that a DECIMAL cannot hold fails the run.",
    )
    sessions: int = setting(0, "Connections to the source at once.", minimum=0, maximum=32, automatic="as many as there are processors, at most 4")
    statement_timeout_s: float = setting(0.0, "How long one statement at the source may take; 0 is as long as it needs.", unit="s", minimum=0, maximum=DAY_S)
    wait_for_source_s: float = setting(
        60.0, "How long a run waits for a source that is away or restarts, before it fails.", unit="s", minimum=0, maximum=DAY_S
    )
    publication: str = setting(
        "", "cdc: a publication that is there and has the tables; empty makes one, which needs an owner of the tables."
    )
    slot: str = setting("", "cdc: name of the replication slot, made where it is missing; empty is one of the job's own.")
    flush_every_s: float = setting(
        1.0, "cdc: how long changes are gathered before they are loaded together.", unit="s", minimum=0.05, maximum=3600
    )
    max_slot_lag_bytes: int = setting(
        16 * GIB,
        "cdc: how much of its log the source may have to keep for this job. Beyond it, and not getting less, the slot is "
        "given up so that the source's disk does not fill, and the tables are copied again. 0 is no bound.",
        unit="bytes",
        minimum=0,
        maximum=1024 * TIB,
    )
    when_slot_lost: str = setting(
        "copy",
        "cdc: what happens when changes are missing (slot gone, another server, a database that was restored): `copy` the "
        "tables again and go on, or `fail`.",
        choices=("copy", "fail"),
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with settings that depend on each other: the key, and what about it."""
        if _PASSWORD.search(self.source):
            yield "source", 'A password does not belong here; set `password = "env:NAME"` or "file:/path"'
        if self.mode == "incremental" and not self.cursor and not all(self._cursor_of(name) for name in self.tables):
            yield "mode", "`incremental` needs `cursor`, the column that grows with every change"
        if self.deletes == "tombstone" and not self.tombstone:
            yield "deletes", "`tombstone` needs `tombstone`, the column that marks a deleted row"
        if self.mode == "cdc":
            yield from self._not_for_cdc()
        for each in self.table:
            if (each.deletes or self.deletes) == "tombstone" and not (each.tombstone or self.tombstone):
                yield "table", f'`{each.name}`: `deletes = "tombstone"` needs `tombstone`, the column that marks a deleted row'
            if each.mode == "incremental" and not (each.cursor or self.cursor):
                yield "table", f'`{each.name}`: `mode = "incremental"` needs `cursor`'

    def _not_for_cdc(self) -> Iterator[tuple[str, str]]:
        for each in self.table:
            for key in ("mode", "cursor", "keys", "where", "deletes", "tombstone"):
                if getattr(each, key):
                    yield "table", f'`{each.name}`: `{key}` has no meaning with `mode = "cdc"`'

    def _cursor_of(self, name: str) -> bool:
        return any(_full(each.name) == _full(name) and (each.cursor or each.mode == "full") for each in self.table)


def _full(name: str) -> str:
    return name if "." in name else f"public.{name}"
