"""Everything on stdout: tables for people, JSON for programs, bytes of answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

WIDE: Final = 100_000


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_json_line(value: Any) -> None:
    """A value as one line of JSON, passed on at once: of a stream of them."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))
    sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Iterable[int] = (), whole: Iterable[int] = ()
) -> None:
    """A table; on a terminal cut to its width, elsewhere as wide as it needs to be. The columns `whole` are never cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    on_terminal = sys.stdout.isatty()
    right, uncut = set(numbers), set(whole)
    cells = [["" if value is None else one_line(str(value)) for value in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        table.add_column(
            Text(one_line(name)),
            justify="right" if position in right else "left",
            no_wrap=True,
            overflow="ellipsis" if on_terminal else "ignore",
            min_width=max(len(row[position]) for row in [columns, *cells]) if position in uncut else min(len(name), 8),
        )
    for row in cells:
        table.add_row(*map(Text, row))
    # Why no width of its own on a terminal: rich asks the terminal, and COLUMNS.
    console = Console(width=None if on_terminal else WIDE, no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    console.print(table)


def one_line(text: str) -> str:
    """A cell is one line and cannot steer the terminal: control characters are shown, not sent."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def write_bytes(chunks: Iterable[bytes]) -> None:
    """Bytes to stdout as they come."""
    out = sys.stdout.buffer
    for chunk in chunks:
        out.write(chunk)
        out.flush()
