"""What a guest's text may be: one reading statement, or one writing statement. DuckDB's own parser decides.

Reading: the text alone must parse as one statement *and*, wrapped as `SELECT * FROM (…)`, as the same one. Neither test
is enough: `select 1) t, (select 2` parses only wrapped, `begin` parses wrapped as the name of a table. A text that
passes both has balanced parentheses and stands whole inside ours, so what we add around it stays ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

import duckdb

from pondkeeper.engine.faults import translate
from pondkeeper.engine.functions import refuse_forbidden
from pondkeeper.engine.tokens import leading_words
from pondkeeper.errors import PondkeeperError, SqlInvalid, StatementNotAllowed

WRITING_KINDS: Final = frozenset(
    {"INSERT", "UPDATE", "DELETE", "MERGE_INTO", "CREATE", "CREATE_FUNC", "ALTER", "DROP", "SELECT", "EXPLAIN"}
    | {"ANALYZE", "VACUUM"}
)
# PIVOT without IN becomes two statements on 1.5 (an enum, and the SELECT that uses it), one of its own kind on 2.0.
_READING_SHAPES: Final = frozenset({("SELECT",), ("CREATE", "SELECT"), ("MULTI",)})
_SPACE: Final = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/)*"
_EXPLAIN: Final = re.compile(
    rf"{_SPACE}EXPLAIN\b{_SPACE}(?:ANALY[ZS]E\b{_SPACE}|\(\s*(?:ANALY[ZS]E|FORMAT)\b[\s\w,']*\){_SPACE}){{0,2}}",
    re.IGNORECASE,
)
# What DuckDB counts as CREATE, DROP and ALTER, and no guest may: a secret outlives its statement, an alias renames the
# catalog for everybody.
_MODIFIERS: Final = frozenset({"or", "replace", "persistent", "temporary", "temp"})
_KEPT: Final = frozenset({("create", "secret"), ("drop", "secret"), ("alter", "database")})
_KEPT_KINDS: Final = frozenset({"CREATE", "DROP", "ALTER"})
_LONGEST_PREFIX: Final = 6
_PIVOTING: Final = re.compile(rf"{_SPACE}(?:CREATE|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ReadingStatement:
    """One statement that reads: `sql` is the text without trailing semicolons, safe to stand inside `(\\n…\\n)`.

    A `pivot` is a PIVOT without IN: its columns come from the data, anew each time.
    """

    sql: str
    kind: Literal["select", "pivot", "explain"]
    parameter_names: frozenset[str]


@dataclass(frozen=True)
class WritingStatement:
    """One statement that the writer may run; `kind` is DuckDB's name for it in lower case (insert, merge_into …)."""

    sql: str
    kind: str
    parameter_names: frozenset[str]


def reading_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> ReadingStatement:
    """The text as one reading statement; anything else is SqlInvalid or StatementNotAllowed."""
    sql = _cleaned(sql)
    alone = _parse_one(connection, sql)
    shape, names = _shape(alone), _names(alone)
    if shape in _READING_SHAPES and _wraps(connection, sql, shape):
        return ReadingStatement(sql, "select" if shape == ("SELECT",) else "pivot", names)
    if "EXPLAIN" in shape or shape == ("MULTI",):
        return ReadingStatement(_explained(connection, sql), "explain", names)
    raise StatementNotAllowed(
        f"`query` takes one reading statement; this is {_article(shape)}.",
        remedy="Use SELECT, FROM, WITH, VALUES, TABLE, PIVOT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN; "
        "`FROM pragma_table_info('t')` and the like replace PRAGMA and CALL. Writing goes through `execute`.",
    )


def writing_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> WritingStatement:
    """The text as one statement that the writer may run inside its own transaction."""
    sql = _cleaned(sql)
    alone = _parse_one(connection, sql)
    shape = _shape(alone)
    if not _may_write(connection, sql, shape):
        raise StatementNotAllowed(
            f"`execute` does not take {_article(shape)}.",
            remedy="Use INSERT, UPDATE, DELETE, MERGE, CREATE, ALTER, DROP, TRUNCATE, COMMENT, ANALYZE, VACUUM or SELECT. "
            "The writer owns transactions and checkpoints; several statements in one request are one transaction.",
        )
    if "EXPLAIN" in shape:
        _explained_writing(connection, sql)
    return WritingStatement(sql, _kind(shape), _names(alone))


def wrapped(sql: str) -> str:
    """The statement as a table expression. The newlines end a `--` comment at its end."""
    return f"(\n{sql}\n)"


