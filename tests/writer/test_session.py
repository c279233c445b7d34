"""What one request leaves behind in the writer's session does not meet the next one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pondkeeper.engine.opening import WriterConfig
from pondkeeper.engine.writing import CommitUnknown
from pondkeeper.writer import session as session_module
from pondkeeper.writer.session import Session


def test_a_temporary_view_of_one_request_hides_nothing_from_the_next(tmp_path: Path) -> None:
    """A temp view named as a table serves its own request; the next request reads the table."""
    session = Session(WriterConfig(str(tmp_path / "pond.duckdb"), 2**28, 1, str(tmp_path / "temp"), 2**30))
    requests = [
        ["create table t as select 1 as i", "create table seen (i integer, request integer)"],
        ["create temp view t as select 99 as i", "insert into seen select i, 1 from t"],
        ["insert into seen select i, 2 from t"],
    ]
    for statements in requests:
        session.transaction().run([(sql, None) for sql in statements])
    transaction = session.transaction()

    assert transaction.run([("delete from seen where (i, request) in ((99, 1), (1, 2))", None)]) == [2]
    session.close()


def test_a_new_wal_has_its_name_on_disk_before_a_commit_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is synced after the first commit that follows a checkpoint, and not after each."""
    synced: list[bool] = []
    wal = tmp_path / "pond.duckdb.wal"
    monkeypatch.setattr(session_module, "sync_folder", lambda folder: synced.append(folder == tmp_path and wal.exists()))
    session = Session(WriterConfig(str(tmp_path / "pond.duckdb"), 2**28, 1, str(tmp_path / "temp"), 2**30))
    for number in range(4):
        session.transaction().run([(f"create table t{number} (i integer)", None)])
        session.keep_wal()
        if number == 1:
            assert synced == [True]
            session.checkpoint()
            assert not wal.exists()
    assert synced == [True, True]
    session.close()


@pytest.mark.fault
def test_a_commit_whose_wal_may_have_no_name_is_unknown(tmp_path: Path) -> None:
    """A folder that cannot be synced: nobody may be told that the commit will be there."""
    folder = tmp_path / "pond"
    session = Session(WriterConfig(str(folder / "pond.duckdb"), 2**28, 1, str(tmp_path / "temp"), 2**30))
    session.transaction().run([("create table t (i integer)", None)])
    shutil.move(folder, tmp_path / "elsewhere")
    with pytest.raises(CommitUnknown):
        session.keep_wal()
    session.close()
