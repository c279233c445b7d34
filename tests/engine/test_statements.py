"""DuckDB's parser decides what a guest's text is; no text stands half outside our wrapping."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pondkeeper.engine.statements import reading_statement, wrapped, writing_statement
from pondkeeper.errors import PondkeeperError, RequestRefused, SqlInvalid, StatementNotAllowed
from tests.engine.rendering import answer

READS = [
    "select 1",
    "SELECT 1;",
    " ; select 1 ; ; ",
    "select 1; -- done; really",
    "select 1 -- no line end",
    "select 1 /* block */ ; /* another ; */",
    "/* first */ -- second\n select 1",
    "select ';' ; -- é ;",
    "select $$ ; -- ' $$ ;",
    "select $tag$ ) $$ ( $tag$",
    "from t limit 1",
    "with x as (select 1) from x",
    "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select * from r",
    "values (1), (2)",
    "table t",
    "(select 1)",
    "select 1 union all select 2 order by 1",
    "describe t",
    "describe select 1",
    "show tables",
    "summarize t",
    "from pragma_table_info('t')",
    "pivot t on g in (1, 2) using count(*)",
    "pivot (from t limit 9) on g using count(*);",
    "unpivot (select 1 as a, 2 as b) on a, b",
    "explain select 1",
    "explain analyze select count(*) from t;",
    "explain (format json) select 1",
    "/* why */ explain -- plan\n (select 1)",
    "\ufeffselect 1",
]
REFUSED = [
    "begin",
    "commit",
    "checkpoint",
    "vacuum",
    "analyze",
    "use memory",
    "execute p",
    "load json",
    "install httpfs",
    "detach pond",
    "attach ':memory:' as other",
    "set threads = 1",
    "set variable x = 1",
    "reset threads",
    "pragma version",
    "pragma table_info('t')",
    "call pragma_version()",
    "prepare p as select 1",
    "deallocate p",
    "copy t to '/tmp/x'",
    "export database '/tmp/x'",
    "import database '/tmp/x'",
    "insert into t values (1)",
    "delete from t",
    "truncate t",
    "update t set i = 1",
    "create temp table x as select 1",
    "create macro m() as 1",
    "create or replace temp view t as select 1",
    "drop table t",
    "select 1; select 2",
    "select 1; drop table t",
    "select 1\0; drop table t",
    "explain insert into t values (1)",
    "explain analyze create temp table x as select 1",
    "explain analyze set threads = 1",
    "explain explain select 1",
    "select 1) t, (select 2",
    "select 1) t where (true",
    "select 1) union all (select 2",
    "select 1 /* open",
    "select $$ open",
    "select ' open",
    'select " open',
    "t",
    "(t)",
    "1",
    "",
    ";",
    " \n ",
    "-- only a comment",
    "/* only a comment */",
    ")",
    "(",
    "select \ud800",
    "create secret s (type http)",
]
WRITES = [
    ("insert into t values (1, 2, 's', 0.5, now()::timestamp)", "insert"),
    ("insert or replace into t (i) select 1;", "insert"),
    ("update t set i = 1 where false", "update"),
    ("delete from t where false", "delete"),
    ("truncate t", "delete"),
    ("merge into t using t u on t.i = u.i when matched then delete", "merge_into"),
    ("create table x (i int)", "create"),
    ("create or replace view x as select 1", "create"),
    ("create type mood as enum ('a')", "create"),
    ("alter table t add column z int", "alter"),
    ("comment on table t is 'x'", "alter"),
    ("drop table t; -- gone", "drop"),
    ("vacuum", "vacuum"),
    ("analyze", "vacuum"),
    ("select 1", "select"),
    ("explain analyze delete from t where false", "explain"),
]
NOT_WRITTEN = [
    "attach 'x'", "detach x", "copy t to 'x'", "export database 'x'", "import database 'x'", "install x", "load x",
    "set threads = 1", "reset threads", "use x", "pragma threads = 1", "call pragma_version()", "begin", "commit",
    "rollback", "checkpoint", "prepare p as select 1", "execute p", "create secret s (type http)",
    "create or replace /* x */ persistent secret s (type http)", "drop secret s", "drop persistent secret s",
    "alter database pond set alias to other", "update extensions", "explain analyze checkpoint", "explain copy t to 'x'", "insert into t select 1; commit", "", "select 1\0",
]  # fmt: skip


@pytest.mark.parametrize("sql", READS)
def test_every_way_of_reading_is_allowed_and_answers(guest: duckdb.DuckDBPyConnection, sql: str) -> None:
    """SELECT in all its spellings, DESCRIBE, SHOW, SUMMARIZE, PIVOT and EXPLAIN give rows, whatever stands behind them."""
    rendered, body = answer(guest, sql)

    assert rendered.ending is not None
    assert rendered.ending.row_count > 0
    assert body.endswith(b"}")


@pytest.mark.parametrize("sql", REFUSED)
def test_everything_else_is_refused_with_a_reason(guest: duckdb.DuckDBPyConnection, sql: str) -> None:
    """No statement that changes, reaches out or is broken becomes a reading statement, and the error says what to do."""
    with pytest.raises((SqlInvalid, StatementNotAllowed)) as refused:
        reading_statement(guest, sql)

    assert refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize(("sql", "kind"), WRITES)
def test_a_writing_statement_is_known_by_its_kind(guest: duckdb.DuckDBPyConnection, sql: str, kind: str) -> None:
    """The kinds of writing are DuckDB's own names for them."""
    statement = writing_statement(guest, sql)

    assert statement.kind == kind
    assert not statement.sql.rstrip().endswith(";")


