"""A run: what the query names is asked for by many workers at once, made durable in batches, and marked in the database."""

from __future__ import annotations

import contextlib
import errno
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pondkeeper.errors import DiskFull, JobInvalid, RunCancelled, RunFailed, SourceUnavailable
from pondkeeper.jobs.kinds_settings.download import DownloadSettings
from pondkeeper.jobs.secrets import reveal
from pondkeeper.jobs.status import Phase
from pondkeeper.kinds.batching import Batch
from pondkeeper.kinds.context import RunContext
from pondkeeper.kinds.download.asking import Asker, Certificates, Manners
from pondkeeper.kinds.download.fetching import Fetched, Fetcher
from pondkeeper.kinds.download.finishing import Finisher, Marker
from pondkeeper.kinds.download.line import UNREACHABLE_IN_A_ROW, Line
from pondkeeper.kinds.download.place import place_of
from pondkeeper.kinds.download.wanted import FAILURES, MARKS, Staged, stage
from pondkeeper.kinds.download.worker import Failure, Results, Worker

IN_FLIGHT_S: Final = 3.0
POLL_S: Final = 0.05
SAID: Final = 10


def run(context: RunContext) -> None:
    """Download what the query names, and mark it. Raises PondkeeperError."""
    settings: DownloadSettings = context.settings
    context.phase(Phase.EXTRACTING, "asking the database what to download")
    staged = _stage(context, settings)
    context.say(f"{staged.count:,} files to download")
    context.phase(Phase.EXTRACTING, "downloading")
    context.progress(0, staged.count, unit="files")
    _Downloads(context, settings, staged).carry_out()


def _stage(context: RunContext, settings: DownloadSettings) -> Staged:
    from pondkeeper.engine.faults import translated

    reserved = [*(MARKS if settings.mark else ()), *(FAILURES if settings.mark_failed else ())]
    connection = context.warehouse.read()
    with contextlib.closing(connection), translated():
        return stage(connection, settings.query, context.staging, reserved=reserved)


