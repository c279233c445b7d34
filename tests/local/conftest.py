"""A database that nobody keeps, and one with a keeper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.support.keeper import KeeperProcess


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A database file with a table `t`; no keeper was ever here."""
    file = tmp_path / "alone.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE t (n BIGINT)")
    return file


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper on a database with an empty table `t`."""
    with KeeperProcess(tmp_path_factory.mktemp("pond") / "pond.duckdb", "--readers", "2") as keeper:
        version = keeper.client().execute("CREATE TABLE t (n BIGINT)").version
        keeper.client().query("FROM t", at_least=version)
        yield keeper


@pytest.fixture
def kept(pond: KeeperProcess) -> KeeperProcess:
    """The keeper, with nothing in `t`."""
    client = pond.client()
    client.query("FROM t", at_least=client.execute("DELETE FROM t").version)
    return pond
