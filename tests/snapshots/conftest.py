"""A database's paths and copiers that are gone at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.files.paths import DatabasePaths, Home
from tests.snapshots.operators import CopierProcess, open_database


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    return Home(tmp_path / "pond" / ".pondkeeper").database(tmp_path / "pond" / "warehouse.duckdb")


@pytest.fixture
def start_copier(paths: DatabasePaths) -> Iterator[Callable[..., CopierProcess]]:
    started: list[CopierProcess] = []

    def start(**options: object) -> CopierProcess:
        started.append(CopierProcess(paths, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for copier in started:
        if copier.process.poll() is None:
            copier.kill()


@pytest.fixture
def copier(start_copier: Callable[..., CopierProcess]) -> CopierProcess:
    return start_copier()


@pytest.fixture
def writer(paths: DatabasePaths) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = open_database(paths)
    yield connection
    connection.close()
