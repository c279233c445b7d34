"""A job of the kind `dlt`: extracted and normalised while nothing is held, loaded package by package in one transaction."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from pondkeeper.errors import ExtraMissing, JobInvalid
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.environment import set_by_job

QUIET: Final = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "WARNING",
    "RUNTIME__INTERCEPT_SIGNALS": "false",  # Why: the run has its own way to be told that it is to end.
    "LOAD__DELETE_COMPLETED_JOBS": "true",
    "LOAD__WORKERS": "1",  # Why: what is written down has one order; the database does it in one transaction.
}


def run(context: RunContext) -> None:
    """Bring what is new in the source into the database. Raises PondkeeperError."""
    settings = context.settings
    folder = Path(settings.folder) if settings.folder else context.plan.workdir
    dataset = settings.dataset or context.plan.job.name
    if dataset.lower() == context.plan.database_file.stem.lower():
        message = f"The schema {dataset!r} has the name of the database, which DuckDB cannot tell apart."
        raise JobInvalid(message, remedy='Name another schema: `dataset = "…"`.')
    _prepare(context, folder)
    try:
        import dlt  # noqa: F401
    except ImportError as error:
        remedy = "`pip install 'pondkeeper[dlt]'` into the keeper's environment."
        raise ExtraMissing("dlt is not installed.", remedy=remedy, private=str(error)) from error
    from pondkeeper.kinds.dlt.syncing import Sync

    Sync(context, folder, dataset).run()


def _prepare(context: RunContext, folder: Path) -> None:
    """The surroundings in which dlt looks for its settings. Why before its import: it reads some of them just then."""
    os.environ.update(QUIET | {"DLT_DATA_DIR": str(context.home_of_job)})
    os.environ.update(set_by_job(context, context.settings.environment))
    os.chdir(folder)
    sys.path.insert(0, str(folder))
