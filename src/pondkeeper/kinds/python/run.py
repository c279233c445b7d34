"""A run: the function is found, called with its context, interrupted when the run is to end; its batches are always written."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from pondkeeper.errors import JobInvalid, RunCancelled
from pondkeeper.jobs.kinds_settings.python import PythonSettings
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.environment import set_by_job
from pondkeeper.kinds.python.finding import function_of
from pondkeeper.kinds.python.job import JobContext

COOPERATION_S: Final = 5.0  # Why: half of what a run has by default between being asked to end and being killed


def run(context: RunContext) -> None:
    """Carry out the job's function. Raises PondkeeperError, and whatever the function raises."""
    settings: PythonSettings = context.settings
    context.phase(Phase.RUNNING)
    os.environ.update(set_by_job(context, settings.environment))
    folder = Path(settings.folder) if settings.folder else context.plan.workdir
    if not folder.is_dir():
        raise JobInvalid("The folder of the job is not there.", remedy="Correct `folder` of the job.", private=str(folder))
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    function = function_of(settings.function, folder)
    job = JobContext(context, settings.secrets)
    arguments = json.loads(settings.arguments or "{}")
    _refuse_arguments(function, job, arguments)
    try:
        with _interrupted_by(context.stopping):
            function(job, **arguments)
        job.refuse_unseen_failures()
    finally:
        job.flush()


def _refuse_arguments(function: Callable[..., Any], job: JobContext, arguments: Mapping[str, Any]) -> None:
    try:
        inspect.signature(function).bind(job, **arguments)
    except TypeError as error:
        name = getattr(function, "__name__", "the function")
        raise JobInvalid(f"{name} cannot be called with the context and the job's `arguments`: {error}.") from error


@contextmanager
def _interrupted_by(stopping: threading.Event) -> Iterator[None]:
    """RunCancelled in the main thread some seconds after `stopping` is set, unless the block has ended by then.

    Why by a signal: it ends a sleep and a wait for a socket too, as Ctrl-C would.
    """
    ended = threading.Event()
    main = threading.get_ident()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if not ended.is_set():
            ended.set()  # Why: what is done about the first one, such as a flush, must not be interrupted again.
            raise RunCancelled("The run was ended while its function was at work.")

    def watch() -> None:
        stopping.wait()
        if not ended.wait(COOPERATION_S):
            signal.pthread_kill(main, signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, interrupt)  # Why it stays: a signal that comes late must meet it, and not end the process
    threading.Thread(target=watch, name="interrupt", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
