"""`pondkeeper job run|status|logs|cancel`: runs, from their beginning to their end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from pondkeeper.cli.help import ExamplesCommand, example
from pondkeeper.cli.job_place import JobPlace, job_argument, maybe_run_argument, run_argument
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import one_line, print_json, print_json_line, write_bytes
from pondkeeper.cli.runs_shown import print_run, print_runs
from pondkeeper.cli.target import Target, json_option, target_options
from pondkeeper.cli.watching import Watched, ended
from pondkeeper.jobs.status import FINAL, RunStatus, status_json

LOOKED_AT: Final = 1000
Status = dict[str, Any]


@click.command(
    "run",
    cls=ExamplesCommand,
    short_help="Run a job now.",
    examples=(
        example("have it run; prints the id of the run and ends", "pondkeeper job run nightly"),
        example("watch it to its end", "pondkeeper job run nightly --follow"),
        example("in a script: go on when it is done, and stop when it failed", "pondkeeper job run nightly --wait && ./report.sh"),
    ),
)
@job_argument
@click.option("-w", "--wait", is_flag=True, help="Wait for its end; the exit code says how it ended.")
@click.option("-f", "--follow", is_flag=True, help="Show its progress and its log to its end.")
@json_option
@target_options
def run(job: str, wait: bool, follow: bool, as_json: bool, target: Target) -> None:
    """Run JOB now and print the id of its run.

    A run of it that waits for its turn already is the answer; nothing runs twice. It goes on whatever becomes of this
    command. Without a keeper the command carries the run out itself, and lasts as long as that.
    """
    place = JobPlace(target)
    status = place.run(job)
    if status is None:
        _run_alone(place, job, follow=follow, as_json=as_json)
        return
    if not as_json:
        click.echo(status["run_id"])
        sys.stdout.flush()
    if wait or follow:
        _watch(place, status["run_id"], log=follow, shows=follow, as_json=as_json, streams=follow)
    elif as_json:
        print_json(status)


def _watch(place: JobPlace, run_id: str, *, log: bool, shows: bool, as_json: bool, streams: bool) -> None:
    """Wait for the end of a run, and raise what it failed by. Ctrl-C ends the watching, not the run."""
    try:
        last = _shown(place, run_id, log=log, shows=shows, streams=as_json and streams)
    except KeyboardInterrupt:
        say(f"the run goes on: `pondkeeper job status {run_id}` shows it, `pondkeeper job cancel {run_id}` ends it")
        raise
    if as_json and not streams:
        print_json(last)
    ended(last)


def _shown(place: JobPlace, run_id: str, *, log: bool, shows: bool, streams: bool) -> Status:
    if not shows:
        return _last(place.follow(run_id, log=False, warn_=say))
    with Watched() as watched:
        found = place.follow(run_id, log=log, warn_=watched.warn)
        return watched.take(_told(found) if streams else found)


def _told(found: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same, each state of the run also as a line of JSON on stdout."""
    for each in found:
        if "run" in each:
            print_json_line(each["run"])
        yield each


def _last(found: Iterator[dict[str, Any]]) -> Status:
    last: Status = {}
    for each in found:
        last = each.get("run", last)
    return last


def _run_alone(place: JobPlace, job: str, *, follow: bool, as_json: bool) -> None:
    """Carry a run out in this process, to its end. Ctrl-C cancels it; after a kill the next keeper or command takes it up."""
    run, view = place.begin(job, log=follow)
    if not as_json:
        click.echo(run.run_id)
        sys.stdout.flush()
    say("no keeper runs here: this command carries the run out")
    if follow:
        with Watched() as watched:

            def look(_: RunStatus) -> None:
                watched.take(_told(view.news()) if as_json else view.news())

            look(run.carry_out(look))
            last = watched.last
    else:
        with Progress(f"Running {job}"):
            last = status_json(run.carry_out())
        if as_json:
            print_json(last)
    ended(last)


