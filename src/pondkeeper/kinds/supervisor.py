"""The supervisor of a run: `python -m pondkeeper.kinds.supervisor RUN_FOLDER [KEEPER_FD]`, one process for one attempt.

It holds the run's flock as long as it lives, starts the actual work as its child, writes its output into the log, keeps its
time limit, ends it when it is told to, lets nothing outlive it, and says at last how it ended. It starts quickly: nothing
here loads more than the standard library and a few small modules.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pondkeeper.errors import JobInvalid, PondkeeperError, RunFailed
from pondkeeper.files.durable import make_folder
from pondkeeper.files.locks import FlockFile
from pondkeeper.files.paths import RunPaths
from pondkeeper.jobs.secrets import is_reference, reveal
from pondkeeper.jobs.status import Phase, RunStatus, status_in, write_status
from pondkeeper.kinds.attempt import Stop, conclude, not_started
from pondkeeper.kinds.log import RunLog
from pondkeeper.kinds.masking import Mask
from pondkeeper.kinds.programs import Program
from pondkeeper.workers import slices
from pondkeeper.workers.descendants import started_at_ticks
from pondkeeper.workers.fence import adopt_orphans

TAKEN: Final = 75
LOOK_EVERY_S: Final = 1.0
END_POLL_S: Final = 0.05
TRY_AGAIN_S: Final = 0.02
CHUNK_BYTES: Final = 64 * 1024
LEFTOVERS_S: Final = 5.0
LAST_WORD_S: Final = 600.0
BEGINS_AGAIN: Final = 3
BEGIN_AGAIN_S: Final = 1.0
# Trap: the driver of PostgreSQL (adbc 1.3 to 1.9) ends its process when the server dies: arrow-adbc issue 3878.
DIES_OVER_ITS_SOURCE: Final = {"postgres": -signal.SIGABRT}
_TOLD: Final = (signal.SIGTERM, signal.SIGINT)


Work = Callable[[list[str]], int]


def main(arguments: list[str], work: Work | None = None) -> int:
    """Carry out the attempt that the folder's status says is queued; TAKEN when somebody else does, or has done.

    `work`: what the run's own process is to do, where this one has loaded it already and can fork it.
    """
    paths = RunPaths(Path(arguments[0]))
    keeper_fd = int(arguments[1]) if len(arguments) > 1 else None
    wake = _wake_on_signals()
    lock = FlockFile(paths.lock)
    # Why more than once: whoever asks whether the run lives has the lock for a moment.
    while not lock.try_acquire():
        if not _is_queued(paths):
            return TAKEN
        time.sleep(TRY_AGAIN_S)
    status = status_in(paths.status_json)
    if status is None or status.phase is not Phase.QUEUED:
        return TAKEN
    plan = json.loads(paths.plan_json.read_bytes())
    adopt_orphans()
    # Why: the keeper asks for short slices, which children inherit; what works in the background can have longer ones.
    slices.ask_for(os.getpid(), slices.LONG_S if status.priority == "background" else 0.0)
    supervisor = Supervisor(paths, plan, status, wake, keeper_fd, work)
    _let_go_of_stderr()
    supervisor.run()
    return 0


def _is_queued(paths: RunPaths) -> bool:
    status = status_in(paths.status_json)
    return status is not None and status.phase is Phase.QUEUED


def _let_go_of_stderr() -> None:
    """From here on the log has everything. Why: who reads the keeper's stderr to its end must not wait for us."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _wake_on_signals() -> int:
    """A descriptor from which the numbers of signals can be read as they come."""
    ours, kernels = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(kernels, warn_on_full_buffer=False)
    for number in (*_TOLD, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return ours


class Supervisor:
    """One attempt, from its first status to its last."""

    def __init__(
        self, paths: RunPaths, plan: dict[str, Any], status: RunStatus, wake: int, keeper_fd: int | None, work: Work | None
    ) -> None:
        self._work = work
        self._paths = paths
        self._plan = plan
        self._job = plan["job"]
        self._bounds = plan["bounds"]
        self._status = status
        self._mask = Mask()
        self._log = RunLog(paths.log, self._mask, self._bounds["max_log_bytes"])
        self._wake = wake
        self._keeper_fd = keeper_fd
        self._selector = selectors.DefaultSelector()
        self._secrets, self._tell_secrets = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._half_secret = b""
        self._program: Program | None = None
        self._stop: Stop | None = None
        self._ends_at: float | None = None
        self._look_at = 0.0

    def run(self) -> None:
        """From `starting` to the end, whatever happens in between."""
        code = 1
        self._begin()
        try:
            code = self._carry_out()
        except PondkeeperError as error:
            self._status.error = error.to_wire()
            self._log.say(f"{error.code}: {error.message}" + (f" ({error.private})" if error.private else ""))
        except Exception as error:  # noqa: BLE001 - nobody else would say how the run ended
            self._status.error = RunFailed("The supervisor of the run met a fault of its own.").to_wire()
            self._log.say("".join(traceback.format_exception(error)))
        finally:
            self._finish(code)

    def _begin(self) -> None:
        status, now = self._status, time.time()
        status.phase, status.started_at, status.updated_at = Phase.STARTING, now, now
        status.pid, status.pid_started_at = os.getpid(), started_at_ticks(os.getpid())
        status.done, status.total, status.rate_per_s, status.eta_s = 0, None, None, None
        status.message, status.error, status.exit_code, status.not_before, status.lease = "", None, None, None, None
        self._write(durable=False)
        shutil.rmtree(self._paths.staging, ignore_errors=True)
        make_folder(self._paths.staging, durable=False)
        self._log.say(f"attempt {status.attempt} of run {status.run_id} of {status.job} ({status.kind}, {status.trigger})")

    def _carry_out(self) -> int:
        """Start the work and stay with it until nothing of it lives; its exit code."""
        if self._is_direct:
            self._status.phase = Phase.RUNNING
            self._write(durable=False)
        if self._job["timeout_s"] is not None:
            self._ends_at = time.monotonic() + self._job["timeout_s"]
        for descriptor in (self._secrets, self._wake, self._keeper_fd):
            if descriptor is not None:
                self._selector.register(descriptor, selectors.EVENT_READ)
        code = self._stay_with(self._start())
        for _ in range(BEGINS_AGAIN):
            if not self._has_died_over_its_source(code):
                break
            self._log.end_line()
            self._log.say("the work has aborted while it copied, as its driver does when the source dies: it begins again")
            self._half_secret = b""
            if not self._may_begin_again():
                break
            code = self._stay_with(self._start())
        if not self._is_direct:
            self._status = status_in(self._paths.status_json) or self._status
        return code

    def _stay_with(self, program: Program) -> int:
        """Until nothing of it lives; its exit code."""
        self._program = program
        output = program.output.fileno()
        os.set_blocking(output, False)
        self._selector.register(output, selectors.EVENT_READ)
        while program.code is None:
            self._wait(program)
        self._end_leftovers(program)
        while self._pump(program):
            pass
        if output in self._selector.get_map():
            self._selector.unregister(output)
        program.output.close()
        return program.code

    def _has_died_over_its_source(self, code: int) -> bool:
        """Whether it aborted while it copied, and so can begin again within this attempt.

        The status may lag by a fraction of a second, so that the load has begun. That is no harm: what is copied once more
        leaves the same.
        """
        if self._stop is not None or code != DIES_OVER_ITS_SOURCE.get(self._job["kind"]):
            return False
        status = status_in(self._paths.status_json)
        return status is not None and status.phase is Phase.EXTRACTING

    def _may_begin_again(self) -> bool:
        """Whether nobody wants the run to end, after a moment."""
        begin_at = time.monotonic() + BEGIN_AGAIN_S
        while self._stop is None and (left_s := begin_at - time.monotonic()) > 0:
            self._hear({key.fd for key, _ in self._selector.select(left_s)})
        self._look_for_cancel()
        return self._stop is None

    @property
    def _is_direct(self) -> bool:
        """Whether the program of the job is started here; all else has a process of ours between, which tells how far it is."""
        return bool(self._job["kind"] == "command" and self._job["settings"].get("lease", "none") == "none")

    def _start(self) -> Program:
        settings = self._job["settings"]
        if not self._is_direct:
            return self._start_work([str(self._paths.folder), str(self._tell_secrets)])
        environment = self._environment()
        for name, text in settings["environment"].items():
            environment[name] = reveal(text) if is_reference(text) else text
            if is_reference(text):
                self._mask.hide(environment[name])
        folder = Path(settings["folder"]) if settings["folder"] else self._workdir
        try:
            return Program.started(settings["command"], environment, _existing(folder))
        except OSError as error:
            raise not_started(settings["command"][0], error) from error

    def _start_work(self, arguments: list[str]) -> Program:
        environment, folder = self._environment(), _existing(self._workdir)
        if (work := self._work) is not None:
            return Program.forked(lambda: work(arguments), environment, folder, [self._tell_secrets])
        command = [sys.executable, "-P", "-m", "pondkeeper.kinds.work", *arguments]
        return Program.started(command, environment, folder, [self._tell_secrets])

    @property
    def _workdir(self) -> Path:
        return Path(self._plan["workdir"])

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "PONDKEEPER_RUN": self._status.run_id, "PONDKEEPER_HOME": self._plan["home"]}
        environment.pop("PONDKEEPER_DATABASE", None)
        if self._status.database is not None:
            environment["PONDKEEPER_DATABASE"] = self._plan["database_file"]
        return environment

    # While it runs

    def _wait(self, program: Program) -> None:
        """Wait for whatever is next, and take it in."""
        ready = {key.fd for key, _ in self._selector.select(program.patience_s(self._patience_s()))}
        if program.output.fileno() in ready and not self._pump(program):
            self._selector.unregister(program.output.fileno())
        self._hear(ready)
        program.look()
        program.kill_if_due()
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY_S
            self._look_around()

    def _hear(self, ready: set[int]) -> None:
        """Take in what the work names as secrets, signals, the end of the keeper, and the end of its time."""
        if self._secrets in ready:
            self._learn_secrets()
        if self._wake in ready:
            self._hear_signals()
        if self._keeper_fd in ready:
            self._selector.unregister(self._keeper_fd)
            self._end(Stop.INTERRUPTED, "the keeper has ended (runs.when_keeper_dies = end)")
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._end(Stop.TIMED_OUT, "its time is over (timeout_s)")

    def _patience_s(self) -> float:
        if self._ends_at is None or self._stop is not None:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(0.0, self._ends_at - time.monotonic()))

    def _hear_signals(self) -> None:
        numbers = os.read(self._wake, 512)
        if any(number in numbers for number in _TOLD):
            self._look_for_cancel()
            self._end(Stop.INTERRUPTED, "asked to end from outside")

    def _look_around(self) -> None:
        """What nobody tells us: a cancellation by somebody who may not send us signals, and what was staged."""
        self._look_for_cancel()
        if not self._paths.folder.exists():
            self._end(Stop.CANCELLED, "the folder of the run was removed")
        limit_bytes = self._bounds["staging_limit_bytes"]
        if self._stop is None and _size_bytes(self._paths.staging) > limit_bytes:
            self._end(Stop.STAGED_TOO_MUCH, "more was staged than runs.staging_limit_bytes allows")

    def _look_for_cancel(self) -> None:
        if self._stop is None and self._paths.cancel_json.exists():
            self._end(Stop.CANCELLED, f"cancelled by {self._canceller()}")

    def _canceller(self) -> str:
        try:
            return str(json.loads(self._paths.cancel_json.read_bytes())["by"])
        except (OSError, ValueError, KeyError, TypeError):
            return "somebody"

    def _end(self, stop: Stop, why: str) -> None:
        """Begin to end the work, once."""
        if self._stop is None and self._program is not None:
            self._stop = stop
            self._log.say(f"{why}: SIGTERM, and SIGKILL after {self._bounds['kill_after_s']:g} s")
            self._program.ask_to_end(self._bounds["kill_after_s"])

    def _pump(self, program: Program) -> bool:
        """Take what was written into the log; False when nothing is left."""
        try:
            data = os.read(program.output.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return program.code is None
        self._learn_secrets()  # Why here: what was named as a secret before it was written must be hidden in it.
        self._log.take(data)
        return bool(data)

    def _learn_secrets(self) -> None:
        """Hide what the work has named, one JSON text a line."""
        try:
            data = os.read(self._secrets, CHUNK_BYTES)
        except (BlockingIOError, OSError):
            return
        *lines, self._half_secret = (self._half_secret + data).split(b"\n")
        for line in lines:
            self._mask.hide(json.loads(line))

    # Its end

    def _end_leftovers(self, program: Program) -> None:
        """End what the program has left behind, also what has left its group and its session."""
        if program.left() and not program.is_ending:
            self._log.say("its program has ended and left others behind, which are ended now")
            program.ask_to_end(min(LEFTOVERS_S, self._bounds["kill_after_s"]))
        while program.left():
            self._pump(program)
            program.kill_if_due()
            time.sleep(END_POLL_S)
            program.look()

    def _finish(self, code: int) -> None:
        by = self._canceller() if self._stop is Stop.CANCELLED else None
        self._status.error = self._mask.masked_error(self._status.error)
        conclude(self._status, self._plan, code, self._stop, by=by)
        shutil.rmtree(self._paths.staging, ignore_errors=True)
        self._log.end_line()
        error = f": {self._status.error['message']}" if self._status.error else ""
        self._log.say(f"attempt ended with {self._status.exit_code}, {self._status.phase.value}{error}")
        self._log.close()
        give_up_at = time.monotonic() + LAST_WORD_S
        while time.monotonic() < give_up_at:
            try:
                self._write(durable=True)
                return
            except FileNotFoundError:  # Why: somebody has removed the folder, and nobody will ask.
                return
            except OSError:  # Why: a disk that is full may have room in a minute, and without this the run would be lost.
                time.sleep(LOOK_EVERY_S)

    def _write(self, *, durable: bool) -> None:
        write_status(self._paths.status_json, self._status, durable=durable)


def _existing(folder: Path) -> Path:
    """The folder. Trap: where it is not there, Popen says the program was not."""
    if not folder.is_dir():
        raise JobInvalid("The folder that the job runs in is not there.", private=str(folder), remedy="Make it, or correct `folder` of the job.")
    return folder


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:  # Why: it was removed meanwhile.
            continue
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
