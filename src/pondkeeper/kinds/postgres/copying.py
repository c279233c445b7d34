"""One copy of all tables of a job: from one snapshot of the source, into one load."""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pondkeeper.errors import DatabaseUnavailable, EmptySource, SnapshotNotFound
from pondkeeper.files.durable import make_folder
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.postgres import incremental
from pondkeeper.kinds.postgres.connecting import Connection, answering, connect
from pondkeeper.kinds.postgres.describing import describe
from pondkeeper.kinds.postgres.extracting import Extraction, Piece, pieces
from pondkeeper.kinds.postgres.incremental import Mark
from pondkeeper.kinds.postgres.planning import COMPARE, INCREMENTAL, TOMBSTONE, TablePlan, plan
from pondkeeper.kinds.postgres.types import Mapped, load_types
from pondkeeper.kinds.steps import Delete, KeepOnly, Replace, Step, Upsert

if TYPE_CHECKING:
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
    from pondkeeper.kinds.context import RunContext
    from pondkeeper.kinds.warehouse import Warehouse

ROWS, GONE, KEYS = "rows", "gone", "keys"


@dataclass
class Copied:
    """What was staged of one table. `since`: only rows that this condition names. `files` and `counts` by what they are."""

    plan: TablePlan
    since: str = ""
    late_s: float = 0.0
    value: str | None = None
    files: dict[str, list[Path]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, piece: Piece, rows: int) -> None:
        """A piece has come."""
        self.files.setdefault(what, []).extend(piece.files)
        self.counts[what] = self.counts.get(what, 0) + rows

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for files in self.files.values() for file in files)

    def steps(self, drift: Any) -> list[Step]:
        """What a load does with them."""
        types = load_types(list(self.plan.columns))
        files = sorted(self.files.get(ROWS, []))
        if not self.since:
            return [Replace(self.plan.target, files, types=types, drift=drift)]
        found: list[Step] = []
        if self.counts.get(ROWS):
            found.append(Upsert(self.plan.target, files, self.plan.keys, types=types, drift=drift))
        if self.counts.get(GONE):
            found.append(Delete(self.plan.target, sorted(self.files[GONE]), self.plan.keys))
        if KEYS in self.files:
            found.append(KeepOnly(self.plan.target, sorted(self.files[KEYS]), self.plan.keys))
        return found

    def mark(self) -> Mark | None:
        """How far this table was copied; None of a table that is always copied whole."""
        if self.plan.mode != INCREMENTAL:
            return None
        return Mark(self.value, self.late_s, self.plan.shape, incremental.rules_of(self.plan))