class _Downloads:
    """The files of one run, and what became of them."""

    def __init__(self, context: RunContext, settings: DownloadSettings, staged: Staged) -> None:
        self._context = context
        self._settings = settings
        self._staged = staged
        self._folder = Path(settings.folder)
        self._line = Line(iter(staged), requests_per_s=settings.requests_per_s)
        self._results = Results()
        self._finisher = Finisher(self._folder)
        self._marker = Marker(
            self._batch(settings.mark, "downloaded", MARKS), self._batch(settings.mark_failed, "failed", FAILURES), staged.columns
        )
        self._came: list[Fetched] = []
        self._oldest_at = 0.0
        self._downloaded = self._unchanged = self._failed = self._size_bytes = 0
        self._source_away = ""

    def _batch(self, sql: str, relation: str, more: Mapping[str, str]) -> Batch | None:
        if not sql.strip():
            return None
        plan, settings = self._context.plan, self._settings
        # Why a new one each time: another attempt has other rows in its first batch, and must not pass for this one.
        identity = f"{plan.run_id}/{plan.attempt}-{secrets.token_hex(4)}/{relation}"
        types = {**self._staged.columns, **more}
        execute = self._context.warehouse.execute
        return Batch(
            execute, sql, identity=identity, relation=relation, types=types, size=settings.batch, every_s=settings.flush_every_s
        )

    def carry_out(self) -> None:
        """Download everything; what has come is durable and marked also when this raises."""
        make_folder(self._folder)
        make = self._maker()
        workers = [
            Worker(self._line, make, self._place, self._results, self._settings.attempts)
            for _ in range(min(self._settings.workers, max(1, self._staged.count)))
        ]
        for worker in workers:
            worker.start()
        try:
            self._collect(workers)
        finally:
            self._line.close()
            try:
                for result in self._results.rest():  # what came while the end was decided counts, too
                    self._note(result)
                self._finish()
            finally:
                self._marker.close()
                self._finisher.close()
                self._tell()
        self._judge()

    def _maker(self) -> Callable[[], tuple[Fetcher, Callable[[], None]]]:
        """What makes the fetcher of a worker, with connections of its own."""
        settings, context = self._settings, self._context
        authorization = reveal(settings.authorization) if settings.authorization else ""
        if authorization:
            context.secret(authorization)
        if not authorization.isascii() or not (authorization == "" or authorization.isprintable()):
            raise JobInvalid("What `authorization` names is no header: one line of plain text was expected.")
        manners = Manners(settings.headers, authorization, settings.hosts, settings.request_timeout_s)
        tls = Certificates()

        def make() -> tuple[Fetcher, Callable[[], None]]:
            asker = Asker(manners, tls)
            fetcher = Fetcher(
                asker, existing=settings.existing, max_file_bytes=settings.max_file_bytes, stopping=context.stopping
            )
            return fetcher, asker.close

        return make

    def _place(self, wanted: Any) -> Any:
        return place_of(self._folder, wanted.file, self._context.plan.job.name)

    def _collect(self, workers: Sequence[Worker]) -> None:
        """Take what the workers bring, until all have ended, or the run is to end and they had their time for what is under way."""
        give_up_at: float | None = None
        working = True
        while working:
            if self._context.stopping.is_set():
                self._line.close()
                give_up_at = give_up_at or time.monotonic() + IN_FLIGHT_S
                if time.monotonic() >= give_up_at:
                    return
            working = any(worker.is_working for worker in workers)
            for result in self._results.take(POLL_S if working else 0.0):
                self._note(result)
            self._context.progress(self._downloaded + self._unchanged + self._failed, self._staged.count, unit="files")
            if self._came and self._is_due():
                self._finish()

    def _note(self, result: Fetched | Failure) -> None:
        if isinstance(result, Failure):
            self._note_failure(result)
        else:
            self._downloaded += result.changed
            self._unchanged += not result.changed
            self._size_bytes += result.size_bytes if result.changed else 0
            if not self._came:
                self._oldest_at = time.monotonic()
            self._came.append(result)

    def _note_failure(self, failure: Failure) -> None:
        self._failed += 1
        if self._failed <= SAID:
            again = f", {failure.attempts} attempts" if failure.attempts > 1 else ""
            self._context.say(f"{failure.wanted.file!r}: {failure.trouble.message}{again}")
        elif self._failed == SAID + 1:
            self._context.say("…further failures are counted, and not said one by one")
        # Why not in the database: nothing is known about a file whose server was away.
        if failure.trouble.unreachable:
            self._source_away = failure.trouble.message
        else:
            self._marker.failed(failure.wanted, failure.trouble, failure.attempts)

    def _is_due(self) -> bool:
        old = time.monotonic() - self._oldest_at >= self._settings.flush_every_s
        return old or len(self._came) >= self._settings.batch

    def _finish(self) -> None:
        """Make what has come durable, and have it marked."""
        came, self._came = self._came, []
        if came:
            try:
                self._finisher.finish(came)
            except OSError as error:
                raise _of_disk(error) from error
            self._marker.came(came)
            self._tell()

    def _tell(self) -> None:
        self._context.table("files", self._downloaded, self._size_bytes)
        self._context.detail(
            downloaded=self._downloaded, unchanged=self._unchanged, failed=self._failed, marked=self._marker.marked
        )

    def _judge(self) -> None:
        """Raise what the run has failed with, if it has."""
        context, done = self._context, self._downloaded + self._unchanged
        context.say(f"{self._downloaded:,} downloaded, {self._unchanged:,} unchanged, {self._failed:,} failed")
        if self._line.found_nobody:
            raise SourceUnavailable(f"{UNREACHABLE_IN_A_ROW} files in a row could not be had: {self._source_away}.")
        if context.stopping.is_set() and done + self._failed < self._staged.count:
            raise RunCancelled(f"{done:,} of {self._staged.count:,} files have come; the next run goes on from there.")
        if self._failed > self._settings.max_failed:
            raise RunFailed(
                f"{self._failed:,} of {self._staged.count:,} files could not be downloaded.",
                remedy="The run's log names them; the next run asks for them again. `max_failed` allows some, `mark_failed` notes them.",
            )


def make_folder(folder: Path) -> None:
    """Make the folder, if it is missing. Raises JobInvalid."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobInvalid(f"The folder of the job cannot be made: {error.strerror}.", private=str(error)) from error


def _of_disk(error: BaseException) -> BaseException:
    """What a worker met that is not the trouble of one file."""
    if not isinstance(error, OSError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk with the job's folder is full; what was downloaded is kept.", private=str(error))
    return RunFailed(f"The job's folder cannot be written: {error.strerror}.", private=str(error))
