"""A small database on disk, and a guest's connection to it as a reader opens it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine.opening import ReaderConfig, open_snapshot

MEMORY_BYTES = 512 * 1024 * 1024


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a table of 100,000 rows, a view, and macros that carry names of DuckDB's own functions."""
    path = tmp_path_factory.mktemp("engine") / "pond.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("""
            CREATE TABLE t AS SELECT range AS i, range % 7 AS g, 'text ' || range AS s, range / 3 AS d,
            TIMESTAMP '2020-01-01' + to_seconds(range) AS ts FROM range(100000)
        """)
        connection.execute("CREATE VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g")
        for name, parameters in (("concat", "a, b"), ("replace", "a, b, c"), ("json_array", "a"), ('"||"', "a, b")):
            connection.execute(f"CREATE MACRO {name}({parameters}) AS 'shadowed'")
    return path


@pytest.fixture
def reader_config(snapshot: Path, tmp_path: Path) -> ReaderConfig:
    return ReaderConfig(str(snapshot), MEMORY_BYTES, 2, str(tmp_path / "temp"), 2**30)


@pytest.fixture
def guest(reader_config: ReaderConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """A reader's connection."""
    connection = open_snapshot(reader_config)
    yield connection
    connection.close()
