"""A keeper that archives: what is in the archive is what the writer had, whatever happens to the archiver or its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pondkeeper.archive.history import read_archived, versions
from pondkeeper.archive.names import block_name
from pondkeeper.archive.opening import Archive, open_archive
from pondkeeper.archive.reading import assemble
from pondkeeper.errors import PondkeeperError
from tests.support.keeper import KeeperProcess, keepers, pondkeeper, wait_until
from tests.support.s3 import s3_server

PATIENCE_S = 60.0
OFTEN = {
    "PONDKEEPER_ARCHIVE_INTERVAL_S": "0.1",
    "PONDKEEPER_ARCHIVE_MAX_LAG_S": "1",
    "PONDKEEPER_ARCHIVE_VERIFY_EVERY_S": "0",
    "PONDKEEPER_ARCHIVE_PRUNE_EVERY_S": "0",
}


@pytest.fixture(scope="module")
def archiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper that archives ten times a second into `archive` beside its database, which has some blocks."""
    folder = tmp_path_factory.mktemp("archiving")
    with KeeperProcess(folder / "w.duckdb", "--archive", str(folder / "archive"), environment=OFTEN) as keeper:
        client = keeper.client()
        client.execute("CREATE TABLE big AS SELECT range AS i, hash(range) AS h FROM range(400000)")
        wait_for_version(keeper, client.execute("CREATE TABLE log (n BIGINT)").version)
        yield keeper


def archive_of(keeper: KeeperProcess) -> Path:
    return keeper.target.parent / "archive"


def state(keeper: KeeperProcess) -> dict[str, Any]:
    found: dict[str, Any] = keeper.client().status("w")["archive"]
    return found


def wait_for_version(keeper: KeeperProcess, version: int) -> dict[str, Any]:
    """Its state when that version, or a newer one, is archived."""

    def reached() -> dict[str, Any] | None:
        found = state(keeper)
        return found if (found["version"] or 0) >= version else None

    found: dict[str, Any] = wait_until(reached, timeout_s=PATIENCE_S, what=f"version {version} in the archive")
    return found


def restored(archive: Archive, version: int, folder: Path) -> Path:
    """A file of that version."""
    found = next(each for each in versions(archive.store, "w") if each.version == version)
    target = folder / f"{version}.duckdb"
    assemble(archive.store, archive.sealer, read_archived(archive.store, archive.sealer, found).tree, target)
    return target


def asked(file: Path, sql: str) -> list[Any]:
    with duckdb.connect(file, read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_every_archived_version_is_what_was_committed_by_then(archiving: KeeperProcess, tmp_path: Path) -> None:
    """Each version has a whole prefix of the commits, and the commit that was answered with its number."""
    client = archiving.client()
    first = client.execute("CREATE TABLE steps (n BIGINT)").version
    of_commit: dict[int, int] = {}
    last = 0
    for n in range(60):
        last = client.execute("INSERT INTO steps VALUES (?)", [n]).version
        of_commit[n] = last
        if n % 10 == 5:
            client.execute("UPDATE big SET h = h + 1 WHERE i % 1000 = ?", [n])
        if n % 5 == 0:
            time.sleep(0.05)
    wait_for_version(archiving, last)
    with open_archive(str(archive_of(archiving))) as archive:
        found = [each.version for each in versions(archive.store, "w") if each.version >= first]
        for version in found:
            [(count, highest)] = asked(restored(archive, version, tmp_path), "SELECT count(*), max(n) FROM steps")
            committed = {n for n, in_version in of_commit.items() if in_version <= version}
            assert committed <= set(range(count)), version
            assert count == (0 if highest is None else highest + 1), version
    assert len(found) >= 3


def test_a_small_change_costs_little(archiving: KeeperProcess) -> None:
    """Of dozens of blocks a one-row commit has a few hashed, because the copier says which; and fewer put."""
    client = archiving.client()
    before = wait_for_version(archiving, client.execute("INSERT INTO log VALUES (1)").version)["counters"]
    for n in range(5):
        after = wait_for_version(archiving, client.execute("INSERT INTO log VALUES (?)", [n]).version)["counters"]
    archived = after["versions"] - before["versions"]
    assert archived >= 5
    blocks = client.status("w")["snapshot"]["size_bytes"] // 262144
    assert blocks > 15
    assert (after["blocks_hashed"] - before["blocks_hashed"]) / archived < blocks / 2
    assert after["blocks_put"] - before["blocks_put"] <= after["blocks_hashed"] - before["blocks_hashed"]


def test_now_list_and_verify(archiving: KeeperProcess) -> None:
    """On the command line and over HTTP, by whoever may."""
    client = archiving.client()
    version = client.execute("INSERT INTO log VALUES (2)").version
    made = client.backups.now()
    assert made["version"] >= version
    listed = client.backups.list(limit=2)
    assert listed["versions"][0] == {"version": made["version"], "created_at": made["created_at"]}
    assert listed["total"] > len(listed["versions"]) == 2
    verified = client.backups.verify()
    assert verified["version"] == made["version"]
    assert verified["rows"]["big"] == 400_000
    assert state(archiving)["verified"]["is_good"]
    assert not (archiving.home.temp / "verify" / "restored").exists()

    done = archiving.cli("backup", "verify", "--version", str(listed["versions"][1]["version"]))
    assert done.returncode == 0, done.stderr
    assert "can be restored" in done.stderr
    assert archiving.cli("backup", "list", "--limit", "1").stdout.splitlines()[-1].startswith(f"{made['version']} ")
    assert archiving.cli("backup", "now").stdout.strip() == str(made["version"]), "nothing has changed since"
    missing = archiving.cli("backup", "verify", "--version", "999999")
    assert (missing.returncode, "version_not_archived" in missing.stderr) == (2, True)

    reader = archiving.client(client.create_key("reader", "reader")["token"])
    assert reader.backups.list(limit=1)["versions"]
    for forbidden in (reader.backups.now, reader.backups.verify, reader.backups.prune):
        with pytest.raises(PondkeeperError, match="takes the role"):
            forbidden()


def test_the_metrics_say_how_far_it_is(archiving: KeeperProcess) -> None:
    version = wait_for_version(archiving, archiving.client().execute("INSERT INTO log VALUES (3)").version)["version"]
    with archiving.http() as http:
        lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if "pondkeeper_archive" in line)
    assert float(lines['pondkeeper_archive_version{database="w"}']) >= version
    assert float(lines['pondkeeper_archive_versions_total{database="w"}']) > 0
    assert lines['pondkeeper_archive_behind{database="w"}'] == "0.0"


