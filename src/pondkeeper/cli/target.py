"""Which keeper a command means: a home on this machine, or a URL with a key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from pondkeeper.errors import RequestRefused
from pondkeeper.files.paths import HOME_NAME, Home
from pondkeeper.local.known import database_names, existing, home_at, search_home

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
        home = self.local_home()
        # Why at once: one that runs, starts anew after kill -9 or is busy has its socket. Without, a write was repeated in
        # silence for half a minute before its author read that nobody is here.
        retry_for_s = retry_for_s if home.socket.exists() else 0.0
        return Client.local(home.root, database=database, timeout_s=timeout_s, retry_for_s=retry_for_s)

    def local_home(self) -> Home:
        """Its home; an error where there is none, or where it is on another machine."""
        if self.is_remote:
            raise RequestRefused(
                "This command works on the keeper's own machine only.", remedy="Run it there, without --url."
            )
        return existing(self.home)


@dataclass(frozen=True)
class Outer:
    """The same options given before the command: `pondkeeper --home … query …`."""

    home: Path | None
    url: str | None
    key: str | None


HOME_HELP: Final = f"The keeper's {HOME_NAME}/ folder, the folder it lies in, or its database file."
URL_HELP: Final = "A keeper on another machine."
KEY_HELP: Final = "The API key for --url. Other users can see options: prefer the variable."

home_flag = click.option(
    "--home",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    envvar="PONDKEEPER_HOME",
    show_envvar=True,
    help=HOME_HELP,
)
url_flag = click.option("--url", metavar="URL", envvar="PONDKEEPER_URL", show_envvar=True, help=URL_HELP)
key_flag = click.option("--key", metavar="KEY", envvar="PONDKEEPER_KEY", show_envvar=True, help=KEY_HELP)


def target_options(function: F) -> F:
    """The options --home, --url and --key, given to the command as one `target`."""

    @home_flag
    @url_flag
    @key_flag
    @functools.wraps(function)
    def with_target(*args: Any, home: Path | None, url: str | None, key: str | None, **rest: Any) -> Any:
        return function(*args, target=_chosen(home, url, key), **rest)

    return with_target  # type: ignore[return-value]


def home_option(function: F) -> F:
    """The option --home alone, for what works on this machine only; given to the command as `target`."""

    @home_flag
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


def wanted_options(function: F) -> F:
    """The options --at and --version of what goes back in time."""
    for option in (
        click.option("--version", type=click.IntRange(min=1), help="This version of it."),
        click.option(
            "--at",
            metavar="TIME",
            help="As it was at that time: 2026-11-20 14:03:07 by this machine's clock, or with a zone (…Z); or now.",
        ),
    ):
        function = option(function)
    return function


def json_option(function: F) -> F:
    """The option --json of every listing, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def outer_options(function: F) -> F:
    """The options --home, --url and --key before a command: of the program, and of a group of commands."""

    @click.option("--home", metavar="FOLDER", type=click.Path(path_type=Path), help=HOME_HELP)
    @click.option("--url", metavar="URL", help=URL_HELP)
    @click.option("--key", metavar="KEY", help=KEY_HELP)
    @click.pass_context
    @functools.wraps(function)
    def with_outer(context: click.Context, home: Path | None, url: str | None, key: str | None) -> Any:
        before = context.find_object(Outer) or Outer(None, None, None)
        context.obj = Outer(home or before.home, url or before.url, key or before.key)
        return function()

    return with_outer  # type: ignore[return-value]


def outer_home() -> Path | None:
    """The --home given before the command, if any."""
    outer = click.get_current_context().find_object(Outer)
    return outer.home if outer else None


def _chosen(home: Path | None, url: str | None, key: str | None) -> Target:
    """What was typed goes before the environment; then --url before --home, and a search last."""
    context = click.get_current_context()
    outer = context.find_object(Outer) or Outer(None, None, None)
    typed_home = home if _is_typed(context, "home") else outer.home
    typed_url = url if _is_typed(context, "url") else outer.url
    if typed_home and typed_url:
        raise click.UsageError("--home and --url name two keepers: give one of them.")
    if typed_url or (url and not typed_home):
        return Target(home=None, url=typed_url or url, key=(key if _is_typed(context, "key") else outer.key) or key)
    place = typed_home or home
    return Target(home=home_at(place) if place else search_home(Path.cwd()))


def _is_typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _complete_database(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The names of databases for the Tab key. Trap: while completing, no command and no group has run."""
    place: click.Context | None = context
    while place is not None and not place.params.get("home"):
        place = place.parent
    found = home_at(Path(place.params["home"])) if place is not None else search_home(Path.cwd())
    return [name for name in database_names(found) if name.startswith(incomplete)] if found else []
