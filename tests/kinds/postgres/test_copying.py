"""Tables copied whole and by what changed: what is here afterwards is what is there, row by row."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.errors import EmptySource, RunCancelled, SchemaDrifted, SourceRefused, SourceUnavailable
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.postgres.run import run
from tests.kinds.postgres.copying import Shop
from tests.kinds.running import job_running
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.processes import tree

ORDERS = """
CREATE TABLE orders (id bigint PRIMARY KEY, customer text, total numeric(10,2), gone boolean DEFAULT false, updated_at timestamptz DEFAULT now());
INSERT INTO orders SELECT i, 'c' || i % 7, i / 4.0, false, timestamptz '2026-01-01 00:00Z' + i * interval '1 minute' FROM generate_series(1, 500) i;
"""


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    """One keeper for all: each test has a job and a schema of its own."""
    with KeeperProcess(tmp_path_factory.mktemp("copying") / "w.duckdb") as keeper:
        yield keeper


@pytest.fixture
def shop(postgres: PostgresServer, source: str, keeper: KeeperProcess) -> Shop:
    """A job that copies `orders`, of 500 rows."""
    postgres.execute(ORDERS, database=source)
    settings = {"tables": ["orders"], "wait_for_source_s": 0.0, "schema": source}
    return Shop(keeper.target, postgres.socket_url(source), settings, name=source)


@pytest.fixture
def alone(postgres: PostgresServer, source: str, tmp_path: Path) -> Shop:
    """The same without a keeper, and in the schemas that the source has."""
    postgres.execute(ORDERS, database=source)
    return Shop(tmp_path / "w.duckdb", postgres.socket_url(source), {"tables": ["orders"], "wait_for_source_s": 0.0})


def same(shop: Shop, postgres: PostgresServer, source: str, columns: str = "id, customer, total, gone, updated_at::text") -> bool:
    """Whether the table here is the one there, row by row."""
    there = postgres.execute(f"SELECT {columns} FROM orders ORDER BY 1", database=source)
    return shop.rows(f"SELECT {columns} FROM orders ORDER BY 1") == there


def test_a_full_copy_replaces_the_table(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """New rows are here, changed ones are changed, deleted ones are gone; status says what was brought and as which version."""
    first = shop.copy()
    assert first.tables[f"{source}.orders"]["rows"] == 500
    assert first.tables[f"{source}.orders"]["size_bytes"] > 0
    assert first.held_s > 0
    assert same(shop, postgres, source)
    postgres.execute("DELETE FROM orders WHERE id <= 10; UPDATE orders SET total = 0 WHERE id = 11; INSERT INTO orders VALUES (501)", database=source)
    second = shop.copy()
    assert same(shop, postgres, source)
    assert second.versions > first.versions


def test_one_snapshot_for_all_tables(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """Rows that one transaction puts into two tables are both here or neither, while it commits again and again beside it."""
    postgres.execute("CREATE TABLE left_ (n int); CREATE TABLE right_ (n int)", database=source)
    ending = threading.Event()

    def write() -> None:
        with postgres.connect(source) as connection:
            number = 0
            while not ending.is_set():
                number += 1
                connection.execute(f"BEGIN; INSERT INTO left_ VALUES ({number}); INSERT INTO right_ VALUES ({number}); COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: postgres.execute("SELECT count(*) > 20 FROM right_", database=source) == [(True,)], what="rows at the source")
        shop.copy(tables=["left_", "right_"])
        seen = shop.rows("SELECT (SELECT count(*) FROM left_), (SELECT count(*) FROM right_)")
    finally:
        ending.set()
        writer.join()
    assert seen[0][0] == seen[0][1] > 20
    assert postgres.execute("SELECT count(*) FROM left_", database=source)[0][0] > seen[0][0], "nothing was written meanwhile"


def test_names_patterns_and_what_is_left_out(alone: Shop, postgres: PostgresServer, source: str) -> None:
    """Patterns take a schema's tables, partitioned ones whole; `exclude`, `without`, `where`, `to` and `schema` do what they say."""
    postgres.execute(
        """CREATE SCHEMA "my shop"; CREATE TABLE "my shop"."Order Lines" (id int, "a b" text); INSERT INTO "my shop"."Order Lines" VALUES (1, 'x');
        CREATE TABLE parted (id int, day date) PARTITION BY RANGE (day);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE parted_2 PARTITION OF parted DEFAULT; INSERT INTO parted VALUES (1, '2026-01-02'), (2, '2027-01-01');
        CREATE VIEW dear AS SELECT * FROM orders WHERE total > 100; CREATE TABLE secret (id int);""",
        database=source,
    )
    table = [{"name": "orders", "where": "id <= 5 AND customer <> 'it''s'", "without": ["gone"], "to": "sales.first orders"}]
    shop = alone
    shop.copy(tables=["public.*", "my shop.*", "dear"], exclude=["secret"], table=table)
    found = shop.rows("SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema <> '_pondkeeper' ORDER BY ALL")
    assert found == [("main", "dear"), ("main", "parted"), ("my shop", "Order Lines"), ("sales", "first orders")]
    assert shop.rows('SELECT count(*), max(id) FROM sales."first orders"') == [(5, 5)]
    assert "gone" not in [row[0] for row in shop.rows('DESCRIBE sales."first orders"')]
    assert shop.rows('SELECT * FROM "my shop"."Order Lines"') == [(1, "x")]
    assert shop.rows("SELECT list(id ORDER BY id) FROM parted") == [([1, 2],)]
    assert shop.rows("SELECT count(*) FROM dear") == [(100,)]


