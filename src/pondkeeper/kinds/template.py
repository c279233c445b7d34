"""The template of runs: a process that has loaded what runs need, and forks their supervisors.

    python -P -m pondkeeper.kinds.template FD

Each request on the socket FD is a JSON object `{"folder", "kind"}`, with a descriptor if the run is to end with the keeper; the
answer is `{"pid"}` of the supervisor, or `{"refused"}` and why. A supervisor is forked twice, so that it becomes the keeper's
child; its work is forked by it. Only kinds that run no code of other people are started so: that has to be loaded anew each
time, as it is on disk then.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from pondkeeper.kinds import supervisor, work
from pondkeeper.workers import fence
from pondkeeper.workers.forking import fork_adopted, keep_only
from pondkeeper.workers.importing import import_quickly

MARK: Final = "PONDKEEPER_RUN"
_IDLE_END_S: Final = 900.0
_MAX_REQUEST_BYTES: Final = 16 * 1024
_ALWAYS: Final = ("engine.threadless", "engine.plain", "engine.staged", "engine.fileformat", "kinds.warehouse", "kinds.through_keeper")
_NEEDED: Final = {
    "postgres": ("kinds.postgres.run", "kinds.postgres.connecting", "kinds.postgres.copying"),
    "download": ("kinds.download.run",),
}
# What those load late, when they are used.
_LOADED_LATE: Final = {"postgres": ("pyarrow.compute", "pyarrow.dataset", "importlib_resources"), "download": ("encodings.idna",)}


def main(arguments: list[str]) -> None:
    """Fork supervisors until the other end of the socket is closed, or nobody has asked for long."""
    connection = socket.socket(fileno=int(arguments[0]))
    connection.settimeout(_IDLE_END_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Why: Ctrl-C is for the keeper, whose end we see by the socket.
    import_quickly()
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, 1)
        except (TimeoutError, ConnectionError):
            return
        if not data:
            return
        request = json.loads(data)
        answer: dict[str, Any] = {"refused": why} if (why := _load(request["kind"])) else _fork(Path(request["folder"]), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(json.dumps(answer).encode())


def _load(kind: str) -> str | None:
    """Have what runs of the kind need; why they cannot be forked, if so."""
    try:
        for module in (*_ALWAYS, *_NEEDED[kind]):
            importlib.import_module(f"pondkeeper.{module}")
        _mark("")
    except Exception as error:  # noqa: BLE001  Why not raised: a run that is a program meets it too, and says what to do.
        return repr(error)
    for module in _LOADED_LATE[kind]:
        with suppress(ImportError):
            importlib.import_module(module)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"it has {threads} threads after its imports, and a fork copies their locks, not the threads"
    gc.freeze()
    return None


def _fork(folder: Path, descriptors: list[int]) -> dict[str, int]:
    """Fork the supervisor: its `pid`, nothing where the kernel has no room for it."""
    pid = fork_adopted(lambda _: _supervise(folder, descriptors))
    return {} if pid is None else {"pid": pid}


def _supervise(folder: Path, descriptors: list[int]) -> NoReturn:
    """Be the supervisor, in a child that was just forked."""
    code = 1
    try:
        os.setsid()
        fence.set_name("pond-run")
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
        keep_only(descriptors)
        _mark(folder.name)
        code = supervisor.main([str(folder), *map(str, descriptors)], work=work.main)
    except BaseException:  # noqa: BLE001  Why: a forked child must never return into the template's loop.
        traceback.print_exc()
    finally:
        os._exit(code)


def _mark(run_id: str) -> None:
    """Have the mark of the run in this process's environment, also where the kernel shows it: what outlives a supervisor is
    found by that. Raises ValueError where it cannot be.

    Trap: `/proc/PID/environ` is the memory that the process was started with; whoever sets a variable later writes elsewhere.
    So the template was started with a mark that is long enough, and we write over it. proc(5): `env_start` is field 50 of stat.
    """
    shown = Path("/proc/self/environ").read_bytes()
    at = (b"\0" + shown).find(f"\0{MARK}=".encode())
    length = shown.find(b"\0", at) - at
    text = f"{MARK}={run_id}".encode()
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47])
    if at < 0 or not start or len(text) > length:
        raise ValueError("there is no room for the mark of a run, or it is not known where")
    if run_id:
        os.environ[MARK] = run_id
        ctypes.memmove(start + at, text.ljust(length, b"\0"), length)


if __name__ == "__main__":
    main(sys.argv[1:])
