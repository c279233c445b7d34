"""`pondkeeper query`: one reading statement, answered from the newest snapshot."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from pondkeeper.cli.help import SqlCommand, example, new_command
from pondkeeper.cli.inputs import parameters, parameters_option, read_sql
from pondkeeper.cli.narration import Progress, say, warn
from pondkeeper.cli.output import print_table
from pondkeeper.cli.quantities import DURATION, SIZE, show_bytes, show_seconds
from pondkeeper.cli.target import Target, database_option, target_options
from pondkeeper.errors import LimitReached

if TYPE_CHECKING:
    from pondkeeper.client import Answer, AnswerStream, Client

FORMATS: Final = ("table", "json", "ndjson", "csv", "arrow", "parquet")
BINARY: Final = frozenset({"arrow", "parquet"})
TABLE_ROWS: Final = 100
NUMBERS: Final = ("INT", "DECIMAL", "DOUBLE", "FLOAT", "BIGNUM")


@new_command(
    "query",
    "Read with one statement.",
    example("a table on a terminal, CSV into a pipe or a file", 'pondkeeper query "SELECT * FROM flights LIMIT 5"'),
    example("bound values, never pasted into the text", 'pondkeeper query "FROM flights WHERE dest = ?" -p LAX'),
    example("a whole table as a file", 'pondkeeper query "FROM flights" -o flights.parquet'),
    example("SQL from a file, another keeper", "pondkeeper query - --url http://db:8420 < report.sql"),
    kind=SqlCommand,
)
@click.argument("sql", metavar="SQL")
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Default: by the ending of --output, else table on a terminal and csv elsewhere.",
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file."
)
@parameters_option
@database_option
@click.option("--at-least", metavar="VERSION", type=int, help="Wait for the snapshot of this version or a newer one.")
@click.option("--timeout", "timeout_s", type=DURATION, help="Stop it after this long, e.g. 30s.")
@click.option(
    "--max-rows", metavar="COUNT", type=click.IntRange(min=1), help=f"Cut the answer here; a table shows {TABLE_ROWS}."
)
@click.option("--max-bytes", type=SIZE, help="Cut the answer here, e.g. 100MB.")
@click.option("--memory", type=SIZE, help="The most memory it may take, e.g. 1GB.")
@target_options
def command(
    sql: str,
    form: str | None,
    output: Path | None,
    positional: tuple[str, ...],
    named: tuple[str, ...],
    database: str | None,
    target: Target,
    max_rows: int | None,
    **options: Any,
) -> None:
    """Answer SQL, one reading statement, from the newest snapshot. `-` reads it from stdin.

    It cannot change anything and cannot keep a writer waiting. An answer that a limit of the server cuts short is
    printed, and the exit code says so (4).
    """
    form = _format(form, output)
    request = {"sql": read_sql(sql), "parameters": parameters(positional, named), **options}
    with target.client(database=database) as client:
        if form == "table":
            _show(client, request, max_rows)
        else:
            _stream(client, request | {"format": form, "max_rows": max_rows}, output, _asked(max_rows, options))


def _format(form: str | None, output: Path | None) -> str:
    """The format that was asked for, or that suits where the answer goes."""
    on_terminal = output is None and sys.stdout.isatty()
    if form is None:
        ending = output.suffix.removeprefix(".") if output else ""
        form = ending if ending in FORMATS[1:] else "table" if on_terminal else "csv"
    if form == "table" and output is not None:
        raise click.UsageError("A table is for looking at: choose another --format for a file.")
    if form in BINARY and on_terminal:
        raise click.UsageError(f"{form} is binary: give -o FILE, or send stdout into a file or a program.")
    return form


def _show(client: Client, request: dict[str, Any], max_rows: int | None) -> None:
    """A table of the first rows, and on stderr what it was answered from."""
    with Progress("Waiting for the answer"):
        answer = client.query(max_rows=max_rows or TABLE_ROWS, **request)
    numbers = [number for number, column in enumerate(answer.columns) if _is_number(column.type)]
    print_table(answer.names, ([_cell(value) for value in row] for row in answer.rows), numbers=numbers)
    sys.stdout.flush()
    say(_caption(answer))


def _is_number(kind: str) -> bool:
    return (
        any(word in kind for word in NUMBERS) and not kind.endswith("]") and kind != "INTERVAL" and "(" not in kind[:7]
    )


def _cell(value: Any) -> str | None:
    """A value as a table shows it: as JSON writes it, but texts without quotes and NULL as such."""
    import json

    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _caption(answer: Answer) -> str:
    rows = "1 row" if answer.row_count == 1 else f"{answer.row_count:,} rows"
    cut = f", cut by {answer.limit or 'a limit'}: --max-rows shows more, --format csv all" if answer.truncated else ""
    return click.style(f"({rows}{cut}; version {answer.version}, {show_seconds(answer.elapsed_ms / 1000)})", dim=True)


def _asked(max_rows: int | None, options: dict[str, Any]) -> set[str]:
    """The limits that the user set: being cut by them is no failure."""
    return {name for name, value in {"max_rows": max_rows, **options}.items() if value is not None}


def _stream(client: Client, request: dict[str, Any], output: Path | None, asked: set[str]) -> None:
    waiting = Progress("Waiting for the answer")
    with waiting, client.stream(**request) as answer, _destination(output) as out:
        count = _copy(answer, out, waiting)
    if output is not None:
        say(f"{output}: {show_bytes(count)}, version {answer.version}")
    limit = answer.limit
    if limit is not None and limit not in asked:
        raise LimitReached(f"The answer was cut by `{limit}`: it is not the whole.", limit=limit)
    if limit is not None:
        warn(f"the answer was cut by {limit}, as asked")


def _copy(answer: AnswerStream, out: BinaryIO, progress: Progress) -> int:
    count = 0
    for chunk in answer:
        out.write(chunk)
        out.flush()
        count += len(chunk)
        progress.what = f"{show_bytes(count)} received"
    return count


@contextlib.contextmanager
def _destination(output: Path | None) -> Iterator[BinaryIO]:
    """Stdout, or a file that appears under its name only when it is whole."""
    if output is None:
        yield sys.stdout.buffer
        return
    if not output.parent.is_dir():
        raise click.UsageError(f"There is no folder {output.parent}.")
    if output.exists() and not output.is_file():  # Why: /dev/stdout and pipes must not be replaced by a file.
        with output.open("wb") as file:
            yield file
        return
    temp = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temp.open("wb") as file:
            yield file
        temp.replace(output)
    finally:
        temp.unlink(missing_ok=True)