@pytest.mark.parametrize("sql", NOT_WRITTEN)
def test_the_writer_keeps_files_settings_and_transactions_to_itself(guest: duckdb.DuckDBPyConnection, sql: str) -> None:
    """What reaches outside the database, or ends the writer's transaction, is not taken."""
    with pytest.raises((SqlInvalid, StatementNotAllowed)):
        writing_statement(guest, sql)


def test_a_deleting_cte_changes_nothing(guest: duckdb.DuckDBPyConnection) -> None:
    """2.0 parses a DELETE in a CTE as a SELECT: the read-only file refuses it, 1.5 its parser, and the rows are there."""
    with pytest.raises(RequestRefused):
        answer(guest, "with d as (delete from t returning *) select * from d")

    assert answer(guest, "select count(*) as n from t", "ndjson")[1] == b'{"n":100000}\n'


def test_names_of_parameters_come_from_the_parser(guest: duckdb.DuckDBPyConnection) -> None:
    """Placeholders are known by name or by place before anything runs; one in a comment or a string is none."""
    assert reading_statement(guest, "select ?, $2 -- $3").parameter_names == {"1", "2"}
    assert reading_statement(guest, "select $a, '$b', $a;").parameter_names == {"a"}


PIECES = st.sampled_from(
    [
        *(
            "select 1",
            "from t",
            " ",
            "\n",
            ";",
            "--",
            "-- x\n",
            "/*",
            "*/",
            "(",
            ")",
            "'",
            '"',
            "$$",
            "$a$",
            "$1",
            "?",
            "\\",
        ),
        *(
            "union all",
            "t",
            ",",
            "as x",
            "where false",
            "limit 1",
            "drop table t",
            "begin",
            "explain",
            "analyze",
            "pivot",
        ),
        *(
            "on g using count(*)",
            "values (1)",
            "with x as (",
            "E'\\'",
            "\x00",
            "\ufeff",
            "\u00a0",
            "é",
            "create temp table z as",
        ),
        *(
            "copy t to",
            "describe",
            "pragma version",
            "set x = 1",
            "1",
            "*",
            "table",
            "() ",
            "[",
            "]",
            "{",
            "}",
            "::",
            "#1",
        ),
    ]
)


@given(st.lists(PIECES, min_size=1, max_size=9).map(lambda pieces: " ".join(pieces)) | st.text(max_size=40))
@example("select 1 --")
@example("select 1) x, (select 2 --")
@example("select 1 ;--\n;")
@example('select 1 as "a\n" -- \'')
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_gets_out_of_the_wrapping(guest: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Whatever the text: it is refused, or a query around it still is our query: one column, ours, and no row of theirs."""
    try:
        statement = reading_statement(guest, sql)
    except PondkeeperError as refused:
        assert isinstance(refused, (SqlInvalid, StatementNotAllowed)), refused.code
        return
    if statement.kind == "explain":
        return
    query = f"SELECT 'ours' AS ours FROM {wrapped(statement.sql)} WHERE false"
    parsed = guest.extract_statements(query)
    assert len([one for one in parsed if one.query]) <= 1
    if not statement.parameter_names:
        try:
            cursor = guest.cursor().execute(query)
        except duckdb.Error:
            return  # it names a column or a table that is not there: nothing ran
        assert [column[0] for column in cursor.description or []] == ["ours"]
        assert cursor.fetchall() == []
