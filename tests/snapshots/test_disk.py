"""Disks and mounts: a full disk, a read-only mount of the published folder, file systems without leases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.folders import visible_versions
from pondkeeper.snapshots.target import Target, take_away
from tests.snapshots.operators import CopierProcess, look

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture
def in_namespace() -> Callable[..., subprocess.Popen[str]]:
    """Runs a Python program in a user and mount namespace of its own."""
    probe = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"the kernel refuses user namespaces here: {probe.stderr.strip()}")

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [*UNSHARE, sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]

    return run


FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from pondkeeper.errors import DiskFull
from pondkeeper.files.paths import Home
from pondkeeper.snapshots.folders import visible_versions
from tests.snapshots.operators import CopierProcess, look, open_database
base = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(base / "disk")], check=True)
paths = Home(base / "disk" / ".pondkeeper").database(base / "warehouse.duckdb")
c = open_database(paths)
c.execute("create table t as select range i, uuid() u from range(300000)")
c.execute("create table state as select 1 v")
c.execute("checkpoint")
copier = CopierProcess(paths, prepare=False)
size = copier.publish(1)["size_bytes"]
free = os.statvfs(base / "disk")
filler = base / "disk" / "filler"
filler.write_bytes(bytes(free.f_bavail * free.f_frsize - int(sys.argv[2])))
c.execute("update state set v = 2")
c.execute("checkpoint")
if len(sys.argv) > 3:
    import pondkeeper.snapshots.shelf
    copier.kill()
    prelude = "import pondkeeper.snapshots.shelf as s; s.Shelf._check_space = lambda *_: None\\n"
    copier = CopierProcess(paths, prepare=False, prelude=prelude)
try:
    copier.publish(2)
    refused = None
except DiskFull as error:
    refused = error.message
left = [entry.name for entry in paths.snapshots.iterdir() if entry.name.startswith(".private")]
before = look(paths.published, "select v from state")
filler.unlink()
copier.publish(2)
after = look(paths.published, "select v from state")
print(json.dumps([refused, visible_versions(paths.snapshots), left, before, after]))
copier.stop()
"""


@pytest.mark.fault
@pytest.mark.privileged
@pytest.mark.parametrize("reserve", ["kept", "none"])
def test_a_full_disk(tmp_path: Path, in_namespace: Callable[..., subprocess.Popen[str]], reserve: str) -> None:
    """Refused with a reserve left, or stopped by the disk in mid-copy: an error, old snapshots whole, next one works."""
    (tmp_path / "disk").mkdir()
    arguments = [1 << 20] if reserve == "kept" else [1 << 20, "no reserve"]
    output, errors = in_namespace(FULL_DISK, tmp_path, *arguments).communicate(timeout=60)
    assert output, errors
    refused, versions, left, before, after = json.loads(output)
    assert refused and "newest snapshot is untouched" in refused
    assert (versions, left) == ([1, 2], [])
    assert (before, after) == ([[1]], [[2]])


READ_ONLY_MOUNT = """
import subprocess, sys, duckdb, os
source, mount = sys.argv[1:]
subprocess.run(["mount", "--bind", source, mount], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", mount], check=True)
try:
    open(mount + "/x", "w")
    raise SystemExit("the mount is not read-only")
except OSError:
    pass
plain = duckdb.connect(mount + "/published.duckdb", read_only=True)
print(plain.execute("select count(*) from t").fetchone()[0], flush=True)
plain.close()
held = duckdb.connect(mount + "/published/warehouse.duckdb", read_only=True)
print(held.execute("select count(*) from v").fetchone()[0], flush=True)
sys.stdin.readline()
print(held.execute("select count(*) from v").fetchone()[0], flush=True)
again = duckdb.connect(mount + "/published.duckdb", read_only=True)
print(again.execute("select count(*) from t").fetchone()[0], flush=True)
"""


