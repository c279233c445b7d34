"""A real replica beside its real primary: what it answers, what it refuses, and what becomes of it when one of them is gone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import httpx
import pytest

from pondkeeper.errors import DatabaseIsReplica, Forbidden, PromotionRefused, VersionNotReached
from tests.support.keeper import KeeperProcess, pondkeeper, wait_until
from tests.support.replicas import ReplicaProcess

PATIENCE_S = 60.0


@dataclass
class Pair:
    """A primary, and a replica of its only database."""

    primary: KeeperProcess
    replica: ReplicaProcess

    def write(self, sql: str) -> int:
        return self.primary.client().execute(sql).version

    def both(self, sql: str, at_least: int) -> tuple[object, object]:
        """What each answers."""
        answers = [each.client().query(sql, at_least=at_least, timeout_s=30).rows for each in (self.primary, self.replica)]
        return answers[0], answers[1]

    def catch_up(self, version: int | None = None) -> None:
        """Wait until the replica has that version, or what the primary has."""
        version = version or self.primary.client().status()["version"]
        wait_until(
            lambda: (self.replica.client().status("w")["version"] or 0) >= version, timeout_s=PATIENCE_S, what="the version"
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with KeeperProcess(folder / "w.duckdb", "--readers", "2") as primary:
        version = primary.client().execute("CREATE TABLE t AS SELECT range AS x, 'row ' || range AS s FROM range(300000)").version
        primary.client().query("SELECT 1", at_least=version)
        with ReplicaProcess(folder / "replica", primary.url, primary.key, "--readers", "2") as replica:
            yield Pair(primary, replica)


def test_it_answers_what_its_primary_answers_and_says_how_old_that_is(pair: Pair) -> None:
    """A query that asks for a version of the primary waits for it; every answer carries the lag."""
    for statement in ("INSERT INTO t VALUES (-1, 'new')", "DELETE FROM t WHERE x % 7 = 0", "CREATE TABLE u AS FROM t LIMIT 9"):
        version = pair.write(statement)
        there, here = pair.both("SELECT count(*), sum(hash(t)) FROM t", version)
        assert there == here
    answer = pair.replica.asked("SELECT 1")
    assert 0 <= float(answer.headers["pondkeeper-replica-lag-s"]) < PATIENCE_S
    state = pair.replica.state()
    assert (state["of"], state["state"]) == (pair.primary.url, "following")
    assert 0 <= state["lag_s"] < PATIENCE_S
    metrics = pair.replica.client()._transport.open("GET", "/metrics", accept="text/plain")
    assert 'pondkeeper_replica_lag_seconds{database="w"}' in metrics.read().decode()
    metrics.close()
    assert "pondkeeper-replica-lag-s" not in httpx.post(
        f"{pair.primary.url}/v1/query",
        json={"sql": "SELECT 1"},
        headers={"Authorization": f"Bearer {pair.primary.key}"},
        trust_env=False,
    ).headers  # fmt: skip


def test_it_copies_what_has_changed_and_no_more(pair: Pair) -> None:
    """A small commit costs some blocks, not the database; the two snapshots are equal, bit for bit, where it counts."""
    version = pair.write("INSERT INTO t VALUES (-2, 'small')")
    pair.both("SELECT 1", version)
    snapshot = pair.replica.client().status("w")["snapshot"]
    assert 1 <= snapshot["blocks_copied"] < 12
    with duckdb.connect(pair.replica.paths().published_by_name, read_only=True) as connection:
        assert connection.execute("SELECT s FROM t WHERE x = -2").fetchall() == [("small",)]


def test_writes_are_refused_with_the_name_of_the_primary(pair: Pair) -> None:
    """Whichever way they come: statements, rows, snapshots, tickets, a local pipeline."""
    client = pair.replica.client()
    attempts = (
        lambda: client.execute("INSERT INTO t VALUES (1, 'no')"),
        lambda: client.ingest("t", b'{"x": 1, "s": "no"}', format="ndjson"),
        lambda: client.ingest("t", b'{"x": 1, "s": "no"}', format="ndjson", wait="accepted"),
        client.take_snapshot,
        client.tickets,
    )
    for attempt in attempts:
        with pytest.raises(DatabaseIsReplica) as refused:
            attempt()
        assert refused.value.details["primary"] == pair.primary.url
    home = str(pair.replica.home.root)
    for words in (["execute", "INSERT INTO t VALUES (1, 'no')", "--home", home], ["run", "--home", home, "--", "true"]):
        done = pondkeeper(*words)
        assert (done.returncode, "database_is_replica" in done.stderr) == (2, True), done.stderr
    assert not pair.replica.paths().file.exists()
    assert client.queue("w")["line"] == []


def test_who_may_not_replicate_gets_no_block(pair: Pair) -> None:
    """Blocks hold what was deleted: a writer's key is not enough."""
    key = pair.primary.client().create_key("writer for replicas", "writer")["token"]
    headers = {"Authorization": f"Bearer {key}"}
    asked = httpx.get(f"{pair.primary.url}/v1/databases/w/replication?replica=x", headers=headers, trust_env=False)
    assert (asked.status_code, asked.json()["error"]["code"]) == (403, Forbidden.code)


