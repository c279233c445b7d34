"""`pondkeeper backup now|list|verify|prune`: the archive, with a keeper and without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pondkeeper.cli.help import ExamplesCommand, example
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_age, show_bytes, show_seconds
from pondkeeper.cli.target import Target, database_option, json_option, target_options
from pondkeeper.local.known import database_at, find_database, home_of, is_file_name, keeper_of, serving_home

if TYPE_CHECKING:
    from pondkeeper.client import Client
    from pondkeeper.files.paths import DatabasePaths

WAIT_S: Final = 60.0
SHOWN_VERSIONS: Final = 20


@click.command(
    "now",
    cls=ExamplesCommand,
    short_help="Archive what is committed now.",
    examples=(
        example("before a change that may go wrong", "pondkeeper backup now"),
        example("the version that it is, for a script", "pondkeeper backup now --json | jq .version"),
        example("a file that no keeper has served yet", "pondkeeper backup now --database ./warehouse.duckdb"),
    ),
)
@database_option
@json_option
@target_options
def now(database: str | None, as_json: bool, target: Target) -> None:
    """Archive what is committed now, and print the version that contains it.

    It goes where `archive.to` says, or else into archive/ of the home; only blocks that are not there already are
    written. Without a keeper it takes the database's turn for as long as a snapshot takes.
    """
    with Progress("Archiving the database") as progress:
        made = _asked(target, database, progress, "now")
    if as_json:
        print_json(made)
        return
    say(f"archived what was committed at {made['created_at']} as version")
    click.echo(made["version"])


@click.command(
    "list",
    cls=ExamplesCommand,
    short_help="List the archived versions.",
    examples=(
        example("the newest first", "pondkeeper backup list"),
        example("a day's worth", "pondkeeper backup list --limit 100000 --json | jq -r '.versions[].created_at'"),
    ),
)
@click.option("-n", "--limit", metavar="COUNT", type=click.IntRange(1, 100_000), default=SHOWN_VERSIONS, show_default=True,
              help="At most so many, the newest.")  # fmt: skip
@database_option
@json_option
@target_options
def list_(limit: int, database: str | None, as_json: bool, target: Target) -> None:
    """List the archived versions, the newest first; each can be restored."""
    with Progress("Listing the archive") as progress:
        found = _asked(target, database, progress, "list", limit=limit)
    if as_json:
        print_json(found)
        return
    if not found["versions"]:
        say("there is no archived version yet: `pondkeeper backup now` makes one")
        return
    rows = [(each["version"], each["created_at"], show_age(each["created_at"])) for each in found["versions"]]
    print_table(("version", "published at", "age"), rows, numbers=(0, 2), whole=range(3))
    if (left_out := found["total"] - len(found["versions"])) > 0:
        oldest = found["oldest"]
        say(f"and {left_out:,} more, the oldest of {oldest['created_at']}")


@click.command(
    "verify",
    cls=ExamplesCommand,
    short_help="Restore a version and check it.",
    examples=(
        example("the newest version", "pondkeeper backup verify"),
        example("one version, before it is restored", "pondkeeper backup verify --version 42"),
    ),
)
@click.option("--version", type=click.IntRange(min=1), help="This version instead of the newest.")
@database_option
@json_option
@target_options
def verify(version: int | None, database: str | None, as_json: bool, target: Target) -> None:
    """Restore an archived version into a file of its own, check everything in it, and throw it away.

    Every hash, every block's checksum; DuckDB opens it and reads every column of every table. The exit code is not 0
    when anything is wrong. It needs as much disk as the database for a while, and is in nobody's way.
    """
    with Progress("Verifying the backup") as progress:
        found = _asked(target, database, progress, "verify", version=version)
    if as_json:
        print_json(found)
        return
    print_table(("table", "rows"), [(name, f"{rows:,}") for name, rows in found["rows"].items()], numbers=(1,))
    took = show_seconds(found["elapsed_ms"] / 1000)
    say(f"version {found['version']} of {found['created_at']} can be restored: {show_bytes(found['size_bytes'])}, {took}")


@click.command(
    "prune",
    cls=ExamplesCommand,
    short_help="Remove versions that need not be kept.",
    examples=(
        example("what would go", "pondkeeper backup prune --dry-run"),
        example("remove it", "pondkeeper backup prune"),
    ),
)
@click.option("--dry-run", is_flag=True, help="Only say which versions would go.")
@json_option
@target_options
def prune(dry_run: bool, as_json: bool, target: Target) -> None:
    """Remove the versions that need not be kept, of every database in the archive, and blocks that none needs any more.

    The settings archive.keep_all_s, archive.keep_hourly_s and archive.keep_daily_s say what is kept; the newest version
    always is. A keeper does this by itself every archive.prune_every_s.
    """
    with Progress("Pruning the archive") as progress:
        pruned = _pruned(target, progress, dry_run=dry_run)
    if as_json:
        print_json(pruned)
    elif dry_run:
        say(f"{pruned['versions_removed']:,} versions would be removed")
        if not pruned["versions"]:
            return
        rows = [(each["database"], each["version"], each["created_at"]) for each in pruned["versions"]]
        print_table(("database", "version", "published at"), rows, numbers=(1,), whole=range(3))
    else:
        say(
            f"removed {pruned['versions_removed']:,} versions and {pruned['objects_removed']:,} objects, "
            f"{show_bytes(pruned['bytes_freed'])}; {pruned['versions_kept']:,} versions are kept"
        )


def _asked(target: Target, database: str | None, progress: Progress, what: str, **options: Any) -> dict[str, Any]:
    """The keeper's answer; where none serves the database, our own."""
    if target.is_remote:
        with target.client(database=database) as client:
            return _of_keeper(client, what, options)
    paths = _found(target, database)
    home = serving_home(paths)
    if home is None:
        return _alone(paths, progress, what, options)
    from pondkeeper.client import Client

    with Client.local(home.root, database=paths.name) as client:
        return _of_keeper(client, what, options)


def _found(target: Target, database: str | None) -> DatabasePaths:
    """A database by its name in the home, or by its file."""
    if database is None or not is_file_name(database):
        return find_database(target.local_home(), database)
    paths = database_at(Path(database).absolute(), may_miss=True)
    return home_of(paths).database(paths.file)


def _of_keeper(client: Client, what: str, options: dict[str, Any]) -> dict[str, Any]:
    if what == "now":
        return client.backups.now()
    if what == "list":
        return client.backups.list(**options)
    return client.backups.verify(**options)


def _alone(paths: DatabasePaths, progress: Progress, what: str, options: dict[str, Any]) -> dict[str, Any]:
    from pondkeeper.local import backing_up

    def tell(text: str) -> None:
        progress.what = text

    if what == "now":
        return backing_up.now(paths, WAIT_S, tell)
    if what == "list":
        return backing_up.listed(paths, **options)
    return backing_up.verify(paths, **options, tell=tell)


def _pruned(target: Target, progress: Progress, *, dry_run: bool) -> dict[str, Any]:
    if not target.is_remote and not keeper_of(target.local_home()).running:
        from pondkeeper.local import backing_up

        return backing_up.prune(target.local_home(), lambda text: setattr(progress, "what", text), dry_run=dry_run)
    with target.client() as client:
        return client.backups.prune(dry_run=dry_run)
