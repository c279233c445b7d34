"""Disks that are full or may not be written, and files that go away: nothing is lost, and the error says what to do."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from pondkeeper.client import Client
from pondkeeper.errors import DiskFull, OutcomeUnknown, PondkeeperError, VersionNotReached
from tests.bad_input import files
from tests.bad_input.places import MIB, SmallDisk, as_a_plain_user, with_a_small_disk
from tests.support.keeper import KeeperProcess, keepers, pondkeeper, wait_until

RESUMES_S = 60.0  # what failed is tried again after 1, 2, 4, 8 … at most 30 seconds


def code_of(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def error_of(call: Any, *arguments: Any, **options: Any) -> PondkeeperError:
    with pytest.raises(PondkeeperError) as raised:
        call(*arguments, **options)
    return raised.value


# Not to be written


def test_a_folder_that_may_not_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    """The keeper cannot have its home there: it ends at once with code and remedy, and leaves no traces."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    files.good(folder / "pond.duckdb", rows=10)
    folder.chmod(0o555)
    keeper = KeeperProcess(folder / "pond.duckdb", under=as_a_plain_user())
    keeper._log_path = tmp_path / "log"
    try:
        keeper.launch()
        assert keeper.process.wait(60) == 6
        assert "[database_read_only]" in keeper.log()
        assert "write permission" in keeper.log()
        assert "Traceback" not in keeper.log()
        assert [path.name for path in folder.iterdir()] == ["pond.duckdb"]
    finally:
        folder.chmod(0o755)
        keeper.dispose()


def test_a_file_that_may_not_be_written_is_said_by_writes_and_status(tmp_path: Path) -> None:
    """Another database of the same keeper is served; when the mode is mended, so is this one."""
    folder = tmp_path / "ponds"
    folder.mkdir()
    for name in ("fixed", "free"):
        files.good(folder / f"{name}.duckdb", rows=10)
    (folder / "fixed.duckdb").chmod(0o400)
    with keepers(KeeperProcess(folder, under=as_a_plain_user())) as (keeper,):
        keeper.start()
        wait_until(lambda: "database_read_only" in keeper.cli("status").stdout, timeout_s=30, what="a verdict")
        for verb in ("query", "execute"):
            with keeper.http() as http:
                answer = http.post(f"/v1/databases/fixed/{verb}", json={"sql": "SELECT 1"})
            assert (answer.status_code, code_of(answer)) == (503, "database_read_only")
            assert "retry-after" not in answer.headers
        assert keeper.client(database="free").query("SELECT count(*) FROM t").scalar() == 10
        (folder / "fixed.duckdb").chmod(0o600)
        client = keeper.client(database="fixed", retry_for_s=0)
        wait_until(lambda: client.status()["state"] == "ready", timeout_s=RESUMES_S, what="the mended database")
        assert client.query("SELECT count(*) FROM t").scalar() == 10


# Full


@pytest.mark.fault
@pytest.mark.privileged
def test_a_full_disk_under_the_database_loses_nothing(tmp_path: Path) -> None:
    """Writes fail with disk_full and are not there; what was acknowledged is; they resume when there is room again."""
    place = tmp_path / "disk"
    place.mkdir()
    under = with_a_small_disk(place, 48 * MIB)
    with keepers(KeeperProcess(place / "pond.duckdb", home=tmp_path / "home", under=under)) as (keeper,):
        keeper.start()
        client, disk = keeper.client(retry_for_s=0), SmallDisk(keeper, place)
        assert disk.free_bytes < 48 * MIB, "the positive control: it is the small disk"
        client.execute("CREATE TABLE t (x INTEGER, filler VARCHAR)")
        acknowledged = write_until_full(client, disk)

        assert client.query("SELECT 1").scalar() == 1
        assert keeper.is_ready()
        disk.free()
        outcome = wait_until(lambda: resumed(client), timeout_s=RESUMES_S, what="the next write")
        answer = client.query("SELECT count(DISTINCT x), count(*) FROM t", at_least=outcome.version, timeout_s=30)
        found, rows = answer.rows[0]
        assert rows % 1000 == 0, "half a transaction"
        assert found == acknowledged + 1
        assert client.status()["problem"] is None


