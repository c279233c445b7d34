"""A batch of changes as the steps of one load."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pondkeeper.engine.changes import ChangedColumn, Net, Netting, write_changes
from pondkeeper.engine.render import sql
from pondkeeper.kinds.postgres.cdc.gathering import Batch, Moved, Row, Segment, Shape
from pondkeeper.kinds.postgres.cdc.messages import Unchanged
from pondkeeper.kinds.postgres.types import Mapped, load_types
from pondkeeper.kinds.steps import Append, Delete, Drift, Run, Step, Truncate, Update, Upsert

NETTING_MEMORY_BYTES: Final = 512 * 1024 * 1024
BEFORE_VALUES: Final = 3  # what stands in a row of the log before its values


@dataclass(frozen=True)
class Target:
    """Where the changes of a table go, and how each of its columns is carried."""

    to: str
    columns: Mapping[str, Mapped]
    drift: Drift

    def changed(self, names: Sequence[str]) -> list[ChangedColumn]:
        """The columns, as netting takes them."""
        return [ChangedColumn(name, self.columns[name].of_text) for name in names]

    def prepared(self, names: Sequence[str], rows: Sequence[Row]) -> Sequence[Row]:
        """Rows of the log with the texts that `of_text` takes."""
        lists = [(BEFORE_VALUES + at, self.columns[name]) for at, name in enumerate(names) if self.columns[name].is_list]
        if not lists:
            return rows
        found = []
        for row in rows:
            values = list(row)
            for at, column in lists:
                if values[at] is not None:
                    values[at] = column.prepare(str(values[at]))
            found.append(tuple(values))
        return found

    def types(self, names: Sequence[str]) -> dict[str, str]:
        """What a step says of those of the columns whose type Parquet cannot say."""
        return load_types([self.columns[name] for name in names])


class Applier:
    """Turns batches into steps; files come and go in `folder`. One thread's own but for `spill`."""

    def __init__(self, folder: Path, netting: Netting, target_of: Callable[[str], Target]) -> None:
        self._folder = folder
        self._netting = netting
        self._target_of = target_of
        self._numbers = itertools.count(1)

    def spill(self, shape: Shape, rows: Sequence[Row]) -> Path:
        """Rows of the log as a file, until their batch is taken."""
        path = self._folder / f"log-{next(self._numbers):08d}.parquet"
        write_changes(path, len(shape.columns), self._target_of(shape.table).prepared(shape.columns, rows))
        return path

    def steps(self, batch: Batch) -> list[Step]:
        """What the load does. Tables one after the other: all of it is one transaction."""
        return [
            step
            for table, segments in batch.segments.items()
            for segment in segments
            for step in self._of_segment(segment, self._target_of(table))
        ]

    def _of_segment(self, segment: Segment, target: Target) -> Iterator[Step]:
        if segment.truncates:
            yield Truncate(target.to)
        files = list(segment.files)
        if segment.rows:
            files.append(self.spill(segment.shape, segment.rows))
        if files:
            yield from self._of_net(self._netted(segment, files, target), segment.shape, target)
        for file in files:
            file.unlink()
        if segment.moved is not None:
            yield _moving(segment.moved, segment.shape, target)

    def _netted(self, segment: Segment, files: list[Path], target: Target) -> Net:
        columns = target.changed(segment.shape.columns)
        if not segment.shape.keys:
            return self._netting.whole(files, columns)
        return self._netting.keyed(files, columns, segment.shape.keys, sorted(segment.unchanged))

    def _of_net(self, net: Net, shape: Shape, target: Target) -> Iterator[Step]:
        # Why `create=False`: a table that somebody has dropped here would come back with the rows that changed since.
        keys, whole = [shape.columns[at] for at in shape.keys], shape.columns
        if net.deleted:
            # Trap: a file may hold the text of a type that Parquet lacks; the load reads it as the table's own type.
            yield Delete(target.to, [net.deleted], keys or whole, one_each=not keys)
        for each in net.changed:
            types = target.types(each.columns)
            if not keys:
                yield Append(target.to, [each.file], types=types, create=False, drift=target.drift)
            elif len(each.columns) == len(whole):
                yield Upsert(target.to, [each.file], keys, types=types, create=False, drift=target.drift)
            else:  # the rest of these rows is what it was
                yield Update(target.to, [each.file], keys, types=types, create=False, drift=target.drift)


def sizes_of(steps: Sequence[Step]) -> Counter[str]:
    """How many bytes were staged for each table."""
    found: Counter[str] = Counter()
    for step in steps:
        found[step.table] += sum(Path(path).stat().st_size for path in step.paths)
    return found


def remove_files(steps: Sequence[Step]) -> None:
    """Remove what was staged for these steps; they are committed."""
    for step in steps:
        for path in step.paths:
            Path(path).unlink(missing_ok=True)


def _moving(moved: Moved, shape: Shape, target: Target) -> Run:
    """A row gets another key, and keeps what was not sent."""
    parameters: dict[str, Any] = {}

    def value(name: str, text: str | None) -> str:
        column, place = target.columns[name], f"v{len(parameters)}"
        parameters[place] = column.prepare(text) if text is not None else None
        return f"CAST({column.of_text(f'CAST(${place} AS VARCHAR)')} AS {column.type})"

    sent = [(name, new) for name, new in zip(shape.columns, moved.new, strict=True) if not isinstance(new, Unchanged)]
    assignments = ", ".join(f"{sql.name(name)} = {value(name, new)}" for name, new in sent)
    keys = zip((shape.columns[at] for at in shape.keys), moved.old_key, strict=True)
    same = " AND ".join(f"{sql.name(name)} = {value(name, old)}" for name, old in keys)
    return Run(f"UPDATE {_reference(target.to)} SET {assignments} WHERE {same}", parameters, table=target.to)


def _reference(table: str) -> str:
    schema, _, name = table.rpartition(".")
    return f"{sql.name(schema)}.{sql.name(name)}" if schema else sql.name(name)
