"""Several due dbt runs of one project become one: who has its turn first builds for all that wait, and tells them.

A run puts its wish into a folder that those of the same project share. Whoever holds the folder's flock leads: it builds
what all the wishes that it finds name together, and leaves each its result. Who does not lead waits for a result, or for
the flock: when the leader has died, the next of them leads.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pondkeeper.errors import RunCancelled
from pondkeeper.files.durable import make_folder, write_volatile
from pondkeeper.files.locks import FlockFile

LOOK_EVERY_S = 0.1
WISH = ".wish"
RESULT = ".result"

Result = dict[str, Any]


def folder_for(jobs: Path, same: Mapping[str, Any]) -> Path:
    """The folder that runs share whose builds differ in nothing but their selection."""
    mark = hashlib.sha256(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return jobs / ".dbt" / mark


class Together:
    """One run among those of its project. `lead_or_follow` first; a leader then calls `gather` and `answer`."""

    def __init__(self, folder: Path, run_id: str, select: tuple[str, ...], is_alive: Callable[[str], bool]) -> None:
        make_folder(folder, durable=False)
        self._folder = folder
        self._run_id = run_id
        self._select = list(select)
        self._is_alive = is_alive
        self._lock = FlockFile(folder / "leader.lock")

    def lead_or_follow(self, stopping: threading.Event, tell: Callable[[str], None]) -> Result | None:
        """None when this run leads; else the result that its leader has left for it. Raises RunCancelled."""
        self._file(self._run_id, RESULT).unlink(missing_ok=True)
        write_volatile(self._file(self._run_id, WISH), json.dumps(self._select).encode())
        told = False
        while not self._lock.try_acquire():
            if stopping.is_set():
                raise RunCancelled("The run was ended while it waited for a build of the same project.")
            if (result := self._result()) is not None:
                return result
            if not told:
                tell("another run of this project is building; it, or this one after it, builds what is due")
                told = True
            time.sleep(LOOK_EVERY_S)
        return self._result()  # Why again: the leader left it before it gave the lock back.

    def gather(self) -> dict[str, list[str]]:
        """The selections of all runs that wait now, this one's first, by run."""
        found = {self._run_id: self._select}
        for wish in sorted(self._folder.glob(f"*{WISH}")):
            run_id = wish.name.removesuffix(WISH)
            if run_id == self._run_id:
                continue
            if self._is_alive(run_id):
                found[run_id] = json.loads(wish.read_bytes())
            else:
                wish.unlink(missing_ok=True)
        for result in self._folder.glob(f"*{RESULT}"):
            if not self._is_alive(result.name.removesuffix(RESULT)):
                result.unlink(missing_ok=True)
        return found

    def answer(self, run_id: str, result: Result) -> None:
        """Leave the result of another run."""
        write_volatile(self._file(run_id, RESULT), json.dumps(result).encode())
        self._file(run_id, WISH).unlink(missing_ok=True)

    def leave(self) -> None:
        """Take back the wish, and let the next one lead."""
        self._file(self._run_id, WISH).unlink(missing_ok=True)
        self._file(self._run_id, RESULT).unlink(missing_ok=True)
        self._lock.release()

    def _result(self) -> Result | None:
        try:
            found: Result = json.loads(self._file(self._run_id, RESULT).read_bytes())
        except FileNotFoundError:
            return None
        self._lock.release()
        return found

    def _file(self, run_id: str, ending: str) -> Path:
        return self._folder / f"{run_id}{ending}"
