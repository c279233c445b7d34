"""`pondkeeper cancel`: kill a running query."""

from __future__ import annotations

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import say
from pondkeeper.cli.target import Target, target_options


@new_command(
    "cancel",
    "Kill running queries.",
    example("see what runs, and kill one of them", "pondkeeper queries"),
    example("by the id that `queries` shows", "pondkeeper cancel 8f3a21"),
)
@click.argument("query_ids", metavar="ID...", nargs=-1, required=True)
@target_options
def command(query_ids: tuple[str, ...], target: Target) -> None:
    """Kill running queries, whatever the engine is doing; their clients get the error query_cancelled."""
    with target.client() as client:
        for query_id in query_ids:
            client.cancel(query_id)
            say(f"cancelled {query_id}")
