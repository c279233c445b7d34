"""The format is chosen as the client asked, or refused in words."""

from __future__ import annotations

import pytest

from pondkeeper.errors import InvalidRequest, NotAcceptable
from pondkeeper.server.formats import chosen_format
from tests.server.conftest import Served


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        (b"", "json"),
        (b"*/*", "json"),
        (b"application/json", "json"),
        (b"application/*", "json"),
        (b"text/*", "csv"),
        (b"text/csv", "csv"),
        (b"Text/CSV; header=present", "csv"),
        (b"application/x-ndjson", "ndjson"),
        (b"application/jsonl", "ndjson"),
        (b"application/vnd.apache.arrow.stream", "arrow"),
        (b"application/vnd.apache.parquet", "parquet"),
        (b"text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        (b"text/csv, */*", "csv"),
        (b"*/*, text/csv", "csv"),
        (b"text/csv;q=0.5, application/json;q=0.9", "json"),
        (b"text/csv;q=0.9, application/json;q=0.5", "csv"),
        (b"application/json;q=0, */*", "ndjson"),
        (b"application/vnd.apache.arrow.stream, application/json;q=0.1", "arrow"),
        (b"text/csv;q=nonsense, application/json;q=0.1", "json"),
    ],
)
def test_accept_chooses(accept: bytes | None, expected: str) -> None:
    """The best liked format wins; of equals the one named exactly, then the one named first."""
    assert chosen_format(accept, b"") == expected


@pytest.mark.parametrize("accept", [b"text/html", b"image/*", b"application/json;q=0", b"nonsense", b"text/csv;q=0"])
def test_what_cannot_be_answered_is_refused(accept: bytes) -> None:
    """A client that takes none of the formats is told which there are."""
    with pytest.raises(NotAcceptable) as refused:
        chosen_format(accept, b"")
    assert "text/csv" in refused.value.details["supported"]


def test_query_string_wins(served: Served) -> None:
    """`?format=` decides where there is one; an unknown one is refused, other arguments are not looked at."""
    assert chosen_format(b"text/html", b"format=arrow&x=1") == "arrow"
    assert chosen_format(b"text/csv", b"x=1") == "csv"
    with pytest.raises(InvalidRequest):
        chosen_format(None, b"format=xml")
    with served.client() as client:
        assert client.post("/v1/query", json={"sql": "one"}, headers={"Accept": "image/png"}).status_code == 406
        assert client.post("/v1/query?format=csv", json={"sql": "one"}).headers["content-type"] == "text/csv"