def _parse(connection: duckdb.DuckDBPyConnection, sql: str) -> list[duckdb.Statement]:
    try:
        return connection.extract_statements(sql)
    except Exception as error:  # Why: whatever the parser raises on a guest's text, the text is refused.
        raise _refusal(error) from error


def _refusal(error: Exception) -> PondkeeperError:
    translated = translate(error)
    if translated.fatal or isinstance(translated, (SqlInvalid, StatementNotAllowed)):
        return translated
    return SqlInvalid(translated.message, private=translated.private)


def _parse_one(connection: duckdb.DuckDBPyConnection, sql: str) -> list[duckdb.Statement]:
    """The statements that DuckDB makes of the one statement in the text (PIVOT becomes several)."""
    refuse_forbidden(sql)
    found = _parse(connection, sql)
    if not found:
        raise SqlInvalid("There is no statement in the text.", remedy="Send one SQL statement.")
    written = [statement for statement in found if statement.query]
    if len(written) > 1 or (written and len(found) > 1):
        raise StatementNotAllowed(
            f"One statement is allowed here, and the text has {len(found)}.", remedy="Send them one by one."
        )
    return found


def _shape(statements: list[duckdb.Statement]) -> tuple[str, ...]:
    try:
        return tuple(statement.type.name for statement in statements)
    except ValueError:  # Trap: 2.0 parses kinds of statement (UPDATE EXTENSIONS) that its Python has no name for.
        return ("UNKNOWN",)


def _kind(shape: tuple[str, ...]) -> str:
    return "explain" if "EXPLAIN" in shape else "select" if shape in _READING_SHAPES else shape[-1].lower()


def _article(shape: tuple[str, ...]) -> str:
    name = _kind(shape).upper().replace("_", " ").replace("???", "UNKNOWN") + " statement"
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _names(statements: list[duckdb.Statement]) -> frozenset[str]:
    return frozenset().union(*(statement.named_parameters for statement in statements))


def _wraps(connection: duckdb.DuckDBPyConnection, sql: str, shape: tuple[str, ...]) -> bool:
    """Whether the text parses to the same statement inside parentheses."""
    try:
        return _shape(connection.extract_statements(f"SELECT * FROM {wrapped(sql)}")) == shape
    except Exception:  # noqa: BLE001  Why: whatever the parser raises, this text does not wrap.
        return False


def _may_write(connection: duckdb.DuckDBPyConnection, sql: str, shape: tuple[str, ...]) -> bool:
    if shape == ("MULTI",):  # A PIVOT without IN, somewhere inside.
        return bool(_PIVOTING.match(sql)) or _wraps(connection, sql, shape)
    return shape[-1] in WRITING_KINDS and (shape[-1] not in _KEPT_KINDS or _is_of_tables(sql))


def _is_of_tables(sql: str) -> bool:
    words = leading_words(sql, _LONGEST_PREFIX)
    if words is None:
        return False
    meant = [word for word in words if word not in _MODIFIERS][:2]
    return tuple(meant) not in _KEPT


def _cleaned(sql: str) -> str:
    """The text without semicolons around it; refused when no parser can see all of it."""
    if "\0" in sql:
        # Trap: the parser of 1.5 stops at a NUL and never sees what follows.
        raise SqlInvalid("The statement contains a NUL character.", remedy="Remove it, or write it as chr(0).")
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise SqlInvalid("The statement is not valid Unicode text.") from None
    return _without_semicolons(sql.lstrip(" \t\r\n;")) if ";" in sql else sql


def _without_semicolons(sql: str) -> str:
    """The text up to the first of the semicolons at its end, by DuckDB's tokens. The parser judges what is left."""
    data = sql.encode()
    try:
        tokens = duckdb.tokenize(sql)
    except Exception:  # noqa: BLE001  Why: whatever the tokenizer raises on a guest's text, nothing can be cut off.
        return sql
    cut = len(data)
    for offset, kind in reversed(tokens):
        if data[offset : offset + 1] == b";":
            cut = offset
        elif kind != duckdb.token_type.comment:
            break
    return data[:cut].decode(errors="replace")


def _explained(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The text when it is EXPLAIN of a reading statement. EXPLAIN ANALYZE runs what it explains, so that is judged too."""
    prefix = _EXPLAIN.match(sql)
    inner = reading_statement(connection, sql[prefix.end() :]) if prefix else None
    if inner is None or inner.kind == "explain":
        raise StatementNotAllowed("`query` explains reading statements only.")
    return sql


def _explained_writing(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    prefix = _EXPLAIN.match(sql)
    if prefix is None or writing_statement(connection, sql[prefix.end() :]).kind == "explain":
        raise StatementNotAllowed("`execute` explains only what it would also run.")
