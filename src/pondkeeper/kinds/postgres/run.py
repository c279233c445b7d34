"""The kind `postgres`: tables of a PostgreSQL server, copied whole, by what changed, or followed change by change."""

from __future__ import annotations

import importlib.util
import secrets
from typing import TYPE_CHECKING, Any, Final

from pondkeeper.errors import ExtraMissing
from pondkeeper.jobs.status import Phase

if TYPE_CHECKING:
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
    from pondkeeper.kinds.context import RunContext
    from pondkeeper.kinds.postgres.copying import Copied

_PACKAGES: Final = ("psycopg", "adbc_driver_postgresql")
TABLES: Final = "tables"


def run(context: RunContext) -> None:
    """Carry out one run. Raises PondkeeperError."""
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ExtraMissing("Jobs of the kind postgres need packages that are not installed.", remedy="pip install 'pondkeeper[postgres]'")
    settings: PostgresSettings = context.settings
    if settings.mode == "cdc":
        from pondkeeper.kinds.postgres.cdc.capturing import capture

        capture(context)
    else:
        copy(context, settings)


def copy(context: RunContext, settings: PostgresSettings) -> None:
    """Copy the tables into staged files, from one snapshot of the source, and load them in one transaction."""
    from pondkeeper.kinds.postgres.connecting import conninfo, patiently
    from pondkeeper.kinds.postgres.copying import Copy, refuse_empty

    address = conninfo(settings, context)
    state = _state(context, settings)
    marks = _marks(context, state)
    copied = patiently(context, settings.wait_for_source_s, lambda: Copy(context, settings, address, marks).run())
    context.check_stopping()
    refuse_empty(copied, context.warehouse, allow_empty=settings.allow_empty)
    _load(context, settings, copied, state)


def _state(context: RunContext, settings: PostgresSettings) -> dict[str, Any] | None:
    """The state of the job; not asked for where nothing depends on it."""
    is_incremental = settings.mode == "incremental" or any(each.mode == "incremental" for each in settings.table)
    return context.warehouse.state() if is_incremental else None


def _marks(context: RunContext, state: dict[str, Any] | None) -> dict[str, Any]:
    """How far each table was copied; tables that are no longer here have to be copied whole."""
    from pondkeeper.kinds.postgres.incremental import Mark

    found = {name: Mark.of(wire) for name, wire in (state or {}).get(TABLES, {}).items()}
    here = {f"{schema}.{name}".lower() for schema, name in context.warehouse.query(_HERE)} if found else set()
    return {name: mark for name, mark in found.items() if mark is not None and _plain(mark.rules[0]) in here}


_HERE: Final = "SELECT table_schema, table_name FROM information_schema.tables"


def _plain(target: str) -> str:
    return target.replace('"', "").lower()


def _load(context: RunContext, settings: PostgresSettings, copied: list[Copied], before: dict[str, Any] | None) -> None:
    steps = [step for one in copied for step in one.steps(settings.drift)]
    marks = {one.plan.table.full_name: mark.to_wire() for one in copied if (mark := one.mark()) is not None}
    if not steps:
        context.phase(Phase.RUNNING, "nothing has changed at the source")
        context.say("nothing has changed at the source")
        return
    state = {**(before or {}), TABLES: marks} if marks else None
    context.phase(Phase.LOADING, "loading what was copied")
    # Why not the same for every attempt: another one brings another snapshot, in other steps. Both may be applied, in the
    # order in which they were asked for; the later one leaves what it would have left alone.
    identity = f"{context.plan.run_id}/{secrets.token_hex(8)}"
    loaded = context.warehouse.load(steps, identity=identity, state=state)
    if loaded.changes:
        context.detail(drift=loaded.changes)
    rows = sum(one.counts.get("rows", 0) for one in copied)
    context.say(f"loaded {rows} rows of {len(copied)} tables as version {loaded.version}; the file was held for {loaded.held_s:.3f} s")