class Copy:
    """Copies tables of one source; made anew for each try, because a snapshot ends with its connection."""

    def __init__(self, context: RunContext, settings: PostgresSettings, address: str, marks: Mapping[str, Mark]) -> None:
        self._context = context
        self._settings = settings
        self._address = address
        self._marks = marks

    def run(self) -> list[Copied]:
        """Stage all tables. Raises SourceUnavailable when it is worth another try, SourceRefused, RunCancelled."""
        folder = _emptied(self._context.staging / "tables")
        self._context.phase(Phase.EXTRACTING, "asking the source for its tables")
        with contextlib.closing(connect(self._address, self._settings)) as connection:
            began, open_s = time.monotonic(), incremental.open_for_s(connection)
            with _snapshot(connection) as snapshot:
                late_s = open_s + time.monotonic() - began + 1.0
                plans = plan(self._settings, describe(connection, self._settings.tables, self._settings.exclude))
                copied = [self._begun(connection, each, late_s) for each in plans]
                wanted = [(one, what, piece) for one in copied for what, piece in self._pieces(one, folder, connection)]
                self._extract(snapshot, connection, wanted)
        for one in copied:
            self._context.table(one.plan.target, one.counts.get(ROWS, 0), one.size_bytes)
        return copied

    def _begun(self, connection: Connection, each: TablePlan, late_s: float) -> Copied:
        """Whether the table is gone on with or copied whole, and how far this snapshot goes."""
        if each.mode != INCREMENTAL:
            return Copied(each)
        mark = self._marks.get(each.table.full_name)
        since = incremental.changed_since(mark, each, self._settings) if mark and incremental.goes_on(mark, each) else ""
        value = incremental.newest(connection, each, since)
        if value is None and mark is not None and since:
            value = mark.value
        return Copied(each, since, late_s, value)

    def _pieces(self, one: Copied, folder: Path, connection: Connection) -> Iterator[tuple[str, Piece]]:
        each, version = one.plan, connection.info.server_version
        label = f"{each.table.oid}"
        since = (one.since,) if one.since else ()

        def cut(what: str, columns: Sequence[Mapped], where: Sequence[str], *, whole: bool) -> Iterator[tuple[str, Piece]]:
            for piece in pieces(each.table, columns, where, folder, f"{label}-{what}", server_version=version, whole=whole):
                yield what, piece

        yield from cut(ROWS, each.columns, (*each.live, *since), whole=bool(since))
        if since and each.deletes == TOMBSTONE:
            where = (each.where,) if each.where else ()
            yield from cut(GONE, each.key_columns, (*where, each.tombstone, *since), whole=True)
        if since and each.deletes == COMPARE:
            yield from cut(KEYS, each.key_columns, each.live, whole=False)

    def _extract(self, snapshot: str, connection: Connection, wanted: Sequence[tuple[Copied, str, Piece]]) -> None:
        owner = {id(piece): (one, what) for one, what, piece in wanted}
        is_known = all(not one.since for one, _, _ in wanted)
        total = sum(one.plan.table.rows for one in {id(one): one for one, _, _ in wanted}.values()) if is_known else None
        self._context.phase(Phase.EXTRACTING, f"copying {len({id(one) for one, _, _ in wanted})} tables")

        def done(piece: Piece, rows: int) -> None:
            one, what = owner[id(piece)]
            one.note(what, piece, rows)
            if what == ROWS:
                self._context.table(one.plan.target, one.counts[ROWS])

        # Why meanwhile: it is needed when all is copied, and its imports would come between the two.
        threading.Thread(target=importlib.import_module, args=("pondkeeper.kinds.warehouse",), daemon=True).start()
        Extraction(self._context, self._settings, self._address, snapshot).copy(
            [piece for _, _, piece in wanted], connection, done, total
        )


@contextlib.contextmanager
def _snapshot(connection: Connection) -> Iterator[str]:
    """A snapshot of the source that other sessions can take too, as long as the block lasts."""
    with answering():
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        [[name]] = connection.execute("SELECT pg_export_snapshot()").fetchall()
    try:
        yield str(name)
    finally:
        # Why: whatever ends the transaction, nothing was written in it.
        with contextlib.suppress(Exception):
            connection.execute("ROLLBACK")


def _emptied(folder: Path) -> Path:
    """The folder without what an earlier try has left."""
    for file in folder.glob("*.arrow"):
        file.unlink()
    make_folder(folder, durable=False)
    return folder


def refuse_empty(copied: Sequence[Copied], warehouse: Warehouse, *, allow_empty: bool) -> None:
    """Raise EmptySource when a table here that has rows would have none."""
    if allow_empty:
        return
    empty = [one for one in copied if _leaves_nothing(one)]
    filled = [one.plan for one in empty if count_rows(warehouse, one.plan)]
    if filled:
        names = ", ".join(each.table.full_name for each in filled)
        raise EmptySource(f"The source has no rows in {names}, and here there are some; nothing was changed.")


def _leaves_nothing(one: Copied) -> bool:
    if not one.since:
        return not one.counts.get(ROWS)
    return KEYS in one.files and not one.counts.get(KEYS)


def count_rows(warehouse: Warehouse, each: TablePlan) -> int | None:
    """Rows of the table here, by the newest snapshot; None where there is no such table yet."""
    try:
        there = warehouse.query(
            "SELECT count(*) FROM information_schema.tables WHERE lower(table_schema) = lower(?) AND lower(table_name) = lower(?)",
            [each.schema, each.name],
        )
        if not there[0][0]:
            return None
        name = ".".join('"' + part.replace('"', '""') + '"' for part in (each.schema, each.name))
        return int(warehouse.query(f"SELECT count(*) FROM {name}")[0][0])
    except (SnapshotNotFound, DatabaseUnavailable):
        return None
