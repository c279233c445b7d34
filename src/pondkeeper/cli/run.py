"""`pondkeeper run`: a program gets a database to itself, in its turn."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.known import SUFFIX, database_at, find_database, serving_home
from pondkeeper.cli.narration import QUIET_FOR_S, Progress, say, warn
from pondkeeper.cli.quantities import DURATION, show_seconds
from pondkeeper.cli.supervision import run_program
from pondkeeper.cli.target import Target, home_option
from pondkeeper.errors import DatabaseBusy, PondkeeperError
from pondkeeper.files.locks import LockHolder, holders_of
from pondkeeper.files.paths import DatabasePaths

if TYPE_CHECKING:
    from collections.abc import Callable

    from pondkeeper.writer.lease import Holder, Lease

FOREIGN_POLL_S: Final = 0.1
TELL_AGAIN_S: Final = 30.0
# Why: other words may hold secrets (postgres://user:secret@host), and everybody who waits is shown them.
HARMLESS: Final = re.compile(r"[A-Za-z0-9_./]{1,60}\Z")
# What shells answer when a program is not there, and when it is there and cannot be executed.
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126


@new_command(
    "run",
    "Run a program that may write.",
    example("a dbt project, when the database is free", "pondkeeper run -- dbt build"),
    example("say why, for those who wait", 'pondkeeper run --reason "nightly load" -- python load.py'),
    example("now or not at all", "pondkeeper run --no-wait -- ./repair.sh"),
    example("a database named by its file", "pondkeeper run -d ./warehouse.duckdb -- duckdb warehouse.duckdb"),
    allow_interspersed_args=False,  # Why: options after COMMAND are COMMAND's own, also without `--`.
)
@click.option("--wait", "wait_s", type=DURATION, default="5m", show_default=True, help="How long to wait for the turn.")
@click.option("--no-wait", is_flag=True, help="Give up at once when somebody has the database.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those who wait and for `status`.")
@click.option(
    "-d", "--database", metavar="NAME", help="The database, by name or by its file; not needed where there is one."
)
@click.option("--no-snapshot", is_flag=True, help="Do not ask the keeper to publish what was written.")
@home_option
@click.argument("program", metavar="COMMAND [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    wait_s: float,
    no_wait: bool,
    reason: str,
    database: str | None,
    no_snapshot: bool,
    target: Target,
    program: tuple[str, ...],
) -> int:
    """Run COMMAND while it alone may write the database.

    It waits for its turn, first come, first served, with a keeper running or without one. COMMAND finds the
    database file in $PONDKEEPER_DATABASE and opens it itself; readers go on from the last snapshot. Signals are passed
    on, the exit code is COMMAND's own, and what it wrote is published when it has ended.
    """
    from pondkeeper.writer.lease import Lease

    paths = _database(target, database)
    lease = Lease(paths, who=_shown(program), why=reason)
    _take(lease, paths, 0.0 if no_wait else wait_s)
    began = time.monotonic()
    try:
        code = run_program(program, {"PONDKEEPER_DATABASE": str(paths.file)}, keep_open=lease.fileno())
    except OSError as error:
        warn(f"{program[0]} cannot be started: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    finally:
        lease.release()
    say(f"{program[0]} ended with {code} after {show_seconds(time.monotonic() - began)}")
    if not no_snapshot:
        _publish(paths)
    return code


def _database(target: Target, name: str | None) -> DatabasePaths:
    if name is not None and (name.endswith(SUFFIX) or os.sep in name):
        return database_at(Path(name))
    return find_database(target.local_home(), name)


def _shown(program: Sequence[str]) -> str:
    """How the program is called in messages to others: without its later arguments, which may hold secrets."""
    words = [Path(program[0]).name, *(word for word in program[1:2] if HARMLESS.match(word))]
    return " ".join(words)


def _take(lease: Lease, paths: DatabasePaths, wait_s: float) -> None:
    """Take the lease, then wait until no program that did not ask has the file open either."""
    deadline = time.monotonic() + wait_s
    lease.acquire(wait_s, on_wait=_teller())
    try:
        _wait_for_strangers(paths, deadline, wait_s)
    except BaseException:  # Why: also when interrupted, nobody may wait for a lease that is not used.
        lease.release()
        raise


def _teller() -> Callable[[Holder | None, int], None]:
    """Says who is waited for: at once, when that changes, and every half minute.

    The keeper's writer is not worth a word for two seconds: it gives the file back when it is idle.
    """
    told: dict[str, float] = {}
    quiet_until = time.monotonic() + QUIET_FOR_S

    def tell(holder: Holder | None, ahead: int) -> None:
        if holder is not None and holder.who == "keeper" and time.monotonic() < quiet_until:
            return
        who = holder.describe() if holder else "the queue to move on"
        text = f"waiting for {who}" + (f"; {ahead} before us" if ahead else "")
        if time.monotonic() - told.get(text, -TELL_AGAIN_S) >= TELL_AGAIN_S:
            told.clear()
            told[text] = time.monotonic()
            say(text)

    return tell


def _wait_for_strangers(paths: DatabasePaths, deadline: float, wait_s: float) -> None:
    told: LockHolder | None = None
    while holders := _strangers(paths.file):
        holder = holders[0]
        if time.monotonic() >= deadline:
            raise DatabaseBusy(
                f"{holder.program} (pid {holder.pid}) has the database open without having asked for the lease, "
                f"and did not close it within {wait_s:g} s.",
                holder_pid=holder.pid,
                holder_program=holder.program,
            )
        if holder != told:
            told = holder
            say(f"waiting for {holder.program} (pid {holder.pid}), which has the database open without having asked")
        time.sleep(FOREIGN_POLL_S)


def _strangers(file: Path) -> list[LockHolder]:
    return [holder for holder in holders_of(file) if holder.kind == "posix"]


def _publish(paths: DatabasePaths) -> None:
    """Ask the keeper, where one runs, to publish what was written; that it failed is no failure of the program."""
    from pondkeeper.client import Client

    home = serving_home(paths)
    if home is None:
        return
    try:
        with Client.local(home.root) as client, Progress("Publishing what was written"):
            snapshot = client.take_snapshot(paths.name)
    except PondkeeperError as error:
        warn(f"no snapshot was published: {error.message} [{error.code}]")
        return
    say(f"published as version {snapshot['version']}")
