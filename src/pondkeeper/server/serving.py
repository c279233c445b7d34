"""The keeper as a process: what starts in which order, and how it stops. Behind `pondkeeper serve`."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
import uvloop

from pondkeeper import __version__
from pondkeeper.access.audit import Audit, recorder_of_repairs
from pondkeeper.access.keyring import Keyring
from pondkeeper.archive.desk import ArchiverDesk
from pondkeeper.archive.place import place_of
from pondkeeper.archive.replica.feed import BesideArchive, Feed
from pondkeeper.archive.replica.keeper import ReplicaKeeper
from pondkeeper.databases.registry import Registry, database_files
from pondkeeper.errors import DatabaseReadOnly, KeeperRunning
from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.locks import FlockFile
from pondkeeper.jobs.desk import JobsDesk
from pondkeeper.server.allocator import keep_freed_memory
from pondkeeper.server.app import create_app
from pondkeeper.server.http_server import HttpServer
from pondkeeper.server.last_resort import LastResort
from pondkeeper.server.listening import listen_control, listen_tcp
from pondkeeper.server.narration import narrate
from pondkeeper.server.pipelines import Pipelines
from pondkeeper.server.tls import tls_context
from pondkeeper.settings import Settings, resolve, this_machine
from pondkeeper.workers import slices

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from pondkeeper.archive.replica.following import Source
    from pondkeeper.files.paths import Home

LEAST_CLOSING_S = 1.0
COLLECTED_AFTER = (700, 10, 10)  # Python's own; while a command imports its modules they are larger
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = structlog.get_logger(__name__)


def serve(path: Path, home: Home, settings: Settings, source: Source | None = None) -> int:
    """Keep the database at `path` (or those in the folder) until SIGTERM or SIGINT; with a `source`, replicas of what that has.

    Raises PondkeeperError at the start.
    """
    narration = narrate(settings.log)
    slices.ask_for(os.getpid(), slices.SHORT_S)  # Why here: the children inherit it.
    keep_freed_memory()
    try:
        uvloop.run(Keeper(path, home, settings, source).run())
    finally:
        narration.close()
    return 0


class Keeper:
    """One keeper, from its first lock to its last.

    Start: the home's lock, the databases' claims and children, the keys, the sockets, and at last the signs of it.
    Stop: the other way round, each step also when one before it failed.
    """

    def __init__(self, path: Path, home: Home, settings: Settings, source: Source | None = None) -> None:
        machine = this_machine()
        self._path = path
        self._home = home
        self._settings = resolve(settings, machine.cpus, machine.ram_bytes)
        self._replicas = None if source is None else ReplicaKeeper(path, home, source, self._settings)
        self._stopping = asyncio.Event()
        self._server: HttpServer | None = None
        self._pipelines: Pipelines | None = None
        self._jobs: JobsDesk | None = None
        self._last_resort: LastResort | None = None
        self._stop_by = 0.0
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    async def run(self) -> None:
        """Start, serve until told to stop, stop."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        self._last_resort = LastResort(loop)
        async with AsyncExitStack() as steps:
            await self._start(steps)
            _collect_only_what_is_new()
            await self._stopping.wait()
            _log.info("stopping", grace_s=self._settings.server.grace_s)
        _log.info("stopped")

    def stop(self) -> None:
        """Begin to stop; told again, let nothing finish any more."""
        grace_s = 0.0 if self._stopping.is_set() else self._settings.server.grace_s
        self._stop_by = time.monotonic() + grace_s
        if self._last_resort is not None:
            self._last_resort.arm(grace_s + self._runs_end_in_s)
        if self._stopping.is_set() and self._server is not None:
            self._server.hurry()
        if self._stopping.is_set() and self._pipelines is not None:
            self._pipelines.hurry()
        self._stopping.set()

    def hang_up(self) -> None:
        """Read the jobs again; or stop, when the terminal that we were started in has gone."""
        if sys.stderr.isatty():
            self.stop()
        elif self._jobs is not None:
            self._jobs.clock.read_again()

    @property
    def _runs_end_in_s(self) -> float:
        """How long runs may take to end with us; 0 where they go on without us."""
        return self._settings.runs.kill_after_s if self._settings.runs.when_keeper_dies == "end" else 0.0

    @property
    def _grace_left_s(self) -> float:
        return max(0.0, self._stop_by - time.monotonic())

    async def _start(self, steps: AsyncExitStack) -> None:
        lock = steps.enter_context(await asyncio.to_thread(_lock_home, self._home))
        assert lock.held
        tls = await asyncio.to_thread(tls_context, self._settings.server)
        archiver = await asyncio.to_thread(self._make_archiver)
        feed = Feed()
        attach = BesideArchive(archiver, feed).attach
        if self._replicas is None:
            registry = Registry(database_files(self._path), self._home, self._settings, attach)
        else:
            files = await asyncio.to_thread(self._replicas.prepare)
            registry = Registry(files, self._home, self._settings, attach, self._replicas.make)
        await registry.start()
        steps.push_async_callback(self._stop_registry, registry)
        keys = await Keyring.open(self._home.control_db)
        steps.push_async_callback(keys.close)
        audit = await self._open_audit(steps)
        registry.running.repairs.listen(recorder_of_repairs(audit))
        self._jobs = jobs = await self._open_jobs(registry, steps)
        app = create_app(registry, registry.running, keys, self._settings, audit, archiver, feed, self._replicas, jobs)
        self._server, self._pipelines = HttpServer(app, tls=tls), Pipelines(app.context)
        sockets = listen_tcp(self._settings.server.host, self._settings.server.port)
        steps.push_async_callback(self._stop_doors, self._server, self._pipelines)
        await self._server.start(sockets, listen_control(self._home.socket))
        await self._pipelines.start(listen_control(self._home.pipeline_socket))
        steps.callback(_take_away, self._home.socket, self._home.pipeline_socket, self._home.keeper_json)
        url = _url(self._settings.server.host, sockets[0], tls is not None)
        await self._announce(registry, keys, url)
        if jobs is not None:
            await jobs.start()  # Why after the doors: runs that go on may wait for them.
        registry.on_added = lambda: self._sign(registry, url)
        if self._replicas is not None:
            registry.watch(self._replicas.watch(registry))
        elif self._path.is_dir():
            registry.watch_folder(self._path)

    def _make_archiver(self) -> ArchiverDesk:
        """The desk of the archive, which notes where that is for commands without a keeper. Raises SettingInvalid."""
        place = place_of(self._settings.archive, self._home)
        if self._settings.archive.to:
            place.note(self._home)
        return ArchiverDesk(self._settings, place, self._home)

    async def _open_jobs(self, registry: Registry, steps: AsyncExitStack) -> JobsDesk | None:
        """The desk of the jobs, which starts nothing before `start`; None on a keeper of replicas, which writes nothing."""
        if self._replicas is not None:
            return None

        def files() -> dict[str, Path]:
            return {database.name: database.paths.file for database in registry.all()}

        desk = await JobsDesk.open(self._home, self._settings, files, registry.running.events.emit)
        steps.push_async_callback(desk.stop)
        return desk

    async def _open_audit(self, steps: AsyncExitStack) -> Audit | None:
        """The audit, which ends after the last request has; None where it is switched off."""
        if self._settings.audit.mode == "off":
            return None
        audit = await asyncio.to_thread(Audit.open, self._home.audit, self._settings.audit)
        steps.push_async_callback(asyncio.to_thread, audit.close)
        return audit

    async def _announce(self, registry: Registry, keys: Keyring, url: str) -> None:
        note = await self._sign(registry, url)
        token = await keys.ensure_admin_key()
        sys.stderr.write(_welcome(url, list(note["databases"]), token))
        sys.stderr.flush()
        # Why after the welcome: the log is written by a thread, and would fall into the midst of it.
        _log.info("serving", url=url, databases=list(note["databases"]), home=str(self._home.root))

    async def _sign(self, registry: Registry, url: str) -> dict[str, Any]:
        """Say on disk who we are and what we have."""
        note = _note(url, {database.name: str(database.paths.file) for database in registry.all()}, self._started_at)
        await asyncio.to_thread(write_atomic, self._home.keeper_json, msgspec.json.encode(note))
        await asyncio.to_thread(registry.sign, url)
        return note

    async def _stop_doors(self, server: HttpServer, pipelines: Pipelines) -> None:
        await asyncio.gather(server.stop(self._grace_left_s), pipelines.stop(self._grace_left_s))

    async def _stop_registry(self, registry: Registry) -> None:
        await registry.stop(max(LEAST_CLOSING_S, self._grace_left_s))


