"""One keeper for a whole file of tests: starting one takes seconds, and what readers suffer does not outlive them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pondkeeper.client.client import Client
from tests.support.keeper import KeeperProcess

READERS = 2
MAX_WAITING = 6


@pytest.fixture(scope="module")
def pond(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper with two readers of 2 GB or the module's MEMORY, queries of at most a minute, and one table `numbers`."""
    folder: Path = tmp_path_factory.mktemp("pond")
    keeper = KeeperProcess(
        folder / "pond.duckdb",
        *("--readers", str(READERS), "--memory-limit", getattr(request.module, "MEMORY", "2GB"), "--threads", "2", "--timeout", "60s"),
        environment={"PONDKEEPER_READERS_WAIT_S": "5", "PONDKEEPER_READERS_MAX_WAITING": str(MAX_WAITING)},
    )
    with keeper:
        version = keeper.client().execute("CREATE TABLE numbers AS SELECT range AS n FROM range(1000)").version
        keeper.client().query("SELECT 1", at_least=version)
        yield keeper


@pytest.fixture
def client(pond: KeeperProcess) -> Client:
    """A client that takes a 503 for an answer."""
    return pond.client(retry_for_s=0.0)