def test_ten_replicas_cost_one_read_of_each_changed_block(pair: Pair) -> None:
    """Nine more that ask over HTTP as a follower does; what is read of snapshots is counted by the primary."""
    from pondkeeper.archive.replica.origin import Keeper, KeeperOrigin

    pair.catch_up()
    before = pair.primary.client()._transport.call("GET", "/v1/databases/w/replicas")
    version = pair.write("UPDATE t SET s = 'changed' WHERE x < 30000")
    pair.both("SELECT 1", version)
    digests: set[bytes] = set()
    for number in range(9):
        origin = KeeperOrigin(Keeper(pair.primary.url, pair.primary.key, f"replica {number}"), "w")
        manifest = origin.offer(0, "", 1.0).manifest
        assert manifest is not None
        pages = origin.pages(manifest.pages)
        digests = {page[at : at + 32] for page in pages for at in range(0, len(page), 32)}
        assert len(list(origin.blocks(sorted(digests)))) == len(digests)
        origin.close()
    after = pair.primary.client()._transport.call("GET", "/v1/databases/w/replicas")
    given = after["blocks_given"] - before["blocks_given"]
    read = after["blocks_read"] - before["blocks_read"]
    assert given >= 9 * len(digests)
    assert read <= len(digests) + 12
    assert {each["replica"] for each in after["replicas"]} >= {f"replica {number}" for number in range(9)}


def test_a_killed_follower_is_succeeded(pair: Pair) -> None:
    """`kill -9` again and again while versions come: none is lost, and nothing wrong is shown."""
    for _ in range(3):
        version = pair.write("INSERT INTO t SELECT range, 'much' FROM range(50000)")
        pid = wait_until(lambda: pair.replica.state()["follower_pid"], timeout_s=PATIENCE_S, what="a follower")
        os.kill(pid, signal.SIGKILL)
        pair.catch_up(version)
    there, here = pair.both("SELECT count(*), sum(hash(t)) FROM t", version)
    assert there == here


def test_a_killed_feeder_is_succeeded(pair: Pair) -> None:
    for pid in pair.primary.children("feeder"):
        os.kill(pid, signal.SIGKILL)
    there, here = pair.both("SELECT count(*) FROM t", pair.write("INSERT INTO t VALUES (-3, 'after')"))
    assert there == here


def test_cut_off_it_answers_and_refuses_what_it_cannot_have(pair: Pair) -> None:
    """The primary is killed: reads go on, the lag grows and is said; `at_least` is refused with it, at once. Restarted, alone
    too, it serves what it has; when the primary is back it catches up."""
    pair.catch_up()
    newest = pair.replica.client().status("w")["version"]
    pair.primary.kill9()
    wait_until(lambda: pair.replica.state()["state"] == "cut off", timeout_s=PATIENCE_S, what="the cut")
    assert pair.replica.client().query("SELECT count(*) FROM t").rows
    with pytest.raises(VersionNotReached) as refused:
        pair.replica.client(retries=0).query("SELECT 1", at_least=newest + 5, timeout_s=30)
    details = refused.value.details
    assert (details["newest_version"], details["primary"], details["cause"]) == (newest, pair.primary.url, "primary_unreachable")
    assert details["lag_s"] > 0
    pair.replica.stop()
    pair.replica.restart()
    assert pair.replica.client().status("w")["version"] == newest
    assert pair.replica.state()["lag_s"] is None
    pair.primary.restart()
    version = pair.write("INSERT INTO t VALUES (-4, 'back')")
    wait_until(lambda: pair.replica.state()["state"] == "following", timeout_s=PATIENCE_S, what="to be in touch again")
    there, here = pair.both("SELECT count(*), sum(hash(t)) FROM t", version)
    assert there == here


