"""`pondkeeper promote`: a replica becomes a primary, with its keeper running or without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json
from pondkeeper.cli.target import Target, database_option, json_option, target_options
from pondkeeper.errors import KeeperRunning
from pondkeeper.local.known import find_database, keeper_of

if TYPE_CHECKING:
    from pondkeeper.files.paths import Home


@new_command(
    "promote",
    "Make a replica a primary.",
    example("the primary is lost: write here from now on", "pondkeeper promote"),
    example("one of several databases, at another machine's keeper", "pondkeeper promote -d sales --url https://standby.example:8420"),
)
@click.option("--force", is_flag=True, help="Also while the primary still answers.")
@database_option
@json_option
@target_options
def command(force: bool, database: str | None, as_json: bool, target: Target) -> None:
    """Make a replica a primary: from its newest version, proved block by block, with a history (lineage) of its own.

    What the primary had not yet given to it is lost: `pondkeeper status` shows how far behind it was. Refused while the primary
    answers, because two primaries go different ways; stop that first.

    Its keeper goes on as the primary at once, and so it does after a restart with the same `pondkeeper replica` command.
    Without a keeper, start one afterwards: `pondkeeper serve FOLDER`.
    """
    with Progress("Promoting"):
        done = _promoted(target, database, force=force)
    if as_json:
        print_json(done)
        return
    say(f"{done['database']} is a primary now; the last version it has of the other one, of {done['created_at']}, is")
    click.echo(done["version"])


def _promoted(target: Target, database: str | None, *, force: bool) -> dict[str, Any]:
    if target.is_remote or keeper_of(target.local_home()).running:
        with target.client(database=database) as client:
            return client.promote(force=force)
    return _without_keeper(target.local_home(), database)


def _without_keeper(home: Home, database: str | None) -> dict[str, Any]:
    """Directly on the files, while no keeper can begin to follow."""
    import msgspec

    from pondkeeper.archive.replica.promotion import promote
    from pondkeeper.files.locks import FlockFile

    paths = find_database(home, database)
    with FlockFile(home.keeper_lock) as lock:
        if not lock.try_acquire():
            raise KeeperRunning("A keeper has begun to work in this home.")
        return dict(msgspec.to_builtins(promote(paths, "")))
