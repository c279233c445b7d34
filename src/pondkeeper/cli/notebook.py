"""`pondkeeper notebook`: a marimo notebook beside everything else, on a snapshot of its own."""

from __future__ import annotations

import fcntl
import os
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import say
from pondkeeper.cli.target import Target, database_option, home_option
from pondkeeper.errors import ExtraMissing, InvalidRequest

if TYPE_CHECKING:
    from pondkeeper.files.paths import DatabasePaths

FIRST: Final = "first_notebook.txt"


@new_command(
    "notebook",
    "Open a marimo notebook beside everything else.",
    example("a notebook in this folder, made if it is missing", "pondkeeper notebook"),
    example("another one: two people, two notebooks", "pondkeeper notebook revenue.py"),
    example("to look at, by any number of people, each with a session", "pondkeeper notebook revenue.py --app --port 2718"),
)
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path, dir_okay=False), default="notebook.py", required=False)
@click.option("--app", "as_app", is_flag=True, help="Show it as an app: no code, and for every visitor a session of their own.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), help="TCP port to listen on; by default one that is free.")
@click.option("--no-browser", is_flag=True, help="Print the address and open no browser.")
@database_option
@home_option
def command(
    file: Path, as_app: bool, host: str, port: int | None, no_browser: bool, database: str | None, target: Target
) -> None:
    """Open FILE in marimo, with the newest snapshot of the database in it.

    The notebook has its own snapshot: it stays on its version until its button asks for the newest one, it is in
    nobody's way however long it is open, and nobody is in its way, not even a dbt build. FILE is made if it is missing.
    Every notebook is a program of its own with its own address and token; code in it may do what you may. Needs
    marimo: pip install 'pondkeeper[notebook]'.
    """
    if find_spec("marimo") is None:
        raise ExtraMissing("marimo is not installed.", remedy="pip install 'pondkeeper[notebook]'")
    paths = _database(target, database)
    file = file.absolute()
    _make(file)
    if not as_app:
        _take(file)
    words = ["run", "--token"] if as_app else ["edit", "--skip-update-check"]
    words += [str(file), "--host", host, "--no-sandbox", *(["--port", str(port)] if port else []), *(["--headless"] if no_browser else [])]
    say(f"{file.name} reads {paths.file.name}; Ctrl-C ends it")
    sys.stdout.flush()
    # Why exec: the terminal, its signals and the exit code are marimo's from here on.
    os.execve(
        sys.executable,
        [sys.executable, "-m", "marimo", *words],
        {**os.environ, "PONDKEEPER_DATABASE": str(paths.file)},
    )


def _database(target: Target, name: str | None) -> DatabasePaths:
    from pondkeeper.local.known import database_at, find_database, is_file_name

    if name is not None and is_file_name(name):
        return database_at(Path(name).absolute(), may_miss=True)
    return find_database(target.local_home(), name)


def _make(file: Path) -> None:
    """The first notebook, unless there is one of that name."""
    if file.suffix != ".py":
        raise InvalidRequest(f"{file.name} is no notebook of marimo: they are Python files.", remedy="Give it a name that ends in .py.")
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return
    except OSError as error:
        raise InvalidRequest(f"{file.name} cannot be made: {error.strerror}.") from error
    with open(descriptor, "w") as made:
        made.write((resources.files("pondkeeper.cli") / FIRST).read_text())
    say(f"made {file.name}")


def _take(file: Path) -> None:
    """Keep the file open and locked for as long as marimo runs: two editors would write over each other."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidRequest(
            f"{file.name} is open in another notebook.",
            remedy=f"Name another file, a copy of it for instance; or show it with `pondkeeper notebook {file.name} --app`.",
        ) from None
    os.set_inheritable(descriptor, True)
