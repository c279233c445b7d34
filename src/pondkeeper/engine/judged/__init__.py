"""What of DuckDB has been judged: for each line of releases, every function, setting and kind of statement that it had.

The lists are made by `script/judge-engine`, which stops at what looks dangerous and was judged by nobody. What an engine has
beyond its list, nobody has looked at.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import duckdb

KINDS = ("functions", "settings", "statements")

Catalogue = dict[str, dict[str, str]]


def line() -> str:
    """The line of the engine that is installed, such as 1.5."""
    return ".".join(duckdb.__version__.split(".")[:2])


def judged(of_line: str) -> Catalogue | None:
    """Every judged name of that line and its verdict, by kind; None for a line that was never judged."""
    file = files(__package__).joinpath(f"{of_line}.json")
    if not file.is_file():
        return None
    read: Catalogue = json.loads(file.read_text())
    return read


def catalogue() -> dict[str, set[str]]:
    """What the installed engine has, asked from itself in a database in memory."""
    with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "200MB"}) as connection:
        return {
            "functions": _names(connection, "SELECT DISTINCT lower(function_name) FROM duckdb_functions()"),
            "settings": _names(connection, "SELECT lower(name) FROM duckdb_settings()"),
            "statements": {name for name in dir(duckdb.StatementType) if name.isupper()},
        }


def unjudged() -> dict[str, list[str]]:
    """What the installed engine has that nobody has judged, by kind; empty when there is nothing."""
    known = judged(line())
    found = catalogue()
    if known is None:
        return {kind: sorted(names) for kind, names in found.items()}
    beyond = {kind: sorted(names - known[kind].keys()) for kind, names in found.items()}
    return {kind: names for kind, names in beyond.items() if names}


def _names(connection: Any, sql: str) -> set[str]:
    return {name for (name,) in connection.execute(sql).fetchall()}
