"""`pondkeeper ingest`: files of rows into a table."""

from __future__ import annotations

import glob
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import QUIET_FOR_S, Progress, say, warn
from pondkeeper.cli.output import print_json
from pondkeeper.cli.quantities import DURATION, show_bytes
from pondkeeper.cli.target import Target, database_option, json_option, target_options

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from pondkeeper.client import Client, Ingested

STDIN: Final = "-"
FORMATS: Final = ("ndjson", "json", "csv", "tsv", "arrow", "parquet")
OnSent = Callable[[int], None]


@new_command(
    "ingest",
    "Load files of rows into a table.",
    example("a file, its format told by its name", "pondkeeper ingest flights.parquet --table flights"),
    example("make the table from the rows", "pondkeeper ingest stops.csv --table stops --create"),
    example("change rows that are there, add the others", "pondkeeper ingest stops.ndjson -t stops --mode upsert --on id"),
    example("many files, one after the other", "pondkeeper ingest 'export/*.parquet' --table flights"),
    example("from another program", "curl -s URL | pondkeeper ingest - --format ndjson --table events --evolve"),
    example("take the good rows, and put the bad ones aside", "pondkeeper ingest a.csv -t stops --on-error reject --rejects bad.ndjson"),
    example("do not wait for the database", "pondkeeper ingest a.ndjson --table events --wait accepted"),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("-t", "--table", metavar="TABLE", required=True, help="`table` or `schema.table`.")
@click.option("-f", "--format", "format_", type=click.Choice(FORMATS), help="Of the files; else their names tell it.")
@click.option(
    "--mode",
    type=click.Choice(("append", "upsert", "replace")),
    default="append",
    show_default=True,
    help="upsert changes rows whose key is there; replace exchanges all rows.",
)
@click.option("--on", "keys", metavar="COLUMN", multiple=True, help="A key of an upsert; repeat. Else the primary key.")
@click.option("--create", is_flag=True, help="Make the table from the rows, if there is none.")
@click.option("--evolve", is_flag=True, help="Add columns that the table has not.")
@click.option(
    "--on-error",
    type=click.Choice(("abort", "reject")),
    default="abort",
    show_default=True,
    help="abort takes nothing when a row is bad; reject takes the good ones.",
)
@click.option("--rejects", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write rejected rows there.")
@click.option(
    "--wait",
    type=click.Choice(("commit", "accepted")),
    default="commit",
    show_default=True,
    help="accepted returns with a ticket once the rows are on disk; they are applied later, once.",
)
@click.option("--delimiter", metavar="CHAR", help="Of CSV; `tab` for a tab.")
@click.option("--no-header", is_flag=True, help="CSV without a row of names: columns are meant by their places.")
@click.option("--timeout", "timeout_s", type=DURATION, help="Give up on a file after this long, e.g. 10m.")
@click.option("--priority", type=click.Choice(("interactive", "normal", "background")), help="normal by default.")
@click.option("--idempotency-key", metavar="KEY", help="A name for this ingest: repeated with it, it is applied once.")
@database_option
@json_option
@target_options
def command(files: tuple[str, ...], rejects: Path | None, as_json: bool, target: Target, **given: Any) -> None:
    """Load FILEs (or `-`, stdin) into a table, each in one transaction: the keeper reads it first and locks nothing meanwhile.

    Prints the version that contains the rows (with --wait accepted the tickets): `query --at-least VERSION` reads them.
    """
    options = Options(**given)
    found = expanded(files)
    options.check(found)
    done: list[tuple[str, Ingested]] = []
    with target.client(database=options.database) as client:
        try:
            for name in found:
                done.append((name, _sent(client, name, options)))
                _tell(client, *done[-1], rejects)
        finally:
            _report(done, as_json=as_json)


class Options:
    """What was asked for, as `Client.ingest` takes it."""

    def __init__(self, *, format_: str | None, no_header: bool, database: str | None, keys: tuple[str, ...], **same: Any) -> None:
        self.format = format_
        self.database = database
        self.mode: str = same["mode"]
        self.idempotency_key: str | None = same["idempotency_key"]
        self.table: str = same.pop("table")
        self.others = same | {"keys": keys, "header": False if no_header else None}

    def check(self, names: list[str]) -> None:
        """Refuse what cannot be meant."""
        if STDIN in names and self.format is None:
            raise click.UsageError("stdin has no name that tells its format: give --format.")
        if len(names) > 1 and self.mode == "replace":
            raise click.UsageError("--mode replace takes one file: each further one would replace it.")
        if len(names) > 1 and self.idempotency_key is not None:
            raise click.UsageError("--idempotency-key names one ingest: give one file.")
        if self.others["keys"] and self.mode != "upsert":
            raise click.UsageError("--on goes with --mode upsert.")


def expanded(files: tuple[str, ...]) -> list[str]:
    """The files that the arguments name: each is a file, `-`, or a pattern."""
    found: list[str] = []
    for name in files:
        if name == STDIN or Path(name).is_file():
            found.append(name)
            continue
        matches = sorted(match for match in glob.glob(name, recursive=True) if Path(match).is_file())  # noqa: PTH207  Why: a pattern may be absolute
        if not matches:
            raise click.UsageError(f"There is no file {name!r}.")
        found += matches
    return found


def _sent(client: Client, name: str, options: Options) -> Ingested:
    data: Any = sys.stdin.buffer if name == STDIN else Path(name)
    size_bytes = None if name == STDIN else Path(name).stat().st_size
    with _bar(name, size_bytes) as on_sent:
        return client.ingest(options.table, data, format=options.format, on_sent=on_sent, **options.others)


@contextmanager
def _bar(name: str, size_bytes: int | None) -> Iterator[OnSent]:
    """A progress bar on a terminal; elsewhere a line now and then."""
    label = "stdin" if name == STDIN else Path(name).name
    if not sys.stderr.isatty():
        sent_bytes = 0
        with Progress(f"Sending {label}") as progress:

            def count(sent: int) -> None:
                nonlocal sent_bytes
                sent_bytes += sent
                is_sent = sent_bytes == size_bytes
                progress.what = f"Loading {label}" if is_sent else f"Sending {label}, {show_bytes(sent_bytes)}"

            yield count
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(f"Sending {label}", total=size_bytes)

    def advance(sent: int) -> None:
        bar.advance(task, sent)
        if bar.tasks[0].finished:  # Why: what is left then is the keeper's work, which has no bytes to count.
            bar.update(task, description=f"Loading {label}")

    with _shown_when_slow(bar):
        yield advance


@contextmanager
def _shown_when_slow(bar: RichProgress) -> Iterator[None]:
    """The bar, but not for what is over in a moment."""
    is_over, over_or_shown = False, threading.Lock()

    def show() -> None:
        with over_or_shown:
            if not is_over:
                bar.start()

    timer = threading.Timer(QUIET_FOR_S, show)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with over_or_shown:
            is_over = True
            bar.stop()
        timer.join()


def _tell(client: Client, name: str, outcome: Ingested, rejects: Path | None) -> None:
    """What became of a file, on stderr; its rejected rows where they were asked for."""
    if outcome.ticket is not None:
        say(f"{name}: accepted; `pondkeeper ticket show {outcome.ticket}` says what becomes of it")
        return
    rows = outcome.rows or 0
    say(f"{name}: {outcome.outcome}, {rows:,} {'row' if rows == 1 else 'rows'}")
    if outcome.rejected and outcome.rejects:
        where = f"`pondkeeper rejects show {outcome.rejects}` has them"
        if rejects is not None:
            _write_rejects(client, outcome.rejects, rejects)
            where = f"they are in {rejects}"
        warn(f"{name}: {outcome.rejected:,} {'row was' if outcome.rejected == 1 else 'rows were'} rejected; {where}")


def _write_rejects(client: Client, name: str, path: Path) -> None:
    import json

    with path.open("a", encoding="utf-8") as file:
        for row in client.rejects(name):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _report(done: list[tuple[str, Ingested]], *, as_json: bool) -> None:
    if as_json:
        entries = [{"file": name} | {k: v for k, v in asdict(outcome).items() if v is not None} for name, outcome in done]
        versions = [outcome.version for _, outcome in done if outcome.version is not None]
        rows = sum(outcome.rows or 0 for _, outcome in done)
        print_json({"ingests": entries, "rows": rows, "version": max(versions, default=None)})
        return
    for _, outcome in done:
        if outcome.ticket is not None:
            click.echo(outcome.ticket)
    versions = [outcome.version for _, outcome in done if outcome.version is not None]
    if versions:
        click.echo(max(versions))
