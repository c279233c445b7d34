"""One keeper for a whole file of tests: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pondkeeper.client.client import Client
from pondkeeper.engine.opening import WriterConfig
from pondkeeper.writer.session import Session
from tests.support.keeper import KeeperProcess
from tests.writer.bench import Bench


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper on a new database."""
    with KeeperProcess(tmp_path_factory.mktemp("pond") / "pond.duckdb", "--readers", "2") as keeper:
        yield keeper


@pytest.fixture
def client(pond: KeeperProcess) -> Client:
    """A client that takes a 503 for an answer."""
    return pond.client(retry_for_s=0.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A writer's session without a process around it."""
    folder = tmp_path_factory.mktemp("writer")
    config = WriterConfig(str(folder / "pond.duckdb"), 500_000_000, 2, str(folder / "temp"), 10**9, may_make=True)
    session = Session(config)
    yield Bench(session, folder / "pond.duckdb")
    session.close()
