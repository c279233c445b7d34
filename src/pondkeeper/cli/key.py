"""`pondkeeper key`: who may come in. On this machine it works on control.db itself, with a keeper running or without."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.narration import say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import DURATION, show_age
from pondkeeper.cli.target import Target, json_option, outer_options, target_options

if TYPE_CHECKING:
    from pondkeeper.access.keys import Keys

ROLES = ("reader", "writer", "admin")


@new_group(
    "key",
    "Make, list and revoke API keys.",
    example("a key for a dashboard that reads one database", "pondkeeper key create dashboard --database warehouse"),
    example("a key for a loader, for thirty days", "pondkeeper key create loader --role writer --expires 30d"),
    example("what there is, and end one at once", "pondkeeper key revoke dashboard"),
)
@outer_options
def command() -> None:
    """Make, list and revoke API keys."""


@command.command(
    "create",
    examples=(
        example("a reader of every database", "pondkeeper key create dashboard"),
        example("one that reads two tables, for five seconds each time",
                "pondkeeper key create partner -t flights -t 'reporting.*' -l timeout_s=5s"),
        example("the token alone, into a variable", 'PONDKEEPER_KEY="$(pondkeeper key create ci --role writer)"'),
    ),
)
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="reader", show_default=True, help="What it may do.")
@click.option("-d", "--database", "databases", metavar="NAME", multiple=True,
              help="A database it may use; repeat for several. Default: every database.")  # fmt: skip
@click.option("-t", "--table", "tables", metavar="TABLE", multiple=True,
              help="A table it may read: NAME, SCHEMA.NAME or 'SCHEMA.*'; repeat for several. Default: every one.")  # fmt: skip
@click.option("-l", "--limit", "limits", metavar="NAME=VALUE", multiple=True,
              help="A limit of its own, e.g. timeout_s=5s, max_rows=1000, concurrent=4, requests_per_s=10.")  # fmt: skip
@click.option("--expires", "expires_in_s", metavar="DURATION", type=DURATION, help="Ends after this long, e.g. 30d.")
@json_option
@target_options
def create(
    name: str,
    role: str,
    databases: tuple[str, ...],
    tables: tuple[str, ...],
    limits: tuple[str, ...],
    expires_in_s: float | None,
    as_json: bool,
    target: Target,
) -> None:
    """Make a key called NAME and print its token: this once, it is kept nowhere."""
    expires_at = None if expires_in_s is None else time.time() + expires_in_s
    own = _limits(limits)
    if target.is_remote:
        with target.client() as client:
            made = client.create_key(name, role, databases=list(databases) or None, expires_at=expires_at,
                                     tables=list(tables) or None, limits=own)  # fmt: skip
    else:
        with _keys(target) as keys:
            new = keys.create(name, role, databases or ("*",), expires_at, tables or None, own)
        made = {"key": new.key.to_wire(), "token": new.token}
    if as_json:
        print_json(made)
        return
    say(f"made the {role} key {name!r}; its token is shown this once:")
    click.echo(made["token"])


def _limits(words: tuple[str, ...]) -> dict[str, float] | None:
    from pondkeeper.access.limits import limits_in

    return limits_in(words).to_wire() or None


@command.command("list", examples=(example("the keys that open something", "pondkeeper key list"),))
@click.option("--all", "every", is_flag=True, help="Also those that are revoked or expired.")
@json_option
@target_options
def list_(every: bool, as_json: bool, target: Target) -> None:
    """List the keys, without their secrets."""
    if target.is_remote:
        with target.client() as client:
            listed = client.keys()
    elif not target.local_home().control_db.exists():
        listed = []  # Why: looking must not make anything.
    else:
        with _keys(target) as keys:
            listed = [key.to_wire() for key in keys.all()]
    shown = [key for key in listed if every or key["state"] == "live"]
    if as_json:
        print_json(shown)
    else:
        print_table(("id", "name", "role", "databases", "state", "age", "last used"), map(_row, shown), whole=(0, 1, 2))


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    databases = ", ".join(key["databases"])
    if key.get("tables"):
        databases += f" ({', '.join(key['tables'])})"
    last_used = f"{show_age(key['last_used_at'])} ago" if key["last_used_at"] else "never"
    return key["id"], key["name"], key["role"], databases, key["state"], show_age(key["created_at"]), last_used


@command.command("revoke", examples=(example("by its id, name or token", "pondkeeper key revoke dashboard"),))
@click.argument("reference", metavar="KEY")
@target_options
def revoke(reference: str, target: Target) -> None:
    """End KEY (its id, name or whole token) at once, wherever it is in use."""
    if target.is_remote:
        with target.client() as client:
            client.revoke_key(reference)
    else:
        with _keys(target) as keys:
            keys.revoke(reference)
    say(f"revoked {'the key' if reference.startswith('pk_') else reference}")


@contextlib.contextmanager
def _keys(target: Target) -> Iterator[Keys]:
    """The keys of the home; a running keeper notices a change at once."""
    from pondkeeper.access.keys import Keys
    from pondkeeper.access.store import Store

    store = Store.open(target.local_home().control_db)
    try:
        yield Keys(store)
    finally:
        store.close()