@pytest.mark.fault
def test_while_the_archive_cannot_be_had_everything_else_goes_on(archiving: KeeperProcess, tmp_path: Path) -> None:
    """The folder is away: writes and reads go on, an alarm is raised, nothing piles up; when it is back it catches up."""
    client, heard = archiving.client(), []
    listening = threading.Thread(
        target=lambda: heard.extend(_until(archiving, "archive_behind", "archive_caught_up")), daemon=True
    )
    listening.start()
    away = archive_of(archiving).rename(tmp_path / "away")
    archive_of(archiving).write_text("not a folder")
    last, began = 0, time.monotonic()
    while not state(archiving)["is_behind"]:
        last = client.execute("INSERT INTO log VALUES (4)").version
        assert client.query("SELECT count(*) FROM big").scalar() == 400_000
        assert time.monotonic() - began < PATIENCE_S, "no alarm"
    seen = state(archiving)
    assert seen["problem"]["code"] == "archive_unavailable"
    assert seen["lag_s"] > 1
    with pytest.raises(PondkeeperError, match="archive"):
        archiving.client(retry_for_s=0).backups.now()
    assert len(list((archiving.home.root / "databases/w/snapshots").glob("0*"))) <= 5, "three are kept, one may be open"
    archive_of(archiving).unlink()
    away.rename(archive_of(archiving))
    assert wait_for_version(archiving, last)["problem"] is None
    wait_until(lambda: not state(archiving)["is_behind"], timeout_s=PATIENCE_S, what="the end of the alarm")
    listening.join(PATIENCE_S)
    assert heard == ["archive_behind", "archive_caught_up"]
    assert "the archive is behind" in archiving.log()
    assert client.backups.verify()["rows"]["big"] == 400_000


def _until(keeper: KeeperProcess, *kinds: str) -> Iterator[str]:
    """The kinds of events as they come, to the last of these."""
    for event in keeper.client().events(kinds=kinds):
        yield event["kind"]
        if event["kind"] == kinds[-1]:
            return


@pytest.mark.fault
def test_a_bucket_that_does_not_answer(tmp_path: Path) -> None:
    """Its server is ended while there are writes, which go on; when it is back, the newest version is in it, whole."""
    with s3_server(tmp_path / "buckets") as bucket:
        keeper = KeeperProcess(tmp_path / "w.duckdb", "--archive", bucket.target, environment=OFTEN | bucket.environment)
        keeper.start()
        try:
            client = keeper.client()
            wait_for_version(keeper, client.execute("CREATE TABLE t (n BIGINT)").version)
            secret = bucket.environment["AWS_SECRET_ACCESS_KEY"].encode()
            assert not [pid for pid in keeper.children() if secret in Path(f"/proc/{pid}/environ").read_bytes()]
        except BaseException:
            keeper.dispose()
            raise
    with keepers(keeper):
        count, last = 0, 0
        while count < 20 or not state(keeper)["is_behind"]:
            last, count = client.execute("INSERT INTO t VALUES (?)", [count]).version, count + 1
        with s3_server(tmp_path / "buckets", bucket.port):
            assert wait_for_version(keeper, last)["problem"] is None
            assert client.backups.verify()["rows"] == {"t": count}


