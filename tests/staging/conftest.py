"""A table, a stager's engine and a writer's, in one process: staging and loading as the keeper has them done."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pondkeeper.engine.holding import HeldLock
from pondkeeper.engine.intake.loading import Load
from pondkeeper.engine.intake.matching import Wish
from pondkeeper.engine.intake.shape import TableShape, table_shape
from pondkeeper.engine.intake.sources.rows import ANY_COUNT
from pondkeeper.engine.intake.staging import Job, Staged, stage
from pondkeeper.engine.opening import NEW_FILE_STORAGE_VERSION, Connection, ReaderConfig, open_scratch
from pondkeeper.engine.writing import Judge, Transaction
from pondkeeper.errors import RowsBroken

LIMIT_BYTES = 256 * 1024 * 1024


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    """The table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def as_arrow(table: pa.Table, **options: Any) -> bytes:
    """The table as an Arrow stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue()


@dataclass
class Ground:
    """Where bodies are staged and loaded."""

    database: duckdb.DuckDBPyConnection
    scratch: Connection
    folder: Path

    @property
    def rejects(self) -> Path:
        return self.folder / "rejects"

    def run(self, sql: str) -> list[Any]:
        """The rows that a statement answers."""
        return self.database.execute(sql).fetchall()

    def shape(self, table: str, schema: str = "main") -> TableShape | None:
        cursor = self.database.cursor()
        try:
            return table_shape(cursor, schema, table)
        finally:
            cursor.close()

    def stage(self, body: bytes | str, form: str, table: str = "t", **wanted: Any) -> Staged:
        """Stage a body for the table as it is now."""
        path = self.folder / "body"
        path.write_bytes(body.encode() if isinstance(body, str) else body)
        schema = wanted.get("schema", "main")
        wish = Wish(
            schema,
            table,
            wanted.get("shape", self.shape(table, schema)),
            wanted.get("mode", "append"),
            wanted.get("keys", ()),
            wanted.get("create", False),
            wanted.get("evolve", False),
        )
        job = Job(
            str(path),
            form,
            wanted.get("delimiter", ","),
            wanted.get("has_header", True),
            wish,
            str(self.folder),
            str(self.rejects) if wanted.get("reject") else None,
            wanted.get("limit_bytes", LIMIT_BYTES),
            threads=2,
            max_rows=wanted.get("max_rows", ANY_COUNT),
            broken=wanted.get("broken", ()),
        )
        cursor = self.scratch.cursor()
        try:
            return stage(cursor, job)
        finally:
            cursor.close()

    def load(self, staged: Staged, table: str = "t", **wanted: Any) -> int:
        """Load what was staged, in a transaction of its own."""
        schema = wanted.get("schema", "main")
        shape = wanted.get("shape", self.shape(table, schema))
        wish = Load(
            shape.schema if shape else schema,
            shape.table if shape else table,
            shape,
            wanted.get("mode", "append"),
            staged.path,
            staged.format,
            staged.columns,
            staged.new,
            staged.keys,
            staged.rows,
            wanted.get("found"),
        )
        cursor = self.database.cursor()
        transaction = Transaction(cursor, Judge(cursor), HeldLock(str(self.folder / "d.duckdb")))
        transaction.begin()
        try:
            rows = transaction.load(wish)
            transaction.commit(lambda: None)
        except BaseException:
            transaction.roll_back()
            raise
        finally:
            cursor.close()
        return rows

    def ingest(self, body: bytes | str, form: str, table: str = "t", **wanted: Any) -> Staged:
        """Stage and load."""
        if wanted.get("reject"):
            return self._without_broken(body, form, table, wanted)
        staged = self.stage(body, form, table, **wanted)
        self.load(staged, table, **wanted)
        return staged

    def _without_broken(self, body: bytes | str, form: str, table: str, wanted: dict[str, Any]) -> Staged:
        """Again without the rows that break a constraint, as the keeper does, until the others fit."""
        broken: tuple[str, ...] = ()
        while True:
            staged = self.stage(body, form, table, **wanted, broken=broken)
            found = str(self.folder / f"broken-{len(broken)}")
            try:
                self.load(staged, table, **wanted, found=found)
            except RowsBroken:
                broken += (found,)
            else:
                return staged


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """A database with `t (a INTEGER PRIMARY KEY, b VARCHAR)`, and a scratch database for staging."""
    scratch = open_scratch(ReaderConfig(":memory:", 512 * 1024 * 1024, 2, str(tmp_path / "temp"), LIMIT_BYTES))
    database = duckdb.connect(str(tmp_path / "d.duckdb"), config={"storage_compatibility_version": NEW_FILE_STORAGE_VERSION})
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    database.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b VARCHAR)")
    yield Ground(database, scratch, tmp_path)
    database.close()
    scratch.close()
