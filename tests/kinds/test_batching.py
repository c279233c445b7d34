"""Rows that a statement finds as a relation: exact whatever they are, each batch written once whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pytest

from pondkeeper.errors import InvalidRequest, OutcomeUnknown
from pondkeeper.kinds.batching import Batch, with_rows


class Database:
    """Carries out statements as a warehouse does: once for each identity."""

    def __init__(self, table: str) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(table)
        self.applied: list[str] = []
        self.lose = 0
        """How many answers get lost, after the statement was applied."""

    def execute(self, sql: str, parameters: Mapping[str, Any], *, identity: str) -> int:
        if identity not in self.applied:
            self.connection.execute(sql, dict(parameters))
            self.applied.append(identity)
        if self.lose:
            self.lose -= 1
            raise OutcomeUnknown
        return len(self.applied)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()


def test_values_arrive_as_they_are() -> None:
    """Each type of Python in its column, with its extremes, and NULL."""
    row = {
        "yes": True, "whole": -(2**63), "huge": 2**100, "real": 1e-300, "exact": Decimal("12345678901234567890.123456789"),
        "text": "naïve 'text'\n\0".replace("\0", ""), "bytes": b"\0\\x41\xff", "at": datetime.fromisoformat("2026-11-21T03:15:00.123456"),
        "moment": datetime(2026, 11, 21, 3, 15, tzinfo=UTC), "day": date(2026, 11, 21), "hour": time_of_day(3, 15, 1),
        "lasts": timedelta(days=-1, microseconds=1), "id": UUID(int=7),
    }  # fmt: skip
    # Why as microseconds: DuckDB's Python API asks for pytz to give back a moment in a time zone.
    sql, parameters = with_rows("SELECT * REPLACE (epoch_us(moment) AS moment) FROM batch", "batch", [row, {"whole": 1, "more": None}])
    with duckdb.connect() as connection:
        (found, other) = connection.execute(sql, parameters).fetchall()
    moment_us = 1_795_230_900_000_000
    assert dict(zip([*row, "more"], found, strict=True)) == row | {"more": None, "moment": moment_us}
    assert [value for value in other if value is not None] == [1]


def test_types_are_told_by_all_values_of_a_column() -> None:
    """Whole numbers beside others are numbers; what has no common type is refused, and so is what is nested."""
    with duckdb.connect() as connection:
        sql, parameters = with_rows("SELECT x FROM batch", "batch", [{"x": 1}, {"x": float("inf")}, {"x": None}])
        assert connection.execute(sql, parameters).fetchall() == [(1.0,), (float("inf"),), (None,)]
    for rows, message in (([{"x": 1}, {"x": "a"}], "several types"), ([{"x": [1]}], "list"), ([{}], "no columns")):
        with pytest.raises(InvalidRequest, match=message):
            with_rows("SELECT 1", "batch", rows)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET v = batch.v FROM batch WHERE t.id = batch.id;",
        "-- marks\n WITH few AS (SELECT * FROM batch) UPDATE t SET v = few.v FROM few WHERE t.id = few.id",
        "/* x */ with recursive r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 2) UPDATE t SET v = batch.v FROM batch, r WHERE t.id = batch.id AND n = 1",
        "MERGE INTO t USING batch ON t.id = batch.id WHEN MATCHED THEN UPDATE SET v = batch.v",
        "INSERT INTO t SELECT id, v FROM batch ON CONFLICT DO UPDATE SET v = excluded.v",
    ],
)
def test_statements_that_use_a_batch(sql: str) -> None:
    """With common table expressions of their own or without, on both lines of DuckDB."""
    database = Database("CREATE TABLE t AS SELECT range AS id, 'old' AS v FROM range(3)")
    database.connection.execute("CREATE UNIQUE INDEX i ON t (id)")
    with Batch(database.execute, sql, identity="run") as batch:
        batch.add(id=1, v="new")
        batch.put({"id": 2, "v": "newer"})
    assert database.rows("SELECT * FROM t ORDER BY id") == [(0, "old"), (1, "new"), (2, "newer")]
    assert batch.written == 2


INSERT = "INSERT INTO t SELECT id FROM batch"


def test_a_batch_is_written_when_it_is_full_or_old_and_at_the_end() -> None:
    """No row waits for long, and none is left behind by an exception."""
    database = Database("CREATE TABLE t (id BIGINT)")
    batch = Batch(database.execute, INSERT, identity="run", size=3, every_s=20.0)
    for number in range(4):
        batch.add(id=number)
    assert (len(batch), batch.written) == (1, 3)
    impatient = Batch(database.execute, INSERT, identity="other", every_s=0.0)
    impatient.add(id=4)
    assert (len(impatient), impatient.written) == (0, 1)

    def fail() -> None:
        with batch:
            batch.add(id=5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert database.rows("SELECT count(*), sum(id) FROM t") == [(6, 15)]


@pytest.mark.fault
def test_a_batch_whose_answer_was_lost_is_sent_again_as_it_was() -> None:
    """With the rows and the identity that it had, whatever was added since: applied once."""
    database = Database("CREATE TABLE t (id BIGINT)")
    batch = Batch(database.execute, INSERT, identity="run")
    batch.add(id=1)
    database.lose = 1
    with pytest.raises(OutcomeUnknown):
        batch.flush()
    assert (batch.written, len(batch)) == (0, 1)  # positive control: nobody knows what became of it
    batch.add(id=2)
    batch.flush()
    assert database.rows("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
    assert database.applied == ["run/1", "run/2"]


def test_threads_add_and_lose_nothing() -> None:
    """Eight threads, small batches: each row is there once."""
    database = Database("CREATE TABLE t (id BIGINT)")
    batch = Batch(database.execute, INSERT, identity="run", size=7)

    def add(first: int) -> None:
        for number in range(first, 400, 8):
            batch.add(id=number)

    threads = [threading.Thread(target=add, args=[first]) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batch.flush()
    assert database.rows("SELECT count(*), count(DISTINCT id) FROM t") == [(400, 400)]
