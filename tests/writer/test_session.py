"""What one request leaves behind in the writer's session does not meet the next one."""

from __future__ import annotations

from pathlib import Path

from pondkeeper.engine.opening import WriterConfig
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
