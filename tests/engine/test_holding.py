"""No statement from outside takes DuckDB's lock away, folds the WAL, or listens to other guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pondkeeper.engine import holding
from pondkeeper.engine.functions import refuse_forbidden
from pondkeeper.engine.holding import HeldLock, holds_lock
from pondkeeper.engine.opening import WriterConfig, open_database
from pondkeeper.engine.statements import reading_statement, writing_statement
from pondkeeper.engine.writing import Judge, Transaction
from pondkeeper.errors import DatabaseUnavailable, StatementNotAllowed

FORBIDDEN = [
    "select * from checkpoint()",
    'from "force_checkpoint" ()',
    "from system.main.checkpoint /* so */ ()",
    "from CHECKPOINT -- so\n()",
    "select 'é' from checkpoint()",
    "from query('from checkpoint()')",
    "from query_table(['/x/pond.duckdb'])",
    "from json_execute_serialized_sql(json_serialize_sql('from t'))",
    "from enable_logging('QueryLog', storage = 'stdout')",
    "select content from read_blob('/x/pond.duckdb')",
    "select * from read_text('/x'), read_csv_auto('/x'), read_json_objects('/x'), read_parquet('/x')",
    "from parquet_metadata('/x')",
    "from glob('/*')",
    "with x as (select * from sniff_csv('/x')) from x",
]
HARMLESS = [
    'select \'read_blob(\', "query(" from (select 1 as "query(") -- checkpoint()',
    "select $$ glob('/*') $$ /* query() */",
    "select 1 as checkpoint, 2 as query, 3 as read_csv",
    "select x from (select 'a' as x) where x glob 'a*'",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_functions_that_reach_past_the_database_are_refused_at_both_gates(
    guest: duckdb.DuckDBPyConnection, sql: str
) -> None:
    """Quoted, qualified or behind a comment: a call by name of such a function is neither read nor written."""
    for gate in (reading_statement, writing_statement):
        with pytest.raises(StatementNotAllowed, match="not open to statements from outside"):
            gate(guest, sql)


@pytest.mark.parametrize("sql", HARMLESS)
def test_their_names_in_strings_comments_and_columns_are_no_calls(guest: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Only a call counts: DuckDB's own tokens tell a name from a text."""
    assert guest.execute(reading_statement(guest, sql).sql).fetchall()


@pytest.mark.parametrize(
    "sql", ["insert into query (sql) values ('x')", "create table if not exists main.checkpoint (i int)"]
)
def test_a_table_may_carry_such_a_name(sql: str) -> None:
    """`INSERT INTO query (…)` names a table and its columns."""
    refuse_forbidden(sql)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    path = tmp_path / "pond.duckdb"
    connection = open_database(WriterConfig(str(path), 2**28, 1, str(tmp_path / "temp"), 2**30))
    connection.execute("CREATE TABLE t (i INTEGER)")
    yield connection, path
    connection.close()


class Gappy:
    """The table of locks as a busy machine gives it: some reads miss lines."""

    def __init__(self, missing: int) -> None:
        self.missing = missing
        self.reads = 0

    def read_text(self) -> str:
        self.reads += 1
        return "" if self.reads <= self.missing else Path("/proc/locks").read_text()


def test_a_lock_that_one_look_misses_is_looked_for_again(
    writer: tuple[duckdb.DuckDBPyConnection, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives its table in pieces, and a line may be in none of them; one that is in no look at all is gone."""
    _, path = writer
    for missing, held in ((0, True), (1, True), (holding.LOOKS - 1, True), (holding.LOOKS, False)):
        monkeypatch.setattr(holding, "_LOCKS", Gappy(missing))
        assert holds_lock(str(path)) is held


def test_the_kernel_tells_whether_the_lock_is_held(writer: tuple[duckdb.DuckDBPyConnection, Path]) -> None:
    """After the open the lock is listed as ours; on another file, which nobody opened, it is not."""
    _, path = writer
    other = path.with_name("other.duckdb")
    other.write_bytes(b"")

    assert holds_lock(str(path))
    assert not holds_lock(str(other))


@pytest.mark.fault
def test_nothing_is_committed_once_the_lock_is_gone(writer: tuple[duckdb.DuckDBPyConnection, Path]) -> None:
    """The trap sprung on purpose (a descriptor of the file closed): the write is refused, and the process told to end."""
    connection, path = writer
    lock = HeldLock(str(path))
    committed: list[bool] = []
    judge = Judge(connection.cursor())
    first = Transaction(connection.cursor(), judge, lock)
    first.run([("insert into t values (1)", None)], lambda: committed.append(True))
    path.open("rb").close()
    assert not holds_lock(str(path))

    with pytest.raises(DatabaseUnavailable, match="nothing of it was committed") as raised:
        Transaction(connection.cursor(), judge, lock).run(
            [("insert into t values (2)", None)], lambda: committed.append(True)
        )

    assert raised.value.fatal
    assert committed == [True]
    assert connection.execute("SELECT i FROM t").fetchall() == [(1,)]


@pytest.mark.fault
def test_a_statement_that_reads_the_file_itself_springs_no_trap(
    writer: tuple[duckdb.DuckDBPyConnection, Path],
) -> None:
    """`FROM '<its path>'` passes the gate, because a name cannot be told from a path: then the lock is there or no commit."""
    connection, path = writer
    lock = HeldLock(str(path))
    try:
        Transaction(connection.cursor(), Judge(connection.cursor()), lock).run(
            [("insert into t values (3)", None), (f"select count(*) from '{path}'", None)]
        )
    except Exception:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    else:
        assert holds_lock(str(path))
