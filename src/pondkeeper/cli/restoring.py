"""`pondkeeper backup restore`: a database as it was, in a new file or in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pondkeeper.cli.help import ExamplesCommand, example
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.cli.target import Target, database_option, json_option, target_options, wanted_options
from pondkeeper.files.paths import SUFFIX

if TYPE_CHECKING:
    from datetime import datetime

    from pondkeeper.files.paths import DatabasePaths

WAIT_S: Final = 60.0


@click.command(
    "restore",
    cls=ExamplesCommand,
    short_help="Make a database what it was, or a new file of it.",
    examples=(
        example("look first: a file of its own", 'pondkeeper backup restore --at "2026-11-20 14:03:07" --to then.duckdb'),
        example("in place: the database becomes what it was", 'pondkeeper backup restore --at "2026-11-20 14:03:07"'),
        example("a version of `backup list`", "pondkeeper backup restore --version 42"),
        example("take it back", "pondkeeper backup restore --undo"),
    ),
)
@wanted_options
@click.option("--undo", is_flag=True, help="Put back what the last restore in place has replaced.")
@click.option("--to", metavar="NEW" + SUFFIX, type=click.Path(path_type=Path), help="Into a new file, not in place.")
@database_option
@json_option
@target_options
def restore(
    at: str | None,
    version: int | None,
    undo: bool,
    to: Path | None,
    database: str | None,
    as_json: bool,
    target: Target,
) -> None:
    """Make the database what it was at a time or a version, from its snapshots or its archive.

    In place, a new file is made and proved first: every block checked, opened by DuckDB, its tables counted. Then it is
    swapped in, in the keeper's turn: readers go on with the newest snapshot until the restored one is published, as a
    new version. Writes that wait are applied to the restored database. What was replaced is kept, with all that was
    written since: `--undo` puts it back, and can itself be undone. A kill or a power cut at any moment leaves the old
    database or the restored one, whole. It works without a keeper too.
    """
    _check(at, version, undo=undo, to=to)
    from pondkeeper.local.copying import time_of

    time = time_of(at) if at else None
    with Progress("Restoring the database") as progress:
        made = _carried_out(target, database, version, time, progress, undo=undo, to=to)
    if as_json:
        print_json(made)
    elif to is not None:
        say(_which(made))
        click.echo(made["file"])
    else:
        _tell(made)


def _check(at: str | None, version: int | None, *, undo: bool, to: Path | None) -> None:
    if (at is not None) + (version is not None) + undo != 1:
        raise click.UsageError("Give one of --at, --version and --undo.")
    if undo and to is not None:
        raise click.UsageError("--undo works in place only.")


def _carried_out(
    target: Target,
    database: str | None,
    version: int | None,
    time: datetime | None,
    progress: Progress,
    *,
    undo: bool,
    to: Path | None,
) -> dict[str, Any]:
    from pondkeeper.local import copying, restoring
    from pondkeeper.local.known import find_database, serving_home
    from pondkeeper.snapshots.holding import Wanted

    def tell(text: str) -> None:
        progress.what = text

    if target.is_remote and to is None:
        with target.client(database=database) as client:
            return client.restore(version=version, at=time, undo=undo)
    paths: DatabasePaths = find_database(target.local_home(), database)
    if to is not None:
        return copying.clone(paths, Wanted(version, time), copying.suggested(to), tell)
    if serving_home(paths) is not None:
        with target.client(database=paths.name) as client:
            return client.restore(version=version, at=time, undo=undo)
    if undo:
        return restoring.undo(paths, WAIT_S, tell)
    return restoring.restore(paths, Wanted(version, time), WAIT_S, tell)


def _which(made: dict[str, Any]) -> str:
    return f"version {made['version']} of {made['created_at']}, from the {made['source']}: {show_bytes(made['size_bytes'])}"


def _tell(made: dict[str, Any]) -> None:
    restored = made["restored"]
    say("what the last restore had replaced is back" if "undone" in restored else f"restored: {_which(restored)}")
    if made["published"] is None:
        say("no keeper runs: the next one publishes it")
    else:
        say("published as version")
        click.echo(made["published"])
