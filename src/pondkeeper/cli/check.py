"""`pondkeeper check`: the doctor: findings about file, home, keeper and machine, each with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import print_json
from pondkeeper.cli.target import Target, home_option, json_option
from pondkeeper.errors import PondkeeperError
from pondkeeper.files.paths import Home
from pondkeeper.local.known import SUFFIX, database_at, databases_of, find_database, keeper_of

if TYPE_CHECKING:
    from pondkeeper.cli.doctor.finding import Finding
    from pondkeeper.files.paths import DatabasePaths

COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "red"}


@new_command(
    "check",
    "Examine everything, with remedies.",
    example("everything about the keeper of this folder", "pondkeeper check"),
    example("one file, before anybody serves it", "pondkeeper check warehouse.duckdb"),
    example(
        "only what needs attention, for a monitor", "pondkeeper check --json | jq '.[] | select(.level != \"ok\")'"
    ),
)
@click.argument("database", metavar="[DATABASE]", default=None, required=False)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and problems only.")
@click.option("--blocks", is_flag=True, help="Read every block, of files above 1 GB too.")
@json_option
@home_option
def command(database: str | None, quiet: bool, blocks: bool, as_json: bool, target: Target) -> int:
    """Examine the installation, or DATABASE (a name or a file) alone; each finding says what to do.

    It reads only, opens no database in DuckDB, and is in nobody's way. The exit code is 1 when there is a problem.
    """
    findings = list(_examine(target, database, whole=blocks))
    shown = [finding for finding in findings if not quiet or finding.level != "ok"]
    if as_json:
        print_json([finding.to_wire() for finding in shown])
    else:
        for finding in shown:
            _print(finding)
        counted = Counter(finding.level for finding in findings)
        say(f"{counted['problem']} problems, {counted['warning']} warnings, {counted['ok']} findings are well")
    return int(any(finding.level == "problem" for finding in findings))


def _examine(target: Target, name: str | None, *, whole: bool) -> Iterator[Finding]:
    from pondkeeper.cli.doctor import database, jobs
    from pondkeeper.cli.doctor import home as household

    home, databases = _subjects(target, name)
    has_home = home is not None and home.root.is_dir()
    yield from _machine(home, has_home=has_home)
    if home is not None and has_home:
        yield from household.examine(home, databases)
        yield from jobs.examine(home)
    keeper_runs = home is not None and keeper_of(home).running
    for paths in databases:
        yield from database.examine(paths, keeper_runs=keeper_runs, whole=whole)


def _machine(home: Home | None, *, has_home: bool) -> Iterator[Finding]:
    """The machine as the settings of the home would use it."""
    from pondkeeper.cli.doctor import machine
    from pondkeeper.cli.doctor.finding import problem
    from pondkeeper.settings import Settings

    try:
        settings = Settings.load(home.settings_file if home else None)
    except PondkeeperError as error:
        yield problem("settings", error.message, error.remedy)
        settings = Settings()
    yield from machine.examine(settings, home.root if home and has_home else None)


def _subjects(target: Target, name: str | None) -> tuple[Home | None, list[DatabasePaths]]:
    if name is None:
        return target.home, databases_of(target.home) if target.home else []
    if name.endswith(SUFFIX) or "/" in name:
        paths = database_at(Path(name))
        return Home(paths.home), [paths]
    home = target.local_home()
    return home, [find_database(home, name)]


def _print(finding: Finding) -> None:
    level = click.style(f"{finding.level:<8}", fg=COLOURS[finding.level])
    click.echo(f"{level} {finding.subject}: {finding.what}")
    if finding.remedy:
        click.echo(f"{'':8} → {finding.remedy}")
