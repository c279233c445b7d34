"""A WAL that does not belong to the file beside it: `check` says so, where DuckDB refuses it, and nowhere else."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from pondkeeper.cli.doctor import wal
from pondkeeper.cli.doctor.finding import Finding
from pondkeeper.files.paths import DatabasePaths, Home
from tests.support.keeper import pondkeeper

VERSIONS = ["v1.4.0", "v1.5.0"]


@dataclass(frozen=True)
class History:
    """A database at its first checkpoints: copies of the file, each with the WAL that followed."""

    folder: Path
    storage: str

    def make(self, name: str) -> History:
        file = self.folder / name
        connection = duckdb.connect(str(file), config={"storage_compatibility_version": self.storage})
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("CREATE TABLE t (i INTEGER)")
        for number in range(4):
            connection.execute("CHECKPOINT")
            connection.execute("INSERT INTO t VALUES (?)", [number])
            # Trap: reading the file here would drop DuckDB's lock; nobody else is there to take it.
            shutil.copy(file, self.folder / f"{name}.{number}")
            shutil.copy(f"{file}.wal", self.folder / f"{name}.{number}.wal")
        connection.close()
        return self

    def beside(self, file: str, its_wal: str) -> DatabasePaths:
        """A database of that file with that WAL."""
        paths = Home(self.folder / "home").database(self.folder / "d.duckdb")
        shutil.copy(self.folder / file, paths.file)
        shutil.copy(self.folder / f"{its_wal}.wal", paths.wal)
        return paths


def opens(paths: DatabasePaths) -> bool:
    try:
        duckdb.connect(str(paths.file)).close()
    except duckdb.IOException:
        return False
    return True


def examined(paths: DatabasePaths) -> Finding:
    return wal.examine("d", paths)


@pytest.mark.parametrize("storage", VERSIONS)
def test_each_kind_is_named_where_duckdb_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    """Another database's, an older and a newer one are problems with a remedy; the file's own is none."""
    monkeypatch.setattr(wal, "BETWEEN_LOOKS_S", 0)
    history = History(tmp_path, storage).make("a").make("b")
    for file, its_wal, words in (
        ("a.3", "b.3", "another database"),
        ("a.3", "a.2", "older than the file"),
        ("a.3", "a.1", "older than the file"),
        ("a.1", "a.3", "newer than the file"),
    ):
        paths = history.beside(file, its_wal)
        found = examined(paths)
        assert (found.level, words in found.what) == ("problem", True), (file, its_wal, found)
        assert found.remedy
        assert not opens(paths)

    paths = history.beside("a.3", "a.3")
    assert examined(paths).level == "ok"
    assert opens(paths)


@pytest.mark.parametrize("moment", ["before_header", "before_truncate"])
def test_a_crash_in_a_checkpoint_leaves_no_stale_wal(tmp_path: Path, moment: str) -> None:
    """Before the checkpoint counts the WAL is the file's own; after it, DuckDB knows it by its end, and so do we."""
    paths = Home(tmp_path / "home").database(tmp_path / "d.duckdb")
    connection = duckdb.connect(str(paths.file), config={"storage_compatibility_version": "v1.5.0"})
    connection.execute("CREATE TABLE t (i INTEGER)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute(f"SET debug_checkpoint_abort = '{moment}'")
    with pytest.raises(duckdb.FatalException):
        connection.execute("CHECKPOINT")
    connection.close()

    found = examined(paths)
    assert found.level == "ok", found
    assert ("in the file already" in found.what) == (moment == "before_truncate")
    assert opens(paths)


def test_files_that_do_not_say_whose_a_wal_is(tmp_path: Path) -> None:
    """DuckDB applies any WAL to a file of an early storage version; `check` says that nobody can tell."""
    history = History(tmp_path, "v1.0.0").make("a").make("b")
    paths = history.beside("a.3", "b.2")

    found = examined(paths)
    assert found.level == "ok"
    assert "does not say whose" in found.what
    assert opens(paths)


def test_what_was_put_aside_is_named(tmp_path: Path) -> None:
    """The WAL of a replaced file is a warning as long as it lies there."""
    paths = Home(tmp_path / "home").database(tmp_path / "d.duckdb")
    assert list(wal.left_aside("d", paths)) == []
    (tmp_path / "d.duckdb.wal.of-replaced-file").write_bytes(b"x")
    [found] = wal.left_aside("d", paths)
    assert (found.level, "of-replaced-file" in found.what) == ("warning", True)


def test_the_command_says_it(tmp_path: Path) -> None:
    """Exit code 1 and the remedy, for a file that nobody serves yet."""
    paths = History(tmp_path, "v1.5.0").make("a").beside("a.3", "a.1")
    done = pondkeeper("check", str(paths.file), "--json")

    assert done.returncode == 1
    [told] = [each for each in json.loads(done.stdout) if "WAL" in each["what"]]
    assert told["level"] == "problem"
    assert "d.duckdb.wal" in told["remedy"]
