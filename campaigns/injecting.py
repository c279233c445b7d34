"""An I/O error on the Nth call of one process: `strace` answers in the kernel's place, and its log is the evidence.

Why strace and not libfiu: libfiu is loaded before a program starts and holds for all its children, keeper, template and
readers alike; strace takes hold of one running writer, of the calls on the database's own files, and says which one failed.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ATTACH_S = 10.0
LETTING_GO_S = 1.0
SYNCS = ("fsync", "fdatasync")
WRITES = ("write", "pwrite64")
TRACED = (*SYNCS, *WRITES, "ftruncate")
_CALL = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\(\d+<(?P<path>[^>]*)>(?P<rest>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_INJECTED = "(INJECTED)"


@dataclass(frozen=True)
class Fault:
    """Which call fails, and how: the `nth` of these calls that a thread makes on the database's files."""

    calls: tuple[str, ...]
    error: str
    nth: int

    @property
    def injection(self) -> str:
        return f"inject={','.join(self.calls)}:error={self.error}:when={self.nth}"


class Tracer:
    """strace on one running process, from construction to `close`. `what`: which calls, and what becomes of them."""

    def __init__(self, pid: int, what: list[str], log: Path) -> None:
        self._log = log
        command = ["strace", "-y", "-o", str(log), "-s", "0", *what, "-p", str(pid)]
        self._said = log.with_suffix(".err").open("w+")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._said)

    def wait_attached(self) -> bool:
        """Wait until it holds the process; False when it cannot, such as when that has just died."""
        return self._wait(lambda: "attached" in Path(self._said.name).read_text(), ATTACH_S)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        give_up_at = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > give_up_at or self._process.poll() is not None:
                return False
            time.sleep(0.005)
        return True

    def text(self) -> str:
        """The log so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        """Let go of the process, if it still lives. Trap: a thread that dies while strace lets go can keep it for ever."""
        self._process.terminate()
        try:
            self._process.wait(LETTING_GO_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()


class Injector(Tracer):
    """Makes a call of one process fail."""

    def __init__(self, pid: int, fault: Fault, file: Path, log: Path) -> None:
        paths = [f"{file}{suffix}" for suffix in ("", ".wal", ".wal.checkpoint")]
        only = [word for path in paths for word in ("-P", path)]
        super().__init__(pid, ["-f", "-e", f"trace={','.join(TRACED)}", "-e", fault.injection, *only], log)

    def wait_injected(self, timeout_s: float) -> bool:
        """Wait until a call has failed; whether one has."""
        return self._wait(lambda: _INJECTED in self.text(), timeout_s) or _INJECTED in self.text()


def judge(log: str) -> list[str]:
    """Whether a file that could not be synced was synced again by the same process: the pages may be gone by then."""
    failed: set[str] = set()
    wrong = []
    for name, path, result in _calls(log):
        if name not in SYNCS:
            continue
        if _INJECTED in result:
            failed.add(path)
        elif path in failed:
            wrong.append(f"a failed {name} was retried on {Path(path).name}")
    return wrong


def failed_call(log: str) -> str | None:
    """Which call was made to fail: `fdatasync pond.duckdb.wal`."""
    return next((f"{name} {Path(path).name}" for name, path, result in _calls(log) if _INJECTED in result), None)


def _calls(log: str) -> list[tuple[str, str, str]]:
    """The finished calls in order: name, path, result."""
    begun: dict[str, str] = {}
    calls = []
    for line in log.splitlines():
        if call := _CALL.match(line):
            if "<unfinished" in call["rest"]:
                begun[call["thread"]] = call["path"]
            else:
                calls.append((call["name"], call["path"], call["rest"]))
        elif (resumed := _RESUMED.match(line)) and resumed["thread"] in begun:
            calls.append((resumed["name"], begun.pop(resumed["thread"]), resumed["rest"]))
    return calls


@functools.cache
def why_no_tracer() -> str | None:
    """Why calls cannot be made to fail on this machine; None where they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        tried = subprocess.run(
            ["timeout", "1", "strace", "-o", "/dev/null", "-p", str(sleeper.pid)], capture_output=True, text=True, check=False
        )
    finally:
        sleeper.kill()
        sleeper.wait()
    return None if "attached" in tried.stderr else tried.stderr.strip() or "strace could not attach"
