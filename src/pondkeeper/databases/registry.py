"""The registry: which databases this keeper has, and the children that all of them share."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from pondkeeper.databases.archiving import MakeArchiving, NoArchive
from pondkeeper.databases.arrivals import Arrivals
from pondkeeper.databases.database import Database
from pondkeeper.databases.fencing import folders, of_copier, of_reader
from pondkeeper.databases.judging import ENTRY as JUDGE
from pondkeeper.databases.judging import judge_engine
from pondkeeper.databases.repairing import ENTRY as REPAIRER
from pondkeeper.databases.replacing import end_swaps
from pondkeeper.databases.running import RunningQueries
from pondkeeper.databases.sweeping import sweep
from pondkeeper.errors import DatabaseNotFound, DatabaseReadOnly, InvalidRequest, KeeperRunning
from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import SUFFIX, DatabasePaths, Home, is_database_name
from pondkeeper.readers.asking import PoolLimits
from pondkeeper.readers.pool import ENTRY as READER
from pondkeeper.readers.pool import Pool
from pondkeeper.readers.reader import Resources
from pondkeeper.settings import Settings
from pondkeeper.snapshots.desk import ENTRY as COPIER
from pondkeeper.snapshots.desk import CopierDesk
from pondkeeper.staging.desk import ENTRY as STAGER
from pondkeeper.staging.desk import StagerLimits, StagingDesk
from pondkeeper.workers.side_tasks import SideTasks
from pondkeeper.workers.spawning import Template
from pondkeeper.writer.desk import ENTRY as WRITER

FIRST_SNAPSHOT_S = 30.0
LEAST_ARCHIVING_S = 1.0
PRELOADING = "pondkeeper.engine.preloading"  # first: it keeps the libraries from starting threads
_log = structlog.get_logger(__name__)


def database_files(path: Path) -> list[Path]:
    """The database files that `serve PATH` means: the file itself, or those in the folder. Raises InvalidRequest."""
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if files == [path] and path.suffix != SUFFIX and not path.exists():
        # Why not made: it is more likely a folder that was mistyped.
        raise InvalidRequest(
            f"There is no {path.name!r}.", remedy=f"A database that is to be made has a name that ends in {SUFFIX}."
        )
    for file in files:
        if not is_database_name(file.stem):
            raise InvalidRequest(
                f"{file.name!r} cannot be served: its name must be letters, digits, '_', '-' and '.' only.",
                remedy="Rename the file.",
            )
    return files


class Registry:
    """The databases by name, with the template and the readers that they share."""

    def __init__(
        self,
        files: Iterable[Path],
        home: Home,
        settings: Settings,
        make_archiving: MakeArchiving = lambda template, events: NoArchive(),
        make_database: Callable[..., Database] = Database,
    ) -> None:
        self.home = home
        self._make_database = make_database
        self.on_added: Callable[[], Awaitable[object]] | None = None
        self.running = RunningQueries()
        self._settings = settings
        paths = [home.database(file) for file in files]
        self._template = Template([PRELOADING, READER, JUDGE, WRITER, COPIER, STAGER, REPAIRER], settings.fence.mode)
        self.pool = Pool(self._template, _pool_limits(settings), home.temp, {each.name: of_reader(each) for each in paths})
        self._copier = CopierDesk(self._template, of_copier)
        self._stagers = StagingDesk(self._template, _stager_limits(settings), home.temp)
        self.archiving = make_archiving(self._template, self.running.events)
        self._claims: list[FlockFile] = []
        self._databases: dict[str, Database] = {}
        self._tasks = SideTasks()
        for of_one in paths:
            self._databases[of_one.name] = self._made(of_one)

    def _made(self, paths: DatabasePaths) -> Database:
        return self._make_database(
            paths, self._settings, self._template, self.pool, self._copier, self.running, self._stagers, self.archiving
        )

    # Life

    async def start(self) -> None:
        """Claim every database, fork the readers, begin to serve. Raises KeeperRunning, DatabaseReadOnly, FenceMissing or EngineUnjudged."""
        await asyncio.to_thread(self._claim)
        self._tasks.start(asyncio.to_thread(sweep, self.home, [database.paths for database in self.all()]))
        try:
            await self.archiving.start([database.paths for database in self.all()])
            judging = judge_engine(self._template, self._settings.fence.mode)
            await asyncio.gather(judging, self.pool.start(), *(database.start() for database in self.all()))
        except BaseException:  # Why: a start that failed must leave no children and no claims behind.
            await self.stop(0.0)
            raise

    def _claim(self) -> None:
        for database in self.all():
            self._claims.append(_claimed(database.paths))
        shutil.rmtree(self.home.temp, ignore_errors=True)  # left behind by a keeper that was killed
        make_folder(self.home.temp)

    # Databases that come later

    def watch(self, watching: Coroutine[Any, Any, None]) -> None:
        """Let somebody look for databases that come, until we stop."""
        self._tasks.start(watching)

    def watch_folder(self, folder: Path) -> None:
        """Serve also the database files that come into this folder from now on."""
        self.watch(Arrivals(folder, self._databases, self.add).watch())

    async def add(self, file: Path) -> None:
        """Serve one more database. Raises KeeperRunning or DatabaseReadOnly."""
        paths = self.home.database(file)
        claim = await asyncio.to_thread(_claimed, paths)
        database = self._made(paths)
        try:
            self.pool.admit(paths.name, of_reader(paths))
            await self.archiving.start([*(each.paths for each in self.all()), paths])
            await database.start()
            # Why served only then: until its first snapshot it would make the whole keeper look as if it were starting.
            await database.is_judged_within(FIRST_SNAPSHOT_S)
        except BaseException:  # Why: whatever kept it from being served, it is tried again, and by others.
            if database.is_started:
                await database.stop(0.0)
            claim.release()
            raise
        self._claims.append(claim)
        self._databases[database.name] = database
        _log.info("a database has come into the folder", database=database.name)
        if self.on_added is not None:
            await self.on_added()

    async def replace(self, name: str) -> None:
        """Make a database anew, because it has become another kind; reads go on from the old one until then."""
        database = self._made(self.get(name).paths)
        await database.start()
        self._databases[name] = database

    def sign(self, url: str) -> None:
        """Say beside each claim who has it, for the keeper that is refused because of it."""
        for database in self.all():
            note = {"pid": os.getpid(), "url": url, "home": str(self.home.root)}
            write_atomic(database.paths.claim_json, msgspec.json.encode(note))

    async def stop(self, grace_s: float) -> None:
        """Let what runs end within the grace, close the files in order, end the children, give the claims back."""
        deadline = time.monotonic() + grace_s
        await self._tasks.end()
        await asyncio.gather(*(database.stop(grace_s) for database in self.all() if database.is_started))
        await self.pool.stop()
        await self._copier.stop()
        await self._stagers.stop()
        await self.archiving.stop(max(LEAST_ARCHIVING_S, deadline - time.monotonic()))
        await self._template.stop()
        for claim in self._claims:
            claim.release()
        self._claims.clear()

    # Databases

    def all(self) -> list[Database]:
        """Every database, by name."""
        return [self._databases[name] for name in sorted(self._databases)]

    def get(self, name: str | None) -> Database:
        """The database of that name; None means the only one. Raises DatabaseNotFound."""
        if name is None:
            return self._only()
        try:
            return self._databases[name]
        except KeyError:
            raise DatabaseNotFound(f"There is no database {name!r} here.") from None

    def _only(self) -> Database:
        if not self._databases:
            message = "This keeper has no database: there is no .duckdb file in its folder."
            raise DatabaseNotFound(message, remedy="Put one there: it is served within seconds.")
        if len(self._databases) != 1:
            message = f"This keeper has {len(self._databases)} databases; the request must name one."
            raise DatabaseNotFound(message, remedy="Use /v1/databases/{name}/…; GET /v1/databases lists the names.")
        return next(iter(self._databases.values()))


def _claimed(paths: DatabasePaths) -> FlockFile:
    """The claim on a database, with its folders. Raises KeeperRunning or DatabaseReadOnly."""
    try:
        make_folder(paths.turn)
        claim = FlockFile(paths.claim_lock)
        if not claim.try_acquire():
            raise _served_by_another(paths)
        end_swaps(paths)
        for folder in folders(paths):
            make_folder(folder)
    except OSError as error:
        message = f"The folder of database {paths.name!r} cannot be written."
        raise DatabaseReadOnly(message, private=str(error)) from error
    return claim


def _served_by_another(paths: DatabasePaths) -> KeeperRunning:
    try:
        note = msgspec.json.decode(paths.claim_json.read_bytes(), type=dict)
    except (FileNotFoundError, msgspec.DecodeError):
        note = {}
    who = f"the keeper with pid {note.get('pid', 'unknown')} at {note.get('url', 'an unknown address')}"
    return KeeperRunning(f"Database {paths.name!r} is served by {who} already.", **note)


def _pool_limits(settings: Settings) -> PoolLimits:
    readers = settings.readers
    return PoolLimits(
        count=readers.count,
        resources=Resources(readers.memory_limit_bytes, readers.threads),
        temp_limit_bytes=readers.temp_limit_bytes,
        wait_s=readers.wait_s,
        max_waiting=readers.max_waiting,
        kill_after_s=readers.kill_after_s,
    )


def _stager_limits(settings: Settings) -> StagerLimits:
    ingest = settings.ingest
    return StagerLimits(
        count=ingest.stagers,
        memory_limit_bytes=ingest.memory_limit_bytes,
        threads=ingest.threads,
        temp_limit_bytes=ingest.temp_limit_bytes,
    )
