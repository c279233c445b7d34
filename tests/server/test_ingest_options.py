"""What an ingest is asked to do: path, query string and Content-Type, and what is refused of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.engine.names import table_name
from pondkeeper.errors import InvalidRequest, MediaTypeUnsupported
from pondkeeper.server.ingest_options import IngestOptions


def options(table: str = "t", query: str = "", content_type: str | None = "text/csv") -> IngestOptions:
    headers = [] if content_type is None else [(b"content-type", content_type.encode("latin-1"))]
    raw_path = f"/v1/tables/{quote(table, safe='')}/rows".encode()
    return IngestOptions.of({"raw_path": raw_path, "query_string": query.encode(), "headers": headers})


def test_what_is_not_said() -> None:
    """The defaults: append, all or nothing, wait for the commit."""
    assert options() == IngestOptions("main", "t", "csv")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("t", ("main", "t")),
        ("s.t", ("s", "t")),
        ('"a.b"', ("main", "a.b")),
        ('"a.b"."c""d"', ("a.b", 'c"d')),
        ("ünï cödé.x/y", ("ünï cödé", "x/y")),
        ("select", ("main", "select")),
    ],
)
def test_names_of_tables(text: str, found: tuple[str, str]) -> None:
    """A table, or a schema and a table; in double quotes where there is a dot in the name."""
    chosen = options(text)
    assert (chosen.schema, chosen.table) == found


@pytest.mark.parametrize("text", ["_pondkeeper.idempotency", '"_PondKeeper".x', "", ".", "a.", ".a", "a.b.c", '"a', 'a"b"', '""', "x" * 2000])
def test_names_of_no_table(text: str) -> None:
    with pytest.raises(InvalidRequest):
        table_name(text)


@given(st.text(min_size=1, max_size=20).filter(lambda name: "\0" not in name))
def test_any_name_can_be_said_in_quotes(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    assert table_name(f"{quoted}.{quoted}") == (name, name)


@given(st.text(max_size=30))
def test_no_name_is_a_fault_of_ours(text: str) -> None:
    try:
        schema, table = table_name(text)
    except InvalidRequest:
        return
    assert schema
    assert table


@pytest.mark.parametrize(
    ("content_type", "wanted"),
    [
        ("application/x-ndjson", {"format": "ndjson"}),
        ("Application/JSON; charset=UTF-8", {"format": "json"}),
        ("text/csv; header=absent", {"format": "csv", "has_header": False}),
        ('text/csv; charset="utf-8"; header=present', {"format": "csv", "has_header": True}),
        ("text/tab-separated-values", {"format": "csv", "delimiter": "\t"}),
        ("application/vnd.apache.arrow.stream", {"format": "arrow"}),
        ("application/vnd.apache.parquet", {"format": "parquet"}),
    ],
)
def test_content_types(content_type: str, wanted: dict[str, Any]) -> None:
    chosen = options(content_type=content_type)
    assert {name: getattr(chosen, name) for name in wanted} == wanted


@pytest.mark.parametrize("content_type", [None, "", "application/x-www-form-urlencoded", "text/html", "text/csv; charset=latin-1"])
def test_content_types_that_tell_nothing(content_type: str | None) -> None:
    """`curl -d` calls everything a form: here that is refused, and the remedy names what is understood."""
    with pytest.raises(MediaTypeUnsupported):
        options(content_type=content_type)


def test_a_format_by_name() -> None:
    assert options(query="format=ndjson", content_type="application/x-www-form-urlencoded").format == "ndjson"
    with pytest.raises(InvalidRequest):
        options(query="format=xml")


def test_options_that_are_said() -> None:
    chosen = options(
        query="mode=upsert&key=a%2C%22b%2Cc%22&create=true&evolve=1&on_error=reject&wait=accepted&priority=background"
        "&timeout_s=5m&delimiter=%3B&header=false"
    )
    assert chosen == IngestOptions(
        "main", "t", "csv", "upsert", ("a", "b,c"), True, True, "reject", "accepted", "background", 300.0, ";", False
    )


@pytest.mark.parametrize(
    "query",
    [
        "mode=insert", "mode=", "key=a", "mode=upsert&key=", "create=maybe", "on_error=ignore", "wait=never", "priority=high",
        "timeout_s=-1", "timeout_s=soon", "timeout_s=0", "delimiter=", "delimiter=ab", "delimiter=%22", "delimiter=%0A",
        "modus=append", "mode=append&mode=replace", "%ff=1", "header=perhaps",
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(query: str) -> None:
    with pytest.raises(InvalidRequest):
        options(query=query)


def test_a_mistyped_parameter_is_named_with_its_nearest() -> None:
    with pytest.raises(InvalidRequest, match="`evolve`"):
        options(query="evolv=true")
