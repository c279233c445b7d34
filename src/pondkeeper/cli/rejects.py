"""`pondkeeper rejects`: rows that ingests did not take (on_error=reject): which files there are, and what is in one."""

from __future__ import annotations

import click

from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import print_json, print_json_line, print_table
from pondkeeper.cli.quantities import show_age, show_bytes
from pondkeeper.cli.target import Target, database_option, json_option, outer_options, target_options


@new_group(
    "rejects",
    "List and show rows that ingests put aside.",
    example("which ingests had bad rows", "pondkeeper rejects list"),
    example("the rows of one, with place and reasons", "pondkeeper rejects show r_5d0c6e3f1b9a8247"),
)
@outer_options
def command() -> None:
    """Rows that ingests did not take (on_error=reject), kept for `ingest.rejects_keep_s`."""


@command.command(
    "list",
    examples=(
        example("the youngest first", "pondkeeper rejects list"),
        example("how many rows of which table", "pondkeeper rejects list --json | jq -r '.[] | \"\\(.table) \\(.rejected)\"'"),
    ),
)
@database_option
@json_option
@target_options
def list_(database: str | None, as_json: bool, target: Target) -> None:
    """List the reject files, the youngest first."""
    with target.client(database=database) as client:
        listed = client.list_rejects()
    if as_json:
        print_json(listed)
        return
    if not listed:
        say("no rows were rejected")
        return
    rows = [
        (each["rejects"], each["table"], each["rejected"], show_bytes(each["size_bytes"]), show_age(each["made_at"]), each["key_id"])
        for each in listed
    ]
    print_table(("rejects", "table", "rows", "size", "age", "key"), rows, numbers=(2, 3, 4), whole=(0,))


@command.command(
    "show",
    examples=(
        example("all of it, a JSON object for each row", "pondkeeper rejects show r_5d0c6e3f1b9a8247"),
        example("the rows alone, to be mended and sent anew", "pondkeeper rejects show r_5d0c6e3f1b9a8247 | jq -c .record > rows.ndjson"),
    ),
)
@click.argument("name")
@database_option
@target_options
def show(name: str, database: str | None, target: Target) -> None:
    """Print the rows of a reject file: the place of each, its faults, and the row itself."""
    with target.client(database=database) as client:
        for row in client.rejects(name):
            print_json_line(row)