@click.command(
    "status",
    cls=ExamplesCommand,
    short_help="Show how runs get on.",
    examples=(
        example("what waits and goes on, and how the last runs ended", "pondkeeper job status"),
        example("one run, or the youngest of a job", "pondkeeper job status nightly"),
        example("watch it to its end", "pondkeeper job status nightly --follow"),
        example("how many rows it has so far", "pondkeeper job status nightly --json | jq .rows"),
    ),
)
@maybe_run_argument
@click.option("-f", "--follow", is_flag=True, help="Watch it to its end.")
@json_option
@target_options
def status(run: str | None, follow: bool, as_json: bool, target: Target) -> None:
    """Show a run, or the youngest of a job, or all that wait and go on and the last of each job.

    On the keeper's machine it is read from the files of the runs: it answers with the keeper down and the database locked.
    """
    place = JobPlace(target)
    if run is None:
        if follow:
            raise click.UsageError("Name the run, or the job, that is to be followed.")
        _print_all(place, as_json=as_json)
        return
    run_id = place.run_named(run)
    if follow:
        _watch(place, run_id, log=False, shows=True, as_json=as_json, streams=True)
        return
    found = place.status(run_id)
    if as_json:
        print_json(found)
    else:
        print_run(found, click.echo)


def _print_all(place: JobPlace, *, as_json: bool) -> None:
    found = list(_telling(_recent(place)))
    if as_json:
        print_json({"runs": found})
    elif not found:
        say("there is no run yet")
    else:
        print_runs(found)


def _recent(place: JobPlace) -> Iterator[Status]:
    if place.home is None:
        yield from place.history(None, limit=LOOKED_AT, before=None)
        return
    from pondkeeper.local.runs import statuses

    yield from statuses(place.home)


def _telling(runs: Iterator[Status]) -> Iterator[Status]:
    """Of runs, the youngest first: those that have not ended, and the last that has of each job."""
    jobs: set[str] = set()
    for each in runs:
        if each["phase"] not in FINAL:
            yield each
        elif each["job"] not in jobs:
            jobs.add(each["job"])
            yield each


@click.command(
    "logs",
    cls=ExamplesCommand,
    short_help="Print what a run has written.",
    examples=(
        example("of the youngest run of a job", "pondkeeper job logs nightly"),
        example("the last lines, and what comes, until it has ended", "pondkeeper job logs nightly -n 20 --follow"),
    ),
)
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("-n", "--lines", metavar="COUNT", type=click.IntRange(0, 1_000_000), help="Only the last so many lines of what is there.")
@target_options
def logs(run: str, follow: bool, lines: int | None, target: Target) -> None:
    """Print the log of a run, or of the youngest run of a job: what it wrote, each line with its time, secrets masked."""
    place = JobPlace(target)
    pieces = place.log(place.run_named(run), follow=follow, lines=lines)
    write_bytes(_harmless(pieces) if sys.stdout.isatty() else pieces)


def _harmless(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines for a terminal: what a program wrote cannot steer it."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield b"".join(_safe(line) + b"\n" for line in lines)
    if rest:
        yield _safe(rest) + b"\n"


def _safe(line: bytes) -> bytes:
    return one_line(line.decode(errors="replace").expandtabs()).encode()


@click.command(
    "cancel",
    cls=ExamplesCommand,
    short_help="End a run.",
    examples=(
        example("the youngest run of a job", "pondkeeper job cancel nightly"),
        example("one run, and wait until nothing of it is left", "pondkeeper job cancel 20261121T031500Z-4f2a9c --wait"),
    ),
)
@run_argument
@click.option("-w", "--wait", is_flag=True, help="Wait until it has ended.")
@json_option
@target_options
def cancel(run: str, wait: bool, as_json: bool, target: Target) -> None:
    """End a run, or the youngest of a job: SIGTERM to all of it, and SIGKILL after `runs.kill_after_s`.

    What it has committed stays. One that waits for its turn does not begin any more.
    """
    place = JobPlace(target)
    run_id = place.run_named(run)
    found = place.cancel(run_id)
    if wait:
        found = _last(place.follow(run_id, log=False, warn_=say))
    if as_json:
        print_json(found)
    else:
        say(f"{found['job']}, run {run_id}: {'has ended' if found['phase'] in FINAL else 'is told to end'}")