def test_what_is_left_at_the_stop_is_archived_and_the_next_keeper_goes_on(tmp_path: Path) -> None:
    """Also in another home: the numbers of its versions begin above those in the archive, whose history is another."""
    archive, file = tmp_path / "archive", tmp_path / "w.duckdb"
    slowly = {**OFTEN, "PONDKEEPER_ARCHIVE_INTERVAL_S": "3600"}
    with KeeperProcess(file, "--archive", str(archive), environment=slowly) as keeper:
        wait_until(lambda: state(keeper)["version"], timeout_s=PATIENCE_S, what="the first version")
        last = keeper.client().execute("CREATE TABLE t AS SELECT 7 AS x").version
        assert state(keeper)["version"] < last
    with open_archive(str(archive)) as opened:
        assert asked(restored(opened, versions(opened.store, "w")[-1].version, tmp_path), "FROM t") == [(7,)]
        count = len(versions(opened.store, "w"))
    with KeeperProcess(file, "--archive", str(archive), home=tmp_path / "elsewhere", environment=OFTEN) as other:
        assert (state(other)["version"] or last + 1) > last
        version = other.client().execute("INSERT INTO t VALUES (8)").version
        assert version > last
        wait_for_version(other, version)
    with open_archive(str(archive)) as opened:
        found = versions(opened.store, "w")
        assert len(found) > count
        lineages = {read_archived(opened.store, opened.sealer, each).manifest.lineage for each in found}
    assert len(lineages) == 2


def test_a_keeper_verifies_and_prunes_by_itself(tmp_path: Path) -> None:
    """In its time; with an encrypted archive; and finds a block in which one bit has changed."""
    key = tmp_path / "archive.key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    settings = {
        "PONDKEEPER_ARCHIVE_KEY_FILE": str(key),
        "PONDKEEPER_ARCHIVE_INTERVAL_S": "0.1",
        "PONDKEEPER_ARCHIVE_VERIFY_EVERY_S": "1",
        "PONDKEEPER_ARCHIVE_PRUNE_EVERY_S": "1",
        **{f"PONDKEEPER_ARCHIVE_KEEP_{name}_S": "0" for name in ("ALL", "HOURLY", "DAILY")},
    }
    archive = tmp_path / "archive"
    with KeeperProcess(tmp_path / "w.duckdb", "--archive", str(archive), environment=settings) as keeper:
        client = keeper.client()
        client.execute("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
        for n in range(5):
            wait_for_version(keeper, client.execute("INSERT INTO t VALUES (?)", [n]).version)
        wait_until(lambda: (state(keeper)["verified"] or {}).get("is_good"), timeout_s=PATIENCE_S, what="a verification")
        wait_until(lambda: client.backups.list()["total"] == 1, timeout_s=PATIENCE_S, what="pruning")
        block = archive / newest_block(archive, key)
        damaged = bytearray(block.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        block.write_bytes(damaged)
        found = wait_until(lambda: state(keeper)["verified"]["problem"], timeout_s=PATIENCE_S, what="the damage")
        assert found["code"] == "archive_damaged"
        assert state(keeper)["verified"]["good_at"] > 0, "when it last went well is remembered"


def newest_block(archive: Path, key: Path) -> str:
    """The last block of the newest version."""
    with open_archive(str(archive), key) as opened:
        newest = versions(opened.store, "w")[-1]
        tree = read_archived(opened.store, opened.sealer, newest).tree
        return block_name(tree.digest(len(tree) - 1))


def test_without_a_keeper(tmp_path: Path) -> None:
    """The same commands on a file that no keeper has served; each version is what the file had."""
    file = tmp_path / "w.duckdb"
    with duckdb.connect(file) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS i FROM range(50000)")
    made = [pondkeeper("backup", "now", "-d", str(file))]
    with duckdb.connect(file) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("INSERT INTO t VALUES (-1)")
    assert file.with_name("w.duckdb.wal").exists()
    made += [pondkeeper("backup", "now", "-d", str(file)), pondkeeper("backup", "now", "-d", str(file))]
    assert [done.returncode for done in made] == [0, 0, 0], [done.stderr for done in made]
    first, second, third = (int(done.stdout) for done in made)
    assert first < second == third, "the third finds nothing new"
    home = tmp_path / ".pondkeeper"
    with open_archive(str(home / "archive")) as archive:
        for version, lowest in ((first, 0), (second, -1)):
            assert asked(restored(archive, version, home), "SELECT min(i) FROM t") == [(lowest,)]
    verified = pondkeeper("backup", "verify", "--home", str(home))
    assert verified.returncode == 0, verified.stderr
    assert "50,001" in verified.stdout
    for block in (home / "archive" / "blocks").glob("*/*"):
        block.write_bytes(block.read_bytes()[:-1])
    damaged = pondkeeper("backup", "verify", "--home", str(home))
    assert (damaged.returncode, "archive_damaged" in damaged.stderr) == (6, True), damaged.stderr
    assert pondkeeper("backup", "prune", "--dry-run", "--home", str(home)).returncode == 0
