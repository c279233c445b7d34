"""`pondkeeper ticket`: accepted ingests: which wait, what became of each, take one back, send a refused one again."""

from __future__ import annotations

import sys
from typing import Any

import click

from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import DURATION, show_age, show_bytes, show_seconds
from pondkeeper.cli.target import Target, database_option, json_option, outer_options, target_options
from pondkeeper.errors import PondkeeperError


@new_group(
    "ticket",
    "List, show, cancel and retry accepted ingests.",
    example("what was accepted and waits, and what became of the last ones", "pondkeeper ticket list"),
    example("what became of one", "pondkeeper ticket show tk_00000000002a5d0c6e3f1b9a8247"),
)
@outer_options
def command() -> None:
    """What became of ingests that were accepted to be applied later (wait=accepted): each has a ticket."""


@command.command(
    "list",
    examples=(
        example("the first hundred that wait, and the last hundred with an outcome", "pondkeeper ticket list"),
        example(
            "why some were refused",
            "pondkeeper ticket list --settled 1000 --json | jq '.tickets[] | select(.error) | .error.message'",
        ),
    ),
)
@click.option("--waiting", type=click.IntRange(0, 1000), default=100, help="At most so many of those that wait.")
@click.option("--settled", type=click.IntRange(0, 1000), default=100, help="At most so many of those with an outcome.")
@database_option
@json_option
@target_options
def list_(waiting: int, settled: int, database: str | None, as_json: bool, target: Target) -> None:
    """List tickets: those that wait, in the order of their turns, then those with an outcome, the youngest first."""
    with target.client(database=database) as client:
        listed = client.tickets(waiting=waiting, settled=settled)
    if as_json:
        print_json(listed)
        return
    if listed["tickets"]:
        columns = ("ticket", "outcome", "table", "accepted", "rows", "key", "what")
        print_table(columns, map(_row, listed["tickets"]), numbers=(3, 4), whole=range(4))
    say(_spool(listed["spool"]))


def _row(ticket: dict[str, Any]) -> tuple[Any, ...]:
    accepted = show_age(ticket["accepted_at"])
    return (
        ticket["ticket"], ticket["outcome"], ticket["table"], accepted, ticket.get("rows"), ticket["key_id"], _what(ticket),
    )  # fmt: skip


def _what(ticket: dict[str, Any]) -> str:
    """What else is to be said of it: how many are before it, its version, why it was refused."""
    if error := ticket.get("error"):
        retried = f" (sent again: {ticket['retried_as']})" if ticket.get("retried_as") else ""
        return " ".join(str(error["message"]).split()) + retried
    if ticket["outcome"] == "committed":
        rejected = f", {ticket['rejected']} rows rejected" if ticket.get("rejected") else ""
        return f"in version {ticket['version']}{rejected}"
    if ticket["outcome"] == "waiting":
        return "is being applied" if ticket["is_being_applied"] else f"{ticket['place']} before it"
    return ""


def _spool(spool: dict[str, Any]) -> str:
    waiting = spool["waiting"]
    said = f"{waiting} {'ingest waits' if waiting == 1 else 'ingests wait'}"
    if waiting:
        said += f", the first for {show_seconds(spool['oldest_s'])}; the spool takes {show_bytes(spool['size_bytes'])}"
    if problem := spool["problem"]:
        said += f"; held up: {problem['message']}"
    return said + (f"; {len(spool['damaged'])} segments are damaged" if spool["damaged"] else "")


@command.command(
    "show",
    examples=(
        example("the place of one that waits, or its outcome", "pondkeeper ticket show tk_00000000002a5d0c6e3f1b9a8247"),
        example(
            "wait until it is applied; fails if it was refused",
            "pondkeeper ticket show tk_00000000002a5d0c6e3f1b9a8247 --wait 1m",
        ),
    ),
)
@click.argument("ticket")
@click.option("--wait", "wait_s", type=DURATION, metavar="DURATION", default=0.0, help="Wait so long for its outcome.")
@database_option
@json_option
@target_options
def show(ticket: str, wait_s: float, database: str | None, as_json: bool, target: Target) -> None:
    """Print what became of a ticket. One that was refused is an error, with its exit code."""
    with target.client(database=database) as client, Progress("Waiting for the outcome"):
        shown = client.ticket(ticket, wait_s=wait_s)
    if as_json:
        print_json(shown)
        return
    if error := shown.get("error"):
        if size_bytes := shown.get("body_bytes"):
            say(f"its body ({show_bytes(size_bytes)}) is kept: `pondkeeper ticket body {ticket}`, `pondkeeper ticket retry {ticket}`")
        raise PondkeeperError.from_wire(error)
    what = _what(shown)
    say(f"{shown['table']}, accepted {show_age(shown['accepted_at'])} ago" + (f"; {what}" if what else "") + _holder(shown))
    click.echo(shown["outcome"])


def _holder(shown: dict[str, Any]) -> str:
    holder = shown.get("holder")
    return f"; {holder['who']} has had the database since {holder.get('since', 'now')}" if holder else ""


@command.command(
    "cancel", examples=(example("take it back before it is applied", "pondkeeper ticket cancel tk_00000000002a5d0c6e3f1b9a8247"),)
)
@click.argument("tickets", metavar="TICKET...", nargs=-1, required=True)
@database_option
@target_options
def cancel(tickets: tuple[str, ...], database: str | None, target: Target) -> None:
    """Take tickets back that are not applied yet: their rows never come into the database."""
    with target.client(database=database) as client:
        for ticket in tickets:
            client.cancel_ticket(ticket)
            say(f"cancelled {ticket}")


@command.command(
    "retry",
    examples=(
        example("when what it was refused for is mended", "pondkeeper ticket retry tk_00000000002a5d0c6e3f1b9a8247"),
        example(
            "all that were refused",
            "pondkeeper ticket list --json | jq -r '.tickets[] | select(.body_bytes) | .ticket' | xargs pondkeeper ticket retry",
        ),
    ),
)
@click.argument("tickets", metavar="TICKET...", nargs=-1, required=True)
@database_option
@json_option
@target_options
def retry(tickets: tuple[str, ...], database: str | None, as_json: bool, target: Target) -> None:
    """Have refused ingests accepted again, as they were sent, behind all others: prints the new ticket of each."""
    with target.client(database=database) as client:
        retried = {ticket: client.retry_ticket(ticket) for ticket in tickets}
    if as_json:
        print_json([{"ticket": ticket, "retried_as": new} for ticket, new in retried.items()])
        return
    for new in retried.values():
        click.echo(new)


@command.command(
    "body",
    examples=(
        example("look at what was refused", "pondkeeper ticket body tk_00000000002a5d0c6e3f1b9a8247"),
        example("mend it, and send it anew", "pondkeeper ticket body tk_00000000002a5d0c6e3f1b9a8247 > rows.ndjson"),
    ),
)
@click.argument("ticket")
@database_option
@target_options
def body_(ticket: str, database: str | None, target: Target) -> None:
    """Print the body of a refused ingest as it was sent. It is kept for `spool.refused_keep_s`."""
    out = sys.stdout.buffer
    with target.client(database=database) as client:
        for piece in client.ticket_body(ticket):
            out.write(piece)
    out.flush()
