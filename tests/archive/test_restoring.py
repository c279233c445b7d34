"""Restoring in place: the database is what it was, readers go on, nothing stale is replayed, and it can be taken back."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import duckdb
import pytest

from pondkeeper.archive.copies import Past, fetch
from pondkeeper.archive.lineage import lineage_of
from pondkeeper.archive.opening import open_archive
from pondkeeper.archive.place import place_of
from pondkeeper.archive.restoring import _prepare_restore, _prepared
from pondkeeper.archive.writing import About, write_version
from pondkeeper.errors import ArchiveKeyInvalid, Forbidden, InvalidRequest, PondkeeperError, VersionNotArchived
from pondkeeper.files import swapping
from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.settings import ArchiveSettings, Settings
from pondkeeper.snapshots.holding import Wanted
from pondkeeper.writer.lease import current_holder
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.s3 import Bucket


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """A keeper with an archive, and a table in the version that its first commit answered with."""
    folder = tmp_path_factory.mktemp("kept")
    archive = folder / "archive"
    with KeeperProcess(
        folder / "pond.duckdb", "--readers", "2", "--archive", str(archive), environment={"PONDKEEPER_SNAPSHOTS_KEEP": "2"}
    ) as keeper:
        keeper.local_client().execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
        yield keeper


def archived(keeper: KeeperProcess, *values: int) -> int:
    """A version in the archive that has these values and no others."""
    client = keeper.local_client()
    client.execute("DELETE FROM t")
    if values:
        client.execute(f"INSERT INTO t VALUES {', '.join(f'({value})' for value in values)}")
    done = keeper.cli("backup", "now", "--json")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["version"])


def values(keeper: KeeperProcess, at_least: int = 0) -> list[int]:
    found = keeper.local_client().query("SELECT x FROM t ORDER BY x", at_least=at_least).rows
    return [row[0] for row in found]


def test_in_place_and_back_again(kept: KeeperProcess) -> None:
    """By version and by time; what was replaced comes back by undo, and an undo can be undone."""
    client = kept.local_client()
    version = archived(kept, 1, 2)
    between = datetime.now(UTC)
    archived(kept, 3)
    lineage = lineage_of(kept.database)
    made = client.restore(version=version)
    assert made["restored"]["version"] == version
    assert made["published"] > version
    assert values(kept, made["published"]) == [1, 2]
    later = lineage_of(kept.database)
    assert (later.before, later.after) == (lineage.id, made["published"] - 1)
    assert values(kept, client.restore(undo=True)["published"]) == [3]
    assert values(kept, client.restore(undo=True)["published"]) == [1, 2]
    assert values(kept, client.restore(undo=True)["published"]) == [3]
    made = client.restore(at=between)
    assert made["restored"]["version"] == version
    assert values(kept, made["published"]) == [1, 2]
    assert values(kept, client.execute("INSERT INTO t VALUES (4)").version) == [1, 2, 4]
    with pytest.raises(PondkeeperError, match="Duplicate"):
        client.execute("INSERT INTO t VALUES (2)")


def test_restores_are_told_and_counted(kept: KeeperProcess) -> None:
    """As an event to who listens, and in the metrics."""
    client, heard = kept.local_client(), []
    version = archived(kept, 11)
    listening = threading.Thread(target=lambda: heard.append(next(iter(kept.client().events(kinds=["restored"])))), daemon=True)
    listening.start()
    before = counted(kept)

    def is_told() -> bool:
        client.restore(version=version)  # Why perhaps twice: the first may be over before somebody listens
        listening.join(2.0)
        return bool(heard)

    wait_until(is_told, timeout_s=120.0, what="the event")
    told = heard[0]
    assert (told["database"], told["why"], told["restored"]) == ("pond", "restore", version)
    assert told["version"] > version
    assert counted(kept) > before


def counted(keeper: KeeperProcess) -> float:
    with keeper.http() as http:
        lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if "pondkeeper_restore" in line)
    assert float(lines['pondkeeper_restore_seconds_total{database="pond"}']) >= 0
    return float(lines['pondkeeper_restores_total{database="pond"}'])


def test_what_was_replaced_is_a_version_too(kept: KeeperProcess) -> None:
    """A commit of a moment ago is in the archive before it is replaced: somebody may want it next week."""
    client = kept.local_client()
    version = archived(kept, 1)
    just_now = client.execute("INSERT INTO t VALUES (99)").version
    published = client.restore(version=version)["published"]
    listed = json.loads(kept.cli("backup", "list", "--json").stdout)["versions"]
    replaced = [each["version"] for each in listed if just_now <= each["version"] < published]
    assert values(kept, client.restore(version=replaced[0])["published"]) == [1, 99]


def test_restored_while_queries_run_on_the_old_one(kept: KeeperProcess) -> None:
    """An answer that is half streamed goes on from its snapshot."""
    client = kept.local_client()
    version = archived(kept, 5)
    archived(kept, *range(100, 200))
    with client.stream("SELECT a.x, b.x, c.x FROM t a, t b, t c WHERE c.x < 130", format="csv") as answer:
        parts = iter(answer)
        size = len(next(parts))
        assert values(kept, client.restore(version=version)["published"]) == [5]
        size += sum(map(len, parts))
    assert size > 100 * 100 * 30 * len("100,100,100")


def test_refused_without_any_harm(kept: KeeperProcess) -> None:
    """A version that nobody has, a time before all, a role that may not, two wishes at once."""
    client = kept.local_client()
    archived(kept, 6)
    for wish in ({"version": 4711}, {"at": datetime(2020, 1, 1, tzinfo=UTC)}):
        with pytest.raises(VersionNotArchived):
            client.restore(**wish)  # type: ignore[arg-type]  # one of three options each
    with pytest.raises(InvalidRequest):
        client.restore(version=1, undo=True)
    writer = kept.client(client.create_key("w", "writer")["token"])
    with pytest.raises(Forbidden):
        writer.restore(undo=True)
    assert values(kept) == [6]
    assert list((kept.database.turn / "swaps").glob("*/new")) == []


def test_waits_for_who_has_the_database_open(kept: KeeperProcess) -> None:
    """A program that did not ask is not robbed of its file; when it has closed it the restore goes through."""
    version = archived(kept, 7)
    archived(kept, 8)
    with ThreadPoolExecutor(1) as threads, _plain(kept.database.file) as holder:
        restoring = threads.submit(kept.local_client().restore, version=version)
        wait_until(lambda: current_holder(kept.database) is not None or restoring.done(), what="the restorer's turn")
        assert values(kept) == [8]
        assert holder.execute("SELECT x FROM t").fetchall() == [(8,)]
        assert not restoring.done()
        holder.close()
        assert values(kept, restoring.result(60)["published"]) == [7]


def test_damage_in_the_archive_is_noticed_before_anything_is_replaced(kept: KeeperProcess) -> None:
    """One bit of one block; with it put right the same restore succeeds."""
    client = kept.local_client()
    version = archived(kept, 9)
    archived(kept, 10)
    archived(kept, 11)
    wait_until(lambda: not kept.database.snapshot(version).exists(), what="the snapshot's end")
    blocks = sorted((kept.target.parent / "archive" / "blocks").glob("*/*"), key=lambda path: path.stat().st_mtime_ns)
    whole = {block: block.read_bytes() for block in blocks}
    for block, data in whole.items():
        block.chmod(0o600)
        block.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(PondkeeperError) as refused:
        client.restore(version=version)
    assert refused.value.code == "archive_damaged"
    assert values(kept) == [11]
    for block, data in whole.items():
        block.write_bytes(data)
    assert values(kept, client.restore(version=version)["published"]) == [9]


def test_it_is_in_the_audit(kept: KeeperProcess) -> None:
    """Who took back what everybody has written, and to which version."""
    client = kept.local_client()
    version = archived(kept, 12)
    client.restore(version=version)
    done = kept.cli("audit", "list", "--json")
    assert f"RESTORE VERSION {version}" in done.stdout


def test_the_writer_ends_a_swap_within_its_fence(kept: KeeperProcess) -> None:
    """A swap that failed half way, in a keeper that lives: whoever takes the lease next ends it, and that is the writer."""
    client = kept.local_client()
    version = archived(kept, 13)
    archived(kept, 14)
    client.restore(version=version)
    with _plain(kept.database.file):  # the writer has given the file back
        pass
    _begin_and_die(kept.database)
    answer = client.execute("INSERT INTO t VALUES (15)")
    assert values(kept, answer.version) == [14, 15]
    assert not swapping.is_under_way(kept.database)


def test_out_of_an_encrypted_bucket(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its fenced process: the network, the credentials and the key reach it; with another key nothing is made."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    keys = [tmp_path / "key", tmp_path / "another"]
    for number, key in enumerate(keys):
        key.write_text(f"{number}" * 64)
        key.chmod(0o600)
    file = tmp_path / "pond.duckdb"
    with duckdb.connect(str(file)) as database:
        database.execute("CREATE TABLE t AS SELECT range AS x FROM range(50000)")
    target = f"{bucket.target}/restoring"
    with open_archive(target, keys[0]) as archive:
        write_version(archive, file, About("pond", 5, datetime.now(UTC), "first"))
    paths = Home(tmp_path / "home").database(file)
    past = Past(paths, place_of(ArchiveSettings(to=target, key_file=str(keys[0])), Home(tmp_path / "home")))
    (tmp_path / "then").mkdir()
    made = fetch(past, Wanted(version=5), tmp_path / "then" / "pond.duckdb")
    assert (made["version"], made["source"]) == (5, "archive")
    assert (tmp_path / "then" / "pond.duckdb").read_bytes() == file.read_bytes()
    other = Past(paths, place_of(ArchiveSettings(to=target, key_file=str(keys[1])), Home(tmp_path / "home")))
    with pytest.raises(ArchiveKeyInvalid):
        fetch(other, Wanted(version=5), tmp_path / "then" / "other.duckdb")
    assert not (tmp_path / "then" / "other.duckdb").exists()


@pytest.mark.fault
@pytest.mark.timeout(300)  # three starts of a keeper
def test_without_a_keeper_and_after_a_kill(tmp_path: Path) -> None:
    """A stale WAL is never replayed over a restored file; a swap that a dead one has begun is ended by the next start."""
    keeper = KeeperProcess(tmp_path / "pond.duckdb", "--readers", "1")
    with keeper:
        client = keeper.local_client()
        client.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
        version = archived(keeper, 1, 2)
        archived(keeper, 3)
        client.execute("INSERT INTO t VALUES (4)")
        wait_until(lambda: values(keeper) == [3, 4], what="the last commit")
        keeper.kill9()
        paths = keeper.database
        with _plain(paths.file) as late:
            late.execute("PRAGMA disable_checkpoint_on_shutdown")
            late.execute("INSERT INTO t VALUES (5)")
        assert paths.wal.exists()
        done = keeper.cli("backup", "restore", "--version", str(version), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["published"] is None
        assert not paths.wal.exists()
        keeper.restart()
        wait_until(lambda: values(keeper) == [1, 2], what="the restored version")
        assert values(keeper, keeper.local_client().restore(undo=True)["published"]) == [3, 4, 5]
        keeper.kill9()
        _begin_and_die(paths)
        keeper.restart()
        wait_until(lambda: values(keeper) == [1, 2], what="the end of the swap")
        assert not swapping.is_under_way(paths)
        assert paths.file.stat().st_nlink == 1


def _begin_and_die(paths: DatabasePaths) -> None:
    """An undo as it is on disk when its process was killed right after it had written the journal."""
    preparing = swapping.prepare_undo(paths, "restore", "undo")
    swapping.journal(paths).write_bytes(preparing.swap.encode())
    preparing._lock.release()


def _plain(file: Path) -> duckdb.DuckDBPyConnection:
    def opened() -> duckdb.DuckDBPyConnection | None:
        try:
            return duckdb.connect(str(file), config={"storage_compatibility_version": "v1.5.0"})
        except duckdb.IOException:
            return None

    found = wait_until(opened, what="a turn that nobody asked for")
    assert isinstance(found, duckdb.DuckDBPyConnection)
    return found



async def test_a_restore_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    """Its process is ended, and what it has made is removed: a bucket that hangs must not keep a keeper from stopping."""
    paths = Home(tmp_path / "home").database(tmp_path / "pond.duckdb")
    hanging = Past(paths, None)
    snapshot = paths.snapshot(1)
    make_folder(snapshot.parent)
    os.mkfifo(snapshot)  # whoever opens it waits for ever
    work = asyncio.create_task(_prepared(partial(_prepare_restore, hanging, Wanted(), Settings())))
    await asyncio.to_thread(wait_until, lambda: list((paths.turn / "swaps").glob("*/new")), what="a folder to restore into")
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.to_thread(wait_until, lambda: list((paths.turn / "swaps").iterdir()) == [], what="the end of it")


def test_into_a_file_of_another_file_system(kept: KeeperProcess, tmp_path: Path) -> None:
    """What is made in the home cannot be renamed to there, nor linked: it is written there."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == kept.home.root.stat().st_dev:
        pytest.skip("there is no other file system here")
    version = archived(kept, 5, 6)
    kept.local_client().query("SELECT 1", at_least=version)
    target = shm / f"{tmp_path.parent.name}-{tmp_path.name}.duckdb"
    try:
        done = kept.cli("backup", "restore", "--version", str(version), "--to", str(target))
        assert done.returncode == 0, done.stderr
        with duckdb.connect(target, read_only=True) as connection:
            assert connection.execute("SELECT x FROM t ORDER BY x").fetchall() == [(5,), (6,)]
    finally:
        target.unlink(missing_ok=True)