@pytest.mark.privileged
def test_published_through_a_read_only_mount(
    paths: DatabasePaths,
    writer: duckdb.DuckDBPyConnection,
    copier: CopierProcess,
    tmp_path: Path,
    in_namespace: Callable[..., subprocess.Popen[str]],
) -> None:
    """A program in another mount namespace opens both links read-only, stays on its version while others come, and
    neither stops the writer nor is changed under it; a view that names the catalog works."""
    writer.execute("create table t as select range i from range(1000)")
    writer.execute("create view v as select * from warehouse.main.t")
    writer.execute("checkpoint")
    copier.publish(1, 2)
    (tmp_path / "mounted").mkdir()
    program = in_namespace(READ_ONLY_MOUNT, paths.folder, tmp_path / "mounted")
    assert program.stdout and program.stderr
    first = [program.stdout.readline().strip() for _ in range(2)]
    assert first == ["1000", "1000"], program.stderr.read() if program.poll() is not None else first
    for version in range(2, 9):
        writer.execute("insert into t select range from range(100)")
        writer.execute("checkpoint")
        copier.publish(version, 2)
    assert visible_versions(paths.snapshots) == [1, 7, 8]
    output, errors = program.communicate("go\n", timeout=30)
    assert output.split() == ["1000", "1700"], errors


def test_a_view_that_names_the_catalog(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """A view made on `warehouse.main.t`, as dbt makes them, works in the snapshot and through the named link."""
    writer.execute("create table t as select 42 i")
    writer.execute("create view v as select * from warehouse.main.t")
    writer.execute("checkpoint")
    answer = copier.publish(1)
    for path in (Path(answer["path"]), paths.published_by_name):
        assert look(path, "select i from v") == [[42]]
    links = (paths.published, paths.published_by_name)
    assert not any(link.readlink().is_absolute() for link in links)


def test_without_leases_nothing_published_is_changed(
    paths: DatabasePaths,
    writer: duckdb.DuckDBPyConnection,
    start_copier: Callable[..., CopierProcess],
) -> None:
    """Where the kernel cannot say who has a file open it is never reused; DuckDB's own lock decides about removal."""
    prelude = (
        "import fcntl, errno, pondkeeper.files.leases as l\n"
        "def refuse(*_): raise OSError(errno.EINVAL, 'no leases here')\n"
        "l.fcntl = type('F', (), {**vars(fcntl), 'fcntl': staticmethod(refuse)})\n"
    )
    copier = start_copier(prelude=prelude)
    writer.execute("create table t(i int)")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print(1, flush=True); input()"
    holder = None
    for version in range(1, 7):
        writer.execute("insert into t values (1)")
        writer.execute("checkpoint")
        copier.publish(version, keep=2)
        if version == 2:
            command = [sys.executable, "-c", code, str(paths.snapshot(2))]
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert holder.stdout and holder.stdout.readline()
    assert holder is not None
    assert visible_versions(paths.snapshots) == [2, 5, 6]
    holder.communicate(b"\n")
    assert copier.retire(2) == [2]
    assert look(paths.published, "select count(*) from t") == [[6]]


def test_what_somebody_removed_is_forgotten(
    paths: DatabasePaths, writer: duckdb.DuckDBPyConnection, copier: CopierProcess
) -> None:
    """Snapshots deleted by hand, even all of them with their folder, do not stop the next publish."""
    writer.execute("create table t as select 1 i")
    writer.execute("checkpoint")
    for version in range(1, 6):
        copier.publish(version)
    subprocess.run(["rm", "-rf", str(paths.snapshot(4).parent)], check=True)
    copier.publish(6)
    # Why until: the copier makes its next spare meanwhile, and rm gives up on a folder that fills while it is emptied.
    subprocess.run(["sh", "-c", 'until rm -rf "$1" 2>/dev/null; do :; done', "sh", str(paths.folder)], check=True, timeout=20)
    copier.publish(7)
    assert visible_versions(paths.snapshots) == [7]
    assert look(paths.published, "select i from t") == [[1]]


def test_recycling_a_file_that_is_gone(paths: DatabasePaths) -> None:
    """A version without its file is nothing to recycle."""
    paths.snapshot(1).parent.mkdir(parents=True)
    assert Target.recycle(paths.snapshots, 1, paths.file.name, None) is None  # type: ignore[arg-type]
    paths.snapshot(1).write_bytes(b"x")
    private = take_away(paths.snapshots, 1, paths.file.name)
    assert private is not None and private.exists() and not paths.snapshot(1).exists()
