"""The shapes of answers about jobs and their runs, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType


class RunShown(Struct):
    """A run of a job: one execution of it, with all its attempts. Moments are ISO 8601 in UTC."""

    run_id: Annotated[str, Meta(description="Sorts by the time at which it was asked for.")]
    job: str
    kind: str
    database: str | None
    phase: Annotated[
        str,
        Meta(description="queued, starting, running, extracting, waiting_for_lease, loading; at the end done, failed or cancelled"),
    ]
    attempt: Annotated[int, Meta(description="Counts from 1.")]
    failures: Annotated[int, Meta(description="Attempts that failed so far.")]
    trigger: Annotated[str, Meta(description="manual, schedule, after, retry or resumed")]
    by: Annotated[str | None, Meta(description="Who asked for it, where somebody did.")]
    priority: str
    created_at: Annotated[str, Meta(description="When it was asked for.")]
    not_before: Annotated[str | None, Meta(description="A queued attempt waits until then.")]
    started_at: str | None
    finished_at: str | None
    updated_at: str | None
    pid: Annotated[int | None, Meta(description="Its supervisor, the first process of its session.")]
    pid_started_at: Annotated[int | None, Meta(description="When that began, in ticks of the kernel: the two name it together.")]
    done: Annotated[int, Meta(description="How many `unit` are done.")]
    total: Annotated[int | None, Meta(description="Of how many, where that is known.")]
    unit: str
    rate_per_s: float | None
    eta_s: Annotated[float | None, Meta(description="Seconds until it is done, at this rate.")]
    message: Annotated[str, Meta(description="What it is at, in its own words.")]
    tables: Annotated[dict[str, dict[str, int]], Meta(description="Of each table: `rows` and `size_bytes`.")]
    rows: int
    size_bytes: int
    versions: Annotated[list[int], Meta(description="The versions that have what it wrote.")]
    held_s: Annotated[float, Meta(description="How long it kept others from writing, in sum.")]
    lease: Annotated[dict[str, Any] | None, Meta(description="While it waits: `holder`, `why`, `since`, `waiting_since`, `position`.")]
    exit_code: Annotated[int | None, Meta(description="Of the program that it ran.")]
    error: Annotated[dict[str, Any] | None, Meta(description="Why it failed: `code`, `message`, `remedy`.")]
    details: Annotated[dict[str, Any], Meta(description="What its kind has to tell beside that.")]


class RunList(Struct):
    """Runs, the youngest first."""

    runs: list[RunShown]


class RunBrief(Struct):
    """A run in a few words."""

    run_id: str
    phase: str
    trigger: str
    attempt: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    rows: int
    error: Annotated[dict[str, Any] | None, Meta(description="Why it failed: `code`, `message`, `remedy`.")]


class JobShown(Struct):
    """A job: what it is, and how it fares."""

    name: str
    kind: str
    database: str | None
    is_enabled: Annotated[bool, Meta(description="Whether it is due at its times and run after others.")]
    schedule: Annotated[str | None, Meta(description="As it was written.")]
    timezone: str | None
    next_due_at: str | None
    after: Annotated[list[str], Meta(description="The jobs whose success it is run after.")]
    missed: Annotated[str, Meta(description="What becomes of times that went by without a keeper: once or skip")]
    priority: str
    timeout_s: float | None
    retries: int
    retry_wait_s: float
    current: Annotated[RunBrief | None, Meta(description="The run that waits or goes on.")]
    last: Annotated[RunBrief | None, Meta(description="The last run that has ended.")]
    settings: Annotated[dict[str, Any] | UnsetType, Meta(description="What its kind is told. For administrators, of one job.")] = UNSET
    notify: Annotated[dict[str, Any] | UnsetType | None, Meta(description="Whom it tells. For administrators, of one job.")] = UNSET


class Drift(Struct):
    """A change of a table that a run was refused for."""

    table: str
    changes: list[str]
    digest: Annotated[str, Meta(description="Names exactly this change.")]
    asked_at: Annotated[float, Meta(description="Seconds since 1970.")]


class DriftAccepted(Struct):
    """What the next run of the job may change."""

    accepted: list[Drift]


class JobList(Struct):
    """The jobs that the key may see."""

    jobs: list[JobShown]
    problem: Annotated[
        dict[str, Any] | None,
        Meta(description="What is wrong with the settings file, so that the jobs are those that it had before. For administrators."),
    ]
