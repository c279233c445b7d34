"""Functions of DuckDB that no guest may call, whatever the statement around them.

Trap: `enable_external_access = false` and `lock_configuration` do not cover these. An open database's own file stays
readable by `read_blob` and its kin, and on 1.5 closing that second descriptor drops DuckDB's lock on it; `checkpoint()`
is a table function, so a SELECT could fold the WAL while the copier reads the file; `enable_logging` shows one guest's
SQL to the next; and `query()` runs any of them from a text that nobody has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pondkeeper.engine.tokens import QUOTES, Tokens, tokens, with_plain_spaces
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
_NAME: Final = re.compile(rf"{_FILES}|{_TEXTS}|{_ENGINE}", re.IGNORECASE)
# For a text that cannot be cut into tokens: it refuses more, names inside strings too.
_BETWEEN: Final = r'["`]?(?:\s|--[^\n\r]*[\n\r]|/\*.*?\*/)*\('
_ANY_CALL: Final = re.compile(rf"(?<![\w$])({_FILES}|{_TEXTS}|{_ENGINE})(?![\w$]){_BETWEEN}", re.IGNORECASE | re.DOTALL)
# What shows where files of the server lie, as a function or as the view of the same name.
SHOWS_PATHS: Final = frozenset(
    {
        *("duckdb_databases", "pragma_database_list", "database_list", "duckdb_settings", "pg_settings"),
        *("duckdb_temporary_files", "duckdb_external_file_cache", "duckdb_external_resources", "duckdb_extensions"),
        *("duckdb_secrets", "duckdb_logs", "duckdb_logs_parsed", "duckdb_log_contexts"),
    }
)
# Settings that hold paths: 2.0 shows them by SHOW too.
_PATH_SETTINGS: Final = frozenset(
    {
        *("temp_directory", "allowed_paths", "allowed_directories", "home_directory", "secret_directory"),
        *("extension_directory", "extension_directories", "extension_repository_directory", "file_search_path"),
        *("log_query_path", "profile_output", "profiling_output", "http_logging_output", "custom_extension_repository"),
    }
)
_SHOWING: Final = frozenset({"show", "describe", "desc"})
_SETTING: Final = "current_setting"
# Why so narrow: a name that is put together, escaped or read from a table is not seen here.
_PLAIN_SETTING: Final = re.compile(r"\bcurrent_setting\s*\(\s*'(\w+)'\s*\)")
_TELLING_SETTING: Final = re.compile(r"path|director|file|output|repositor|secret|proxy|user|pass|log", re.IGNORECASE)
# Why: each name above holds one of these, and to search a megabyte of VALUES for them costs milliseconds.
_PLAIN_MARKS: Final = ("glob", "query", "checkpoint")
_MARKS: Final = (  # each has an underscore, which is looked for first
    *("read_", "parquet_", "sniff_csv", "json_execute", "_logging", "_profiling", "write_log", "which_secret", "_scan"),
    *("python_", "_external_resource", _SETTING, "duckdb_", "database_list", "pg_settings"),
    *("allowed_", "_director", "_path", "_output", "_repository"),
)


def refuse_forbidden(sql: str) -> None:
    """Raise StatementNotAllowed when the text calls a function that reaches past the database, or shows where it lies."""
    lowered = sql.lower()
    if not _may_reach_out(lowered):
        return
    found = tokens(sql)
    calls = _ANY_CALL.findall(with_plain_spaces(sql)) if found is None else filter(is_forbidden, found.calls())
    for name in calls:
        raise StatementNotAllowed(
            f"The function {_plain(name)}() is not open to statements from outside.",
            remedy="Query the tables of this database; files are loaded by a program under `pondkeeper run`.",
        )
    for name in _telling(lowered, found):
        raise StatementNotAllowed(
            f"{name} shows where the server keeps its files, and is not open to statements from outside.",
            remedy="GET /v1/databases lists the databases; information_schema has their schemas, tables and columns.",
        )


def _may_reach_out(lowered: str) -> bool:
    if "_" in lowered and any(mark in lowered for mark in _MARKS):
        return True
    return any(mark in lowered for mark in _PLAIN_MARKS)


def is_forbidden(name: str) -> bool:
    """Whether guests may not call the function of this name."""
    return _NAME.fullmatch(_plain(name)) is not None


def _telling(lowered: str, found: Tokens | None) -> Iterator[str]:
    """What of the text would show paths."""
    if found is None:
        yield from (name for name in SHOWS_PATHS | _PATH_SETTINGS if name in lowered)
    else:
        words = set(map(_plain, found.words))
        yield from SHOWS_PATHS & words
        yield from _PATH_SETTINGS & words if words & _SHOWING else ()
    asked = _PLAIN_SETTING.findall(lowered)
    if len(asked) < lowered.count(_SETTING) or any(map(_TELLING_SETTING.search, asked)):
        yield f"{_SETTING}() of this setting"


def _plain(name: str) -> str:
    return name.lower().strip(QUOTES)
