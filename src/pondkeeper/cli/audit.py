"""`pondkeeper audit`: what was asked of this keeper, by whom, and the proof that the record was not changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import DURATION
from pondkeeper.cli.target import Target, home_option, json_option, outer_options

if TYPE_CHECKING:
    from pathlib import Path

F = TypeVar("F", bound=Callable[..., Any])


@new_group(
    "audit",
    "Show and verify what was asked, and by whom.",
    example("whether anything was changed since it was written", "pondkeeper audit verify"),
    example("what was refused in the last hour", "pondkeeper audit list --since 1h --outcome forbidden"),
    example("requests as they end", "pondkeeper audit tail --follow"),
)
@outer_options
def command() -> None:
    """Show and verify the audit: every request that names data, who made it, and what became of it.

    It works on the files in the keeper's home, with a keeper running or without.
    """


def filter_options(function: F) -> F:
    """The options that choose records."""
    for option in (
        click.option("--outcome", metavar="WORD", help="Only those that ended so: ok, forbidden, query_timed_out …"),
        click.option("-d", "--database", metavar="NAME", help="Only those of this database."),
        click.option("--by", metavar="KEY", help="Only those of this key: its id or name."),
    ):
        function = option(function)
    return function


@command.command(
    "verify",
    examples=(
        example("the whole chain", "pondkeeper audit verify"),
        example("against a hash that was kept elsewhere", "pondkeeper audit verify --expect 5f2a…"),
    ),
)
@click.option("--expect", metavar="HASH", help="The hash of a line that the audit must have: an earlier `head`.")
@json_option
@home_option
def verify(expect: str | None, as_json: bool, target: Target) -> None:
    """Check that every line is as it was written: none changed, removed or added. Exit code 1 where one was."""
    from pondkeeper.access import audit_reading

    verdict = audit_reading.verify(_folder(target), expect)
    if as_json:
        print_json(verdict.to_wire())
        return
    say(f"{verdict.records} requests, lines {verdict.first_number} to {verdict.last_number}: all as they were written")
    for count, what in (
        (verdict.unclean_ends, "ends of a keeper that were not in order: its last moment may be missing"),
        (verdict.missing_records, "requests were answered unrecorded, as audit.mode = best_effort allows"),
        (verdict.removed_segments, "segments were removed by their age or size, as the settings say"),
        (verdict.unfinished_bytes, "bytes of a line that is not finished (yet)"),
    ):
        if count:
            say(f"{count} {what}")
    click.echo(verdict.head)


@command.command(
    "list", examples=(example("what one key did today", "pondkeeper audit list --by dashboard --since 24h --json"),)
)
@click.option("--since", "since_s", metavar="DURATION", type=DURATION, help="How far back, e.g. 1h or 7d.")
@click.option("-n", "--limit", "most", metavar="COUNT", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many.")
@filter_options
@json_option
@home_option
def list_(
    since_s: float | None, most: int, by: str | None, database: str | None, outcome: str | None, as_json: bool, target: Target
) -> None:
    """List what was asked, the newest last."""
    from pondkeeper.access.audit_reading import Filter, newest

    since = None if since_s is None else time.time() - since_s
    found = newest(_folder(target), Filter(since, by, database, outcome), most)
    if as_json:
        print_json(found)
    else:
        print_table(_COLUMNS, map(_row, found), numbers=(6, 7), whole=(0, 1, 5))


@command.command("tail", examples=(example("the next ones, for a program", "pondkeeper audit tail -n 0 -f --json"),))
@click.option("-n", "--lines", "most", metavar="COUNT", type=click.IntRange(0), default=10, show_default=True, help="The newest so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones until Ctrl-C.")
@filter_options
@json_option
@home_option
def tail(
    most: int, follow: bool, by: str | None, database: str | None, outcome: str | None, as_json: bool, target: Target
) -> None:
    """Print the newest records, one line each: JSON lines with --json."""
    from pondkeeper.access import audit_reading
    from pondkeeper.access.audit_reading import Filter

    folder, wanted = _folder(target), Filter(None, by, database, outcome)
    if most:
        for record in audit_reading.newest(folder, wanted, most):
            _print(record, as_json)
    if follow:
        for record in audit_reading.follow(folder, wanted):
            _print(record, as_json)


def _folder(target: Target) -> Path:
    return target.local_home().audit


_COLUMNS = ("at", "key", "from", "database", "request", "outcome", "rows", "ms", "sql")


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    sql = " ".join(str(record.get("sql") or "").split())
    return (
        record.get("at"),
        record.get("name"),
        record.get("from"),
        record.get("database"),
        record.get("request"),
        record.get("outcome"),
        record.get("rows"),
        record.get("elapsed_ms"),
        sql,
    )


def _print(record: dict[str, Any], as_json: bool) -> None:
    from pondkeeper.cli.output import one_line, print_json_line

    if as_json:
        print_json_line(record)
    else:
        click.echo(one_line("  ".join("–" if value is None else str(value) for value in _row(record))))
