"""One run of change data capture: what is not here yet is copied, then the log is followed, to its present end or for ever."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from pondkeeper.errors import SourceRefused
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.postgres.cdc.applying import Target
from pondkeeper.kinds.postgres.cdc.catalog import (
    LOST,
    LoggedTable,
    ensure_publication,
    log_position,
    refuse_unfit_server,
    refuse_unfit_tables,
    with_logs,
)
from pondkeeper.kinds.postgres.cdc.copying import copied, held_snapshot, remove
from pondkeeper.kinds.postgres.cdc.following import Follower, Progress
from pondkeeper.kinds.postgres.cdc.lsn import format_lsn
from pondkeeper.kinds.postgres.cdc.opening import (
    fitting,
    free_slot,
    give_up_slot,
    make_slot,
    publication_name,
    refuse_to_begin_anew,
    slot_name,
)
from pondkeeper.kinds.postgres.cdc.replication import ReplicationConnection
from pondkeeper.kinds.postgres.cdc.shaping import Shaping
from pondkeeper.kinds.postgres.cdc.state import Captured, Seen, State
from pondkeeper.kinds.postgres.cdc.watching import SlotWatch
from pondkeeper.kinds.postgres.connecting import Connection, connect, conninfo, patiently
from pondkeeper.kinds.postgres.describing import describe, full_name
from pondkeeper.kinds.postgres.planning import plan

if TYPE_CHECKING:
    from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
    from pondkeeper.kinds.context import RunContext
    from pondkeeper.kinds.steps import Drift

ALWAYS: Final = "always"
DESCRIBE_EVERY_S: Final = 60.0


class Capture:
    """The run of one job. Every session at the source begins with what the warehouse holds, whatever became of the last."""

    def __init__(self, context: RunContext, address: str) -> None:
        self._context = context
        self._settings: PostgresSettings = context.settings
        self._address = address
        self._warehouse = context.warehouse
        self._seen = Seen(context.home_of_job)
        self._progress = Progress()
        self._said: set[str] = set()
        schedule = context.plan.job.schedule
        self._is_endless = schedule is not None and schedule.text == ALWAYS
        self._without = {full_name(each.name): each.without for each in self._settings.table}

    def run(self) -> None:
        """Capture until all that is committed now is here, or, for a job that is always to run, until the run is ended."""
        patiently(self._context, self._settings.wait_for_source_s, self._session)

    def _session(self) -> None:
        with connect(self._address, self._settings) as connection:
            self._say_once(refuse_unfit_server(connection))
            tables = self._described(connection)
            state = self._opened(connection, tables)
            until: int | None = None
            while True:
                missing = [name for name in tables if name not in state.tables]
                if missing:
                    state = self._copied(connection, state, {name: tables[name] for name in missing})
                if until is None and not self._is_endless:
                    until = log_position(connection)
                shaping = self._shaping(connection, state, tables)
                state = self._followed(connection, state, shaping, until)
                if not shaping.to_copy:
                    return
                for name, reason in shaping.to_copy.items():
                    self._context.say(f"{name} is copied: {reason}")
                tables = self._described(connection)
                self._published(connection, tables)

    # What there is

    def _described(self, connection: Connection) -> dict[str, LoggedTable]:
        """The tables that the job wants. Raises SourceRefused for those that cannot be followed."""
        found = describe(connection, self._settings.tables, self._settings.exclude)
        tables = with_logs(connection, plan(self._settings, found))
        refuse_unfit_tables(tables)
        return tables

    def _published(self, connection: Connection, tables: Mapping[str, LoggedTable]) -> bool:
        """See that the publication has the tables. Whether it was there."""
        is_ours = not self._settings.publication
        return not ensure_publication(connection, self._publication, list(tables), is_ours=is_ours)

    def _say_once(self, text: str | None) -> None:
        if text and text not in self._said:
            self._said.add(text)
            self._context.say(text)

    def _opened(self, connection: Connection, tables: Mapping[str, LoggedTable]) -> State:
        """A slot and a state that fit each other; where there is nothing to go on with, both are begun."""
        settings, stored = self._settings, State.from_json(self._warehouse.state())
        own = slot_name(self._context.plan.job.name, str(self._context.plan.database_file))
        name = settings.slot or (stored.slot if stored else own)
        was_published = self._published(connection, tables)
        slot = free_slot(self._context, connection, name, connection.info.dbname)
        with ReplicationConnection(self._address, self._context.stopping) as replication:
            identity = replication.identify()
            fit = fitting(stored, slot, identity, self._seen, name=name, published=was_published)
            if fit.state is not None:
                return self._without_strangers(fit.state, tables)
            refuse_to_begin_anew(fit, settings.when_slot_lost)
            if fit.reason:
                self._context.say(f"the tables are copied again: {fit.reason}")
                self._context.detail(copied_again_because=fit.reason)
            if stored is None and slot is not None and was_published and slot.status != LOST:
                return State(identity.system, name, slot.confirmed, {})  # whoever made it, nothing of it is here yet
            position = make_slot(self._context, replication, connection, name)
        return State(identity.system, name, position, {})

    def _without_strangers(self, state: State, tables: Mapping[str, LoggedTable]) -> State:
        """The state without tables that the job does not name any more, and those that are not here: they would be copied.

        Committed at once, as from here on the source is told that their changes are not needed.
        """
        here = self._here()
        targets = {name: table.plan.target.replace('"', "").lower() for name, table in tables.items()}
        kept = {name: captured for name, captured in state.tables.items() if targets.get(name) in here}
        if len(kept) == len(state.tables):
            return state
        after = replace(state, tables=kept)
        identity = f"{self._context.plan.run_id}/{secrets.token_hex(4)}/tables"
        self._warehouse.load([], identity=identity, state=after.to_json())
        return after

    def _here(self) -> set[str]:
        """The tables of the database."""
        found = self._warehouse.query("SELECT table_schema, table_name FROM information_schema.tables")
        return {f"{schema}.{name}".lower() for schema, name in found}

    @property
    def _publication(self) -> str:
        return self._settings.publication or publication_name(self._context.plan.job.name)

    # What is done

    def _copied(self, connection: Connection, state: State, tables: Mapping[str, LoggedTable]) -> State:
        """The state with these tables in it, as they are at one position of the log."""
        context = self._context
        context.say(f"copying {', '.join(sorted(tables))}")
        context.phase(Phase.EXTRACTING, "copying tables")
        with held_snapshot(self._address, context.stopping) as new:
            copies = copied(context, self._settings, self._address, connection, new.snapshot, tables)
        columns = {name: tuple(each.column for each in table.columns) for name, table in tables.items()}
        joined = dict(state.tables) | {name: Captured(columns[name], new.position) for name in tables}
        after = state.moved(state.position, joined)
        loaded = context.warehouse.load(
            [copy.step(cast("Drift", self._settings.drift)) for copy in copies],
            identity=f"{state.slot}/copy/{format_lsn(new.position)}",
            state=after.to_json(),
        )
        for copy in copies:
            self._progress.rows[copy.to] = self._progress.rows.get(copy.to, 0) + loaded.rows.get(copy.to, 0)
            self._progress.sizes[copy.to] += copy.size_bytes
            context.table(copy.to, self._progress.rows[copy.to], self._progress.sizes[copy.to])
        remove(copies)
        return after

    def _shaping(self, connection: Connection, state: State, tables: Mapping[str, LoggedTable]) -> Shaping:
        def now(name: str) -> LoggedTable | None:
            return self._described(connection).get(name)

        shaping = Shaping(state.tables, tables, describe=now, without=self._without, drift=self._settings.drift)
        shaping.look(tables)
        return shaping

    def _followed(self, connection: Connection, state: State, shaping: Shaping, until: int | None) -> State:
        """The state at the end of what was followed."""
        if shaping.to_copy:
            return state.moved(state.position, shaping.captured())
        context, settings = self._context, self._settings
        watch = SlotWatch(context, connection, state.slot, settings.max_slot_lag_bytes)
        follower = Follower(
            context, state, self._seen, shaping, targets_of(settings, shaping), self._progress,
            flush_every_s=settings.flush_every_s, until=until,
        )  # fmt: skip
        described_at = time.monotonic()

        def look() -> None:
            nonlocal described_at
            watch.look()
            self._tell(watch, follower)
            if time.monotonic() - described_at >= DESCRIBE_EVERY_S:
                described_at = time.monotonic()
                shaping.look(self._described(connection))

        free_slot(context, connection, state.slot, connection.info.dbname)
        context.phase(Phase.RUNNING, "following the source's log")
        look()
        try:
            with ReplicationConnection(self._address, context.stopping) as replication:
                follower.follow(replication, self._publication, look)
        except SourceRefused:
            if watch.gave_up:
                give_up_slot(connection, state.slot)
            raise
        look()
        return follower.state.moved(follower.state.position, shaping.captured())

    def _tell(self, watch: SlotWatch, follower: Follower) -> None:
        """What the status shows of all this."""
        progress = self._progress
        gauges = {"slot_lag_bytes": watch.kept_bytes, "lag_s": follower.lag_s(), "load_lag_s": progress.load_lag_s}
        self._context.detail(
            mode="cdc",
            slot=follower.state.slot,
            position=format_lsn(follower.state.position),
            transactions=progress.transactions,
            changes=progress.changes,
            gauges=gauges,
        )


def targets_of(settings: PostgresSettings, shaping: Shaping) -> Callable[[str], Target]:
    """Where changes of a table go, by what the table is now."""

    def of(name: str) -> Target:
        planned = shaping.table(name).plan
        return Target(planned.target, {each.column: each for each in planned.columns}, cast("Drift", settings.drift))

    return of


def capture(context: RunContext) -> None:
    """Carry out a run of a job with `mode = "cdc"`."""
    Capture(context, conninfo(context.settings, context)).run()