def test_it_is_not_promoted_while_its_primary_answers(pair: Pair) -> None:
    wait_until(lambda: pair.replica.state()["state"] == "following", timeout_s=PATIENCE_S, what="to be in touch")
    with pytest.raises(PromotionRefused) as refused:
        pair.replica.client().promote("w")
    assert refused.value.details["primary"] == pair.primary.url
    with pytest.raises(PromotionRefused, match="primary already"):
        pair.primary.client().promote("w")


def test_what_comes_to_the_primary_later_is_followed_too(tmp_path: Path) -> None:
    """Of a folder of databases; and a replica whose primary is lost becomes one, after a restart as well."""
    (tmp_path / "there").mkdir()
    duckdb.connect(tmp_path / "there" / "one.duckdb").execute("CREATE TABLE t AS SELECT 1 AS x").close()
    with KeeperProcess(tmp_path / "there", "--readers", "2") as primary:
        with ReplicaProcess(tmp_path / "here", primary.url, primary.key, "--readers", "2") as replica:
            duckdb.connect(tmp_path / "there" / "two.duckdb").execute("CREATE TABLE t AS SELECT 2 AS x").close()
            wait_until(
                lambda: {each["name"] for each in replica.client().databases() if each["version"]} == {"one", "two"},
                timeout_s=PATIENCE_S,
                what="the second database",
            )
            assert replica.client().query("SELECT x FROM t", database="two").scalar() == 2
            before = replica.client().status("two")["version"]
            primary.kill9()
            wait_until(lambda: replica.state("two")["state"] == "cut off", timeout_s=PATIENCE_S, what="the cut")
            promoted = pondkeeper("promote", "-d", "two", "--home", str(replica.home.root))
            assert (promoted.returncode, promoted.stdout) == (0, f"{before}\n"), promoted.stderr
            version = replica.client().execute("INSERT INTO t VALUES (3)", database="two").version
            assert version > before
            assert replica.client().query("SELECT max(x) FROM t", database="two", at_least=version).scalar() == 3
            with pytest.raises(DatabaseIsReplica):
                replica.client().execute("INSERT INTO t VALUES (3)", database="one")
            replica.restart() if replica.stop() == 0 else pytest.fail("it did not stop in order")
            again = replica.client().execute("INSERT INTO t VALUES (4)", database="two").version
            assert again > version
            assert replica.client().query("SELECT max(x) FROM t", database="two", at_least=again).scalar() == 4
            replica.stop()
        offline = pondkeeper("promote", "-d", "one", "--home", str(replica.home.root))
        assert offline.returncode == 0, offline.stderr
        with duckdb.connect(tmp_path / "here" / "one.duckdb", read_only=True) as connection:
            assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
        twice = pondkeeper("promote", "-d", "one", "--home", str(replica.home.root))
        assert (twice.returncode, "promotion_refused" in twice.stderr) == (2, True)


def test_a_restore_at_the_primary_is_followed_and_another_history_is_not(tmp_path: Path) -> None:
    """A restore is a new version of a new lineage. A primary whose snapshots are lost begins anew: that is told, and nothing changes."""
    with KeeperProcess(tmp_path / "w.duckdb", "--readers", "2") as primary:
        client = primary.client()
        first = client.execute("CREATE TABLE t AS SELECT 1 AS x").version
        client.query("SELECT 1", at_least=first)
        with ReplicaProcess(tmp_path / "replica", primary.url, primary.key, "--readers", "2") as replica:
            client.query("SELECT 1", at_least=client.execute("INSERT INTO t VALUES (2)").version)
            before = replica.state()["lineage"]
            restored = pondkeeper("backup", "restore", "--version", str(first), "--home", str(primary.home.root))
            assert restored.returncode == 0, restored.stderr
            wait_until(
                lambda: replica.client().query("SELECT max(x) FROM t").scalar() == 1, timeout_s=PATIENCE_S, what="the restore"
            )
            assert replica.state()["lineage"] != before
            primary.stop()
            shutil.rmtree(primary.home.root / "databases")
            primary.restart()
            wait_until(lambda: replica.state()["state"] == "diverged", timeout_s=PATIENCE_S, what="to be told")
            assert replica.client().query("SELECT max(x) FROM t").scalar() == 1
