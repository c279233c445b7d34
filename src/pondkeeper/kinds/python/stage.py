"""Rows of a job in Python on their way into tables: staged as Parquet, loaded in one transaction."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any

from pondkeeper.errors import InvalidRequest
from pondkeeper.kinds import steps

if TYPE_CHECKING:
    from pondkeeper.kinds.warehouse import Loaded, Warehouse


class SeenState:
    """The state that the job goes on from: the one that it has read, or has committed since."""

    def __init__(self) -> None:
        self.expected: Mapping[str, Any] | EllipsisType | None = ...
        """As `Warehouse.load` takes it; `...`: the job has not asked, and whatever it is will do."""

    def note(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """The job has seen this."""
        self.expected = state
        return state


class Stage:
    """One load in the making. What is added lies in files, and the database knows nothing of it before `load`.

    Rows are dicts, anything that speaks Arrow (a pyarrow table or reader, a DuckDB relation, a Polars or pandas frame), or the
    path of a Parquet file. Tables are made where they are missing, with their schema. `drift`: what is done when the columns are not the
    table's: `allow` changes the table, `freeze` and `ask` refuse.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        folder: Path,
        name: str,
        *,
        identity: str,
        note: Callable[[str, int, int], None],
        seen: SeenState,
    ) -> None:
        self.loaded: Loaded | None = None
        """What became of it, once it is loaded: `version`, `rows` by table, `held_s`, `waited_s`, `changes`."""
        self._warehouse = warehouse
        self._folder = folder
        self._name = name
        self._identity = identity
        self._note = note
        self._seen = seen
        self._steps: list[steps.Step] = []
        self._state: Mapping[str, Any] | None = None
        self._size_bytes: dict[str, int] = {}
        self._files = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Load, unless the block failed: then nothing of it is in the database."""
        if error is None and self.loaded is None and (self._steps or self._state is not None):
            self.load()

    def append(self, table: str, rows: Any, **options: Any) -> None:
        """Add the rows. `options`: create, drift, types."""
        if files := self._staged(table, rows):
            self._steps.append(steps.Append(table, files, **options))

    def upsert(self, table: str, rows: Any, *, keys: Sequence[str], **options: Any) -> None:
        """Change rows whose keys are in the table, and add the others. `options`: create, drift, types."""
        if files := self._staged(table, rows):
            self._steps.append(steps.Upsert(table, files, keys, **options))

    def update(self, table: str, rows: Any, *, keys: Sequence[str], **options: Any) -> None:
        """Change rows whose keys are in the table, in the columns that are given. `options`: create, drift, types."""
        if files := self._staged(table, rows):
            self._steps.append(steps.Update(table, files, keys, **options))

    def delete(self, table: str, rows: Any, *, keys: Sequence[str]) -> None:
        """Remove rows whose keys are among these."""
        if files := self._staged(table, rows):
            self._steps.append(steps.Delete(table, files, keys))

    def replace(self, table: str, rows: Any, **options: Any) -> None:
        """Let the rows become the whole table; readers see the old one or the new one. `options`: create, drift, types."""
        files = self._staged(table, rows)
        if not files:
            raise InvalidRequest(
                f"There are no rows to replace {table} by, and so no columns.",
                remedy="Give an Arrow table, which has columns without rows; or empty the table: `stage.truncate(…)`.",
            )
        self._steps.append(steps.Replace(table, files, **options))

    def truncate(self, table: str) -> None:
        """Remove all rows; where there is no such table there is nothing to do."""
        self._steps.append(steps.Truncate(table))

    def run(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> None:
        """One writing statement, in its place among the others."""
        self._steps.append(steps.Run(sql, parameters))

    def state(self, state: Mapping[str, Any]) -> None:
        """What `ctx.state()` gives after this load, and only if it is committed: how far a sync has come, say."""
        self._state = dict(state)

    def load(self, *, identity: str | None = None) -> Loaded:
        """Do all of it in one transaction; committed when this returns. With an `identity` of yours it is applied once, for
        ever, whichever run says it again. Raises PondkeeperError: then nothing was applied.
        """
        if self.loaded is not None:
            raise InvalidRequest("This stage is loaded already.", remedy="Begin another one: `ctx.stage()`.")
        expected = self._seen.expected if self._state is not None else ...
        self.loaded = self._warehouse.load(
            self._steps, identity=identity or self._identity, state=self._state, expected=expected
        )
        if self._state is not None:
            self._seen.note(dict(self._state))
        for table, rows in self.loaded.rows.items():
            self._note(table, rows, self._size_bytes.get(table, 0))
        return self.loaded

    def _staged(self, table: str, rows: Any) -> list[Path]:
        """The rows as files in the staging folder; none when there are none, and no columns either."""
        from pondkeeper.engine.staged import write_parquet

        if self.loaded is not None:
            raise InvalidRequest("This stage is loaded already.", remedy="Begin another one: `ctx.stage()`.")
        self._files += 1
        path = self._folder / f"{self._name}-{self._files}.parquet"
        if isinstance(rows, (str, os.PathLike)):
            given = Path(rows)
            if given.absolute().parent == self._folder.absolute():
                path = given
            else:
                shutil.copyfile(given, path)
        elif not write_parquet(str(path), rows):
            return []
        self._size_bytes[table] = self._size_bytes.get(table, 0) + path.stat().st_size
        return [path]
