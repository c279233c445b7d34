"""Functions of DuckDB that no guest may call, whatever the statement around them.

Trap: `enable_external_access = false` and `lock_configuration` do not cover these. An open database's own file stays
readable by `read_blob` and its kin, and on 1.5 closing that second descriptor drops DuckDB's lock on it; `checkpoint()`
is a table function, so a SELECT could fold the WAL while the copier reads the file; `enable_logging` shows one guest's
SQL to the next; and `query()` runs any of them from a text that nobody has seen.
"""

from __future__ import annotations

import re
from typing import Final

import duckdb

from pondkeeper.errors import StatementNotAllowed

_FILES: Final = (
    r"read_(?:blob|text|csv|csv_auto|json\w*|ndjson\w*|parquet|duckdb|single_\w+)"
    r"|parquet_(?:scan|schema|\w*metadata|bloom_probe)|sniff_csv|glob"
)
_TEXTS: Final = r"query|query_table|json_execute_serialized_sql"
_ENGINE: Final = (
    r"(?:force_)?checkpoint|(?:enable|disable)_(?:logging|profiling)|truncate_duckdb_logs|write_log|which_secret"
    r"|arrow_scan\w*|pandas_scan|python_\w+|seq_scan|\w+_external_resource\w*"
)
_BETWEEN: Final = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_CALL: Final = re.compile(
    rf'(?<![\w$])(?P<quote>")?(?P<name>{_FILES}|{_TEXTS}|{_ENGINE})(?(quote)"){_BETWEEN}\(', re.IGNORECASE | re.DOTALL
)
# Why: each name above holds one of these, and to search a megabyte of VALUES for them costs milliseconds.
_MARKS: Final = (
    *("read_", "parquet_", "sniff_csv", "glob", "query", "json_execute", "checkpoint", "_logging", "_profiling"),
    *("duckdb_logs", "write_log", "which_secret", "_scan", "python_", "_external_resource"),
)
# What stands before the columns of a table that happens to be called so: `INSERT INTO query (…)`.
_TABLE: Final = re.compile(
    r"(?:\bINTO|\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:TEMP(?:ORARY)?\s+)?TABLE(?:\s+IF\s+NOT\s+EXISTS)?|\bREFERENCES)"
    r'\s+(?:[\w"]+\.)*\Z',
    re.IGNORECASE,
)
_REACH: Final = 200


def refuse_forbidden(sql: str) -> None:
    """Raise StatementNotAllowed when the text calls a function that reaches past the database."""
    lowered = sql.lower()
    if not any(mark in lowered for mark in _MARKS):
        return
    calls = [
        call for call in _CALL.finditer(sql) if not _TABLE.search(sql, max(call.start() - _REACH, 0), call.start())
    ]
    if not calls:
        return
    starts = _token_starts(sql)
    for call in calls:
        if starts is None or call.start() in starts:
            raise StatementNotAllowed(
                f"The function {call['name'].lower()}() is not open to statements from outside.",
                remedy="Query the tables of this database; files are loaded by a program under `pondkeeper run`.",
            )


def _token_starts(sql: str) -> frozenset[int] | None:
    """Where DuckDB's tokens begin, so that a name inside a string or a comment is no call; None when it cannot tell."""
    try:
        offsets = [offset for offset, _ in duckdb.tokenize(sql)]
    except Exception:  # noqa: BLE001  Why: whatever the tokenizer raises on a guest's text, nothing is known of it.
        return None
    if sql.isascii():
        return frozenset(offsets)
    data = sql.encode()
    return frozenset(len(data[:offset].decode(errors="replace")) for offset in offsets)
