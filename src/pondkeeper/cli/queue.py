"""`pondkeeper queue`: who has a database, and who waits to write to it."""

from __future__ import annotations

from typing import Any

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_seconds
from pondkeeper.cli.target import Target, database_option, json_option, target_options


@new_command(
    "queue",
    "List who waits to write.",
    example("who has the database, and who waits for it", "pondkeeper queue"),
    example("how many writes wait", "pondkeeper queue --json | jq '.writes | length'"),
)
@database_option
@json_option
@target_options
def command(database: str | None, as_json: bool, target: Target) -> None:
    """List the writes to a database in the order of their turns; `cancel` drops one that has not begun to commit."""
    with target.client(database=database) as client:
        line = client.queue()
    if as_json:
        print_json(line)
        return
    if line["writes"]:
        columns = ("id", "priority", "state", "for", "key", "client", "sql")
        print_table(columns, map(_row, line["writes"]), numbers=(3,), whole=range(6))
    say(f"{_holder(line)}; {_waiting(line)}")


def _row(write: dict[str, Any]) -> tuple[Any, ...]:
    sql = " ".join(str(write["sql"] or "").split())
    age = show_seconds(write["age_ms"] / 1000)
    return write["id"], write["priority"], write["state"], age, write["key_id"], write["client"], sql


def _holder(line: dict[str, Any]) -> str:
    names = [f"{foreign['program']} (pid {foreign['pid']}, without the lease)" for foreign in line["foreign"]]
    if holder := line["holder"]:
        why = f", for: {holder['why']}" if holder.get("why") else ""
        names.insert(0, f"{holder['who']} (pid {holder['pid']}) since {holder.get('since', 'now')}{why}")
    return f"held by {' and '.join(names)}" if names else "nobody has the file open"


def _waiting(line: dict[str, Any]) -> str:
    writes, programs = len(line["writes"]), line["programs_waiting"]
    said = f"{writes} {'write' if writes == 1 else 'writes'} in the queue"
    return said + (f", {programs} {'program waits' if programs == 1 else 'programs wait'} for the lease" if programs else "")
