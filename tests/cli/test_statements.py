"""Where one statement ends: what DuckDB's own parser says, we say."""

from __future__ import annotations

import pytest

from pondkeeper.cli.statements import split

TEXTS = [
    ("SELECT 1; SELECT 2;", 2),
    ("SELECT ';'; SELECT 'it''s;'", 2),
    ("SELECT $$a;b$$; SELECT $x$;$$;$x$", 2),
    ("SELECT 1 -- ;\n; SELECT 2", 2),
    ("/* ; /* ; */ ; */ SELECT 1; SELECT 2", 2),
    (r"SELECT E'\';'; SELECT 2", 2),
    (r"SELECT e';\\'; SELECT 2", 2),
    (r"SELECT '\'; SELECT 2", 2),
    ('SELECT 1 AS "a;""b"; SELECT 2', 2),
    ("-- only\n;;; SELECT 1;/* x */", 1),
    ("SELECT 1 AS a$b$; SELECT 2", 2),
    ("SELECT $1; SELECT $2", 2),
    ("SELECT 1 AS café; SELECT $é$;$é$", 2),
    ("SELECT 1--;\r;SELECT 2", 2),
    ("", 0),
    (" ;\n; -- nothing\n", 0),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_statements_are_cut_as_duckdb_cuts_them(text: str, expected: int) -> None:
    """Strings, quoted names, dollar quotes and comments hide their semicolons; DuckDB agrees on both lines."""
    duckdb = pytest.importorskip("duckdb")

    assert len(split(text)) == expected
    assert len(duckdb.extract_statements(text)) == expected


def test_the_pieces_are_the_text() -> None:
    """Nothing is lost or changed between the semicolons."""
    assert split("INSERT INTO t VALUES ('a;b');\n\nDELETE FROM t -- all;\n;") == [
        "INSERT INTO t VALUES ('a;b')",
        "DELETE FROM t -- all;",
    ]


@pytest.mark.parametrize(
    "text", ["SELECT 'open; SELECT 2", 'SELECT "open; 2', "SELECT $$open; 2", "SELECT 1 /* open; 2", "SELECT E'\\"]
)
def test_what_is_never_closed_is_one_statement(text: str) -> None:
    """DuckDB will say what is wrong with it."""
    assert len(split(text)) == 1


def test_a_large_file_is_cut_in_little_time() -> None:
    """No text makes the cutting quadratic: half a megabyte of each opening ends within the test's timeout."""
    for part in ("'", '"', "$", "/*", "--", "E'\\", ";", "$a$ ", "*/"):
        split(part * 100_000)
