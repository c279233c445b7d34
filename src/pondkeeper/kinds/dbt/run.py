"""A job of the kind `dbt`: the project is read while others write, and built under a lease; its artifacts say how it went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pondkeeper.errors import PondkeeperError
from pondkeeper.files.durable import make_folder
from pondkeeper.jobs.folders import is_alive
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.dbt import artifacts
from pondkeeper.kinds.dbt.artifacts import Node
from pondkeeper.kinds.dbt.build import Built, Dbt, same_build
from pondkeeper.kinds.dbt.together import Result, Together, folder_for

CLOCK_GRACE_S = 1.0  # a file's time is the kernel's tick, which may be some milliseconds behind the clock


def run(context: RunContext) -> None:
    """Build what the job names, or let another run of the project that is due as well build it. Raises PondkeeperError."""
    folder = folder_for(context.home_of_job.parent, same_build(context))
    together = Together(folder, context.plan.run_id, context.settings.select, partial(is_alive, context.plan.home))
    try:
        result = together.lead_or_follow(context.stopping, partial(context.phase, Phase.WAITING))
        if result is None:
            result = _lead(context, together)
        else:
            context.say(f"Built by run {result['led_by']}, which had its turn first and built for this one too.")
            context.detail(built_by=result["led_by"])
            for version in result["versions"]:
                context.released(0.0, version)  # it was held by the other run
    finally:
        together.leave()
    _report(context, result)


def _lead(context: RunContext, together: Together) -> Result:
    """Build for all runs that are due when the turn comes; the result of this one."""
    target = Path(context.home_of_job) / "target"
    make_folder(target, durable=False)
    context.phase(Phase.EXTRACTING, "dbt reads the project")
    with Dbt(context, target) as dbt:
        dbt.read_project()
        context.check_stopping()
        began = time.time() - CLOCK_GRACE_S
        with context.warehouse.lease(f"dbt {context.settings.command}", context.settings.max_hold_s or None) as turn:
            due = together.gather()
            others = [run_id for run_id in due if run_id != context.plan.run_id]
            if others:
                context.say(f"Building for {', '.join(others)} too.")
                context.detail(built_for=others)
            built = dbt.build(turn, due)
    nodes = artifacts.read_nodes(target, began)
    versions = list(context.status.versions)
    for run_id in others:
        together.answer(run_id, _result(built, nodes, run_id, context.plan.run_id, versions))
    return _result(built, nodes, context.plan.run_id, context.plan.run_id, versions)


def _result(built: Built, nodes: Sequence[Node], run_id: str, led_by: str, versions: list[int]) -> Result:
    own = artifacts.only(nodes, built.chosen[run_id]) if built.chosen else list(nodes)
    return {
        "led_by": led_by,
        "nodes": [asdict(node) for node in own],
        "why": built.why if not own or not built.success else None,
        "failed": not built.success and not built.chosen,
        "versions": versions,
        "exit_code": built.exit_code,
    }


def _report(context: RunContext, result: Result) -> None:
    """Show in the status what was built, and raise what makes the run a failure."""
    nodes = [Node(**node) for node in result["nodes"]]
    context.detail(**artifacts.details(nodes), tables_changed=[node.table for node in nodes if node.changed_a_table])
    _count_rows(context, nodes, max(result["versions"], default=None))
    why = result["why"] or ("it says that not all succeeded" if result["failed"] else None)
    if (error := artifacts.failure(nodes, why)) is not None:
        raise error


def _count_rows(context: RunContext, nodes: Sequence[Node], version: int | None) -> None:
    """The rows of the tables that were built, from the snapshot that has them; left out where there is none yet."""
    changed = [node for node in nodes if node.changed_a_table]
    if not changed:
        return
    counts = ", ".join(f"(SELECT count(*) FROM {node.relation})" for node in changed)
    try:
        rows = context.warehouse.query(f"SELECT {counts}", at_least=version)[0]
    except PondkeeperError as error:
        context.say(f"The rows of the tables were not counted: {error.message}")
        return
    for node, count in zip(changed, rows, strict=True):
        context.table(node.table, int(count))