def write_until_full(client: Client, disk: SmallDisk) -> int:
    """Write batches of about a megabyte until none fits any more; how many were acknowledged."""
    sql = "INSERT INTO t SELECT ?, md5(random()::VARCHAR) || repeat(md5(random()::VARCHAR), 31) FROM range(1000)"
    for number in range(1, 6):
        client.execute(sql, [number])
    disk.fill(leave_bytes=MIB)
    refused = None
    number = 6
    while number < 200:
        try:
            client.execute(sql, [number])
        except DiskFull as error:
            refused = error
            break
        number += 1
    assert refused is not None, "the positive control: the disk never was full"
    assert refused.http_status == 507
    return number - 1


def resumed(client: Client) -> Any:
    try:
        return client.execute("INSERT INTO t SELECT 0, 'resumed' FROM range(1000)")
    except PondkeeperError as error:
        assert not isinstance(error, OutcomeUnknown)
        return None


@pytest.mark.fault
@pytest.mark.privileged
def test_a_full_disk_under_the_snapshots_stops_no_write(tmp_path: Path) -> None:
    """Commits go on, readers stay at the last version, a query for a newer one says why; then it catches up by itself."""
    place, database = tmp_path / "home", tmp_path / "data" / "pond.duckdb"
    place.mkdir()
    database.parent.mkdir()
    files.good(database, rows=300_000)
    under = with_a_small_disk(place, 128 * MIB)
    with keepers(KeeperProcess(database, home=place, under=under)) as (keeper,):
        keeper.start()
        client, disk = keeper.client(retry_for_s=0), SmallDisk(keeper, place)
        first = client.query("SELECT count(*) FROM t")
        assert first.scalar() == 300_000
        disk.fill()
        for _ in range(3):
            outcome = client.execute("INSERT INTO t SELECT range, hash(range) FROM range(300000)")
            time.sleep(0.3)
        refused = error_of(client.query, "SELECT 1", at_least=outcome.version, timeout_s=1)
        assert isinstance(refused, VersionNotReached)
        assert refused.details["cause"] == "disk_full"
        assert client.query("SELECT count(*) FROM t").scalar() in (300_000, 600_000, 900_000)
        problem = client.status()["problem"]
        assert problem["code"] == "disk_full"
        assert keeper.is_ready()

        disk.free()
        wait_until(
            lambda: client.status()["version"] >= outcome.version, timeout_s=RESUMES_S, what="the newest version"
        )
        assert client.query("SELECT count(*) FROM t", at_least=outcome.version).scalar() == 1_200_000
        assert client.status()["problem"] is None


# Gone


def started(tmp_path: Path, rows: int = 10) -> tuple[KeeperProcess, Client, Path]:
    file = tmp_path / "pond.duckdb"
    files.good(file, rows=rows)
    keeper = KeeperProcess(file)
    keeper.start()
    return keeper, keeper.client(retry_for_s=0), file


def is_idle(client: Client) -> bool:
    return not client.status()["writer"]["is_open"]


def test_a_file_that_is_removed_is_not_made_anew(tmp_path: Path) -> None:
    """Reads go on from the last snapshot, writes say that it has gone, also after a restart; put back, it is served."""
    keeper, client, file = started(tmp_path)
    with keepers(keeper):
        wait_until(lambda: is_idle(client), what="a closed file")
        file.rename(tmp_path / "elsewhere")
        wait_until(lambda: client.status()["problem"], timeout_s=30, what="a problem")
        assert client.status()["problem"]["code"] == "database_missing"
        assert error_of(client.execute, "CREATE TABLE mine (x INTEGER)").code == "database_missing"
        assert client.query("SELECT count(*) FROM t").scalar() == 10
        assert "backup restore --at now" in keeper.cli("execute", "CREATE TABLE mine (x INTEGER)").stderr
        assert not file.exists()

        assert keeper.stop() == 0
        keeper.restart()
        client = keeper.client(retry_for_s=0)
        assert client.query("SELECT count(*) FROM t").scalar() == 10
        assert error_of(client.execute, "CREATE TABLE mine (x INTEGER)").code == "database_missing"
        assert not file.exists()

        (tmp_path / "elsewhere").rename(file)
        version = wait_until(lambda: written(client), timeout_s=30, what="a write")
        assert client.query("SELECT count(*) FROM t", at_least=version).scalar() == 11
        wait_until(lambda: client.status()["problem"] is None, what="an end of the problem")


