"""What is to be downloaded: the rows of the job's query, staged at once, so that no snapshot is held while files come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.errors import JobInvalid

if TYPE_CHECKING:
    from pondkeeper.engine.plain import Connection

MARKS: Final[Mapping[str, str]] = {
    "size_bytes": "BIGINT",
    "sha256": "VARCHAR",
    "etag": "VARCHAR",
    "changed": "BOOLEAN",
    "downloaded_at": "TIMESTAMPTZ",
}
"""Columns of the relation `downloaded`, beside the query's."""

FAILURES: Final[Mapping[str, str]] = {
    "error": "VARCHAR",
    "http_status": "INTEGER",
    "attempts": "INTEGER",
    "failed_at": "TIMESTAMPTZ",
}
"""Columns of the relation `failed`, beside the query's."""

# The last part of a URL's path.
_FILE_OF_URL: Final = r"url_decode(regexp_extract({url}, '^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*/(?:[^?#]*/)?([^/?#]+)', 1))"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: where from, where to, what it should be, and the rows of the query that asked for it, as text."""

    url: str
    file: str
    checksum: str | None
    rows: Sequence[Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Staged:
    """The staged rows: how many files, and the query's columns with their types."""

    path: Path
    count: int
    columns: Mapping[str, str]

    def __iter__(self) -> Iterator[Wanted]:
        from pondkeeper.engine.staged import rows_of_parquet

        for url, file, checksum, rows in rows_of_parquet(str(self.path)):
            yield Wanted(url, file, checksum, rows)


def stage(connection: Connection, query: str, staging: Path, *, reserved: Sequence[str]) -> Staged:
    """Write what the query names into the staging folder. `reserved`: names that its columns must not have."""
    inner = f"({query.strip().rstrip(';')}\n)"  # Why the line break: the query may end with a comment
    described = connection.execute(f"DESCRIBE SELECT * FROM {inner}").fetchall()
    columns = {str(name): str(kind) for name, kind, *_ in described}
    _refuse_columns(columns, reserved)
    path = staging / "wanted.parquet"
    connection.execute(f"COPY ({_grouped(inner, columns)}) TO '{_text(str(path))}' (FORMAT parquet)")
    staged = f"read_parquet('{_text(str(path))}')"
    _refuse_conflicts(connection.execute(
        f"SELECT file, count(*) FROM {staged} WHERE file IS NOT NULL AND file <> '' GROUP BY file HAVING count(*) > 1 ORDER BY file LIMIT 3"
    ).fetchall())
    found: Any = connection.execute(f"SELECT count(*) FROM {staged}").fetchone()
    return Staged(path, int(found[0]), columns)


def _grouped(inner: str, columns: Mapping[str, str]) -> str:
    """One row for each file, in the order of the query, with all rows that ask for it."""
    by_name = {name.lower(): _quoted(name) for name in columns}
    url = f"CAST({by_name['url']} AS VARCHAR)"
    file = f"CAST({by_name['file']} AS VARCHAR)" if "file" in by_name else _FILE_OF_URL.format(url=url)
    checksum = f"CAST({by_name['checksum']} AS VARCHAR)" if "checksum" in by_name else "CAST(NULL AS VARCHAR)"
    values = ", ".join(f"CAST({_quoted(name)} AS VARCHAR)" for name in columns)
    return (
        f"SELECT {url} AS url, {file} AS file, {checksum} AS checksum, list([{values}]) AS rows "
        f"FROM (SELECT *, row_number() OVER () AS pondkeeper_place FROM {inner}) "
        f"GROUP BY 1, 2, 3 ORDER BY min(pondkeeper_place)"
    )


def _refuse_columns(columns: Mapping[str, str], reserved: Sequence[str]) -> None:
    names = {name.lower() for name in columns}
    if "url" not in names:
        raise JobInvalid("The query of the job has no column `url`.", remedy="Name it: `SELECT address AS url, …`.")
    if taken := sorted(names & set(reserved)):
        raise JobInvalid(
            f"The query of the job has a column `{taken[0]}`, which is a name that the job itself gives.",
            remedy="Give it another name: `SELECT … AS …`.",
        )


def _refuse_conflicts(found: Sequence[tuple[Any, ...]]) -> None:
    if found:
        file, count = found[0]
        raise JobInvalid(
            f"The query of the job wants the file {str(file)[:200]!r} from {count} URLs, or with several checksums.",
            remedy="Give each URL a file of its own by a column `file`.",
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return value.replace("'", "''")
