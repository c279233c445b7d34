"""What the tests of this room share: one call that renders a text to bytes."""

from __future__ import annotations

from typing import Any

import duckdb

from pondkeeper.engine.render.answer import Answer, render
from pondkeeper.engine.statements import reading_statement

UNLIMITED = 2**62


def answer(connection: duckdb.DuckDBPyConnection, sql: str, form: str = "json", **options: Any) -> tuple[Answer, bytes]:
    """The answer to `sql` and its whole body."""
    cursor = connection.cursor()
    rendered = render(
        cursor,
        reading_statement(cursor, sql),
        options.get("parameters"),
        form,
        options.get("max_rows", UNLIMITED),
        options.get("max_bytes", UNLIMITED),
        options.get("version", 7),
    )
    return rendered, b"".join(rendered.chunks())