def _collect_only_what_is_new() -> None:
    """What is there after the start stays: no look of the garbage collector goes through it again, which stopped all for 50 ms."""
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


def _lock_home(home: Home) -> FlockFile:
    """The lock of the home. Raises KeeperRunning or DatabaseReadOnly."""
    try:
        make_folder(home.root)
        lock = FlockFile(home.keeper_lock)
        if lock.try_acquire():
            return lock
    except OSError as error:
        raise DatabaseReadOnly("The keeper's home cannot be written.", private=str(error)) from error
    note = _read_note(home)
    who = f"pid {note.get('pid', 'unknown')}, {note.get('url', 'starting')}"
    raise KeeperRunning(f"A keeper has this home already ({who}).", **note)


def _read_note(home: Home) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(home.keeper_json.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
    return {name: said[name] for name in ("pid", "url") if name in said}


def _note(url: str, databases: dict[str, str], started_at: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "started_at": started_at, "url": url, "version": __version__, "databases": databases}


def _take_away(*files: Path) -> None:
    for file in files:
        with suppress(FileNotFoundError):
            file.unlink()


def _url(host: str, listening: socket.socket, is_tls: bool) -> str:
    """Where clients on this machine find it."""
    port = listening.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  # Why: compared with, not listened on
    return f"http{'s' if is_tls else ''}://{name}:{port}"


def _welcome(url: str, databases: list[str], token: str | None) -> str:
    """What a person at the terminal wants to know; the token is written here and nowhere else."""
    lines = [f"Pondkeeper {__version__} serves {', '.join(databases) or 'nothing yet'} at {url}"]
    if token is not None:
        lines += ["", f"Admin key, shown only now: {token}", ""]
        lines += [f"  curl {url}/v1/databases -H 'Authorization: Bearer {token}'"]
    return "\n".join(["", *lines, "", ""])
