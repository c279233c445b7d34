"""`pondkeeper clone`: a writable copy of a database, as it is or as it was."""

from __future__ import annotations

from pathlib import Path

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.cli.target import Target, home_option, json_option, wanted_options
from pondkeeper.files.paths import SUFFIX


@new_command(
    "clone",
    "Copy a database into a new file, as it is or was.",
    example("a copy for development: yours to change", "pondkeeper clone warehouse dev.duckdb"),
    example("as it was before the load went wrong", 'pondkeeper clone warehouse before.duckdb --at "2026-11-20 14:03:07"'),
    example("one version", "pondkeeper clone warehouse v42.duckdb --version 42"),
)
@click.argument("database")
@click.argument("new", metavar="NEW" + SUFFIX, type=click.Path(path_type=Path))
@wanted_options
@json_option
@home_option
def command(database: str, new: Path, at: str | None, version: int | None, as_json: bool, target: Target) -> None:
    """Copy DATABASE (a name, or its file) into a new file that is yours to change.

    It is taken from a snapshot, or from the archive where --at or --version ask for an older one: nobody waits for it,
    with a keeper and without one. Where the file system has reflinks (XFS, Btrfs) it shares its blocks with the
    snapshot and takes no room until one of them changes. Every block is checked, and DuckDB has opened the copy before
    it gets its name. Views that name the database's catalog need a file of the same name.
    """
    from pondkeeper.local.copying import clone, named, suggested, time_of
    from pondkeeper.snapshots.holding import Wanted

    wanted = Wanted(version, time_of(at) if at else None)
    with Progress("Copying the database") as progress:
        made = clone(named(database, target.home), wanted, suggested(new), lambda text: setattr(progress, "what", text))
    if as_json:
        print_json(made)
        return
    how = {"reflink": "shares its blocks with the snapshot", "copy": "copied", "archive": "from the archive"}[made["method"]]
    say(f"version {made['version']} of {made['created_at']}: {show_bytes(made['size_bytes'])}, {how}")
    click.echo(made["file"])
