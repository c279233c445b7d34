"""A disk that loses its power under a program, seen from the one who cuts: mount, choose a moment, kill, look what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from campaigns.fusekernel import DEVICE, unmount
from tests.support.keeper import program_environment, wait_until

ANSWER_S = 120.0
_TRY = "import campaigns.fusekernel as f; f.private_mounts(); f.try_mounting()"


def why_no_fuse() -> str | None:
    """Why no file system of ours can be mounted here; None where it can."""
    if os.geteuid() != 0:
        return "only root may mount file systems"
    if not DEVICE.exists():
        return f"there is no {DEVICE}"
    tried = subprocess.run([sys.executable, "-c", _TRY], env=program_environment(), capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else tried.stderr.strip().rpartition("\n")[2]


class LiveDisk:
    """One life of a disk, from its mounting to the cut. `after` is what it then holds."""

    def __init__(self, place: Path, before: Path, after: Path, seed: str, *, is_deaf: bool = False) -> None:
        self.place = place
        self.after = after
        self.cut_by: str | None = None
        place.mkdir(exist_ok=True)
        options = ["--seed", seed, *(["--deaf"] if is_deaf else [])]
        command = [sys.executable, "-m", "campaigns.droppingdisk", str(place), str(before), str(after), *options]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        self._disk = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=program_environment()
        )
        if "mounted" not in self._line():
            raise RuntimeError(f"the disk ended with status {self._disk.wait()} before it was mounted")
        self._victim: int | None = None
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def __enter__(self) -> LiveDisk:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """The disk is gone, whoever is still on it."""
        self._end()
        self._watcher.join()
        assert self._disk.stdout is not None
        self._disk.stdout.close()
        unmount(self.place)

    def kills(self, pid: int) -> None:
        """This process and all of its descendants die with the power."""
        self._victim = pid

    def arm(self, cut_at: str, after: int) -> None:
        """Cut after so many changes of `file` (the database file), `wal`, or `anywhere`."""
        self._ask({"cut_at": cut_at, "after": after})

    def cut(self) -> None:
        """Cut now, if it has not been, and wait until all who ran on it are dead."""
        self._ask({"cut": True})
        if not self.is_cut(ANSWER_S) or self.cut_by is None:
            raise RuntimeError("the disk does not answer, or has died of something else")

    def is_cut(self, timeout_s: float = 0.0) -> bool:
        """Whether the power is gone, and all who ran on it are dead."""
        return self._is_over.wait(timeout_s)

    def _watch(self) -> None:
        self.cut_by = self._line().get("cut")  # nothing where the disk itself has died
        victims = [] if self._victim is None else _with_descendants(self._victim)
        for pid in victims:
            _kill(pid)
        self._end()  # Why only now: nobody is to learn that the disk is gone, and to go on
        wait_until(lambda: not any(map(_is_alive, victims)), timeout_s=ANSWER_S, what="the end of all who were killed")
        self._is_over.set()

    def _ask(self, question: dict[str, Any]) -> None:
        with self._lock:
            if self._disk.stdin is None or self._disk.stdin.closed:
                return
            try:
                self._disk.stdin.write(json.dumps(question) + "\n")
                self._disk.stdin.flush()
            except BrokenPipeError:  # Why not an error: the power was cut meanwhile
                return

    def _end(self) -> None:
        with self._lock:
            if self._disk.stdin is not None and not self._disk.stdin.closed:
                self._disk.stdin.close()
        self._disk.wait()

    def _line(self) -> dict[str, Any]:
        assert self._disk.stdout is not None
        line = self._disk.stdout.readline()
        return dict(json.loads(line)) if line else {}


def _with_descendants(first: int) -> list[int]:
    """A process and all that come from it, itself first."""
    children: dict[int, list[int]] = {}
    for pid, (_, parent) in _processes().items():
        children.setdefault(parent, []).append(pid)
    found = [first]
    for pid in found:
        found += children.get(pid, [])
    return found


def _processes() -> dict[int, tuple[str, int]]:
    """State and parent of each process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (known := _state(int(entry.name))) is not None:
            found[int(entry.name)] = known
    return found


def _state(pid: int) -> tuple[str, int] | None:
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it has ended meanwhile
        return None
    return state, int(parent)


def _is_alive(pid: int) -> bool:
    known = _state(pid)
    return known is not None and known[0] not in "ZX"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
