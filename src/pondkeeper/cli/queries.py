"""`pondkeeper queries`: what runs now."""

from __future__ import annotations

from typing import Any

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_seconds
from pondkeeper.cli.target import Target, json_option, target_options


@new_command(
    "queries",
    "List the queries that run now.",
    example("the running queries", "pondkeeper queries"),
    example(
        "the ids of all that run longer than a minute",
        "pondkeeper queries --json | jq -r '.[] | select(.elapsed_ms > 60000).id'",
    ),
)
@json_option
@target_options
def command(as_json: bool, target: Target) -> None:
    """List the queries that run now, the longest first; `cancel` kills one."""
    with target.client() as client:
        running = client.queries()
    if as_json:
        print_json(running)
    elif not running:
        say("no query is running")
    else:
        print_table(
            ("id", "database", "state", "for", "key", "client", "sql"), map(_row, running), numbers=(3,), whole=range(6)
        )


def _row(query: dict[str, Any]) -> tuple[Any, ...]:
    sql = " ".join(str(query.get("sql", "")).split())
    return (
        query.get("id"),
        query.get("database"),
        query.get("state"),
        show_seconds(query.get("elapsed_ms", 0) / 1000),
        query.get("key_id"),
        query.get("client"),
        sql,
    )
