"""`pondkeeper status`: what the keeper does, and what can be seen of the databases without it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_age, show_bytes, show_seconds
from pondkeeper.cli.target import Target, json_option, target_options
from pondkeeper.errors import PondkeeperError
from pondkeeper.local.known import KeeperFile, databases_of, keeper_of

if TYPE_CHECKING:
    from pondkeeper.files.paths import DatabasePaths, Home

ANSWER_TIMEOUT_S: Final = 3.0
COLUMNS: Final = ("database", "state", "version", "age", "size", "wal", "queue", "held by")


@new_command(
    "status",
    "Show the keeper and who has what.",
    example("the keeper of this folder and its databases", "pondkeeper status"),
    example("the version that readers see", "pondkeeper status --json | jq '.databases[0].version'"),
    example("a keeper on another machine", "pondkeeper status --url http://db:8420"),
)
@json_option
@target_options
def command(as_json: bool, target: Target) -> None:
    """Show the keeper, its databases, and who has them.

    It always answers: with no keeper running, with one that does not respond, and while a program that knows nothing
    of the keeper holds a file.
    """
    found = _remote(target) if target.is_remote else local_status(target.local_home())
    if as_json:
        print_json(found)
    else:
        _print(found)


def _remote(target: Target) -> dict[str, Any]:
    with target.client(timeout_s=ANSWER_TIMEOUT_S, retry_for_s=0) as client:
        databases = client.databases()
    return {"keeper": {"state": "running", "url": target.url}, "databases": databases, "problem": None}


def local_status(home: Home) -> dict[str, Any]:
    """The status of a home: from its keeper when that answers, else from files and the kernel."""
    keeper = keeper_of(home)
    problem: PondkeeperError | None = None
    databases: list[dict[str, Any]] | None = None
    if keeper.running:
        try:
            databases = _ask(home)
        except PondkeeperError as error:
            problem = error
    if databases is None:
        databases = [seen(paths) for paths in databases_of(home)]
    state = "not running" if not keeper.running else "not answering" if problem else "running"
    return {
        "keeper": {"state": state, "home": str(home.root), **_said(keeper)},
        "databases": databases,
        "problem": problem.to_wire() if problem else None,
    }


def _ask(home: Home) -> list[dict[str, Any]]:
    from pondkeeper.client import Client

    with Client.local(home.root, timeout_s=ANSWER_TIMEOUT_S, retry_for_s=0) as client:
        return client.databases()


def _said(keeper: KeeperFile) -> dict[str, Any]:
    """What keeper.json says of a keeper that runs; of a dead one nothing is worth telling."""
    said = dataclasses.asdict(keeper)
    return {name: said[name] for name in ("pid", "url", "started_at", "version")} if keeper.running else {}


def seen(paths: DatabasePaths) -> dict[str, Any]:
    """What files and the kernel show of a database, in the shape of the keeper's own answer."""
    from pondkeeper.databases.watching import look
    from pondkeeper.snapshots.listing import newest_snapshot

    sight = look(paths, frozenset())
    newest = newest_snapshot(paths)
    snapshot = None
    if newest is not None:
        created_at = newest.created_at.isoformat(timespec="milliseconds")
        snapshot = {
            "version": newest.version,
            "created_at": created_at,
            "age_s": round(newest.age_s, 3),
            "size_bytes": newest.size_bytes,
        }
    return {
        "name": paths.name,
        "state": "not served" if paths.file.exists() else "missing",
        "version": newest.version if newest else None,
        "snapshot": snapshot,
        "file": {"path": str(paths.file), "size_bytes": sight.size_bytes, "wal_bytes": sight.wal_bytes},
        "lease": sight.lease(),
        "foreign": sight.foreign,
        "queue": None,
        "problem": None,
    }


