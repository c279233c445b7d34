"""Changes of a table, as a log of them came, to what remains of them: rows to delete, rows to set, as Parquet.

Everything here may be larger than memory. The texts of the log become values at the end, once for each row that remains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pondkeeper.engine.faults import translated
from pondkeeper.engine.render import sql

_NUMBER: Final = "number"
_DONE: Final = "done"
_UNCHANGED: Final = "unchanged"


@dataclass(frozen=True)
class ChangedColumn:
    """A column: its name in the files that are written, and SQL that makes its value of SQL that gives its text."""

    name: str
    value: Callable[[str], str]


@dataclass(frozen=True)
class SetRows:
    """Rows to be set, of which all have the same columns."""

    columns: tuple[str, ...]
    file: Path
    rows: int


@dataclass
class Net:
    """What remains. `deleted` names rows by keys, or, without keys, row for row; it comes before `changed`."""

    deleted: Path | None = None
    deleted_rows: int = 0
    changed: list[SetRows] = field(default_factory=list)


def write_changes(path: Path, columns: int, rows: Sequence[Sequence[Any]]) -> None:
    """Keep rows of the log: a number, what was done, which columns are unchanged, the texts of the columns."""
    by_column = list(zip(*rows, strict=True))
    texts = [pa.array(values, pa.string()) for values in by_column[1:]]
    names = [_NUMBER, _DONE, _UNCHANGED, *map(_text, range(columns))]
    pq.write_table(pa.table([pa.array(by_column[0], pa.int64()), *texts], names=names), path, compression="zstd")


class Netting:
    """Nets one segment after the other, in a DuckDB of its own; `with Netting(folder) as netting:`."""

    def __init__(self, folder: Path, *, memory_bytes: int, threads: int) -> None:
        self._folder = folder
        self._written = 0
        self._connection = duckdb.connect(
            ":memory:", config={"temp_directory": str(folder / "netting"), "memory_limit": f"{memory_bytes}B", "threads": threads}
        )
        self._connection.execute("SET enable_progress_bar = false; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")

    def __enter__(self) -> Netting:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def keyed(
        self, files: Sequence[Path], columns: Sequence[ChangedColumn], keys: Sequence[int], unchanged: Sequence[int]
    ) -> Net:
        """For each key what it is at the end: gone, or set to the last values that were sent for it."""
        with translated():
            self._keep_last(files, columns, keys, sorted(unchanged))
            net = Net()
            names = [columns[at] for at in keys]
            net.deleted, net.deleted_rows = self._written_out(names, keys, "done = 'D'")
            for pattern in self._patterns(unchanged):
                places = [at for at in range(len(columns)) if f",{at}," not in pattern]
                of_pattern = f"done = 'U' AND {_UNCHANGED} = {sql.literal(pattern)}"
                file, rows = self._written_out([columns[at] for at in places], places, of_pattern)
                if file:
                    net.changed.append(SetRows(tuple(columns[at].name for at in places), file, rows))
            return net

    def whole(self, files: Sequence[Path], columns: Sequence[ChangedColumn]) -> Net:
        """For each row how many of it there are more, or fewer."""
        places = range(len(columns))
        texts = ", ".join(map(_text, places))
        with translated():
            self._make(
                f"SELECT {texts}, sum(CASE done WHEN '+' THEN 1 ELSE -1 END) AS more FROM {_read(files)}"
                f" GROUP BY {texts} HAVING more <> 0"
            )
            net = Net()
            net.deleted, net.deleted_rows = self._written_out(columns, places, "more < 0", times="-more")
            file, rows = self._written_out(columns, places, "more > 0", times="more")
            if file:
                net.changed.append(SetRows(tuple(column.name for column in columns), file, rows))
            return net

    def _keep_last(
        self, files: Sequence[Path], columns: Sequence[ChangedColumn], keys: Sequence[int], unchanged: Sequence[int]
    ) -> None:
        """The table `net`: the last change of each key; what it left unchanged is taken from the last that did not."""
        source, key = _read(files), ", ".join(_text(at) for at in keys)
        last = f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {_NUMBER} DESC) = 1"
        if not unchanged:
            self._make(f"SELECT * FROM {source} {last}")
            return
        joins, values = [], {at: f"l.{_text(at)}" for at in range(len(columns))}
        pattern = []
        for at in unchanged:
            # Why no look at deletions in between: whatever comes after one begins with a row that has all its values.
            known = f"SELECT {key}, {_text(at)} FROM {source} WHERE done = 'U' AND NOT contains({_UNCHANGED}, ',{at},') {last}"
            if at in keys:
                continue
            same = " AND ".join(f"f{at}.{_text(each)} = l.{_text(each)}" for each in keys)
            joins.append(f"LEFT JOIN (SELECT *, true AS known FROM ({known})) f{at} ON {same}")
            values[at] = f"f{at}.{_text(at)}"
            pattern.append(f"CASE WHEN f{at}.known IS NULL THEN ',{at},' ELSE '' END")
        texts = ", ".join(f"{value} AS {_text(at)}" for at, value in values.items())
        spelled = f"CASE l.done WHEN 'U' THEN concat({', '.join(pattern)}, '') ELSE '' END"
        self._make(f"SELECT l.done, {spelled} AS {_UNCHANGED}, {texts} FROM (SELECT * FROM {source} {last}) l {' '.join(joins)}")

    def _make(self, query: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE net AS {query}")

    def _patterns(self, unchanged: Sequence[int]) -> list[str]:
        if not unchanged:
            return [""]
        found = self._connection.execute(f"SELECT DISTINCT {_UNCHANGED} FROM net WHERE done = 'U' ORDER BY 1").fetchall()
        return [pattern for (pattern,) in found]

    def _written_out(
        self, columns: Sequence[ChangedColumn], places: Sequence[int], where: str, *, times: str = ""
    ) -> tuple[Path | None, int]:
        """The rows of `net` that `where` is true for, as a file; None where there are none."""
        self._written += 1
        file = self._folder / f"net-{self._written:08d}.parquet"
        values = ", ".join(
            f"{column.value(_text(at))} AS {sql.name(column.name)}" for column, at in zip(columns, places, strict=True)
        )
        source = f"(SELECT * EXCLUDE (more), unnest(range(CAST({times} AS BIGINT))) FROM net WHERE {where})" if times else "net"
        query = f"SELECT {values} FROM {source}" + ("" if times else f" WHERE {where}")
        [[rows]] = self._connection.execute(f"COPY ({query}) TO {sql.literal(str(file))} (FORMAT parquet)").fetchall()
        if rows:
            return file, int(rows)
        file.unlink()
        return None, 0


def _text(at: int) -> str:
    return f"c{at}"


def _read(files: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(sql.literal(str(file)) for file in files)}])"
