"""The follower process of a replica: asks for the next version, puts it together, tells the keeper; until it is killed.

It says, one message each:

    {"op": "whole", "snapshot"}          the newest snapshot of an earlier process, proved; None when there is none
    {"op": "published", "snapshot", "as_of", "lineage"}
    {"op": "current", "as_of"}           at that time (this machine's monotonic clock) what we have was the newest
    {"op": "problem", "error"}           it could not be asked or fetched; it is tried again
    {"op": "damaged", "version"}         a snapshot here is not what it was, and was removed

and gets one, at the beginning: its `Config`. It ends when the keeper does, or kills it. It runs no SQL, and is the only child with a network.
"""

from __future__ import annotations

import os
import queue
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from pondkeeper.archive.lineage import adopt_lineage
from pondkeeper.archive.manifest import Manifest
from pondkeeper.archive.replica.assembling import Assembler, Cost, Have
from pondkeeper.archive.replica.origin import (
    ArchiveOrigin,
    Keeper,
    KeeperOrigin,
    Offered,
    Origin,
    Superseded,
    open_to_read,
)
from pondkeeper.errors import PondkeeperError, ReplicaDiverged
from pondkeeper.files.leases import ignore_lease_signals
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.manifest import read_manifest
from pondkeeper.workers.frames import Pipe

POLL_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.1
MOST_PAUSE_S: Final = 5.0
IDLE_PAUSE_S: Final = 0.05

Say = Callable[[dict[str, Any]], None]


class Config(msgspec.Struct):
    """What to follow, and where to put it. `url`: a keeper; `archive`: a folder or a bucket."""

    file: str
    home: str
    keep: int
    interval_s: float
    replica: str
    url: str = ""
    key: str | None = None
    ca_file: str | None = None
    archive: str = ""
    archive_key_file: str = ""
    environment: dict[str, str] = {}


