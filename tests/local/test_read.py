"""`pondkeeper.read`: the newest snapshot, in nobody's way; clear errors where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

import pondkeeper
from pondkeeper.errors import DatabaseBusy, SnapshotNotFound, VersionNotReached
from tests.support.keeper import KeeperProcess, program_environment
from tests.support.programs import Program

COUNT = "SELECT count(*) FROM t"
SPILL = """
import sys, pondkeeper
with pondkeeper.read(sys.argv[1]) as connection:
    connection.execute("SET memory_limit = '60MB'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("CREATE TEMP TABLE big AS SELECT range AS n, md5(range::VARCHAR) AS s FROM range(1500000)")
    print(connection.execute("SELECT count(*) FROM (SELECT s FROM big ORDER BY s)").fetchone()[0])
"""


def test_it_stays_on_its_version_while_writes_go_on(kept: KeeperProcess) -> None:
    """One connection is one version for as long as it is open; the next one is newer; nobody waits for it."""
    client = kept.client()
    with pondkeeper.read(kept.target) as old:
        version = client.execute("INSERT INTO t VALUES (1)").version
        with pondkeeper.read(kept.target, at_least=version) as new:
            assert new.execute(COUNT).fetchone() == (1,)
        for number in range(5):
            client.query("SELECT 1", at_least=client.execute("INSERT INTO t VALUES (?)", [number]).version)
        assert old.execute(COUNT).fetchone() == (0,)
        with pytest.raises(duckdb.Error):
            old.execute("INSERT INTO t VALUES (2)")


def test_a_forked_child_is_told_why_it_may_not(kept: KeeperProcess) -> None:
    """Of a snapshot that its parent has open; it would share the parent's instance and temp folder. Afterwards it may."""
    told, tells = os.pipe()

    def forked() -> str:
        pid = os.fork()
        if pid == 0:
            try:
                with pondkeeper.read(kept.target) as inner:
                    os.write(tells, str(inner.execute(COUNT).fetchone()).encode())
            except DatabaseBusy as busy:
                os.write(tells, f"{busy.message} {busy.remedy}".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(told, 1000).decode()

    with pondkeeper.read(kept.target) as outer:
        refused = forked()
        assert outer.execute(COUNT).fetchone() == (0,)
    allowed = forked()
    for descriptor in (told, tells):
        os.close(descriptor)

    assert "forked" in refused
    assert "spawn" in refused
    assert allowed == "(0,)"


def test_by_name_and_while_a_program_has_the_file(kept: KeeperProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself may be in anybody's hands."""
    monkeypatch.chdir(kept.target.parent)
    with Program(kept.target).there() as program:
        for connection in (pondkeeper.read(), pondkeeper.read("pond"), pondkeeper.read("pond", home=kept.home.root)):
            assert connection.execute(COUNT).fetchone() == (0,)
            connection.close()
        program.let_go()


def test_a_version_that_does_not_come(kept: KeeperProcess) -> None:
    """`at_least` waits as long as it is told to, and names the newest."""
    newest = kept.client().query("SELECT 1").version
    with pytest.raises(VersionNotReached, match=f"the newest is {newest}"):
        pondkeeper.read(kept.target, at_least=newest + 1000, wait_s=0.3)


def test_at_least_waits_for_the_version(kept: KeeperProcess) -> None:
    """A version that is published meanwhile is waited for."""
    client = kept.client()
    newest = client.query("SELECT 1").version
    writes = threading.Thread(
        target=lambda: client.query("SELECT 1", at_least=client.execute("INSERT INTO t VALUES (1)").version)
    )
    writes.start()
    with pondkeeper.read(kept.target, at_least=newest + 1, wait_s=60) as connection:
        assert connection.execute(COUNT).fetchone() == (1,)
    writes.join()


def test_without_a_snapshot_the_file_is_left_alone(alone: Path) -> None:
    """A reader of the file would keep every writer out: instead it is said what to do."""
    with pytest.raises(SnapshotNotFound) as none:
        pondkeeper.read(alone)
    with pytest.raises(SnapshotNotFound):
        pondkeeper.read(alone.with_name("nowhere.duckdb"))

    assert "pondkeeper.write" in none.value.remedy


def test_snapshots_outlive_their_keeper_wherever_its_home_lies(alone: Path, tmp_path: Path) -> None:
    """The newest snapshot is served without a keeper; a version that nobody will publish is an error at once."""
    with KeeperProcess(alone, "--readers", "1", home=tmp_path / "elsewhere" / ".pondkeeper") as keeper:
        version = keeper.client().execute("INSERT INTO t VALUES (1)").version
        with pondkeeper.read(alone, at_least=version) as connection:
            assert connection.execute(COUNT).fetchone() == (1,)
    with pondkeeper.read(alone) as connection:
        assert connection.execute(COUNT).fetchone() == (1,)
    with pytest.raises(VersionNotReached, match="no keeper runs"):
        pondkeeper.read(alone, at_least=version + 1, wait_s=600)


def test_several_processes_that_spill_do_not_meet(kept: KeeperProcess, tmp_path: Path) -> None:
    """Trap: on 1.5 readers of one file share a temp folder, and crash when they spill at the same time."""
    environment = program_environment(TMPDIR=str(tmp_path))
    command = [sys.executable, "-c", SPILL, str(kept.target)]
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    answers = [reader.communicate(timeout=80) for reader in readers]

    assert [(reader.returncode, answer) for reader, answer in zip(readers, answers, strict=True)] == [(0, ("1500000\n", ""))] * 2
    assert os.listdir(tmp_path) == [], "nothing spilled stays behind"
