"""`pondkeeper execute`: writing statements, all or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pondkeeper.cli import statements
from pondkeeper.cli.help import SqlCommand, example, new_command
from pondkeeper.cli.inputs import parameters, parameters_option, read_file, read_sql
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json
from pondkeeper.cli.quantities import DURATION
from pondkeeper.cli.target import Target, database_option, json_option, target_options

if TYPE_CHECKING:
    from pondkeeper.client import Outcome


@new_command(
    "execute",
    "Write with statements, all or none.",
    example("one statement", 'pondkeeper execute "INSERT INTO stops VALUES (?, ?)" -p 7 -p Harbour'),
    example("several, all or none", 'pondkeeper execute "DELETE FROM stops" "INSERT INTO stops VALUES (1, \'Pier\')"'),
    example("a file of statements, all or none", "pondkeeper execute --file migrate.sql"),
    example("and read what was written", 'pondkeeper query "FROM stops" --at-least "$(pondkeeper execute …)"'),
    kind=SqlCommand,
)
@click.argument("sql", metavar="[SQL]...", nargs=-1)
@click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    help="Statements separated by semicolons; `-` is stdin. Repeat for several.",
)
@parameters_option
@database_option
@click.option("--wait", "wait_s", type=DURATION, help="How long to wait for the turn, e.g. 10m.")
@click.option("--timeout", "timeout_s", type=DURATION, help="How long to run from the turn on, e.g. 1m.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="A name for this write, so that it can be sent again and is applied once; without one, each call makes its own.",
)
@click.option(
    "--priority",
    type=click.Choice(("interactive", "normal", "background")),
    help="How soon it wants its turn among the writes that wait; interactive by default.",
)
@json_option
@target_options
def command(
    sql: tuple[str, ...],
    files: tuple[Path, ...],
    positional: tuple[str, ...],
    named: tuple[str, ...],
    database: str | None,
    wait_s: float | None,
    timeout_s: float | None,
    idempotency_key: str | None,
    priority: str | None,
    as_json: bool,
    target: Target,
) -> None:
    """Carry out SQL, one or several writing statements: all of them are committed, or none.

    Prints the version that contains the change: `query --at-least VERSION` reads it. `-` reads SQL from stdin.
    """
    listed = _statements(sql, files)
    values = parameters(positional, named)
    if values is not None and len(listed) > 1:
        raise click.UsageError("Parameters belong to one statement: give one, or send the list over the API.")
    with target.client(database=database) as client, Progress("Waiting for the commit"):
        outcome = client.execute(
            listed[0] if len(listed) == 1 else listed,
            values,
            timeout_s=timeout_s,
            wait_s=wait_s,
            idempotency_key=idempotency_key,
            priority=priority,
        )
    _report(outcome, as_json)


def _statements(sql: tuple[str, ...], files: tuple[Path, ...]) -> list[str]:
    texts = [read_sql(each) for each in sql] + [read_file(each) for each in files]
    found = [statement for text in texts for statement in statements.split(text)]
    if not found:
        raise click.UsageError("There is no statement to carry out: give SQL, `-` or --file.")
    return found


def _report(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print_json({"outcome": outcome.outcome, "version": outcome.version, "rows_changed": outcome.rows_changed})
        return
    changed = outcome.rows_changed if isinstance(outcome.rows_changed, int) else sum(outcome.rows_changed)
    say(f"{outcome.outcome}: {changed:,} {'row' if changed == 1 else 'rows'} changed")
    click.echo(outcome.version)
