"""Change data capture against a real PostgreSQL: what is at the source is here, row by row, whatever happened to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pondkeeper.errors import RunCancelled, SchemaDrifted, SourceRefused, SourceUnavailable
from pondkeeper.jobs import drift
from pondkeeper.kinds.context import RunContext
from tests.kinds.postgres.capturing import NOTHING, Sync
from tests.support.keeper import KeeperProcess, wait_until
from tests.support.postgres import PostgresServer

LARGE = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 200))"  # lies outside its row (TOAST)


@pytest.fixture(scope="module")
def shared_keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeeperProcess]:
    with KeeperProcess(tmp_path_factory.mktemp("cdc") / "warehouse.duckdb") as keeper:
        yield keeper


@pytest.fixture
def sync(postgres: PostgresServer, source: str, shared_keeper: KeeperProcess) -> Sync:
    return Sync(postgres, source, shared_keeper.target, schema=source)



def test_rows_changes_and_truncations_come_whatever_names_them(sync: Sync) -> None:
    sync.execute(f"""
        CREATE TABLE t (id int PRIMARY KEY, name text, large text);
        CREATE TABLE twins (id int, name text, lasts interval DEFAULT '1 day 02:00', u uuid DEFAULT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', l numeric[] DEFAULT ARRAY[1.50, NULL]); ALTER TABLE twins REPLICA IDENTITY FULL;
        CREATE TABLE coded (code text NOT NULL, note text); CREATE UNIQUE INDEX codes ON coded (code);
        ALTER TABLE coded REPLICA IDENTITY USING INDEX codes;
        CREATE TABLE fleeting (id int PRIMARY KEY);
        INSERT INTO t SELECT g, 'row ' || g, CASE WHEN g < 3 THEN {LARGE} END FROM generate_series(1, 300) g;
        INSERT INTO twins VALUES (1, 'a'), (1, 'a'), (2, NULL); INSERT INTO coded VALUES ('x', NULL);
        INSERT INTO fleeting VALUES (1)""")
    first = sync.run()
    assert first.tables[f"{sync.schema}.t"]["rows"] == 300
    sync.execute("INSERT INTO t VALUES (1000, 'new'); UPDATE t SET name = 'other' WHERE id < 50; DELETE FROM t WHERE id > 250")
    sync.execute("UPDATE t SET id = 2001 WHERE id = 1")  # a new key, and a value that is not sent again
    sync.execute("UPDATE t SET id = 2002, name = 'moved' WHERE id = 2; UPDATE t SET name = 'and changed' WHERE id = 2002")
    sync.execute("DELETE FROM twins WHERE ctid = '(0,1)'; UPDATE twins SET name = 'b' WHERE id = 2; INSERT INTO twins VALUES (3, NULL), (3, NULL)")
    sync.execute("UPDATE coded SET code = 'y'; INSERT INTO coded VALUES ('x', 'again')")
    sync.execute("TRUNCATE fleeting; INSERT INTO fleeting VALUES (7), (8); DELETE FROM fleeting WHERE id = 7")
    second = sync.run()
    for table in ("t", "coded", "fleeting"):
        assert sync.differing(table) == NOTHING, table
    assert sync.differing("twins", "id, name, u, lasts = interval '26 hours' AND lasts < interval '27 hours', cast(l AS text) <> ''") == NOTHING
    assert second.details["changes"] > 100
    assert not sync.slot()[1]
    assert sync.run().details["changes"] == 0, "what was loaded came again"


def test_values_come_exactly_by_both_ways(sync: Sync) -> None:
    sync.execute("""
        CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE TABLE t (id int PRIMARY KEY, n numeric(12, 3), m mood, u uuid, d date, ts timestamptz, l int[], names text[], b bytea,
                        doubled int GENERATED ALWAYS AS (id * 2) STORED, f float8, at time, j jsonb, gone interval)""")
    values = """(%d, 12.345, 'ok', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-02-28', '2026-11-21 03:15:00.123456+02', '{1,NULL,3}',
        '{"a,b","say \\"x\\"",NULL}', '\\x00ff', DEFAULT, 'NaN', '12:13:14.5', '{"a": [1, 2.50]}', '1 mon -2 days 3 hours')"""
    sync.execute("INSERT INTO t VALUES " + values % 1)
    sync.run()
    sync.execute("INSERT INTO t VALUES " + values % 2)
    sync.execute("INSERT INTO t (id) VALUES (3)")
    sync.run()
    copied, streamed = sync.rows("SELECT COLUMNS(* EXCLUDE id)::VARCHAR FROM t WHERE id < 3 ORDER BY id")
    assert copied == streamed
    assert sync.rows("SELECT count(n) FROM t WHERE n = 12.345 AND m = 'ok' AND names[2] = 'say \"x\"' AND b = '\\x00\\xFF'::BLOB") == [(2,)]
    assert sync.rows("SELECT COLUMNS(* EXCLUDE id) IS NULL FROM t WHERE id = 3") == [(True,) * 12], "the generated column is no column here"


def test_columns_that_come_go_or_change_are_followed(sync: Sync) -> None:
    sync.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 2)")
    sync.run()
    sync.execute("INSERT INTO t VALUES (3, 3); ALTER TABLE t ADD COLUMN b text; INSERT INTO t VALUES (4, 4, 'four')")
    sync.run()
    assert sync.differing(columns="id, a, b") == NOTHING
    assert not any("copied: " in text for text in sync.said), "nothing can be in a new column of the rows that were there"
    sync.execute("ALTER TABLE t ADD COLUMN c int DEFAULT 7; UPDATE t SET a = 0 WHERE id = 1")
    sync.run()
    assert sync.differing(columns="id, a, b, c") == NOTHING
    sync.execute("ALTER TABLE t ALTER COLUMN a TYPE text USING 'was ' || a; ALTER TABLE t RENAME COLUMN b TO bee; INSERT INTO t VALUES (5, 'x')")
    sync.run()
    assert sync.differing(columns="id, a, bee, c") == NOTHING
    sync.execute("ALTER TABLE t DROP COLUMN c; INSERT INTO t VALUES (6, 'y')")
    sync.run()
    assert sync.differing(columns="id, a, bee") == NOTHING
    assert sync.rows("SELECT c FROM t WHERE id = 6") == [(None,)]
    sync.execute("ALTER TABLE t ADD COLUMN z int; INSERT INTO t VALUES (7, 'z')")
    with pytest.raises(SchemaDrifted):
        sync.run(drift="freeze")
    with pytest.raises(SchemaDrifted):
        sync.run(drift="ask")
    drift.accept(sync.home, sync.job)
    sync.run(drift="ask")
    assert sync.differing(columns="id, a, bee, z") == NOTHING


def test_tables_join_later_and_leave(sync: Sync) -> None:
    sync.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    sync.run()
    sync.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1); INSERT INTO t VALUES (2)")
    sync.run()
    sync.execute("INSERT INTO later VALUES (2); DELETE FROM t WHERE id = 1")
    sync.run(exclude=["later"])
    assert sync.rows("FROM later") == [(1,)]
    sync.run(exclude=["later"])
    sync.execute("INSERT INTO later VALUES (3)")
    sync.run(exclude=["later"])  # nothing happens here, and the source is told that this was not needed
    sync.run()
    assert sync.differing("later") == sync.differing("t") == NOTHING


def test_what_cannot_be_followed_is_refused_before_the_source_suffers(sync: Sync) -> None:
    sync.execute("CREATE TABLE bare (id int); CREATE TABLE mute (id int PRIMARY KEY); ALTER TABLE mute REPLICA IDENTITY NOTHING")
    sync.execute("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE heir () INHERITS (parent)")
    with pytest.raises(SourceRefused, match=r"public\.bare: it has no primary key.*public\.mute: it has REPLICA IDENTITY NOTHING") as refused:
        sync.run()
    assert "public.parent: other tables inherit from it" in refused.value.message
    sync.execute("INSERT INTO bare VALUES (1); UPDATE bare SET id = 2")  # published, it would be refused
    assert sync.execute("SELECT count(*) FROM pg_publication") == [(0,)]


def test_a_publication_of_somebody_elses_is_enough_for_a_role_that_owns_nothing(sync: Sync) -> None:
    role = sync.server.role(f"{sync.source}_reader", "REPLICATION")
    sync.settings["source"] = sync.server.socket_url(sync.source, role)
    sync.execute(f"CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); GRANT SELECT ON t, u TO {role}")
    with pytest.raises(SourceRefused, match="refuses to publish") as refused:
        sync.run()
    sync.execute(refused.value.remedy.split("`")[1])
    theirs, slot = refused.value.remedy.split('"')[1], f"mine_{sync.source}"
    sync.execute(f"ALTER PUBLICATION {theirs} DROP TABLE u")
    with pytest.raises(SourceRefused, match=r"does not have public\.u"):
        sync.run(publication=theirs)
    sync.execute(f"ALTER PUBLICATION {theirs} ADD TABLE u; ALTER PUBLICATION {theirs} SET (publish = 'insert')")
    with pytest.raises(SourceRefused, match="leaves out some kinds"):
        sync.run(publication=theirs)
    sync.execute(f"ALTER PUBLICATION {theirs} SET (publish = 'insert, update, delete, truncate')")
    sync.run(publication=theirs, slot=slot)
    sync.execute("INSERT INTO u VALUES (1)")
    sync.run(publication=theirs, slot=slot)
    assert sync.differing("u") == NOTHING
    assert sync.slot()[0] == slot


def test_what_is_missing_is_noticed_and_copied(sync: Sync) -> None:
    sync.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    sync.run()
    before = sync.state()
    sync.execute("INSERT INTO t VALUES (2)")
    sync.run()
    sync.put_back(before, "DELETE FROM {schema}.t WHERE id = 2")
    with pytest.raises(SourceRefused, match="moved on"):
        sync.run(when_slot_lost="fail")
    sync.run()
    assert sync.differing() == NOTHING
    sync.drop_slot()
    sync.execute("INSERT INTO t VALUES (3)")
    sync.run()
    assert sync.differing() == NOTHING
    assert sum("copied again" in text for text in sync.said) == 2
    sync.put_back(sync.state(), "DROP TABLE {schema}.t")
    sync.run()
    assert sync.differing() == NOTHING


def test_an_idle_table_does_not_make_the_source_keep_its_log(sync: Sync) -> None:
    sync.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE busy (id int PRIMARY KEY)")
    sync.run(exclude=["busy"])
    [[version]] = sync.rows(f"SELECT loaded_at FROM _pondkeeper.job_state WHERE job = '{sync.job}'")
    confirmed = sync.slot()[2]
    sync.execute("INSERT INTO busy SELECT generate_series(1, 1000)")
    sync.run(exclude=["busy"])
    assert sync.rows(f"SELECT loaded_at FROM _pondkeeper.job_state WHERE job = '{sync.job}'") == [(version,)], "a version for nothing"
    assert sync.execute(f"SELECT '{sync.slot()[2]}'::pg_lsn > '{confirmed}'") == [(True,)]
    sync.execute("INSERT INTO t VALUES (1)")
    sync.run(exclude=["busy"], when_slot_lost="fail")
    assert sync.differing() == NOTHING


def test_an_endless_run_goes_on_over_restarts_of_the_source(sync: Sync, postgres: PostgresServer) -> None:
    sync.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
    with sync.following() as context:
        sync.execute("INSERT INTO t SELECT g, 'first' FROM generate_series(1, 50) g")
        wait_until(lambda: context.status.details.get("changes", 0) + context.status.rows >= 50, what="the first rows")
        postgres.kill9()
        postgres.start()
        sync.execute("UPDATE t SET note = 'second'; DELETE FROM t WHERE id > 40")
        wait_until(lambda: context.status.rows >= 100, what="the rows after a crash")
        postgres.restart()
        sync.execute("INSERT INTO t VALUES (99, 'third')")
        wait_until(lambda: context.status.rows >= 101, what="the row after a restart")
        assert context.status.details["gauges"]["slot_lag_bytes"] >= 0
    assert sync.said[-1] == "ended: The run was cancelled."
    assert sync.differing() == NOTHING


def test_a_source_that_stays_away_fails_the_run(sync: Sync, postgres: PostgresServer) -> None:
    sync.execute("CREATE TABLE t (id int PRIMARY KEY)")
    sync.run()
    postgres.stop()
    with pytest.raises(SourceUnavailable):
        sync.run(wait_for_source_s=0.5)


def test_a_slot_that_falls_too_far_behind_is_given_up(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pondkeeper.kinds.postgres.cdc.watching.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("pondkeeper.kinds.postgres.cdc.following.SIGN_EVERY_S", 0.05)
    monkeypatch.setattr("pondkeeper.kinds.postgres.cdc.watching.GIVE_UP_AFTER_S", 0.5)
    sync.execute("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a')")
    sync.run()
    with sync.following(max_slot_lag_bytes=100_000) as context:
        context.warehouse.load = lambda *_steps, **_options: _never(context)  # type: ignore[method-assign]
        sync.execute("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(2, 2000) g")
        of_this = f"SELECT count(*) FROM pg_replication_slots WHERE database = '{sync.source}'"
        wait_until(lambda: sync.execute(of_this) == [(0,)], what="the end of the slot")
    assert "was given up" in sync.said[-1]
    sync.run()
    assert sync.differing() == NOTHING


def _never(context: RunContext) -> None:
    """A load that waits for a turn which does not come."""
    context.stopping.wait()
    raise RunCancelled
