"""`pondkeeper job`: the jobs of a keeper, their runs, and what becomes of them."""

from __future__ import annotations

from typing import Any

import click

from pondkeeper.cli import job_runs
from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.job_place import JobPlace, job_argument, maybe_job_argument
from pondkeeper.cli.narration import say, warn
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_age, show_seconds
from pondkeeper.cli.runs_shown import phase_of, print_runs
from pondkeeper.cli.target import Target, json_option, outer_options, target_options


@new_group(
    "job",
    "List, run and watch jobs.",
    example("every job, when it is due, and how its last run ended", "pondkeeper job list"),
    example("run one now, and watch it to its end", "pondkeeper job run nightly --follow"),
    example("how the runs get on, whatever the keeper and the database are doing", "pondkeeper job status"),
    example("what a run has written", "pondkeeper job logs nightly"),
)
@outer_options
def command() -> None:
    """The jobs of pondkeeper.toml (syncs, dbt builds, downloads, programs), their runs, and what became of them."""


@command.command(
    "list",
    short_help="List the jobs.",
    examples=(
        example("every job, when it is due, and how its last run ended", "pondkeeper job list"),
        example("those whose last run failed", "pondkeeper job list --json | jq -r '.jobs[] | select(.last.phase == \"failed\").name'"),
    ),
)
@json_option
@target_options
def list_(as_json: bool, target: Target) -> None:
    """List the jobs. Without a keeper, those of the settings file, which is checked as a keeper does."""
    listed = JobPlace(target).listed()
    if as_json:
        print_json(listed)
        return
    if problem := listed["problem"]:
        warn(f"{problem['message']} [{problem['code']}]: the jobs are those that the keeper had before")
    if not listed["jobs"]:
        say("there is no job; they stand in pondkeeper.toml as [jobs.NAME]")
        return
    columns = ("job", "kind", "database", "due", "next", "last run", "ended", "what")
    print_table(columns, map(_row, listed["jobs"]), numbers=(4, 6), whole=range(7))


def _row(job: dict[str, Any]) -> tuple[Any, ...]:
    current, last = job["current"], job["last"]
    shown = current or last or {}
    phase = phase_of(shown) if shown else "never"
    ended = show_age(last["finished_at"]) if last and last["finished_at"] and not current else ""
    error = (shown.get("error") or {}).get("message", "")
    return job["name"], job["kind"], job["database"] or "–", _due(job), _next(job), phase, ended, " ".join(str(error).split())


def _due(job: dict[str, Any]) -> str:
    """When it runs, in words: its schedule, the jobs that it follows, or by hand."""
    if not job["is_enabled"]:
        return "off"
    parts = [job["schedule"]] if job["schedule"] else []
    if job["schedule"] and job["timezone"] not in (None, "UTC"):
        parts[0] += f" {job['timezone']}"
    parts += [f"after {', '.join(job['after'])}"] if job["after"] else []
    return "; ".join(parts) or "by hand"


def _next(job: dict[str, Any]) -> str:
    if job["next_due_at"] is None or not job["is_enabled"]:
        return ""
    from datetime import UTC, datetime

    wait_s = (datetime.fromisoformat(job["next_due_at"]) - datetime.now(UTC)).total_seconds()
    return f"in {show_seconds(wait_s)}" if wait_s > 0 else "now"


@command.command(
    "show",
    short_help="Show one job.",
    examples=(
        example("what it is, and when it is due", "pondkeeper job show nightly"),
        example("with what its kind is told", "pondkeeper job show nightly --json"),
    ),
)
@job_argument
@json_option
@target_options
def show(job: str, as_json: bool, target: Target) -> None:
    """Show one job: its settings, when it is due, its run that goes on and its last one."""
    found = JobPlace(target).job(job)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['name']} ({found['kind']}{', ' + found['database'] if found['database'] else ''})")
    when = f", next {_next(found)} ({found['next_due_at']})" if _next(found) else ""
    click.echo(f"  due: {_due(found)}{when}; missed times: {found['missed']}")
    limit = f"{show_seconds(found['timeout_s'])} at most" if found["timeout_s"] else "no time limit"
    retries = f"{found['retries']} retries, the first after {show_seconds(found['retry_wait_s'])}" if found["retries"] else "no retry"
    click.echo(f"  {limit}; {retries}; priority {found['priority']}")
    for name, run in (("current", found["current"]), ("last", found["last"])):
        if run:
            ended = f", ended {show_age(run['finished_at'])} ago" if run["finished_at"] else ""
            error = f": {run['error']['message']} [{run['error']['code']}]" if run["error"] else ""
            click.echo(f"  {name} run: {run['run_id']}, {phase_of(run)}{ended}{error}")
    for name, value in (found.get("settings") or {}).items():
        if value not in (None, "", [], {}, ()):
            click.echo(f"  {name} = {_setting(value)}")


def _setting(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, default=str)


for each in (job_runs.run, job_runs.status, job_runs.logs, job_runs.cancel):
    command.add_command(each)


@command.command(
    "history",
    short_help="List the runs that have ended.",
    examples=(
        example("the last runs of all jobs", "pondkeeper job history"),
        example("how long each of a job took", "pondkeeper job history nightly --json | jq '.runs[] | [.run_id, .started_at, .finished_at]'"),
    ),
)
@maybe_job_argument
@click.option("-n", "--limit", metavar="COUNT", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@click.option("--before", metavar="RUN", help="Only those before this run, to go on behind it.")
@json_option
@target_options
def history(job: str | None, limit: int, before: str | None, as_json: bool, target: Target) -> None:
    """List runs, the youngest first: how long each took, its rows, and why it failed.

    They are kept for `runs.keep_s`, at most `runs.keep` of each job.
    """
    found = JobPlace(target).history(job, limit=limit, before=before)
    if as_json:
        print_json({"runs": found})
    elif not found:
        say("there is no run yet")
    else:
        print_runs(found)


@command.command("enable", short_help="Switch a job on.", examples=(example("let it be due again", "pondkeeper job enable nightly"),))
@job_argument
@target_options
def enable(job: str, target: Target) -> None:
    """Switch a job on: it is due at its times, and run after others."""
    JobPlace(target).enable(job, enabled=True)
    say(f"{job} is on")


@command.command(
    "disable", short_help="Switch a job off.", examples=(example("until it is enabled again, also after a restart", "pondkeeper job disable nightly"),)
)
@job_argument
@target_options
def disable(job: str, target: Target) -> None:
    """Switch a job off: it is neither due nor run after others. What runs goes on; `run` still runs it."""
    JobPlace(target).enable(job, enabled=False)
    say(f"{job} is off")


@command.command(
    "accept",
    short_help="Let a change of the source through.",
    examples=(example("take the source's new columns over with the next run", "pondkeeper job accept crm && pondkeeper job run crm"),),
)
@job_argument
@json_option
@target_options
def accept(job: str, as_json: bool, target: Target) -> None:
    """Let the change of the source through that a job with `drift = "ask"` was refused for: exactly that one, in its next run."""
    accepted = JobPlace(target).accept_drift(job)
    if as_json:
        print_json(accepted)
        return
    for each in accepted:
        click.echo(f"{each['table']}: {'; '.join(each['changes'])}")
    say(f"the next run of {job} takes this over")