def written(client: Client) -> int | None:
    try:
        return client.execute("INSERT INTO t VALUES (-1, 0)").version
    except PondkeeperError:
        return None


def test_a_file_that_is_replaced_between_writes_is_noticed_and_published(tmp_path: Path) -> None:
    """A restored backup is what everybody reads a moment later, and what the next write goes into."""
    keeper, client, file = started(tmp_path)
    with keepers(keeper):
        files.good(tmp_path / "restored.file", rows=77)
        wait_until(lambda: is_idle(client), what="a closed file")
        (tmp_path / "restored.file").replace(file)
        wait_until(
            lambda: client.query("SELECT count(*) FROM t").scalar() == 77, timeout_s=30, what="what was restored"
        )
        version = client.execute("INSERT INTO t VALUES (-1, 0)").version
        assert client.query("SELECT count(*) FROM t", at_least=version).scalar() == 78
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (78,)


@pytest.mark.fault
def test_a_file_that_is_replaced_under_an_open_writer_takes_no_acknowledged_write_with_it(tmp_path: Path) -> None:
    """The writer has the old file open: nothing that is acknowledged after the replacement may go into that one."""
    keeper, client, file = started(tmp_path)
    with keepers(keeper):
        files.good(tmp_path / "restored.file", rows=77)
        client.execute("INSERT INTO t VALUES (-1, 0)")
        assert client.status()["writer"]["is_open"], "the positive control: the old file is open"
        (tmp_path / "restored.file").replace(file)
        version = wait_until(lambda: written(client), timeout_s=30, what="a write")
        count = client.query("SELECT count(*) FROM t", at_least=version).scalar()
        assert count == 78, "what the replaced file had in its WAL was applied to the new one"
        assert keeper.stop() == 0
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (78,)


def test_a_file_replaced_by_one_that_is_none_leaves_the_readers_their_snapshot(tmp_path: Path) -> None:
    """What cannot be served is said; the last good version is served until a good file is there."""
    keeper, client, file = started(tmp_path)
    with keepers(keeper):
        wait_until(lambda: is_idle(client), what="a closed file")
        files.not_duckdb(tmp_path / "wrong.csv")
        (tmp_path / "wrong.csv").replace(file)
        wait_until(lambda: client.status()["problem"], timeout_s=30, what="a problem")
        assert client.status()["problem"]["code"] == "database_unreadable"
        assert error_of(client.execute, "DELETE FROM t").code == "database_unreadable"
        assert client.query("SELECT count(*) FROM t").scalar() == 10
        assert keeper.is_ready()


def test_the_remedy_for_a_lost_file_works(tmp_path: Path) -> None:
    """`pondkeeper backup restore --at now`, as the error says, beside the running keeper: everything published is there again."""
    keeper, client, file = started(tmp_path)
    with keepers(keeper):
        version = client.execute("INSERT INTO t VALUES (-1, 0)").version
        client.query("SELECT 1", at_least=version)
        wait_until(lambda: is_idle(client), what="a closed file")
        file.unlink()
        done = pondkeeper("backup", "restore", "--at", "now", "--home", str(keeper.home.root))
        assert done.returncode == 0, done.stderr
        version = client.execute("INSERT INTO t VALUES (-2, 0)").version
        assert client.query("SELECT count(*) FROM t", at_least=version).scalar() == 12


def test_a_home_that_is_removed_is_said_and_stops_no_read_that_runs(tmp_path: Path) -> None:
    """Somebody deletes `.pondkeeper`: the keeper stays up and says what it cannot do."""
    keeper, client, file = started(tmp_path)
    with keepers(keeper):
        wait_until(lambda: is_idle(client), what="a closed file")
        shutil.rmtree(keeper.home.root)
        assert client.query("SELECT count(*) FROM t").scalar() == 10
        with httpx.Client(base_url=keeper.url, trust_env=False) as http:
            assert http.get("/health/live").status_code == 200
        assert file.exists()
