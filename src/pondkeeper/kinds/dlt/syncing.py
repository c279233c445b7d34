"""One run of a pipeline: what an earlier one has left is loaded first, then what is new is extracted and loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import requests

from pondkeeper.engine.shadow import Shadow
from pondkeeper.errors import (
    PondkeeperError,
    RunCancelled,
    RunFailed,
    SchemaDrifted,
    SnapshotNotFound,
    SourceUnavailable,
)
from pondkeeper.files.paths import Home
from pondkeeper.jobs import drift
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.dlt.counting import Counting
from pondkeeper.kinds.dlt.destination import destination_for
from pondkeeper.kinds.dlt.drift import Drift
from pondkeeper.kinds.dlt.packages import Packages
from pondkeeper.kinds.dlt.recording import Package, Recorder, joined
from pondkeeper.kinds.dlt.source import hide_secrets, source_of

STAGING = "_staging"
LONGEST_MESSAGE = 500
KEPT_LOAD_IDS = 100  # far more than a source has packages in one run: one for each of its schemas
UNREACHABLE = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, ConnectionError)
STATE_TABLES = {"_dlt_version": "true", "_dlt_loads": "true", "_dlt_pipeline_state": "pipeline_name = ?"}


class Sync:
    """The pipeline of a job, with a destination that loads through the warehouse."""

    def __init__(self, context: RunContext, folder: Path, dataset: str) -> None:
        self._context = context
        self._settings = context.settings
        self._folder = folder
        self._dataset = dataset
        self._name = context.plan.job.name
        self._home = Home(context.plan.home)
        self._drift = Drift(context.settings.drift, partial(drift.accepted, self._home, self._name), dataset)
        self._recorder = Recorder(Shadow(None, ()), context.staging, self._commit)
        hide_secrets(folder, context.secret)

    def run(self) -> None:
        """Do it. Raises PondkeeperError."""
        context = self._context
        context.phase(Phase.EXTRACTING, "looking at what was loaded before")
        try:
            pipeline = self._pipeline()
            packages = Packages(Path(pipeline.working_dir), context.home_of_job / "kept")
            packages.restore()
            self._look()
            pipeline.sync_destination()
            self._load_left(pipeline, packages)
            self._extract(pipeline)
            self._load(pipeline, packages)
        except Exception as error:  # Why: dlt and a source may raise anything; the run says what it was.
            raise self._told(error) from error
        finally:
            self._recorder.shadow.close()

    def _pipeline(self) -> Any:
        database = str(self._context.plan.database_file)
        return dlt.pipeline(
            pipeline_name=self._name,
            pipelines_dir=str(self._context.home_of_job / "pipelines"),
            destination=destination_for(self._recorder, self._drift, database),
            dataset_name=self._dataset,
            progress=Counting(self._context),
        )

    # What was there before

    def _look(self) -> None:
        """Begin with a shadow of what the newest snapshot shows."""
        self._context.warehouse.state()  # Why: it waits until the snapshot has what this job has written.
        try:
            source = self._context.warehouse.read()
        except SnapshotNotFound:  # nothing was ever written: there is nothing to be seen
            self._recorder.begin(Shadow(None, ()))
            return
        with closing(source):
            shadow = Shadow(source, (self._dataset, self._dataset + STAGING))
            for table, condition in STATE_TABLES.items():
                values = [self._name] if "?" in condition else []
                shadow.copy_rows(source, self._dataset, table, condition, *values)
            shadow.copy_rows(source, self._dataset + STAGING, "_dlt_version")
        self._recorder.begin(shadow)

    def _load_left(self, pipeline: Any, packages: Packages) -> None:
        """Load what an attempt that was cut short, or refused, has extracted already."""
        if pipeline.list_extracted_load_packages():
            self._context.say("An earlier attempt has extracted what is loaded first.")
            pipeline.normalize()
        if pipeline.list_normalized_load_packages():
            self._load(pipeline, packages)
            self._look()

    def _extract(self, pipeline: Any) -> None:
        self._context.phase(Phase.EXTRACTING, "extracting")
        settings = self._settings
        pipeline.activate()
        pipeline.extract(
            source_of(settings, self._folder),
            table_name=settings.table or None,
            write_disposition=settings.write_disposition or None,
            primary_key=list(settings.primary_key) or None,
            loader_file_format="parquet",
        )
        pipeline.normalize()

    # Loading

    def _load(self, pipeline: Any, packages: Packages) -> None:
        """Load all packages that are ready. Raises PondkeeperError, also as the cause of dlt's own error."""
        load_ids = pipeline.list_normalized_load_packages()
        if not load_ids:
            self._context.say("There is nothing new.")
            return
        packages.keep(load_ids)
        self._context.check_stopping()
        pipeline.load(workers=1)
        packages.forget()

    def _commit(self, package: Package) -> None:
        """Do all of one package in one transaction; of one that was committed before, nothing."""
        committed = list((self._context.warehouse.state() or {}).get("load_ids", ()))
        if package.load_id in committed:
            self._context.say(f"Package {package.load_id} was committed before.")
            return
        state = {"load_ids": [*committed, package.load_id][-KEPT_LOAD_IDS:]}
        loaded = self._context.warehouse.load(package.steps, identity=package.load_id, state=state)
        for (schema, table), size_bytes in package.sizes.items():
            if not table.startswith("_dlt_"):
                rows = loaded.rows.get(joined(schema, table), 0)
                self._context.table(f"{schema.removesuffix(STAGING)}.{table}", rows, size_bytes)
        self._context.detail(drift=self._drift.found)
        held = f"the database was held for {loaded.held_s:.3f} s"
        self._context.say(f"Package {package.load_id} is in version {loaded.version}; {held}.")

    # What went wrong

    def _told(self, error: BaseException) -> PondkeeperError:
        found = told(error)
        if isinstance(found, SchemaDrifted) and self._settings.drift == "ask":
            drift.ask(self._home, self._name, found)
        elif isinstance(found, SchemaDrifted):
            self._forget_extracted()
        return RunCancelled() if self._context.stopping.is_set() else found

    def _forget_extracted(self) -> None:
        """What a frozen schema refuses is not kept: the next run extracts anew, from where the last load came to."""
        for folder in ("pipelines", "kept"):
            shutil.rmtree(self._context.home_of_job / folder, ignore_errors=True)


def told(error: BaseException) -> PondkeeperError:
    """What ended the run, out of what dlt has wrapped around it."""
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, PondkeeperError):
            return each
        if isinstance(each, UNREACHABLE):
            return SourceUnavailable(f"The source cannot be reached: {_first_line(each)}")
    return RunFailed(f"{type(chain[-1]).__name__}: {_first_line(chain[-1])}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what was behind it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:LONGEST_MESSAGE]
