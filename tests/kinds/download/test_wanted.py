"""What a job's query names: files with their rows, in order; queries that name none are refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from pondkeeper.errors import JobInvalid
from pondkeeper.kinds.download.wanted import MARKS, Staged, Wanted, stage


def staged(tmp_path: Path, query: str) -> Staged:
    with duckdb.connect() as connection:
        return stage(connection, query, tmp_path, reserved=list(MARKS))


def test_each_file_comes_once_with_all_rows_that_ask_for_it(tmp_path: Path) -> None:
    """In the order of the query, every value as text that casts back."""
    found = staged(tmp_path, """
        SELECT id, 'http://a/' || name AS url, day FROM (VALUES (2, 'x.png', DATE '2026-11-21'), (1, 'y.png', NULL), (3, 'x.png', NULL))
        t(id, name, day) -- with a comment at its end;
    """)  # fmt: skip
    assert found.count == 2
    assert found.columns == {"id": "INTEGER", "url": "VARCHAR", "day": "DATE"}
    assert list(found) == [
        Wanted("http://a/x.png", "x.png", None, [["2", "http://a/x.png", "2026-11-21"], ["3", "http://a/x.png", None]]),
        Wanted("http://a/y.png", "y.png", None, [["1", "http://a/y.png", None]]),
    ]


def test_a_file_is_named_by_its_url_where_the_query_does_not(tmp_path: Path) -> None:
    """The last part of its path, decoded, without query and fragment; none where there is no such part."""
    urls = ["https://a/b/c%20d.png?token=1#x", "http://a/", "http://a", "http://a/b/", "HTTP://a/%2e%2e"]
    listed = ", ".join(f"('{url}')" for url in urls)
    found = list(staged(tmp_path, f"SELECT url FROM (VALUES {listed}) t(url)"))
    assert [each.file or "" for each in found] == ["c d.png", "", "", "b", ".."]


def test_names_and_checksums_of_the_query(tmp_path: Path) -> None:
    """Whatever the case of the columns' names, and whatever their types."""
    (found,) = staged(tmp_path, "SELECT 'http://a/b' AS URL, 17 AS File, 'AB' AS checksum")
    assert (found.url, found.file, found.checksum) == ("http://a/b", "17", "AB")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1 AS address", "no column `url`"),
        ("SELECT 'http://a/b' AS url, 1 AS size_bytes", "`size_bytes`"),
        ("SELECT 'f' AS file, 'http://a/' || n AS url FROM range(2) t(n)", "the file 'f' from 2 URLs"),
    ],
)
def test_queries_that_cannot_be_meant(tmp_path: Path, query: str, message: str) -> None:
    """Two URLs for one file would overwrite each other."""
    with pytest.raises(JobInvalid, match=message):
        staged(tmp_path, query)


def test_nothing_to_download(tmp_path: Path) -> None:
    """A query without rows is no fault: everything is there."""
    assert list(staged(tmp_path, "SELECT 'x' AS url WHERE false")) == []
