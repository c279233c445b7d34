"""A key for some tables reads these, by whatever statement; nothing of the others, by no statement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pondkeeper.engine.mirror import Mirror
from pondkeeper.engine.opening import ReaderConfig, open_snapshot
from pondkeeper.engine.render.answer import render
from pondkeeper.engine.render.known import KnownStatements
from pondkeeper.engine.statements import reading_statement
from pondkeeper.errors import Forbidden, PondkeeperError

SECRET = 8_675_309
SCHEMA = f"""
CREATE SCHEMA sales; CREATE SCHEMA "Odd . schema";
CREATE TYPE mood AS ENUM ('fine', 'it''s bad');
CREATE TABLE t (a INTEGER PRIMARY KEY, b VARCHAR DEFAULT 'x', m mood, l INTEGER[], s STRUCT(x INTEGER, "y z" VARCHAR),
                u UNION(i INTEGER, s VARCHAR), d DECIMAL(10, 2), g INTEGER GENERATED ALWAYS AS (a + 1));
INSERT INTO t (a, b, m) VALUES (1, 'one', 'fine'), (2, 'two', 'it''s bad');
CREATE TABLE secret (z INTEGER); INSERT INTO secret VALUES ({SECRET});
CREATE TABLE sales.orders (id INTEGER, note VARCHAR); INSERT INTO sales.orders VALUES (7, 'o');
CREATE TABLE sales.secret (z INTEGER); INSERT INTO sales.secret VALUES ({SECRET});
CREATE TABLE "Odd . schema"."odd "" table" (z INTEGER); INSERT INTO "Odd . schema"."odd "" table" VALUES (9);
CREATE TABLE pg_am (z INTEGER); INSERT INTO pg_am VALUES ({SECRET});
CREATE VIEW open_view AS SELECT a, b FROM t;
CREATE VIEW leaky AS SELECT a, (SELECT max(z) FROM secret) AS z FROM t;
CREATE VIEW sales.twice_leaky AS SELECT * FROM leaky;
CREATE VIEW granted_view AS SELECT count(*) AS secrets, max(z) AS most FROM secret;
CREATE VIEW catalog_view AS SELECT sql FROM duckdb_views();
CREATE MACRO leak(x) AS (SELECT max(z) + x FROM secret);
CREATE MACRO leaks() AS TABLE SELECT * FROM secret;
CREATE MACRO plus(x) AS x + 1, (x, y) AS x + y;
CREATE MACRO lower(x) AS (SELECT max(z)::VARCHAR FROM secret);
CHECKPOINT;
"""
GRANTS = (("main", "t"), ("main", "granted_view"), ("sales", "orders"))
Ask = Callable[..., list[list[Any]]]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[duckdb.DuckDBPyConnection, ReaderConfig]]:
    folder = tmp_path_factory.mktemp("mirror")
    with duckdb.connect(str(folder / "pond.duckdb")) as connection:
        for statement in duckdb.extract_statements(SCHEMA):
            connection.execute(statement)
    config = ReaderConfig(str(folder / "pond.duckdb"), 512 * 1024 * 1024, 2, str(folder / "temp"), 1024**3)
    connection = open_snapshot(config)
    yield connection, config
    connection.close()


@pytest.fixture(scope="module")
def mirror(snapshot: tuple[duckdb.DuckDBPyConnection, ReaderConfig]) -> Iterator[Mirror]:
    made = Mirror(*snapshot, GRANTS)
    yield made
    made.close()


@pytest.fixture
def ask(snapshot: tuple[duckdb.DuckDBPyConnection, ReaderConfig], mirror: Mirror) -> Ask:
    """The rows of a statement, asked as the reader process asks them; `grants=False` asks without a mirror."""

    def asked(sql: str, parameters: Any = None, *, grants: bool = True) -> list[list[Any]]:
        with snapshot[0].cursor() as cursor:
            statement = reading_statement(cursor, sql)
            in_mirror = grants and mirror.answers(statement, parameters)
            source = mirror.connection if in_mirror else cursor
            answer = render(source, statement, parameters, "json", 1000, 10**6, 1, KnownStatements())
            return list(json.loads(b"".join(answer.chunks()))["rows"])

    return asked


ALLOWED = [
    ("SELECT a, b FROM t ORDER BY a", [[1, "one"], [2, "two"]]),
    ("FROM T SELECT count(*)", [[2]]),
    ("SELECT count(*) FROM pond.main.t WHERE false", [[0]]),
    ("SELECT a FROM t WHERE m = 'fine' AND m::mood = 'fine'", [[1]]),
    ("SELECT id FROM sales.orders JOIN t ON id > a WHERE a = 1", [[7]]),
    ("WITH x AS (FROM t), y AS MATERIALIZED (FROM x) SELECT count(*) FROM x, y", [[4]]),
    ("SELECT secrets FROM granted_view", [[1]]),
    ("SELECT a FROM open_view ORDER BY a LIMIT 1", [[1]]),
    ("SELECT a FROM t WHERE a IN (SELECT range FROM range(2))", [[1]]),
    ("SELECT plus(a), plus(a, 5) FROM t WHERE a = 1", [[2, 6]]),
    ("SELECT sum(a) OVER (ORDER BY a) FROM t QUALIFY row_number() OVER (ORDER BY a) = 2", [["3"]]),
    ("SELECT unnest([a, a]) FROM t WHERE a = 2", [[2], [2]]),
    ("SELECT count(*) FROM t TABLESAMPLE 100%", [[2]]),
    ("PIVOT (SELECT b, a FROM t) ON b IN ('one', 'two') USING sum(a)", [["1", "2"]]),
    ("SELECT column_name FROM (DESCRIBE t) LIMIT 1", [["a"]]),
    ("SELECT (SELECT max(a) FROM t), EXISTS (FROM sales.orders)", [[2, True]]),
    ("SELECT 1", [[1]]),
    ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT max(n) FROM r", [[3]]),
    ("SELECT secret.a FROM t AS secret WHERE secret.a = 1", [[1]]),
    ("WITH secret AS (SELECT 1 AS z) FROM secret", [[1]]),
    ("FROM t SELECT a ORDER BY a DESC LIMIT 1", [[2]]),
    ("SELECT table_name FROM information_schema.tables ORDER BY 1", [["catalog_view"], ["granted_view"], ["open_view"], ["orders"], ["pg_am"], ["t"]]),
    ("SELECT name FROM (SHOW TABLES) ORDER BY 1", [["catalog_view"], ["granted_view"], ["open_view"], ["pg_am"], ["t"]]),
    ("SELECT count(*) FROM duckdb_columns() WHERE table_name = 'secret' OR column_name = 'z'", [[0]]),
    ("SELECT count(*) FROM pragma_table_info('t')", [[8]]),
]

REFUSED = [
    "FROM secret",
    "FROM main.secret",
    "FROM pond.secret",
    "FROM pond.main.secret",
    'FROM "SECRET"',
    "FROM sales.secret",
    'FROM "Odd . schema"."odd "" table"',
    "FROM pg_am",
    "FROM main.pg_am",
    "FROM leaky",
    "SELECT a FROM leaky",
    "FROM sales.twice_leaky",
    "FROM catalog_view, t",
    "SELECT leak(1)",
    "SELECT lower('A')",
    "SELECT lower(b) FROM t",
    "FROM leaks()",
    "SELECT a FROM t WHERE a < (SELECT max(z) FROM secret)",
    "SELECT a, (SELECT max(z) FROM secret) FROM t",
    "SELECT a FROM t UNION ALL FROM secret",
    "WITH x AS (FROM secret) FROM x",
    "WITH t AS (FROM secret) FROM t",
    "SELECT * FROM t, LATERAL (SELECT z FROM secret WHERE z > a)",
    "SELECT * FROM t JOIN secret ON true",
    "SELECT count(*) FROM secret WHERE false",
    "SELECT EXISTS (FROM secret)",
    "SELECT a FROM t ORDER BY (SELECT max(z) FROM secret)",
    "SELECT a FROM t LIMIT (SELECT max(z) FROM secret)",
    "SELECT count(*) FILTER (a < (SELECT max(z) FROM secret)) FROM t",
    "SELECT list_transform([1], lambda x: (SELECT max(z) FROM secret))",
    "DESCRIBE secret",
    "SUMMARIZE secret",
    "SUMMARIZE SELECT * FROM secret",
    "SHOW secret",
    "FROM pragma_table_info('secret')",
    "FROM pragma_storage_info('secret')",
    "FROM pragma_storage_info('t')",
    "FROM duckdb_functions()",
    "FROM duckdb_settings()",
    "FROM duckdb_logs",
    "FROM duckdb_databases() d, t",
    "SELECT sql FROM duckdb_views() v, t",
    "FROM t WHERE a IN (SELECT table_oid FROM duckdb_tables())",
    "SELECT pg_get_viewdef(1), a FROM t",
    "FROM sqlite_master, t",
    "PIVOT t ON b USING sum(a)",
    "PIVOT secret ON z IN (1) USING sum(z)",
    "UNPIVOT secret ON z",
    "EXPLAIN FROM secret",
    "EXPLAIN ANALYZE FROM secret",
    "EXPLAIN FROM t",
    "FROM query('FROM secret')",
    "FROM query_table('secret')",
    "FROM (VALUES (1)) v(x) WHERE x IN (FROM secret)",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT z FROM secret, r WHERE n < 2) FROM r",
    "SELECT COLUMNS(*) FROM secret",
    "SELECT t.a FROM t ANTI JOIN secret ON true",
    "SELECT /* FROM t */ z -- FROM t\nFROM secret",
    'FROM "main".\u00a0secret',
    "TABLE secret",
    "SELECT * FROM nobody",
]


@pytest.mark.parametrize(("sql", "rows"), ALLOWED)
def test_what_is_granted_is_read(ask: Ask, sql: str, rows: list[list[Any]]) -> None:
    assert ask(sql) == rows


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_not_granted_is_not(ask: Ask, sql: str) -> None:
    with pytest.raises(PondkeeperError) as refused:
        ask(sql)
    assert str(SECRET) not in str(refused.value.to_wire(with_private=True))


def test_most_of_what_is_refused_would_be_answered_without_grants(ask: Ask) -> None:
    """The control: these statements do read the secret, or run at least."""
    answered = 0
    for sql in REFUSED:
        try:
            ask(sql, grants=False)
            answered += 1
        except PondkeeperError:
            continue
    assert answered > len(REFUSED) * 0.7


def test_a_table_that_is_not_granted_is_to_it_as_one_that_does_not_exist(ask: Ask) -> None:
    told = []
    for name in ("secret", "nobody"):
        with pytest.raises(Forbidden) as refused:
            ask(f"FROM {name}")
        told.append(refused.value.message.replace(name, "NAME"))
    assert told[0] == told[1]


def test_parameters_are_bound_too(ask: Ask) -> None:
    assert ask("SELECT b FROM t WHERE a = ?", [2]) == [["two"]]
    assert ask("SELECT b FROM t WHERE a = $x", {"x": 1}) == [["one"]]
    with pytest.raises(Forbidden):
        ask("SELECT ? FROM secret", [1])


def test_a_whole_schema_may_be_granted(snapshot: tuple[duckdb.DuckDBPyConnection, ReaderConfig]) -> None:
    mirror = Mirror(*snapshot, (("sales", None),))
    try:
        with snapshot[0].cursor() as cursor:
            for sql in ("FROM sales.orders", "FROM sales.secret", "FROM sales.twice_leaky"):
                assert mirror.answers(reading_statement(cursor, sql), None) is False
            with pytest.raises(Forbidden):
                mirror.answers(reading_statement(cursor, "FROM t"), None)
    finally:
        mirror.close()


def test_nothing_granted_is_nothing_read(snapshot: tuple[duckdb.DuckDBPyConnection, ReaderConfig]) -> None:
    mirror = Mirror(*snapshot, ())
    try:
        with snapshot[0].cursor() as cursor:
            for sql in ("FROM t", "FROM secret", "FROM open_view"):
                with pytest.raises(Forbidden):
                    mirror.answers(reading_statement(cursor, sql), None)
    finally:
        mirror.close()


def test_the_mirror_is_locked_as_a_snapshot_is(mirror: Mirror) -> None:
    with pytest.raises(duckdb.Error):
        mirror.connection.execute("SET threads = 7")
    with pytest.raises(duckdb.Error):
        mirror.connection.execute("FROM read_csv('/etc/passwd')")


@pytest.mark.parametrize("schema", ["pg_catalog", "information_schema"])
def test_no_schema_can_have_the_name_of_one_of_duckdbs_own(schema: str) -> None:
    """So no table can stand where the mirror would find a view of DuckDB's; the mirror refuses such a database besides."""
    with duckdb.connect() as connection, pytest.raises(duckdb.Error):
        connection.execute(f"CREATE SCHEMA memory.{schema}")


def test_a_database_called_memory_has_a_mirror_too(tmp_path: Path) -> None:
    file = tmp_path / "memory.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE secret AS SELECT 2 AS z")
    config = ReaderConfig(str(file), 512 * 1024 * 1024, 2, str(tmp_path / "temp"), 1024**3)
    with open_snapshot(config) as connection:
        mirror = Mirror(connection, config, (("main", "t"),))
        assert mirror.answers(reading_statement(connection, "FROM memory.main.t"), None) is False
        with pytest.raises(Forbidden):
            mirror.answers(reading_statement(connection, "FROM memory.main.secret"), None)
        mirror.close()
