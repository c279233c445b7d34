"""One keeper for a whole file of tests: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pondkeeper.client.client import Client
from tests.support.keeper import KeeperProcess, wait_until


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper on a new database with one empty table `t`."""
    with KeeperProcess(tmp_path_factory.mktemp("pond") / "pond.duckdb", "--readers", "2") as keeper:
        keeper.client().execute("CREATE TABLE t (n BIGINT PRIMARY KEY)")
        yield keeper


@pytest.fixture
def client(pond: KeeperProcess) -> Client:
    """A client that takes a 503 for an answer; `t` is empty when the test begins."""
    client = pond.client(retry_for_s=0.0)
    version = client.execute("DELETE FROM t").version
    client.query("SELECT 1", at_least=version)
    return client


@pytest.fixture
def closed_file(client: Client) -> None:
    """Nobody has the file open when the test begins: for those who open it without asking. It takes more than a second."""
    wait_closed(client)


def wait_closed(client: Client) -> None:
    """Wait until the writer has given the file back."""
    wait_until(lambda: not client.status("pond")["writer"]["is_open"], what="a closed file")
