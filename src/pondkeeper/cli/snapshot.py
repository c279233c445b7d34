"""`pondkeeper snapshot`: the snapshots of a database: list them, take one, name the newest one's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_age, show_bytes
from pondkeeper.cli.target import Target, database_option, home_option, json_option, outer_options, target_options
from pondkeeper.errors import SnapshotNotFound
from pondkeeper.local.known import find_database, is_own_child, who

if TYPE_CHECKING:
    from pondkeeper.snapshots.listing import SnapshotInfo


@new_group(
    "snapshot",
    "List, take and find snapshots.",
    example("look at the warehouse in DuckDB's own shell", 'duckdb -readonly "$(pondkeeper snapshot path)"'),
    example("publish what is committed now", "pondkeeper snapshot take"),
    example("which versions there are", "pondkeeper snapshot list"),
)
@outer_options
def command() -> None:
    """List and take snapshots, and find the file of the newest."""


@command.command(
    "path",
    examples=(
        example(
            "open it in Python", "duckdb.connect(os.popen('pondkeeper snapshot path').read().strip(), read_only=True)"
        ),
        example("one version, whatever is published meanwhile", "pondkeeper snapshot path --version 42"),
    ),
)
@click.option("--version", type=click.IntRange(min=1), help="The file of this version instead of the newest.")
@database_option
@home_option
def path(version: int | None, database: str | None, target: Target) -> None:
    """Print the path of the newest snapshot: always the same, a link that moves on with every publish.

    Open it read-only. Whoever has it open keeps the snapshot that it was then, and is in nobody's way.
    """
    paths = find_database(target.local_home(), database)
    found = paths.published_by_name if version is None else paths.snapshot(version)
    if not found.exists():
        what = "no snapshot" if version is None else f"no snapshot of version {version}"
        raise SnapshotNotFound(f"There is {what} of {paths.name!r}.")
    click.echo(found)


@command.command("list", examples=(example("the newest first", "pondkeeper snapshot list"),))
@database_option
@json_option
@target_options
def list_(database: str | None, as_json: bool, target: Target) -> None:
    """List the snapshots, the newest first."""
    if target.is_remote:
        with target.client(database=database) as client:
            listed = client.snapshots()
    else:
        listed = _local(target, database)
    if as_json:
        print_json(listed)
    elif not listed:
        say("there is no snapshot yet")
    else:
        print_table(
            ("version", "age", "size", "method", "open by"), map(_row, listed), numbers=(0, 1, 2), whole=range(4)
        )


def _local(target: Target, database: str | None) -> list[dict[str, Any]]:
    from pondkeeper.snapshots.listing import list_snapshots

    found = list_snapshots(find_database(target.local_home(), database))
    return [_wire(snapshot) for snapshot in found]


def _wire(snapshot: SnapshotInfo) -> dict[str, Any]:
    return {
        "version": snapshot.version,
        "created_at": snapshot.created_at.isoformat(timespec="milliseconds"),
        "age_s": round(snapshot.age_s, 3),
        "size_bytes": snapshot.size_bytes,
        "method": snapshot.method,
        "path": str(snapshot.path),
        "open_by": [{"pid": holder.pid, "program": holder.program} for holder in snapshot.open_by],
    }


def _row(snapshot: dict[str, Any]) -> tuple[Any, ...]:
    size = show_bytes(snapshot.get("size_bytes"))
    return snapshot["version"], show_age(snapshot["created_at"]), size, snapshot.get("method"), _open_by(snapshot)


def _open_by(snapshot: dict[str, Any]) -> str:
    """Who has it open; the readers of a keeper are one of them, because their pids are of no use to anybody."""
    holders = snapshot.get("open_by") or []
    strangers = [who(each["program"], each["pid"]) for each in holders if not is_own_child(each["program"])]
    own = len(holders) - len(strangers)
    return ", ".join([*([f"the keeper ({own} readers)" if own > 1 else "the keeper"] if own else []), *strangers])


@command.command("take", examples=(example("after a program that wrote by itself", "pondkeeper snapshot take"),))
@database_option
@json_option
@target_options
def take(database: str | None, as_json: bool, target: Target) -> None:
    """Publish what is committed now and print the version that contains it."""
    with target.client(database=database) as client, Progress("Waiting for the snapshot"):
        taken = client.take_snapshot()
    if as_json:
        print_json(taken)
        return
    say(f"published {show_bytes(taken.get('size_bytes'))} as version")
    click.echo(taken["version"])
