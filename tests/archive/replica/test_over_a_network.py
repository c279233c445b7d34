"""A primary and its replica on two hosts, with a cable between them that loses packets and is cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import PondkeeperError, VersionNotReached
from tests.support.hosts import Cable, two_hosts, why_not
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.replicas import ReplicaProcess

PATIENCE_S = 60.0
TOTALS = "SELECT count(*), sum(hash(t)) FROM t"
pytestmark = [pytest.mark.privileged, pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can")]


class OnAnotherHost:
    """A keeper that is asked through its home, since no packet of ours reaches its host."""

    home: object

    def is_ready(self) -> bool:
        try:
            with self.at_home() as client:
                return all(each["state"] == "ready" for each in client.databases())
        except PondkeeperError:
            return False

    def at_home(self) -> Client:
        return Client.local(self.home.root, database="w", retries=0)  # type: ignore[attr-defined]  # each host has its home


class Primary(OnAnotherHost, KeeperProcess):
    pass


class Replica(OnAnotherHost, ReplicaProcess):
    pass


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Client, Cable, Replica]]:
    folder = tmp_path_factory.mktemp("apart")
    with two_hosts() as (here, there, cable):
        primary = Primary(folder / "w.duckdb", "--host", here.address, "--readers", "2", under=here.under)
        with primary, primary.at_home() as at_primary:
            at_primary.execute("CREATE TABLE t AS SELECT range AS x, random() AS y FROM range(200000)")
            url = f"http://{here.address}:{primary.port}"
            cable.loss = 0.03
            replica = Replica(folder / "replica", url, primary.key, "--readers", "2", under=there.under)
            with replica, replica.at_home() as at_replica:
                yield at_primary, at_replica, cable, replica


def test_versions_come_over_a_cable_that_loses_packets(apart: tuple[Client, Client, Cable, Replica]) -> None:
    at_primary, at_replica, cable, _ = apart
    for number in range(4):
        version = at_primary.execute(f"INSERT INTO t SELECT range, {number} FROM range(20000)").version
        there = at_primary.query(TOTALS, at_least=version).rows
        assert at_replica.query(TOTALS, at_least=version, timeout_s=30).rows == there
    assert cable.lost > 0  # the control


def test_a_cut_cable_is_told_and_survived(apart: tuple[Client, Client, Cable, Replica]) -> None:
    """While it is cut both go on, the replica says how far behind it is; mended, it catches up."""
    at_primary, at_replica, cable, _ = apart
    before = at_replica.query(TOTALS).rows
    cable.is_cut = True
    version = at_primary.execute("DELETE FROM t WHERE x % 2 = 0").version
    after = at_primary.query(TOTALS, at_least=version).rows
    wait_until(lambda: at_replica.status()["replica"]["state"] == "cut off", timeout_s=PATIENCE_S, what="the cut")
    assert at_replica.query(TOTALS).rows == before != after
    with pytest.raises(VersionNotReached) as refused:
        at_replica.query("SELECT 1", at_least=version, timeout_s=30)
    assert refused.value.details["lag_s"] >= 1
    cable.is_cut = False
    wait_until(lambda: at_replica.status()["version"] >= version, timeout_s=PATIENCE_S, what="what was missed")
    assert at_replica.query(TOTALS).rows == after
