"""What keeps an archive good: versions are restored and checked, what need not be kept is removed."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from pondkeeper.archive.asking import ArchiveProcess, OnProgress
from pondkeeper.archive.place import Place
from pondkeeper.errors import PondkeeperError, WorkerDied
from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.paths import DatabasePaths, Home
from pondkeeper.settings import ArchiveSettings, Settings
from pondkeeper.workers.ceiling import Ceiling
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import ChildSpec, Template

CHECKING = "pondkeeper.archive.checking"
OOM_SCORE_ADJ = 700
_log = structlog.get_logger(__name__)


def _hush(done: int, of: int) -> None:
    """Progress that nobody wants to hear of."""


@dataclass(frozen=True)
class Verified:
    """The last verification of a database: of which version, when, and why it failed if it did.

    `good_at`: when one last went well, in seconds since 1970.
    """

    version: int | None
    at: str
    good_at: float | None
    tables: int = 0
    rows: int = 0
    problem: dict[str, Any] | None = None

    @property
    def is_good(self) -> bool:
        return self.problem is None

    def is_due(self, every_s: float) -> bool:
        """Whether it was so long ago. By the wall clock, since it outlives the keeper."""
        return abs(time.time() - datetime.fromisoformat(self.at).timestamp()) >= every_s

    def to_wire(self) -> dict[str, Any]:
        return {**asdict(self), "is_good": self.is_good}


class Upkeep:
    """Verifies and prunes, one thing at a time, in processes of their own: one with the archive, one with the engine."""

    def __init__(self, template: Template, place: Place, home: Home, settings: Settings) -> None:
        self._template = template
        self._settings = settings
        self._temp = home.temp / "verify"
        self._process = ArchiveProcess(template, "upkeep", place, (), (self._temp,))
        self._lock = asyncio.Lock()

    async def verify(self, paths: DatabasePaths, version: int | None, on_progress: OnProgress = _hush) -> dict[str, Any]:
        """Restore a version (the newest) beside everything else, check it, throw it away. Raises what is wrong with it."""
        async with self._lock:
            before = await asyncio.to_thread(read_verified, paths)
            good_at = before.good_at if before else None
            started = time.perf_counter()
            try:
                found = await self._restored_and_checked(paths, version, on_progress)
            except PondkeeperError as error:
                problem = error.to_wire()
                await asyncio.to_thread(_remember, paths, Verified(version, _now(), good_at, problem=problem))
                raise
            rows = sum(found["rows"].values())
            verified = Verified(found["version"], _now(), time.time(), found["tables"], rows)
            await asyncio.to_thread(_remember, paths, verified)
            return {"database": paths.name, **found, "elapsed_ms": (time.perf_counter() - started) * 1000}

    async def prune(self, *, dry_run: bool) -> dict[str, Any]:
        """Remove what the settings let go, of every database in the archive. Raises ArchiveBusy, ArchiveDamaged and others."""
        asked = {"op": "prune", "retention": retention_of(self._settings.archive), "dry_run": dry_run}
        answer = await self._process.ask(asked)
        return {name: value for name, value in answer.items() if name != "op"}

    async def _restored_and_checked(
        self, paths: DatabasePaths, version: int | None, on_progress: OnProgress
    ) -> dict[str, Any]:
        folder, file = self._temp / "restored", self._temp / "restored" / paths.file.name
        await asyncio.to_thread(_emptied, folder)
        try:
            wanted = {"op": "take_out", "database": paths.name, "version": version, "target": str(file)}
            made = await self._process.ask(wanted, on_progress)
            checked = await self._checked(str(file))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        kept = ("version", "created_at", "size_bytes", "blocks", "bytes_fetched")
        return {name: made[name] for name in kept} | {"tables": checked["tables"], "rows": checked["rows"]}

    async def _checked(self, file: str) -> dict[str, Any]:
        """What the engine makes of the file, in a process that reaches nothing else."""
        readers = self._settings.readers
        own = self._temp / "restored" / "temp"
        await asyncio.to_thread(make_folder, own)
        config = {
            "path": file,
            "memory_limit_bytes": readers.memory_limit_bytes,
            "threads": 1,
            "temp_directory": str(own),
            "temp_limit_bytes": readers.temp_limit_bytes,
        }
        limits = Ceiling(readers.memory_limit_bytes).rlimits
        child = await self._template.spawn(
            ChildSpec("checker", CHECKING, config, limits, OOM_SCORE_ADJ, Fence((str(own.parent),), (str(own),)))
        )
        return await _answer_of(child)

    async def stop(self) -> None:
        """End what runs; what it has half restored goes with the next start."""
        await self._process.stop()


async def _answer_of(child: Child) -> dict[str, Any]:
    try:
        answer = await child.next_frame()
    except ChildGone as gone:
        raise WorkerDied("The process that checked the restored file died over it.", status=gone.status) from gone
    finally:
        child.close()
        child.kill()
    assert isinstance(answer, dict)
    if answer["op"] == "error":
        raise PondkeeperError.from_wire({key: value for key, value in answer.items() if key != "op"})
    return answer


def retention_of(settings: ArchiveSettings) -> dict[str, float]:
    """What the settings say of keeping, as a Retention's fields."""
    return {
        "everything_s": settings.keep_all_s,
        "hourly_s": settings.keep_hourly_s,
        "daily_s": settings.keep_daily_s,
    }


def read_verified(paths: DatabasePaths) -> Verified | None:
    """The last verification of a database; None when there was none, or nothing is known of it."""
    try:
        return msgspec.json.decode(paths.archived_json.read_bytes(), type=Verified)
    except (OSError, msgspec.DecodeError):
        return None


def _remember(paths: DatabasePaths, verified: Verified) -> None:
    try:
        write_atomic(paths.archived_json, msgspec.json.encode(asdict(verified)))
    except OSError as error:  # Why: it was verified all the same; the next one writes it down.
        _log.warning("a verification could not be noted", database=paths.name, error=str(error))


def _emptied(folder: Any) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