def _print(found: dict[str, Any]) -> None:
    click.echo(_keeper_line(found["keeper"]))
    if found["problem"]:
        click.echo(f"  {found['problem']['message']} What follows is seen from outside.")
    if not found["databases"]:
        return
    click.echo()
    print_table(COLUMNS, map(_row, found["databases"]), numbers=(2, 4, 5, 6), whole=range(7))
    for database in found["databases"]:
        if spooled := _spooled(database.get("spool") or {}):
            click.echo(f"\n{database['name']}: {spooled}")
        if replica := database.get("replica"):
            click.echo(f"\n{database['name']}: {_followed(replica)}")
        if archived := _archived(database.get("archive") or {}):
            click.echo(f"\n{database['name']}: {archived}")
        if problem := database.get("problem"):
            click.echo(f"\n{database['name']}: {problem['message']} [{problem['code']}]\n  {problem['remedy']}")


def _followed(replica: dict[str, Any]) -> str:
    """Whose replica it is, and how far behind."""
    lag_s = replica["lag_s"]
    behind = "not reached yet" if lag_s is None else f"at most {show_seconds(lag_s)} behind"
    return f"a replica of {replica['of']}, {replica['state']}, {behind}"


def _spooled(spool: dict[str, Any]) -> str:
    """What was accepted and is not applied yet, and what is damaged of it; nothing where there is nothing to tell."""
    parts = []
    if waiting := spool.get("waiting"):
        said = f"{waiting} accepted {'ingest waits' if waiting == 1 else 'ingests wait'} in the spool"
        parts.append(f"{said}, {show_bytes(spool['size_bytes'])}, the first for {show_seconds(spool['oldest_s'])}")
        if problem := spool.get("problem"):
            parts.append(str(problem["message"]).rstrip("."))
    if damaged := spool.get("damaged"):
        parts.append(f"the spool is damaged: {', '.join(damaged)}")
    return "; ".join(parts)


def _archived(archive: dict[str, Any]) -> str:
    """What is wrong with the archive; nothing where nothing is."""
    parts = []
    if archive.get("is_behind"):
        why = f": {archive['problem']['message']}" if archive.get("problem") else ""
        parts.append(f"the archive is {show_seconds(archive['lag_s'])} behind{why.rstrip('.')}")
    verified = archive.get("verified") or {}
    if problem := verified.get("problem"):
        parts.append(f"the last verification of a backup failed ({show_age(verified['at'])} ago): {problem['message'].rstrip('.')}")
    return "; ".join(parts)


def _keeper_line(keeper: dict[str, Any]) -> str:
    parts = [f"keeper {keeper['state']}"]
    if keeper.get("pid"):
        parts.append(f"pid {keeper['pid']}")
    if keeper.get("url"):
        parts.append(str(keeper["url"]))
    if keeper.get("started_at"):
        parts.append(f"up {show_age(keeper['started_at'])}")
    if keeper.get("home"):
        parts.append(str(keeper["home"]))
    return ", ".join(parts)


def _row(database: dict[str, Any]) -> tuple[Any, ...]:
    snapshot, file, queue = database.get("snapshot") or {}, database.get("file") or {}, database.get("queue") or {}
    return (
        database["name"],
        database["state"],
        database.get("version") or "–",
        show_seconds(snapshot.get("age_s")),
        show_bytes(file.get("size_bytes")),
        show_bytes(file.get("wal_bytes")),
        queue.get("depth", "–"),
        "; ".join(held_by(database)) or "–",
    )


def held_by(database: dict[str, Any]) -> list[str]:
    """Who has the file or the right to write it, in words; the keeper's own writer is nobody to name."""
    lease = database.get("lease") or {}
    words = []
    if (holder := lease.get("holder")) and holder.get("who") != "keeper":
        why = f", for: {holder['why']}" if holder.get("why") else ""
        words.append(f"{holder['who']} (pid {holder['pid']}), with the lease{why}")
    asked = bool(words)
    for foreign in database.get("foreign") or []:
        how = "" if asked else ", without the lease"
        words.append(f"{foreign['program']} (pid {foreign['pid']}){how}")
    if lease.get("waiting"):
        words.append(f"{lease['waiting']} waiting")
    return words
