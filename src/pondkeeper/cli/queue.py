"""`pondkeeper queue`: who has a database, and who waits to write to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_age
from pondkeeper.cli.target import Target, database_option, json_option, target_options
from pondkeeper.errors import KeeperNotRunning
from pondkeeper.local.known import find_database

if TYPE_CHECKING:
    from pondkeeper.files.paths import DatabasePaths


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
    """List the writes to a database, and the programs that wait for it, in the order of their turns.

    `cancel` drops a write that has not begun to commit. Without a keeper, the programs are listed.
    """
    line = _line(target, database)
    if as_json:
        print_json(line)
        return
    if line["line"]:
        columns = ("place", "kind", "state", "priority", "for", "who", "id", "why")
        print_table(columns, map(_row, line["line"]), numbers=(0, 4), whole=range(7))
    say(f"{_holder(line)}; {_waiting(line)}")


def _line(target: Target, database: str | None) -> dict[str, Any]:
    try:
        with target.client(database=database) as client:
            return client.queue()
    except KeeperNotRunning:
        if target.is_remote:
            raise
    return seen_line(find_database(target.local_home(), database))


def seen_line(paths: DatabasePaths) -> dict[str, Any]:
    """The line as files and the kernel show it, in the shape of the keeper's own answer."""
    from pondkeeper.databases.line import one_line
    from pondkeeper.databases.watching import look

    sight = look(paths, frozenset())
    return {
        "database": paths.name,
        "holder": sight.lease_holder,
        "foreign": sight.foreign,
        "programs_waiting": len(sight.programs),
        "waiting_for": None,
        "line": one_line((), sight.programs),
        "writes": [],
    }


def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
    who = entry["who"] if entry["pid"] is None else f"{entry['who']} (pid {entry['pid']})"
    age = show_age(entry["since"])
    return entry["place"], entry["kind"], entry["state"], entry["priority"], age, who, entry["id"], entry["why"]


def _holder(line: dict[str, Any]) -> str:
    names = [f"{foreign['program']} (pid {foreign['pid']}, without the lease)" for foreign in line["foreign"]]
    if holder := line["holder"]:
        names = [_named(holder)] + ([] if holder["who"] != "keeper" else names)
    return f"held by {' and '.join(names)}" if names else "nobody has the file open"


def _named(holder: dict[str, Any]) -> str:
    why = f", for: {holder['why']}" if holder.get("why") else ""
    limit = f", for {holder['max_hold_s']:g} s at most" if holder.get("max_hold_s") else ""
    return f"{holder['who']} (pid {holder['pid']}) since {holder.get('since', 'now')}{limit}{why}"


def _waiting(line: dict[str, Any]) -> str:
    writes, programs = len(line["writes"]), line["programs_waiting"]
    said = f"{writes} {'write' if writes == 1 else 'writes'} in the queue"
    if accepted := (line.get("spool") or {}).get("waiting"):
        said += f", {accepted} accepted {'ingest waits' if accepted == 1 else 'ingests wait'} in the spool"
    return said + (f", {programs} {'program waits' if programs == 1 else 'programs wait'} for the lease" if programs else "")
