"""Pieces of SQL. Every function is named with its catalog: a guest's macro called `replace` must not render answers."""

from __future__ import annotations


def call(function: str, *arguments: str) -> str:
    """A call of one of DuckDB's own functions."""
    return f"system.main.{function}({', '.join(arguments)})"


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def name(text: str) -> str:
    """A quoted identifier."""
    return '"' + text.replace('"', '""') + '"'


def concat(*parts: str) -> str:
    """The parts as one text; a NULL among them counts as empty."""
    return call("concat", *parts)


def joined(items: str) -> str:
    """A list of texts as one text with commas between."""
    return call("array_to_string", items, "','")


def transformed(items: str, variable: str, body: str) -> str:
    """A list with `body` (over `variable`) in place of each element."""
    return call("list_transform", items, f"lambda {variable}: {body}")


def text(reference: str) -> str:
    """DuckDB's own cast to text."""
    return f"({reference})::VARCHAR"
