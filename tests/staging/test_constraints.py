"""Rows that break constraints of their table: with `on_error=reject` they are put aside, and the others are loaded."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pondkeeper.engine.intake import breaking
from pondkeeper.errors import BodyTooLarge
from tests.staging.conftest import Ground
from tests.staging.test_formats import FORMATS, body, rejected

TABLES = """CREATE TABLE parents (id INTEGER PRIMARY KEY);
INSERT INTO parents VALUES (1), (2);
CREATE TABLE strict (
    id INTEGER PRIMARY KEY, n INTEGER DEFAULT 7 CHECK (n < 100), parent INTEGER REFERENCES parents (id),
    "a b" VARCHAR, UNIQUE (n, "a b")
);
CREATE UNIQUE INDEX lower_case ON strict (lower("a b"), parent);
INSERT INTO strict VALUES (1, 10, 1, 'old'), (2, 20, NULL, NULL);"""


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("form", FORMATS)
def test_twice_the_same_key(ground: Ground, form: str) -> None:
    """Of rows with one key the first stays; what the table has stays as it is; places and contents are told."""
    ground.run("INSERT INTO t VALUES (1, 'old')")

    staged = ground.ingest(body(form, [(1, "x"), (2, "y"), (2, "z"), (3, "w")]), form, reject=True)

    assert (staged.rows, staged.rejected) == (2, 2)
    assert ground.run("FROM t ORDER BY a") == [(1, "old"), (2, "y"), (3, "w")]
    there, twin = rejected(ground)
    assert there["record"]["b"] == "x"
    assert str(there["faults"][0]["value"]) == "1"
    assert "another row of the table" in there["faults"][0]["reason"]
    word = "row" if form in ("arrow", "parquet") else "line"
    expected = [1, 3] if word == "row" or form == "json" else [1, 3] if form == "ndjson" else [2, 4]
    assert [row.get("line", row.get("row")) for row in (there, twin)] == expected
    assert "a row before it" in twin["faults"][0]["reason"]


def test_each_kind_of_constraint(ground: Ground) -> None:
    """CHECK, foreign key, UNIQUE and a unique index of an expression, beside values that cannot be read."""
    ground.run(TABLES)

    staged = ground.ingest(
        lines(
            {"id": 3, "n": 200},
            {"id": 4, "parent": 9},
            {"id": 5, "n": 10, "a b": "old"},
            {"id": 6, "n": 11, "a b": "OLD", "parent": 1},
            {"id": "many", "n": 1},
            {"id": 7},
        ),
        "ndjson",
        "strict",
        reject=True,
    )

    assert (staged.rows, staged.rejected) == (1, 5)
    assert ground.run("SELECT id FROM strict ORDER BY id") == [(1,), (2,), (7,)]
    reasons = {row["line"]: row["faults"][0]["reason"] for row in rejected(ground)}
    parts = {1: "CHECK", 2: "FOREIGN KEY", 3: "UNIQUE", 4: "lower_case", 5: "is no INTEGER"}
    assert all(part in reasons[line] for line, part in parts.items()), reasons


def test_without_rejects_one_bad_row_refuses_all(ground: Ground) -> None:
    """All or nothing, as ever."""
    ground.run(TABLES)

    with pytest.raises(duckdb.ConstraintException):
        ground.ingest(lines({"id": 8}, {"id": 1}), "ndjson", "strict")

    assert ground.run("SELECT count(*) FROM strict") == [(2,)]


def test_what_is_not_a_fault_of_a_row(ground: Ground) -> None:
    """A table whose rows are referred to cannot be replaced; no row is blamed for it."""
    ground.run("CREATE TABLE parents (id INTEGER PRIMARY KEY); INSERT INTO parents VALUES (1)")
    ground.run("CREATE TABLE children (id INTEGER REFERENCES parents (id)); INSERT INTO children VALUES (1)")

    with pytest.raises(duckdb.ConstraintException):
        ground.ingest(lines({"id": 2}), "ndjson", "parents", reject=True, mode="replace")

    assert ground.run("FROM parents") == [(1,)]


def test_too_many_to_remember(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of nothing but bad rows is refused before the writer is full of them."""
    monkeypatch.setattr(breaking, "MOST_BROKEN", 3)
    ground.run("INSERT INTO t SELECT range, 'x' FROM range(5)")

    with pytest.raises(BodyTooLarge, match="break constraints"):
        ground.ingest(lines(*({"a": n} for n in range(5))), "ndjson", reject=True)


SMALL = st.integers(0, 4)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": SMALL},
        optional={
            "n": st.sampled_from([5, 10, 20, 99, 100, None]),
            "parent": st.sampled_from([1, 2, 3, None]),
            "a b": st.sampled_from(["old", "OLD", "new", None]),
        },
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, mode=st.sampled_from(["append", "replace"]))
def test_it_means_what_one_by_one_means(ground: Ground, rows: list[dict[str, Any]], mode: str) -> None:
    """The same rows stay, and as many are refused, as when DuckDB itself inserts them one after the other."""
    rows = [{"id": row["id"], "n": row.get("n", 7), "parent": row.get("parent"), "a b": row.get("a b")} for row in rows]
    ground.run("DROP TABLE IF EXISTS strict; DROP TABLE IF EXISTS parents;" + TABLES)
    with duckdb.connect() as plain:
        plain.execute(TABLES)
        if mode == "replace":
            plain.execute("DELETE FROM strict")
        refused = [at for at, row in enumerate(rows, 1) if not _is_taken(plain, row)]
        kept = plain.execute("FROM strict ORDER BY id").fetchall()

    ground.rejects.unlink(missing_ok=True)
    staged = ground.ingest(lines(*rows), "ndjson", "strict", reject=True, mode=mode)

    assert ground.run("FROM strict ORDER BY id") == kept
    assert staged.rejected == len(refused)
    assert [row["line"] for row in rejected(ground)] == refused if refused else True


def _is_taken(plain: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> bool:
    try:
        plain.execute("INSERT INTO strict VALUES (?, ?, ?, ?)", [row["id"], row["n"], row["parent"], row["a b"]])
    except duckdb.ConstraintException:
        return False
    return True


def test_upsert(ground: Ground) -> None:
    """A row that would change another into something forbidden is put aside; columns that did not come count too."""
    ground.run("CREATE TABLE u (id INTEGER PRIMARY KEY, low INTEGER, high INTEGER, name VARCHAR UNIQUE, CHECK (low < high))")
    ground.run("INSERT INTO u VALUES (1, 1, 5, 'a'), (2, 1, 5, 'b')")
    rows = lines(
        {"id": 1, "low": 4}, {"id": 2, "low": 6}, {"id": 3, "low": 9}, {"id": 4, "low": 1, "name": "a"}, {"id": 5, "name": "c"}
    )

    staged = ground.ingest(rows, "ndjson", "u", reject=True, mode="upsert", keys=("id",))

    assert [row["line"] for row in rejected(ground)] == [2, 4], rejected(ground)
    assert staged.rejected == 2
    assert ground.run("SELECT id, low FROM u ORDER BY id") == [(1, 4), (2, 1), (3, 9), (5, None)]
