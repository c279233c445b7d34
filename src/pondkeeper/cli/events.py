"""`pondkeeper events`: what happens, as it happens."""

from __future__ import annotations

from typing import Any

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import one_line, print_json_line
from pondkeeper.cli.target import Target, database_option, json_option, target_options

_OF_ARCHIVE = ("archived", "archive_behind", "archive_caught_up", "backup_verified")
_OF_RUNS = ("run_queued", "run_started", "run_progress", "run_finished")
KINDS = (
    "published", *_OF_ARCHIVE, "repaired", "restored", "queue", "lease", "query_started", "query_ended", "query_killed", *_OF_RUNS,
)  # fmt: skip


@new_command(
    "events",
    "Show what happens, as it happens.",
    example("everything, until Ctrl-C", "pondkeeper events"),
    example("each new version, for a program", "pondkeeper events --kind published --json"),
    example("the next publish, then go on", "pondkeeper events --kind published -n 1 >/dev/null && ./refresh-dashboard"),
)
@click.option("-k", "--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only these; repeat for several.")
@click.option("-n", "--count", metavar="COUNT", type=click.IntRange(1), help="End after so many.")
@database_option
@json_option
@target_options
def command(kinds: tuple[str, ...], count: int | None, database: str | None, as_json: bool, target: Target) -> None:
    """Show publishes, changes of queue and lease, queries as they start, end and are killed, and runs of jobs.

    With --json one line for each. An event `gap` says that some were missed.
    """
    with target.client(database=database, timeout_s=None) as client:
        for place, event in enumerate(client.events(kinds=kinds), start=1):
            _print(event, as_json)
            if place == count:
                return


def _print(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json_line(event)
    elif event["kind"] == "gap":
        say("some events were missed")
    else:
        rest = {name: value for name, value in event.items() if name not in ("at", "kind", "database") and value is not None}
        told = " ".join(f"{name}={value}" for name, value in rest.items())
        click.echo(one_line(f"{event['at'][11:23]}  {event['kind']:<13}  {event['database'] or '-'}  {told}"))
