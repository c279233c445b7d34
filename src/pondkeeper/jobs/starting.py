"""Supervisors are started here: by a program of their own, or, where much would have to be loaded first, by a template's fork."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Final, Protocol

import structlog

from pondkeeper.files.paths import RunPaths
from pondkeeper.workers.fence import adopt_orphans

# Why these: they load much, and only what is ours. Code of other people has to be loaded anew for each run.
FORKED: Final = frozenset({"postgres", "download"})
ANSWER_TIMEOUT_S: Final = 30.0
REST_S: Final = 300.0
_MAX_ANSWER_BYTES: Final = 4096
_LONGEST_RUN_ID: Final = 64
_log = structlog.get_logger(__name__)


class Started(Protocol):
    """A supervisor that was started, as a child of this process."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Take note of its end, if it has ended."""


def start_supervisor(paths: RunPaths, keeper_fd: int | None = None) -> subprocess.Popen[bytes]:
    """Start the supervisor of a queued run, in a session of its own; it outlives this process.

    It ends the run when the other end of `keeper_fd` is closed, which the kernel does when this process dies.
    """
    command = [sys.executable, "-P", "-m", "pondkeeper.kinds.supervisor", str(paths.folder)]
    return subprocess.Popen(
        command if keeper_fd is None else [*command, str(keeper_fd)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None,  # Why ours: a supervisor that cannot even start says so there, and nowhere else.
        env={**os.environ, "PONDKEEPER_RUN": paths.run_id},
        start_new_session=True,
        pass_fds=() if keeper_fd is None else (keeper_fd,),
    )


class Adopted:
    """A supervisor that the template has forked for us."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """As `Started.poll`."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # Why: somebody else of this process was faster.
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Starter:
    """Starts the supervisors of a keeper. Threads may share it; it blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._refused: set[str] = set()
        self._rests_until = 0.0
        self._is_closed = False

    def start(self, paths: RunPaths, kind: str, keeper_fd: int | None) -> Started:
        """The supervisor of this run, in a session of its own; as `start_supervisor`. Raises OSError."""
        if kind in FORKED and kind not in self._refused and time.monotonic() >= self._rests_until:
            with self._lock:
                pid = self._asked(paths, kind, keeper_fd)
            if pid is not None:
                return Adopted(pid)
        if self._is_closed:
            raise OSError(errno.ESHUTDOWN, "the keeper stops")
        # Why also where we do not know what the template has done: of two supervisors of a run, one finds it taken, and ends.
        return start_supervisor(paths, keeper_fd)

    def refuse(self, kind: str) -> None:
        """Start runs of this kind as programs from now on."""
        self._refused.add(kind)

    def close(self) -> None:
        """End the template, and start nothing more; what was started goes on."""
        self._is_closed = True
        connection, process = self._socket, self._process
        if connection is not None and process is not None:  # Why before the lock: who has it waits for an answer.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            process.kill()
        with self._lock:
            self._end()

    def _asked(self, paths: RunPaths, kind: str, keeper_fd: int | None) -> int | None:
        """The pid of what the template has forked; None where it could not."""
        request = json.dumps({"folder": str(paths.folder), "kind": kind}).encode()
        for _ in range(2):  # one that has ended since, being idle, is started anew
            if self._is_closed:
                return None
            connection = self._connected()
            try:
                socket.send_fds(connection, [request], [] if keeper_fd is None else [keeper_fd])
                answer = connection.recv(_MAX_ANSWER_BYTES)
            except TimeoutError:
                _log.warning("the template of runs does not answer; runs are started without it", kind=kind, for_s=REST_S)
                self._rests_until = time.monotonic() + REST_S
                self._end()
                return None
            except OSError:
                answer = b""
            if answer:
                return self._pid_of(json.loads(answer), kind)
            self._end()
        return None

    def _pid_of(self, answer: dict[str, int | str], kind: str) -> int | None:
        if "refused" in answer:
            _log.info("runs are started without the template, until the keeper starts anew", kind=kind, why=answer["refused"])
            self.refuse(kind)
            self._end()
        return int(answer["pid"]) if "pid" in answer else None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            adopt_orphans()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.settimeout(ANSWER_TIMEOUT_S)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "pondkeeper.kinds.template", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "PONDKEEPER_RUN": "-" * _LONGEST_RUN_ID},
                    pass_fds=[theirs.fileno()],
                )
            self._socket = ours
            # Why a thread: it ends by itself when it is idle, and somebody has to take note of that.
            threading.Thread(target=self._process.wait, name="template of runs", daemon=True).start()
        return self._socket

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ANSWER_TIMEOUT_S)
            self._process = None
