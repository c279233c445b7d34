"""Which keeper a command means: a home on this machine, or a URL with a key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pondkeeper.cli.known import database_names
from pondkeeper.errors import KeeperNotRunning, RequestRefused
from pondkeeper.files.paths import HOME_NAME, Home, default_home

if TYPE_CHECKING:
    from pondkeeper.client import Client

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Target:
    """The keeper that a command means."""

    home: Home | None
    url: str | None = None
    key: str | None = None

    @property
    def is_remote(self) -> bool:
        return self.url is not None

    def client(
        self, *, database: str | None = None, timeout_s: float | None = None, retry_for_s: float = 30.0
    ) -> Client:
        """A client of it, through its control socket when it is here."""
        from pondkeeper.client import Client

        if self.url is not None:
            return Client(self.url, self.key, database=database, timeout_s=timeout_s, retry_for_s=retry_for_s)
        return Client.local(self.local_home().root, database=database, timeout_s=timeout_s, retry_for_s=retry_for_s)

    def local_home(self) -> Home:
        """Its home; an error where there is none, or where it is on another machine."""
        if self.is_remote:
            raise RequestRefused(
                "This command works on the keeper's own machine only.", remedy="Run it there, without --url."
            )
        if self.home is None:
            raise KeeperNotRunning(f"There is no {HOME_NAME}/ in the working folder or above it.")
        return self.home


def search_home(start: Path) -> Home | None:
    """The nearest `.pondkeeper/` in `start` or above it."""
    for folder in (start, *start.parents):
        if (folder / HOME_NAME).is_dir():
            return Home(folder / HOME_NAME)
    return None


def home_at(path: Path) -> Home:
    """The home that somebody named: itself, the folder that contains it, or its database file."""
    path = path.absolute()
    if path.name != HOME_NAME and (path / HOME_NAME).is_dir():
        return Home(path / HOME_NAME)
    return Home(default_home(path)) if path.is_file() else Home(path)


def target_options(function: F) -> F:
    """The options --home, --url and --key, given to the command as one `target`."""

    @click.option(
        "--home",
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        envvar="PONDKEEPER_HOME",
        show_envvar=True,
        help=f"The keeper's {HOME_NAME}/ folder, the folder it lies in, or its database file.",
    )
    @click.option("--url", envvar="PONDKEEPER_URL", show_envvar=True, help="A keeper on another machine.")
    @click.option(
        "--key",
        envvar="PONDKEEPER_KEY",
        show_envvar=True,
        help="The API key for --url. Other users can see options: prefer the variable.",
    )
    @functools.wraps(function)
    def with_target(*args: Any, home: Path | None, url: str | None, key: str | None, **rest: Any) -> Any:
        return function(*args, target=_chosen(home, url, key), **rest)

    return with_target  # type: ignore[return-value]


def home_option(function: F) -> F:
    """The option --home alone, for what works on this machine only; given to the command as `target`."""

    @click.option(
        "--home",
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        envvar="PONDKEEPER_HOME",
        show_envvar=True,
        help=f"The keeper's {HOME_NAME}/ folder, the folder it lies in, or its database file.",
    )
    @functools.wraps(function)
    def with_home(*args: Any, home: Path | None, **rest: Any) -> Any:
        return function(*args, target=_chosen(home, None, None), **rest)

    return with_home  # type: ignore[return-value]


def database_option(function: F) -> F:
    """The option --database."""
    return click.option(
        "-d",
        "--database",
        metavar="NAME",
        shell_complete=_complete_database,
        help="The database; not needed where there is one.",
    )(function)


def json_option(function: F) -> F:
    """The option --json of every listing, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def _chosen(home: Path | None, url: str | None, key: str | None) -> Target:
    """What was typed goes before the environment; --url before --home, and a search last."""
    context = click.get_current_context()
    typed = {name for name in ("home", "url") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if typed == {"home", "url"}:
        raise click.UsageError("--home and --url name two keepers: give one of them.")
    if url and typed != {"home"}:
        return Target(home=None, url=url, key=key)
    return Target(home=home_at(home) if home else search_home(Path.cwd()))


def _complete_database(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    home = context.params.get("home")
    found = home_at(Path(home)) if home else search_home(Path.cwd())
    return [name for name in database_names(found) if name.startswith(incomplete)] if found else []
