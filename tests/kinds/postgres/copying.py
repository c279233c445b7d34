"""Jobs of the kind `postgres` for tests: a run in this process, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pondkeeper.files.paths import Home, default_home
from pondkeeper.jobs.definition import Job
from pondkeeper.jobs.kinds_settings import KINDS
from pondkeeper.jobs.launching import Launcher
from pondkeeper.jobs.plan import read_plan
from pondkeeper.jobs.status import RunStatus, status_in
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.postgres.run import run
from pondkeeper.local.reading import read
from pondkeeper.settings import Settings


@dataclass
class Shop:
    """A warehouse, and a source that its job copies from. `settings` are those of the job unless a call says otherwise."""

    file: Path
    source: str
    settings: dict[str, Any]
    name: str = "shop"
    version: int = 0

    def begin(self, **settings: Any) -> RunContext:
        """A run in this process, before its work; the caller ends and closes it."""
        home = Home(default_home(self.file))
        launcher = Launcher(home, Settings.load(home.settings_file, environment={}))
        given = {"source": self.source, **self.settings, **settings}
        job = Job(self.name, "postgres", self.file.stem, msgspec.convert(given, KINDS["postgres"]))
        paths = home.run(launcher.queue(job, self.file, "manual").run_id)
        status = status_in(paths.status_json)
        assert status is not None
        return RunContext(read_plan(paths.plan_json), status)

    def copy(self, **settings: Any) -> RunStatus:
        """Carry out one run; raises what it fails with."""
        context = self.begin(**settings)
        try:
            run(context)
        finally:
            self.end(context)
        return context.status

    def end(self, context: RunContext) -> None:
        """End what `begin` began."""
        context.end()
        context.close()
        self.version = max([self.version, *context.status.versions])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the database has since the last copy; in the schema of the job, where it has one."""
        with read(self.file, at_least=self.version) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if self.version and (schema := self.settings.get("schema")):
                connection.execute(f"SET schema = '{schema}'")
            return connection.execute(sql).fetchall()
