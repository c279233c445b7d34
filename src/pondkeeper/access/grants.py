"""Grants: the schemas and tables that a key may read. `sales.orders`, `"Odd name"` (of the schema main), `sales.*`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pondkeeper.errors import InvalidRequest

Grants = tuple[tuple[str, str | None], ...]
MAX_GRANTS: Final = 1000
_NAME: Final = r'(?:[^\W\d][\w$]*|"(?:[^"\x00]|"")+")'
_GRANT: Final = re.compile(rf"(?:(?P<schema>{_NAME})\.)?(?P<table>{_NAME}|\*)\Z")


def valid_tables(tables: Iterable[str] | None) -> tuple[str, ...] | None:
    """What a key may read as it was written, each once; None stands for everything. Raises InvalidRequest."""
    if tables is None:
        return None
    written = tuple(dict.fromkeys([tables] if isinstance(tables, str) else tables))
    if not 1 <= len(written) <= MAX_GRANTS:
        raise InvalidRequest(f"A key for some tables names 1 to {MAX_GRANTS} of them.")
    grants_of(written)
    return written


def grants_of(tables: Iterable[str]) -> Grants:
    """Schema and table of each, in lower case as DuckDB compares them; no table stands for all. Raises InvalidRequest."""
    return tuple(map(_grant, tables))


def _grant(text: str) -> tuple[str, str | None]:
    found = _GRANT.match(text)
    if found is None or (found["table"] == "*" and found["schema"] is None):
        raise InvalidRequest(
            "What a key may read is written as `table`, `schema.table` or `schema.*`; odd names in double quotes."
        )
    table = None if found["table"] == "*" else _plain(found["table"])
    return _plain(found["schema"] or "main"), table


def _plain(name: str) -> str:
    return (name[1:-1].replace('""', '"') if name.startswith('"') else name).lower()
