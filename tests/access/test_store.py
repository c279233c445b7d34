"""control.db: private, migrated in whole steps, and refused when it is not ours."""

from __future__ import annotations

import signal
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from pondkeeper.access import store as store_module
from pondkeeper.access.keys import Keys
from pondkeeper.access.schema import MIGRATIONS
from pondkeeper.access.store import Store
from pondkeeper.errors import ControlUnavailable
from tests.access.conftest import OtherProcess

HALF_A_STEP = """
def connect(path):
    connection = connect_as_ever(path)
    connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return connection
connect_as_ever, store_module._connect = store_module._connect, connect
step = ("CREATE TABLE later (x INTEGER)", "INSERT INTO later VALUES (1)", "SELECT die()" if sys.argv[2] == "die" else "SELECT 1")
store_module.MIGRATIONS = (*store_module.MIGRATIONS, step)
store = Store.open(control_db)
with store.read() as connection:
    print(connection.execute("PRAGMA user_version").fetchone()[0], len(Keys(store).all()))
"""


def test_all_files_are_private(store: Store, keys: Keys, control_db: Path) -> None:
    """control.db, its WAL and its mark are 0600 from the first moment on, whatever the umask."""
    keys.create("etl")
    names = {file.name for file in control_db.parent.iterdir()}

    assert {"control.db", "control.db-wal", "control.mark"} <= names
    for file in control_db.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert stat.S_IMODE(control_db.parent.stat().st_mode) == 0o700


def test_files_are_private_under_an_open_umask(other_process: OtherProcess, control_db: Path) -> None:
    """A careless umask does not open the keys to others."""
    other_process.run("os.umask(0); store = Store.open(control_db); Keys(store).create('etl')")

    assert stat.S_IMODE(control_db.stat().st_mode) == 0o600


def test_a_control_db_that_others_may_read_is_closed(control_db: Path) -> None:
    """Somebody's chmod is mended at the next open."""
    Store.open(control_db).close()
    control_db.chmod(0o644)

    Store.open(control_db).close()

    assert stat.S_IMODE(control_db.stat().st_mode) == 0o600


def test_an_empty_file_becomes_a_control_db(control_db: Path) -> None:
    """A crash right after the file was made leaves an empty one; it is used."""
    control_db.parent.mkdir()
    control_db.touch()

    with Store.open(control_db) as store:
        assert Keys(store).all() == []


def test_a_file_that_another_process_makes_while_we_look_is_ours(control_db: Path) -> None:
    """Tables that appear between two looks are not those of another program."""
    control_db.parent.mkdir()
    control_db.touch()
    looks: list[str] = []

    def look(statement: str) -> None:
        looks.append(statement)
        if len(looks) == 2:
            Store.open(control_db).close()

    with closing(store_module._connect(control_db)) as connection:
        connection.set_trace_callback(look)
        store_module._refuse_other_file(connection)

    assert len(looks) == 2


@pytest.mark.fault
def test_a_crash_in_the_middle_of_a_migration_leaves_the_step_before(
    other_process: OtherProcess, control_db: Path
) -> None:
    """A step is whole or not at all: after SIGKILL inside it the keys are there, and the step can be taken."""
    with Store.open(control_db) as store:
        Keys(store).create("etl")
    with other_process.start(HALF_A_STEP, "die") as process:
        process.communicate(timeout=60)

    assert process.returncode == -signal.SIGKILL, "positive control: it died inside the step"
    with Store.open(control_db) as store, store.read() as connection:
        tables = {row["name"] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert "keys" in tables
        assert "later" not in tables
        assert [key.name for key in Keys(store).all()] == ["etl"]
    assert other_process.run(HALF_A_STEP, "live") == f"{len(MIGRATIONS) + 1} 1"


def test_a_newer_control_db_is_refused(control_db: Path, other_process: OtherProcess) -> None:
    """An older Pondkeeper does not touch what a newer one made."""
    other_process.run(HALF_A_STEP, "live")

    with pytest.raises(ControlUnavailable, match="newer Pondkeeper"):
        Store.open(control_db)


def test_the_file_of_another_program_is_refused_untouched(control_db: Path) -> None:
    """A SQLite file that is not ours keeps every byte."""
    control_db.parent.mkdir()
    connection = sqlite3.connect(control_db)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = control_db.read_bytes()

    with pytest.raises(ControlUnavailable, match="another program"):
        Store.open(control_db)

    assert control_db.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be looked at" * 40, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_a_damaged_file_is_refused_with_a_remedy(control_db: Path, content: bytes) -> None:
    """Damage is an error with a remedy, its message names no path, and the file is left as it is."""
    control_db.parent.mkdir()
    control_db.write_bytes(content)

    with pytest.raises(ControlUnavailable) as caught:
        Store.open(control_db)

    assert str(control_db) not in caught.value.message + caught.value.remedy
    assert caught.value.private is not None
    assert control_db.read_bytes() == content


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """What the operating system refuses is an error of ours too."""
    (tmp_path / "home").write_text("")

    with pytest.raises(ControlUnavailable):
        Store.open(tmp_path / "home" / "control.db")


def test_a_failed_change_leaves_nothing(store: Store, keys: Keys) -> None:
    """An exception inside a change rolls back all of it, and the next change works."""
    keys.create("etl")
    mark = store.mark.read()

    def fail_after_deleting() -> None:
        with store.change() as connection:
            connection.execute("DELETE FROM keys")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_deleting()

    assert [key.name for key in keys.all()] == ["etl"]
    assert store.mark.read() == mark
    keys.create("dashboard")
    assert store.mark.read() != mark


def test_many_processes_make_one_first_key(other_process: OtherProcess, control_db: Path) -> None:
    """Several first starts at once: the file is made once, migrated once, and exactly one gets the admin token."""
    code = "sys.stdin.read(1); store = Store.open(control_db); print(Keys(store).ensure_admin_key() or '')"
    processes = [other_process.start(code) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0] * 6, outputs
    assert sum(output.startswith("pk_") for output, _ in outputs) == 1
