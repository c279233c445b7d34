"""Runs of change data capture for tests: in this process, one after the other, on one warehouse."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from pondkeeper.files.durable import make_folder
from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.definition import Job, Schedule
from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
from pondkeeper.jobs.plan import RunPlan
from pondkeeper.jobs.status import Phase, RunStatus
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.postgres.cdc.capturing import capture
from pondkeeper.kinds.steps import Run
from tests.support.keeper import wait_until
from tests.support.postgres import PostgresServer


@dataclass
class Sync:
    """A job with `mode = "cdc"` from one database of the server into one schema of a file, which a keeper may have."""

    server: PostgresServer
    source: str
    file: Path
    schema: str = "main"
    settings: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    runs: int = 0

    @property
    def job(self) -> str:
        return f"sync_{self.schema}"

    @property
    def home(self) -> Home:
        return Home(default_home(self.file))

    def run(self, **settings: Any) -> RunStatus:
        """Capture until the present end of the log."""
        with self._context(settings, schedule=None) as context:
            capture(context)
            context.warehouse.close()
        return context.status

    @contextmanager
    def following(self, **settings: Any) -> Iterator[RunContext]:
        """Capture beside the block, for ever; ended with it."""
        with self._context(settings, schedule=Schedule("always")) as context:
            thread = threading.Thread(target=self._until_ended, args=(context,), name="capture")
            thread.start()
            try:
                yield context
            finally:
                context.stopping.set()
                thread.join()

    def _until_ended(self, context: RunContext) -> None:
        try:
            capture(context)
        except Exception as error:  # the test asks for it
            self.said.append(f"ended: {error}")

    @contextmanager
    def _context(self, settings: dict[str, Any], schedule: Schedule | None) -> Iterator[RunContext]:
        self.runs += 1
        run_id = f"20261121T000000Z-{self.job}{self.runs:06d}"
        folder = self.home.run(run_id).folder
        make_folder(folder, durable=False)
        given = {"source": self.server.socket_url(self.source), "mode": "cdc", "tables": ["public.*"], "flush_every_s": 0.1, "schema": self.schema}
        kind = msgspec.convert(given | self.settings | settings, PostgresSettings)
        job = Job(self.job, "postgres", self.file.stem, kind, schedule)
        now = time.time()
        plan = RunPlan(run_id, job, 1, "manual", self.file, self.home.root, folder, now)
        status = RunStatus(run_id, self.job, "postgres", self.file.stem, Phase.RUNNING, 1, "manual", now, updated_at=now)
        context = RunContext(plan, status)
        context.say = self.said.append  # type: ignore[method-assign]
        try:
            yield context
        finally:
            context.close()

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """At the source."""
        return self.server.execute(sql, database=self.source)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """In the database, as it is after the last run."""
        with self._context({}, schedule=None) as context:
            context.warehouse.state()  # waits for the version that has the last load
            with context.warehouse.read() as connection:
                connection.execute(f"USE {self.schema}")
                return connection.execute(sql).fetchall()

    def differing(self, table: str = "t", columns: str = "*") -> tuple[Counter[Any], Counter[Any]]:
        """Rows that only the source has, and those that only the database has."""
        there, here = Counter(self.execute(f"SELECT {columns} FROM {table}")), Counter(self.rows(f"SELECT {columns} FROM {table}"))
        return there - here, here - there

    def state(self) -> dict[str, Any]:
        """What the job remembers in the database."""
        with self._context({}, schedule=None) as context:
            found = context.warehouse.state()
        assert found is not None
        return found

    def put_back(self, state: dict[str, Any], sql: str) -> None:
        """As a restore of the database would leave it: an older state, and the rows of then."""
        with self._context({}, schedule=None) as context:
            undo = Run(sql.format(schema=self.schema))
            context.warehouse.load([undo], identity=f"restored/{self.runs}", state=state)

    def slot(self) -> tuple[Any, ...]:
        """Name, whether it is active, what it has confirmed."""
        [row] = self.execute(
            f"SELECT slot_name, active, confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = '{self.source}'"
        )
        return row

    def drop_slot(self) -> None:
        """Drop the slot, as soon as nobody reads it."""
        wait_until(lambda: not self.slot()[1], what="an idle slot")
        self.execute(f"SELECT pg_drop_replication_slot('{self.slot()[0]}')")


NOTHING: tuple[Counter[Any], Counter[Any]] = (Counter(), Counter())