class Follower:
    """One database: what it has, what its origin has, and the way from one to the other."""

    def __init__(self, config: Config, say: Say, ends: ExitStack) -> None:
        self._config = config
        self._paths = DatabasePaths(Path(config.file), Path(config.home))
        self._say = say
        self._ends = ends
        self._assembler = Assembler(self._paths, config.keep)
        self._lineage = ""
        self._offers: queue.SimpleQueue[Offered | PondkeeperError] = queue.SimpleQueue()
        self._may_ask = threading.Event()

    def run(self) -> None:
        """Follow for ever."""
        have = self._assembler.recover(lambda version: self._say({"op": "damaged", "version": version}))
        if have is not None:
            self._lineage = have.manifest.lineage
            adopt_lineage(self._paths, self._lineage)
        self._say({"op": "whole", "snapshot": None if have is None else _described(have, Cost())})
        source = self._origin()
        threading.Thread(target=self._ask, args=(self._origin(),), name="asking", daemon=True).start()
        pause_s = FIRST_PAUSE_S
        self._may_ask.set()
        while True:
            offered = self._next()
            try:
                if isinstance(offered, PondkeeperError):
                    raise offered
                self._take(offered, source)
                pause_s = FIRST_PAUSE_S
            except Superseded:
                pass  # a newer version is there, and will be offered
            except (PondkeeperError, OSError) as error:
                self._tell(error)
                time.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, MOST_PAUSE_S)
            self._may_ask.set()

    def _origin(self) -> Origin:
        config, name = self._config, self._paths.name
        if config.url:
            keeper = Keeper(config.url, config.key, config.replica, config.ca_file)
            return KeeperOrigin(keeper, name)
        return ArchiveOrigin(self._ends.enter_context(open_to_read(config.archive, config.archive_key_file)), name)

    def _ask(self, origin: Origin) -> None:
        """In a thread of its own, so that what comes next is prepared meanwhile. Asks only when the last answer is dealt with:
        by asking we say what we have, and let go of what we were fetching."""
        asked_at = 0.0
        while True:
            self._may_ask.wait()
            self._may_ask.clear()
            time.sleep(max(0.0, asked_at + self._config.interval_s - time.monotonic()))
            asked_at = time.monotonic()
            have = self._assembler.have
            try:
                self._offers.put(origin.offer(have.version if have else 0, self._lineage, POLL_S))
            except PondkeeperError as error:
                self._offers.put(error)
            except Exception as error:  # noqa: BLE001  Why: a thread that dies unnoticed would leave the replica behind for ever
                self._offers.put(PondkeeperError(private=repr(error)))

    def _next(self) -> Offered | PondkeeperError:
        """The next answer; while there is none, prepare the next version, at half speed."""
        pause_s, prepares = 0.0, True
        while prepares:
            try:
                return self._offers.get(timeout=pause_s) if pause_s else self._offers.get_nowait()
            except queue.Empty:
                began_at = time.perf_counter()
                prepares = self._assembler.idle_step()
                pause_s = max(0.001, min(time.perf_counter() - began_at, IDLE_PAUSE_S))
        return self._offers.get()

    def _take(self, offered: Offered, source: Origin) -> None:
        manifest, have = offered.manifest, self._assembler.have
        if manifest is None:
            self._say({"op": "current", "as_of": offered.as_of})
            return
        if have is not None and manifest.version <= have.version:
            self._check_same(manifest, have)
            self._say({"op": "current", "as_of": offered.as_of})
            return
        cost = self._assembler.bring(manifest, source)
        if manifest.lineage != self._lineage:
            adopt_lineage(self._paths, manifest.lineage)
            self._lineage = manifest.lineage
        assert self._assembler.have is not None
        self._say(
            {
                "op": "published",
                "snapshot": _described(self._assembler.have, cost),
                "as_of": offered.as_of,
                "lineage": self._lineage,
            }
        )

    def _check_same(self, manifest: Manifest, have: Have) -> None:
        """Whether there is nothing newer, and not another history. Raises ReplicaDiverged."""
        # Why whatever its lineage: a restore or a promotion begins one a moment before its first version.
        if manifest.version == have.version and manifest.pages == have.manifest.pages:
            return
        if manifest.lineage == self._lineage and manifest.version < have.version and self._config.archive:
            return  # Why: an archive that was pruned, or moved to an older copy of itself, may be behind us for a while.
        raise ReplicaDiverged(
            f"The primary's version {manifest.version} is of another history than ours, which has version {have.version}.",
            version=manifest.version,
        )

    def _tell(self, error: PondkeeperError | OSError) -> None:
        told = error if isinstance(error, PondkeeperError) else PondkeeperError(private=repr(error))
        self._say({"op": "problem", "error": told.to_wire(with_private=True)})


def _described(have: Have, cost: Cost) -> dict[str, Any]:
    """The newest snapshot as the keeper's `SnapshotInfo` and `Publication` know it."""
    folder = have.path.parent
    kept = read_manifest(folder)
    return {
        "version": have.version,
        "path": str(have.path),
        "created_at": have.manifest.created_at.replace("Z", "+00:00"),
        "size_bytes": have.manifest.size_bytes,
        "blocks": len(have.tree),
        "blocks_copied": cost.blocks_fetched,
        "bytes_copied": cost.bytes_fetched,
        "method": kept.method if kept else "full",
        "elapsed_ms": round(cost.elapsed_ms, 3),
        "block_size_bytes": kept.block_size_bytes if kept else 0,
        "changed_since": kept.changed_since if kept else None,
        "changed": kept.changed if kept else None,
    }


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:  # noqa: ARG001  Why: every entry takes them
    """Follow until the keeper ends us. What to follow is the only message that comes."""
    ignore_lease_signals()
    if (message := pipe.receive()) is None:
        return
    asked = msgspec.convert(message, Config)
    os.environ.update(asked.environment)
    threading.Thread(target=_end_with, args=(control,), daemon=True).start()
    with ExitStack() as ends:
        try:
            Follower(asked, pipe.send, ends).run()
        except (BrokenPipeError, ConnectionResetError):  # the keeper is gone: nobody is left to tell
            return
        except PondkeeperError as error:
            pipe.send({"op": "problem", "error": error.to_wire(with_private=True)})


def _end_with(control: socket.socket) -> None:
    """When the keeper is gone, end at once: what is half-made is private, and gone on with at the next start."""
    while control.recv(1):
        pass
    os._exit(0)