def test_a_large_table_comes_in_pieces(shop: Shop, postgres: PostgresServer, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sessions copy ranges of pages, with all rows in just one of them, also rows that have moved by updates."""
    monkeypatch.setattr("pondkeeper.kinds.postgres.extracting.PIECE_PAGES", 2)
    monkeypatch.setattr("pondkeeper.kinds.postgres.extracting.LARGE_PAGES", 3)  # so that what is staged is compressed, too
    postgres.execute("UPDATE orders SET customer = repeat('x', 300) WHERE id % 3 = 0; ANALYZE orders", database=source)
    status = shop.copy(sessions=3)
    assert len(list((status_folder(shop) / "staging" / "tables").glob("*-rows-*.arrow"))) > 5
    assert same(shop, postgres, source)
    assert status.rows == 500


def status_folder(shop: Shop) -> Path:
    """The folder of its newest run."""
    return max((shop.file.parent / ".pondkeeper" / "runs").iterdir())


def test_an_empty_source_empties_nothing(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """A table that has rows here keeps them when the source has none, unless the job allows it; a new table may be empty."""
    shop.copy()
    postgres.execute("TRUNCATE orders", database=source)
    with pytest.raises(EmptySource, match=r"public\.orders"):
        shop.copy()
    assert shop.rows("SELECT count(*) FROM orders") == [(500,)]
    shop.copy(allow_empty=True)
    assert shop.rows("SELECT count(*) FROM orders") == [(0,)]
    shop.copy()


def test_an_incremental_copy_takes_what_changed(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """After the first copy only changed rows are read; rows without a cursor's value are never missed."""
    by = {"mode": "incremental", "cursor": "updated_at", "overlap_s": 0.0}
    assert shop.copy(**by).rows == 500
    postgres.execute(
        "UPDATE orders SET total = -1, updated_at = now() WHERE id IN (1, 2); INSERT INTO orders VALUES (501, 'new', 1, false, now()), (502, 'never', 1, false, NULL)",
        database=source,
    )
    assert shop.copy(**by).rows < 20
    assert same(shop, postgres, source)
    postgres.execute("UPDATE orders SET total = 7 WHERE id = 502", database=source)
    shop.copy(**by)
    assert same(shop, postgres, source)
    postgres.execute("INSERT INTO orders VALUES (503, 'future', 1, false, now() + interval '1000 years'), (504, 'infinity', 1, false, 'infinity')", database=source)
    shop.copy(**by)
    postgres.execute("INSERT INTO orders VALUES (505, 'after the future')", database=source)
    shop.copy(**by)
    assert same(shop, postgres, source)


def test_a_change_that_was_committed_late_is_found(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """A transaction that was open during a copy, and commits an older time afterwards, is in the next copy, without any overlap."""
    by = {"mode": "incremental", "cursor": "updated_at", "overlap_s": 0.0}
    shop.copy(**by)
    with postgres.connect(source, autocommit=False) as late:
        late.execute("INSERT INTO orders VALUES (501, 'late')")
        wait_until(lambda: postgres.execute("SELECT now() - max(xact_start) > interval '1.2 s' FROM pg_stat_activity WHERE state = 'idle in transaction'") == [(True,)])
        postgres.execute("INSERT INTO orders VALUES (502, 'early')", database=source)
        shop.copy(**by)
        assert shop.rows("SELECT list(id) FROM orders WHERE id > 500") == [([502],)]
        late.commit()
    shop.copy(**by)
    assert same(shop, postgres, source)


def test_copies_beside_a_source_that_changes_all_the_time(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """Three sessions insert, update and delete in transactions of any length meanwhile; the last copy has every row as it is."""
    by = {"mode": "incremental", "cursor": "updated_at", "overlap_s": 0.0, "deletes": "compare"}
    ending = threading.Event()

    def change(seed: int) -> None:
        chance = random.Random(seed)
        with postgres.connect(source, autocommit=False) as connection:
            while not ending.is_set():
                for _ in range(chance.randrange(1, 30)):
                    row = chance.randrange(seed, 3000, 3)  # Why apart: what waits for another's row is not open for long
                    kind = chance.choice(["INSERT", "UPDATE", "UPDATE", "DELETE"])
                    if kind == "INSERT":
                        connection.execute("INSERT INTO orders VALUES (%s, 'x', 1) ON CONFLICT DO NOTHING", [row])
                    elif kind == "UPDATE":
                        connection.execute("UPDATE orders SET total = total + 1, updated_at = now() WHERE id = %s", [row])
                    else:
                        connection.execute("DELETE FROM orders WHERE id = %s", [row])
                ending.wait(chance.choice([0, 0, 0.3]))
                connection.commit()

    shop.copy(**by)
    writers = [threading.Thread(target=change, args=(seed,)) for seed in range(3)]
    for writer in writers:
        writer.start()
    try:
        read = [shop.copy(**by).tables[f"{source}.orders"]["rows"] for _ in range(4)]
    finally:
        ending.set()
        for writer in writers:
            writer.join()
    shop.copy(**by)
    assert same(shop, postgres, source)
    assert any(rows > 0 for rows in read), "nothing was changed meanwhile"


def test_numbers_as_cursor(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """A cursor of numbers reads again from so far before the last one; the extremes of its type do no harm."""
    by = {"mode": "incremental", "cursor": "id", "overlap": 100}
    shop.copy(**by)
    postgres.execute("UPDATE orders SET total = 1 WHERE id = 450; UPDATE orders SET total = 2 WHERE id = 3; INSERT INTO orders VALUES (9223372036854775807)", database=source)
    assert shop.copy(**by).rows == 102
    assert shop.rows("SELECT total FROM orders WHERE id = 450") == [(1,)]
    assert shop.rows("SELECT total = 0.75 FROM orders WHERE id = 3") == [(True,)], "changes out of reach are not seen by a number"


@pytest.mark.fault
def test_an_attempt_after_a_load_that_nobody_heard_of(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """A run that was killed after its load was committed is done again: what has changed since is in the run after it, at the latest."""
    by = {"mode": "incremental", "cursor": "updated_at", "deletes": "compare", "overlap_s": 0.0}
    context = shop.begin(**by)
    run(context)
    postgres.execute("DELETE FROM orders WHERE id < 5; UPDATE orders SET total = 9, updated_at = now() WHERE id = 5", database=source)
    try:
        run(context)  # the second attempt: it has the run's id, and other rows in other steps
    finally:
        shop.end(context)
    shop.copy(**by)
    assert same(shop, postgres, source)


@pytest.mark.parametrize("deletes", ["compare", "tombstone", "none"])
def test_deleted_rows(shop: Shop, postgres: PostgresServer, source: str, deletes: str) -> None:
    """`compare` finds rows that are no longer there, `tombstone` those that are marked; `none` keeps them."""
    by = {"mode": "incremental", "cursor": "updated_at", "deletes": deletes, "tombstone": "gone"}
    shop.copy(**by)
    change = "UPDATE orders SET gone = true, updated_at = now() WHERE id <= 3" if deletes == "tombstone" else "DELETE FROM orders WHERE id <= 3"
    postgres.execute(change, database=source)
    shop.copy(**by)
    assert shop.rows("SELECT min(id), count(*) FROM orders") == [(1, 500) if deletes == "none" else (4, 497)]
    if deletes == "compare":
        postgres.execute("DELETE FROM orders", database=source)
        with pytest.raises(EmptySource):
            shop.copy(**by)
        assert shop.rows("SELECT count(*) FROM orders") == [(497,)]


def test_a_new_column_is_filled_in_all_rows(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """A column that came with values is here in rows that did not change; `freeze` refuses it and changes nothing."""
    by = {"mode": "incremental", "cursor": "updated_at"}
    shop.copy(**by)
    postgres.execute("ALTER TABLE orders ADD channel text DEFAULT 'web'", database=source)
    with pytest.raises(SchemaDrifted):
        shop.copy(**by, drift="freeze")
    assert shop.rows("SELECT count(*) FROM information_schema.columns WHERE column_name = 'channel'") == [(0,)]
    shop.copy(**by)
    assert shop.rows("SELECT channel, count(*) FROM orders GROUP BY 1") == [("web", 500)]


def test_a_table_that_was_dropped_here_is_copied_whole(shop: Shop, postgres: PostgresServer, source: str, keeper: KeeperProcess) -> None:
    """How far one had come means nothing for a table that is no longer here."""
    by = {"mode": "incremental", "cursor": "updated_at"}
    shop.copy(**by)
    version = keeper.client().execute(f"DROP TABLE {source}.orders").version
    keeper.client().query("SELECT 1", at_least=version)
    shop.copy(**by)
    assert same(shop, postgres, source)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tables": ["ordesr"]}, r"no table public\.ordesr\. Did you mean public\.orders"),
        ({"tables": ["shop.*"]}, r"fits shop\.\*"),
        ({"mode": "incremental", "cursor": "updated"}, r"no column updated\. Did you mean updated_at"),
        ({"tables": ["keyless"], "mode": "incremental", "cursor": "id"}, "no primary key"),
        ({"tables": ["twins"]}, "differ in their case"),
        ({"table": [{"name": "nobody"}]}, "which the job does not copy"),
        ({"table": [{"name": "orders", "where": "nonsense > 1"}]}, "nonsense"),
        ({"tables": ["public.o*"], "source": "postgresql://nobody_there@127.0.0.1:{port}/{source}"}, "password|role"),
    ],
)
def test_what_the_source_does_not_have(
    shop: Shop, postgres: PostgresServer, source: str, settings: dict[str, Any], says: str
) -> None:
    """A name that is wrong is said with the nearest one, and nothing was loaded."""
    postgres.execute('CREATE TABLE keyless (id int); CREATE TABLE twins ("Id" int, id int)', database=source)
    if "source" in settings:
        settings = settings | {"source": settings["source"].format(port=postgres.port, source=source)}
    with pytest.raises(SourceRefused, match=says):
        shop.copy(**settings)


def test_a_source_that_is_away_is_told_from_one_that_refuses(shop: Shop, postgres: PostgresServer, source: str, tmp_path: Path) -> None:
    """Nobody listens: unavailable, after the time that the job waits. A wrong password: refused at once. The right one passes."""
    with pytest.raises(SourceUnavailable):
        shop.copy(source="postgresql://postgres@127.0.0.1:1/postgres")
    address = postgres.url(source).replace(f":{PASSWORD}", "")
    (tmp_path / "secret").write_text("wrong")
    (tmp_path / "right").write_text(PASSWORD)
    with pytest.raises(SourceRefused, match="password authentication failed"):
        shop.copy(source=address, password=f"file:{tmp_path}/secret", wait_for_source_s=60.0)
    shop.copy(source=address, password=f"file:{tmp_path}/right")
    assert same(shop, postgres, source)


SLOW = """
CREATE FUNCTION slowly(id bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN id; END $$;
CREATE VIEW slow_orders AS SELECT slowly(id) AS id, customer, total, gone, updated_at FROM orders;
"""
COPYING = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{source}' AND query LIKE 'COPY%' AND state = 'active'"


@pytest.mark.fault
@pytest.mark.parametrize("how", ["kill9", "restart", "sessions"])
def test_a_source_that_dies_in_the_middle_is_copied_again(shop: Shop, postgres: PostgresServer, source: str, how: str) -> None:
    """The server is killed, restarted, or ends the sessions: the run waits for it and copies anew, and every row is here once.

    Also where the driver dies with the server, and takes the process of the copy with it.
    """
    postgres.execute(SLOW, database=source)
    settings = shop.settings | {"tables": ["slow_orders"], "wait_for_source_s": 120.0}
    table = [{"name": "slow_orders", "to": "orders"}]
    with job_running(shop.file, "postgres", name=source, source=shop.source, table=table, **settings) as started:
        wait_until(lambda: postgres.execute(COPYING.format(source=source)) == [(1,)], what="a copy under way")
        if how == "sessions":
            postgres.end_sessions(source)
        elif how == "kill9":
            postgres.kill9()
            postgres.start()
        else:
            postgres.restart()
        status = started.ended()
    assert status.phase is Phase.DONE, status.error
    shop.version = max(status.versions)
    assert "Trying again" in started.log() or "it begins again" in started.log(), "it was not in the middle"
    assert same(shop, postgres, source)


@pytest.mark.fault
@pytest.mark.parametrize(("number", "phase"), [(signal.SIGABRT, Phase.DONE), (signal.SIGKILL, Phase.FAILED)])
def test_a_copy_that_its_driver_ends_begins_again(shop: Shop, postgres: PostgresServer, source: str, number: signal.Signals, phase: Phase) -> None:
    """A driver that dies over its source has only staged: the attempt goes on with another process. Who is killed has failed."""
    postgres.execute(SLOW, database=source)
    settings = shop.settings | {"tables": ["slow_orders"], "wait_for_source_s": 120.0}
    table = [{"name": "slow_orders", "to": "orders"}]
    with job_running(shop.file, "postgres", name=source, source=shop.source, table=table, **settings) as started:
        wait_until(lambda: postgres.execute(COPYING.format(source=source)) == [(1,)], what="a copy under way")
        wait_until(lambda: started.status().phase is Phase.EXTRACTING, what="the status of it")
        [work] = [pid for pid in tree(started.process.pid) if pid != started.process.pid]
        os.kill(work, number)
        status = started.ended()
    assert status.phase is phase, status.error
    assert ("it begins again" in started.log()) is (phase is Phase.DONE)
    assert status.attempt == 1


def _run(context: Any, failed: list[BaseException]) -> None:
    try:
        run(context)
    except BaseException as error:
        failed.append(error)


def test_a_run_that_is_cancelled_leaves_nothing_at_the_source(shop: Shop, postgres: PostgresServer, source: str) -> None:
    """The copy under way is ended at the source too, and nothing was loaded."""
    postgres.execute(SLOW.replace("0.01", "1"), database=source)
    context = shop.begin(tables=["slow_orders"])
    failed: list[BaseException] = []
    runner = threading.Thread(target=lambda: _run(context, failed))
    runner.start()
    try:
        wait_until(lambda: failed or postgres.execute(COPYING.format(source=source)) == [(1,)], what="a copy under way")
        context.stopping.set()
        runner.join(60)
        assert not runner.is_alive()
    finally:
        runner.join()
        shop.end(context)
    assert [type(error) for error in failed] == [RunCancelled]
    wait_until(lambda: postgres.execute(COPYING.format(source=source)) == [(0,)], what="the end of the copy at the source")
    assert shop.rows("SELECT count(*) FROM information_schema.schemata WHERE schema_name = '" + source + "'") == [(0,)]
