"""One keeper for a whole file of tests: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pondkeeper.client.client import Client
from tests.support.keeper import KeeperProcess


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper on a new database."""
    with KeeperProcess(tmp_path_factory.mktemp("pond") / "pond.duckdb", "--readers", "2") as keeper:
        yield keeper


@pytest.fixture
def client(pond: KeeperProcess) -> Client:
    """A client that takes a 503 for an answer."""
    return pond.client(retry_for_s=0.0)
