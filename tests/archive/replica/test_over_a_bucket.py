"""A replica whose primary it has never met: both know only a bucket, on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pondkeeper.client.client import Client
from pondkeeper.errors import DatabaseIsReplica
from tests.archive.test_archiver import OFTEN
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.replicas import ReplicaProcess
from tests.support.s3 import Bucket

PATIENCE_S = 60.0


def filled(client: Client, begin: int) -> int:
    """Rows of a thousand numbers from there on; the version that has them."""
    return client.execute(f"INSERT INTO t SELECT range, hash(range)::VARCHAR FROM range({begin}, {begin + 1000})").version


def test_what_is_archived_is_followed_served_and_promoted(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the primary are read at the replica by their version, also after it was killed; and it takes over."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    place = f"{bucket.target}/{tmp_path.name}"
    with KeeperProcess(tmp_path / "w.duckdb", "--archive", place, "--readers", "2", environment=OFTEN | bucket.environment) as primary:
        client = primary.client()
        client.execute("CREATE TABLE t (n BIGINT, text VARCHAR)")
        with ReplicaProcess(tmp_path / "replica", place, None, "--readers", "2") as replica:
            wait_until(lambda: replica.client().databases(), timeout_s=PATIENCE_S, what="the first version")
            for number in range(3):
                version = filled(client, number * 1000)
                answer = replica.client().query("SELECT count(*), max(n) FROM t", at_least=version, timeout_s=PATIENCE_S)
                assert (answer.rows, answer.version) == ([[(number + 1) * 1000, number * 1000 + 999]], version)
            replica.kill9()
            version = filled(client, 3000)
            replica.restart()
            assert replica.client().query("SELECT count(*) FROM t", at_least=version, timeout_s=PATIENCE_S).scalar() == 4000
            with pytest.raises(DatabaseIsReplica):
                replica.client().execute("INSERT INTO t VALUES (1, 'no')")
            primary.kill9()
            replica.client().promote("w")
            taken_over = filled(replica.client(), 4000)
            assert taken_over > version
            assert replica.client().query("SELECT count(*) FROM t", at_least=taken_over).scalar() == 5000
